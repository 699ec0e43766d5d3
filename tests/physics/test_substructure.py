"""Substructure against loops over pairs and triples, against all partitions, and against what may not change it."""

import itertools
import math

import numpy as np
import pytest
import torch
import vector

from zoo.data.batch import collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.store import open_store
from zoo.physics.lorentz import boost_matrix
from zoo.physics.substructure import energy_correlations, observables, subjets, substructure


def massless(pt, eta, phi) -> torch.Tensor:
    pt, eta, phi = (torch.tensor(values, dtype=torch.float64) for values in (pt, eta, phi))
    return torch.stack([pt * eta.cosh(), pt * phi.cos(), pt * phi.sin(), pt * eta.sinh()], dim=-1)[None]


def all_real(momenta: torch.Tensor) -> torch.Tensor:
    return torch.ones(momenta.shape[:2], dtype=torch.bool)


def of(momenta: torch.Tensor, mask: torch.Tensor | None = None) -> dict[str, float]:
    mask = all_real(momenta) if mask is None else mask
    return {name: value.item() for name, value in substructure(momenta, mask, of_subjets=True).items()}


@pytest.fixture
def jet() -> torch.Tensor:
    """Six particles around (eta, phi) = (0.7, 3.1), so that some azimuths are beyond pi."""
    generator = np.random.default_rng(3)
    return massless(
        generator.exponential(60, 6) + 1, 0.7 + 0.25 * generator.normal(size=6), 3.1 + 0.25 * generator.normal(size=6)
    )


def test_correlations_and_masses_agree_with_loops_of_vector(jet):
    found = of(jet)
    E, px, py, pz = jet[0].numpy().T
    particles = vector.array({"E": E, "px": px, "py": py, "pz": pz})
    z = particles.pt / particles.pt.sum()
    for exponent in (0.5, 1.0, 2.0):
        theta = {(i, j): particles[i].deltaR(particles[j]) ** exponent for i, j in itertools.combinations(range(6), 2)}
        e2 = sum(z[i] * z[j] * angle for (i, j), angle in theta.items())
        e3 = sum(
            z[i] * z[j] * z[k] * theta[i, j] * theta[i, k] * theta[j, k]
            for i, j, k in itertools.combinations(range(6), 3)
        )
        assert found[f"e2_{exponent}"] == pytest.approx(math.log(e2), abs=1e-5)
        assert found[f"e3_{exponent}"] == pytest.approx(math.log(e3), abs=1e-5)
    total = particles.sum()
    assert found["mass"] == pytest.approx(math.log(total.mass), abs=1e-6)
    assert found["mass_over_pt"] == pytest.approx(math.log(total.mass / total.pt), abs=1e-6)
    assert found["pt"] == pytest.approx(math.log(total.pt), abs=1e-6)
    assert found["multiplicity"] == pytest.approx(math.log(6), abs=1e-6)
    assert found["dispersion"] == pytest.approx(math.log((z**2).sum()), abs=1e-6)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_subjets_have_nearly_the_smallest_sum_of_all_partitions(number):
    """k-means finds a local minimum: for most random jets it is the global one, and it is never below that."""
    ratios = []
    for _ in range(30):
        z, plane = torch.rand(1, 6).double().softmax(1), torch.randn(1, 6, 2).double()
        nearest, distance2 = subjets(z, plane, number)
        sums = []
        for part in itertools.product(range(number), repeat=6):
            groups = [[i for i in range(6) if part[i] == group] for group in range(number)]
            axes = [np.average(plane[0, group], axis=0, weights=z[0, group]) if group else None for group in groups]
            sums.append(sum(z[0, i] * ((plane[0, i] - torch.from_numpy(axes[part[i]])) ** 2).sum() for i in range(6)))
        ratios.append(((z * distance2).sum() / min(sums)).item())
        assert nearest.shape == (1, 6)
        assert nearest.max() < number
    assert min(ratios) > 1 - 1e-9
    assert np.median(ratios) < 1 + 1e-9
    assert np.quantile(ratios, 0.9) < 1.5


