"""Particle and energy flow networks against plain numpy, and what each is safe against and each is not."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo import create_model
from zoo.data.batch import JetBatch
from zoo.physics.lorentz import boost_matrix, rotation_matrix

FOUR_MOMENTA_ONLY = ["efn", "pfn_energyflow"]


def massless(jets: JetBatch) -> Tensor:
    """The jets in float64, massless as they were before they were rounded to float32."""
    momentum = jets.four_momenta[..., 1:].double()
    return torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)


def network(name: str) -> nn.Module:
    return create_model(name, input_dim=7, num_classes=2).double().eval()


def answer(model: nn.Module, four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Logits of a model that may not look at the features."""
    return model(torch.full((*mask.shape, 7), torch.nan, dtype=torch.float64), four_momenta, mask).detach()


def largest_change(one: Tensor, two: Tensor) -> float:
    return (one - two).abs().max().item()


@pytest.mark.parametrize(
    ("name", "input_dim", "num_classes", "expected"),
    [
        ("pfn", 17, 10, 86_154),
        ("pfn", 7, 2, 83_842),
        ("pfn_energyflow", 7, 2, 82_458),
        ("pfn_energyflow", 17, 10, 83_266),
        ("efn", 7, 2, 82_358),
        ("efn", 17, 10, 83_166),
    ],
)
def test_number_of_parameters(name, input_dim, num_classes, expected):
    model = create_model(name, input_dim=input_dim, num_classes=num_classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def by_hand(model: nn.Module, name: str, features: np.ndarray, momenta: np.ndarray) -> np.ndarray:
    """Logits of one jet without padding, in numpy."""
    weights = {key: value.numpy() for key, value in model.state_dict().items()}

    def layers(x: np.ndarray, network: str, relu_at_the_end: bool) -> np.ndarray:
        indices = sorted({int(key.split(".")[1]) for key in weights if key.startswith(f"{network}.")})
        for index in indices:
            x = x @ weights[f"{network}.{index}.weight"].T + weights[f"{network}.{index}.bias"]
            if index < indices[-1] or relu_at_the_end:
                x = np.maximum(x, 0)
        return x

    energy, px, py, pz = momenta.T
    jet_energy, jet_px, jet_py, jet_pz = momenta.sum(0)
    pt = np.sqrt(px**2 + py**2)
    z = pt / pt.sum()
    y = np.log((energy + pz) / (energy - pz)) / 2 - np.log((jet_energy + jet_pz) / (jet_energy - jet_pz)) / 2
    phi = np.angle((px + 1j * py) / (jet_px + 1j * jet_py))
    if name == "efn":
        total = z @ layers(np.stack([y, phi], axis=1), "phi", True)
    else:
        x = features if name == "pfn" else np.stack([z, y, phi], axis=1)
        total = layers(x, "phi", True).sum(0)
    return layers(total, "head", False)


@pytest.mark.parametrize("name", ["pfn", *FOUR_MOMENTA_ONLY])
def test_the_first_logits_are_of_order_one(name, jets):
    """Neither saturated by a sum over tens of particles nor lost."""
    logits = network(name)(jets.features.double(), massless(jets), jets.mask)
    assert 0.03 < logits.abs().max() < 3


@pytest.mark.parametrize("name", ["pfn", *FOUR_MOMENTA_ONLY])
def test_equals_numpy(name, jets):
    model, features, four_momenta = network(name), jets.features.double(), massless(jets)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)  # biases begin at zero
        logits = model(features, four_momenta, jets.mask)
    expected = [
        by_hand(model, name, features[jet][jets.mask[jet]].numpy(), four_momenta[jet][jets.mask[jet]].numpy())
        for jet in range(len(jets.mask))
    ]
    np.testing.assert_allclose(logits.numpy(), np.stack(expected), rtol=0, atol=1e-10)


def add_particle(four_momenta: Tensor, mask: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
    """The jets with one particle of ``momentum`` (batch, 4) more."""
    return torch.cat([four_momenta, momentum[:, None]], dim=1), nn.functional.pad(mask, (0, 1), value=True)


def split(four_momenta: Tensor, mask: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """The jets with their second particle in two parallel parts."""
    parts = four_momenta.clone()
    parts[:, 1] *= fraction
    return add_particle(parts, mask, (1 - fraction) * four_momenta[:, 1])


@pytest.mark.parametrize("fraction", [0.5, 0.9, 0.999])
def test_collinear_splitting(jets, fraction):
    before = massless(jets), jets.mask
    after = split(*before, fraction)
    safe, unsafe = network("efn"), network("pfn_energyflow")
    assert largest_change(answer(safe, *after), answer(safe, *before)) < 1e-10
    assert largest_change(answer(unsafe, *after), answer(unsafe, *before)) > 1e-3


def test_soft_emission(jets):
    """The change by a soft particle falls with its momentum; a PFN's does not."""
    before = massless(jets), jets.mask
    # At 0.8 in azimuth from the axis, the edge of the jet.
    turn = rotation_matrix(torch.tensor([0.0, 0, 1], dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64))
    emission = before[0].sum(1) @ turn.mT
    changes = {}
    for name in FOUR_MOMENTA_ONLY:
        model = network(name)
        changes[name] = [
            largest_change(answer(model, *add_particle(*before, softness * emission)), answer(model, *before))
            for softness in (1e-5, 1e-6, 1e-7)
        ]
    safe, unsafe = (np.array(changes[name]) for name in FOUR_MOMENTA_ONLY)
    assert 0 < safe[0] < 1e-4
    np.testing.assert_allclose(safe[1:] / safe[:-1], 0.1, rtol=0.02)
    assert unsafe.min() > 1e-3
    np.testing.assert_allclose(unsafe, unsafe[-1], rtol=1e-2)


def along_the_beam(jets: JetBatch) -> Tensor:
    """A rotation about the beam and a boost along it, another one for each jet, (batch, 1, 4, 4)."""
    size = len(jets.mask)
    velocity = torch.zeros(size, 3, dtype=torch.float64)
    velocity[:, 2] = torch.linspace(-0.95, 0.95, size)
    beam = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(size, 3)
    angle = 6 * torch.rand(size, dtype=torch.float64)
    return (boost_matrix(velocity) @ rotation_matrix(beam, angle))[:, None]


@pytest.mark.parametrize("mass", [0.0, 0.1396])
@pytest.mark.parametrize("name", FOUR_MOMENTA_ONLY)
def test_rotations_about_the_beam_and_boosts_along_it(name, mass, jets):
    model, four_momenta = network(name), massless(jets)
    four_momenta[..., 0] = (four_momenta[..., 0].square() + mass**2).sqrt()
    logits = answer(model, four_momenta, jets.mask)
    moved = (along_the_beam(jets) @ four_momenta[..., None])[..., 0]
    assert largest_change(answer(model, moved, jets.mask), logits) < 1e-9
    transverse = boost_matrix(torch.tensor([0.3, 0, 0], dtype=torch.float64))
    assert largest_change(answer(model, four_momenta @ transverse.mT, jets.mask), logits) > 1e-3


def test_particles_along_the_beam_and_at_rest_are_finite(jets):
    four_momenta = torch.zeros(3, 2, 4, dtype=torch.float64)
    four_momenta[1] = torch.tensor([5.0, 0, 0, 5])
    four_momenta[2, 0] = torch.tensor([5.0, 3, 0, -4])
    mask = torch.ones(3, 2, dtype=torch.bool)
    for name in FOUR_MOMENTA_ONLY:
        assert answer(network(name), four_momenta, mask).isfinite().all()
