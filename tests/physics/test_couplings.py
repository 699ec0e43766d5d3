"""Couplings against numbers of the Review of Particle Physics, differential equations, and pairs worked out by hand."""

import itertools
import math

import pytest
import torch
from scipy.integrate import solve_ivp

from zoo.physics.couplings import (
    NO_TYPE,
    OBJECT_TYPES,
    electromagnetic_coupling,
    pair_couplings,
    pair_mass,
    strong_coupling,
)

#: Every pair that couples, as the table of arXiv:2211.05143 has it.
FIXED = {
    ("j", "j"): 1.22,
    ("j", "b"): 1.22,
    ("b", "b"): 1.22,
    ("j", "g"): 0.155,
    ("b", "g"): 0.31 / 3,
    ("e-", "g"): 0.31,
    ("e+", "g"): 0.31,
    ("m-", "g"): 0.31,
    ("m+", "g"): 0.31,
    ("e-", "e+"): 0.758,
    ("m-", "m+"): 0.758,
}


def numbers(*names: str) -> torch.Tensor:
    return torch.tensor([OBJECT_TYPES.index(name) for name in names])


@pytest.mark.parametrize(("one", "other"), [*itertools.product(OBJECT_TYPES, OBJECT_TYPES)])
def test_fixed_coupling_of_every_pair(one, other):
    expected = FIXED.get((one, other), FIXED.get((other, one), 0.0))
    assert pair_couplings(numbers(one), numbers(other)).item() == pytest.approx(expected, abs=1e-15)


def test_an_object_without_type_couples_to_none():
    types = torch.arange(NO_TYPE + 1)
    none = torch.full_like(types, NO_TYPE)
    assert not pair_couplings(types, none).any()
    assert not pair_couplings(none, types, torch.full((len(types),), 50.0)).any()


def test_running_couplings_of_pairs_at_the_z_boson():
    """At its mass the couplings are the measured ones, and nearly those that the paper fixes."""
    scale = torch.full((5,), 91.188, dtype=torch.float64)
    found = pair_couplings(numbers("j", "g", "g", "g", "m+"), numbers("b", "j", "b", "e-", "m-"), scale)
    strong, electromagnetic = math.sqrt(4 * math.pi * 0.118), math.sqrt(4 * math.pi / 127.93)
    expected = [strong, electromagnetic / 2, electromagnetic / 3, electromagnetic, 0.758]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)
    assert strong == pytest.approx(1.22, rel=0.01)
    assert electromagnetic == pytest.approx(0.31, rel=0.02)


def test_electromagnetic_coupling_at_the_tau_is_the_published_one():
    """133.450(6) in the Review of Particle Physics, to more loops."""
    assert 1 / electromagnetic_coupling(torch.tensor(1.77693)).item() == pytest.approx(133.450, abs=0.05)


def test_strong_coupling_at_the_bottom_quark_is_near_the_measured_one():
    """0.2268 at 4.18 GeV with five loops; one loop lacks a twentieth of it."""
    assert strong_coupling(torch.tensor(4.18)).item() == pytest.approx(0.2268, rel=0.07)


def strong_slope(log_scale2: float, alpha: float) -> float:
    """The one-loop equation, with as many flavours as are lighter than the scale."""
    flavours = 3 + sum(math.exp(log_scale2 / 2) > mass for mass in (1.273, 4.183, 172.57))
    return -(33 - 2 * flavours) / (12 * math.pi) * alpha**2


def electromagnetic_slope(log_scale2: float, alpha: float) -> float:
    scale = math.exp(log_scale2 / 2)
    charges2 = 2 + (scale > 1.77693) + 3 * (4 / 9 * (1 + (scale > 1.273) + (scale > 172.57)))
    charges2 += 3 * (1 / 9 * (2 + (scale > 4.183)))
    return charges2 / (3 * math.pi) * alpha**2


@pytest.mark.parametrize(
    ("coupling", "slope", "at_z"),
    [(strong_coupling, strong_slope, 0.118), (electromagnetic_coupling, electromagnetic_slope, 1 / 127.93)],
)
@pytest.mark.parametrize("scale", [1.0, 1.5, 3.0, 20.0, 150.0, 400.0, 3000.0])
def test_running_solves_the_equation_of_one_loop(coupling, slope, at_z, scale):
    ends = [2 * math.log(edge) for edge in (91.188, scale)]
    solution = solve_ivp(lambda t, alpha: slope(t, alpha), ends, [at_z], rtol=1e-8, atol=1e-12, max_step=0.01)
    assert coupling(torch.tensor(scale)).item() == pytest.approx(solution.y[0, -1], rel=1e-4)


def test_nothing_runs_below_a_gev_and_nothing_jumps():
    scale = torch.logspace(-9, 4, 20_000, dtype=torch.float64)
    for coupling, direction in ((strong_coupling, -1), (electromagnetic_coupling, 1)):
        alpha = coupling(scale)
        assert (alpha[scale < 1] == alpha[0]).all()
        steps = alpha.diff() / alpha[:-1]
        assert (direction * steps >= 0).all()
        assert steps.abs().max() < 2e-3
    assert strong_coupling(torch.tensor(0.0)).isfinite()


def test_pair_mass_of_two_photons():
    r"""By hand: :math:`m^2 = 2 E_1 E_2 (1 - \cos\theta)`; a pair of parallel ones has none."""
    momenta = torch.tensor([[50.0, 50, 0, 0], [30.0, 0, 30, 0], [20.0, 20, 0, 0]])
    found = pair_mass(momenta, torch.tensor([0, 0, 2]), torch.tensor([1, 2, 1]))
    expected = [math.sqrt(2 * 50 * 30), 0.0, math.sqrt(2 * 20 * 30)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-5)