def test_three_prongs_are_three_subjets():
    """Three bunches of collinear particles: the subjets are the bunches, and their pair masses those of the prongs."""
    pt, eta, phi = np.array([120.0, 200.0, 80.0]), np.array([0.0, 0.3, -0.2]), np.array([0.1, -0.2, 0.3])
    found = of(massless(np.repeat(pt / 4, 4), np.repeat(eta, 4), np.repeat(phi, 4)))
    prongs = vector.array({"pt": pt, "eta": eta, "phi": phi, "mass": np.zeros(3)})
    hardest = np.argsort(-pt)
    for place, prong in enumerate(hardest, 1):
        assert found[f"subjet{place}_of_3_fraction"] == pytest.approx(math.log(pt[prong] / 400), abs=1e-5)
        assert found[f"subjet{place}_of_3_mass"] == pytest.approx(math.log(0.1))  # of massless ones, and so the floor
    masses = []
    for i, j in itertools.combinations(range(3), 2):
        masses.append((prongs[hardest[i]] + prongs[hardest[j]]).mass)
        assert found[f"pair_{i + 1}{j + 1}_mass"] == pytest.approx(math.log(masses[-1]), abs=1e-5)
    assert found["smallest_pair_mass"] == pytest.approx(math.log(min(masses)), abs=1e-5)
    for number, is_resolved in ((1, False), (2, False), (3, True), (4, True)):
        assert (found[f"tau{number}_1.0"] < math.log(1e-4)) == is_resolved


@pytest.mark.parametrize("number", [2, 3, 4])
def test_shapes_of_subjets_agree_with_loops_of_vector(jet, number):
    found = of(jet)
    E, px, py, pz = jet[0].numpy().T
    particles = vector.array({"E": E, "px": px, "py": py, "pz": pz})
    total = particles.sum()
    plane = np.stack([particles.eta - total.eta, particles.deltaphi(total)], axis=1)
    nearest, _ = subjets(torch.from_numpy(particles.pt)[None], torch.from_numpy(plane)[None], number)
    members = [np.flatnonzero(nearest[0] == subjet) for subjet in range(number)]
    members.sort(key=lambda places: -particles.pt[places].sum())
    axes = [np.average(plane[places], axis=0, weights=particles.pt[places]) for places in members]
    for place, (places, axis) in enumerate(zip(members, axes, strict=True), 1):
        pt = particles.pt[places]
        expected = {
            "width": max((pt * np.hypot(*(plane[places] - axis).T)).sum() / pt.sum(), 1e-6),
            "multiplicity": len(places),
            "dispersion": (pt**2).sum() / pt.sum() ** 2,
            "mass": max(particles[places].sum().mass, 0.1),
            "fraction": pt.sum() / particles.pt.sum(),
        }
        for name, value in expected.items():
            assert found[f"subjet{place}_of_{number}_{name}"] == pytest.approx(math.log(value), abs=1e-4), name
    pairs = list(itertools.combinations(range(number), 2))
    if number == 3:
        for i, j in pairs:
            assert found[f"pair_{i + 1}{j + 1}_angle"] == pytest.approx(math.log(math.dist(axes[i], axes[j])), abs=1e-4)
    if number == 4:
        for kind, choices in (("pair", pairs), ("triple", list(itertools.combinations(range(number), 3)))):
            for choice in choices:
                name = f"{kind}_{''.join(str(i + 1) for i in choice)}_of_4_mass"
                mass = particles[np.concatenate([members[i] for i in choice])].sum().mass
                assert found[name] == pytest.approx(math.log(max(mass, 0.1)), abs=1e-4), name


def test_what_is_inside_of_subjets_is_added_when_asked_for(jet):
    alone = substructure(jet, all_real(jet))
    assert tuple(alone) == observables() == observables(of_subjets=True)[:33]
    assert len(observables(of_subjets=True)) == 81
    assert {name: value.item() for name, value in alone.items()} == {name: of(jet)[name] for name in alone}


@pytest.mark.parametrize("change", ["rotation", "reflection", "boost", "order", "padding"])
def test_symmetries(jet, change):
    before = of(jet)
    changed = jet.clone()
    if change == "rotation":
        c, s = math.cos(2.0), math.sin(2.0)
        changed[..., 1], changed[..., 2] = c * jet[..., 1] - s * jet[..., 2], s * jet[..., 1] + c * jet[..., 2]
    elif change == "reflection":
        changed[..., 2] *= -1
    elif change == "boost":
        changed = jet @ boost_matrix(torch.tensor([0.0, 0.0, 0.6], dtype=torch.float64)).mT
    elif change == "order":
        changed = jet.flip(1)
    after = of(changed)
    if change == "padding":
        padded = torch.cat([jet, torch.full((1, 3, 4), 7.0)], dim=1)
        mask = torch.arange(9)[None] < 6
        after = of(padded, mask)
    assert after == pytest.approx(before, abs=2e-4)


def test_a_boost_across_the_beam_is_no_symmetry(jet):
    across = of(jet @ boost_matrix(torch.tensor([0.6, 0.0, 0.0], dtype=torch.float64)).mT)
    before = of(jet)
    assert across["mass"] == pytest.approx(before["mass"], abs=1e-5)
    assert abs(across["pt"] - before["pt"]) > 0.1
    assert abs(across["tau1_1.0"] - before["tau1_1.0"]) > 0.1


def test_collinear_splitting_changes_multiplicity_and_dispersion(jet):
    """And nothing else that does not depend on where the axes of several subjets start."""
    softest = jet[..., 0].argmin()
    split = jet.clone()
    split[0, softest] *= 0.3
    before, after = of(jet), of(torch.cat([split, jet[:, softest : softest + 1] * 0.7], dim=1))
    safe = ["mass", "pt", "mass_over_pt", *(name for name in before if name.startswith(("e2", "e3", "tau1")))]
    assert [after[name] for name in safe] == pytest.approx([before[name] for name in safe], abs=2e-4)
    assert all(abs(after[name] - before[name]) > 1e-4 for name in ("multiplicity", "dispersion"))


def test_a_soft_particle_changes_the_multiplicity_alone(jet):
    """That of the jet, and those of the subjets that it belongs to."""
    before, after = of(jet), of(torch.cat([jet, massless([1e-9], [0.5], [3.0])], dim=1))
    counts = [name for name in before if name.endswith("multiplicity")]
    assert after["multiplicity"] > before["multiplicity"]
    assert sum(after.pop(name) > before.pop(name) for name in counts) == 1 + 3  # of two, of three and of four
    assert after == pytest.approx(before, abs=2e-4)


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_jets_of_few_particles_have_finite_observables(jet, number):
    mask = torch.arange(6)[None] < number
    assert all(math.isfinite(value) for value in of(jet, mask).values())


def test_autocast_changes_no_digit(jet):
    before = of(jet)
    with torch.autocast("cpu", torch.bfloat16):
        assert of(jet) == before


def test_correlations_of_one_particle_vanish():
    e2, e3 = energy_correlations(torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
    assert e2.item() == e3.item() == 0


def test_top_jets_have_the_mass_of_the_top_quark_and_a_pair_with_that_of_the_w():
    table = open_store(resolve_file("sample:top_tagging/test"))
    batch = collate(gather(table, np.arange(1000)), feature_table("kin"))
    found = substructure(batch.four_momenta, batch.mask)
    top = batch.label == 1
    medians = {name: [found[name][kind].median().exp().item() for kind in (~top, top)] for name in found}
    assert 150 < medians["mass"][1] < 190
    assert 60 < medians["smallest_pair_mass"][1] < 100
    assert medians["smallest_pair_mass"][0] < 50
