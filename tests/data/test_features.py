import json
import math

import numpy as np
import pytest
import torch
import vector

from zoo.data.features import Feature, FeatureTable, feature_table


def packed(table) -> tuple[torch.Tensor, torch.Tensor]:
    columns = [table.particles[name] for name in ("part_energy", "part_px", "part_py", "part_pz")]
    return torch.from_numpy(np.stack(columns, axis=1)), torch.from_numpy(table.counts)


def witness(momenta: np.ndarray) -> np.ndarray:
    """The seven features of one jet's particles (particle, 4), by the vector library and the numbers of JetClass."""
    energy, px, py, pz = momenta.astype(np.float64).T
    particles = vector.array({"px": px, "py": py, "pz": pz, "E": energy})
    jet = vector.obj(px=px.sum(), py=py.sum(), pz=pz.sum(), E=energy.sum())
    deta, dphi = particles.eta - jet.eta, particles.deltaphi(jet)
    if jet.eta < 0:
        deta = -deta
    columns = [
        (np.log(particles.pt) - 1.7) * 0.7,
        (np.log(particles.E) - 2.0) * 0.7,
        (np.log(particles.pt / jet.pt) + 4.7) * 0.7,
        (np.log(particles.E / jet.E) + 4.7) * 0.7,
        (particles.deltaR(jet) - 0.2) * 4.0,
    ]
    return np.stack([*np.clip(columns, -5, 5), deta, dphi], axis=1)


@pytest.mark.parametrize("axis", [(1, 1), (-1, 1), (1, -1)])
def test_kin_features_agree_with_vector(make_table, axis):
    four_momenta, counts = packed(make_table(200))
    four_momenta[:, 1] *= axis[0]  # jets along -x straddle phi = pi
    four_momenta[:, 3] *= axis[1]  # jets of negative eta have deta mirrored
    features = feature_table("kin").packed(four_momenta, counts)
    jets = np.split(four_momenta.numpy(), counts.cumsum(0)[:-1])
    expected = np.concatenate([witness(jet) for jet in jets])
    assert features.dtype == torch.float32
    np.testing.assert_allclose(features.numpy(), expected, atol=2e-6)


def test_kin_features_agree_with_vector_on_real_jets(shared_data):
    from zoo.data.readers import read_jets

    four_momenta, counts = packed(read_jets(shared_data / "top_tagging" / "train_100k.h5", rows=(500, 600)))
    features = feature_table("kin").packed(four_momenta, counts)
    expected = np.concatenate([witness(jet) for jet in np.split(four_momenta.numpy(), counts.cumsum(0)[:-1])])
    np.testing.assert_allclose(features.numpy(), expected, atol=2e-6)


def test_names_and_order_are_jetclass():
    assert feature_table("kin").names == (
        "part_pt_log",
        "part_e_log",
        "part_logptrel",
        "part_logerel",
        "part_deltaR",
        "part_deta",
        "part_dphi",
    )


@pytest.mark.parametrize(
    "momenta",
    [
        [[5.0, 0.0, 0.0, 5.0], [3.0, 3.0, 0.0, 0.0]],  # along the beam
        [[1e-30, 1e-30, 0.0, 0.0], [600.0, 600.0, 0.0, 0.0]],  # next to nothing
        [[0.0, 0.0, 0.0, 0.0], [600.0, 0.0, 600.0, 0.0]],  # nothing
        [[5.0, 3.0, 0.0, 4.0], [5.0, -3.0, 0.0, -4.0]],  # a jet at rest
        [[1e30, 1e30, 0.0, 0.0], [1e30, 0.0, 0.0, -1e30]],
    ],
)
def test_extreme_momenta_give_finite_features(momenta):
    features = feature_table("kin").packed(torch.tensor(momenta), torch.tensor([2]))
    assert features.isfinite().all()
    assert features[:, :5].abs().max() <= 5


def test_soft_particles_keep_their_direction_beside_hard_ones():
    """A float32 difference of azimuths or rapidities of order 3 would be off by 1e-7 of 3, not of the difference."""
    angle = 1e-5
    jet = torch.tensor([[500.0, -500.0, 0.0, 0.0], [1e-3, -1e-3 * math.cos(angle), -1e-3 * math.sin(angle), 0.0]])
    dphi = feature_table("kin").packed(jet, torch.tensor([2]))[1, 6]
    assert dphi.item() == pytest.approx(angle, rel=1e-3)


def test_padded_equals_packed(make_table):
    four_momenta, counts = packed(make_table(6))
    longest = int(counts.max()) + 3
    mask = torch.arange(longest) < counts[:, None]
    padded = torch.full((6, longest, 4), 1e3)
    padded[mask] = four_momenta
    table = feature_table("kin")
    features = table.padded(padded, mask)
    torch.testing.assert_close(features[mask], table.packed(four_momenta, counts), rtol=0, atol=0)
    assert (features[~mask] == 0).all()


def test_a_jet_without_particles_has_no_features():
    features = feature_table("kin").padded(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool))
    assert features.shape == (2, 3, 7)
    assert (features == 0).all()


def test_table_survives_json():
    table = feature_table("kin")
    assert FeatureTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d.update(version=2), "expected exactly the keys"),
        (lambda d: d.pop("features"), "expected exactly the keys"),
        (lambda d: d.update(features=[]), "at least one feature"),
        (lambda d: d["features"][0].pop("clip"), "expected exactly the keys"),
        (lambda d: d["features"][0].update(center=1.0), "expected exactly the keys"),
        (lambda d: d["features"][0].update(scale="0.7"), "'part_pt_log': scale must be a finite number, not '0.7'"),
        (lambda d: d["features"][0].update(centre=math.nan), "centre must be a finite number"),
        (lambda d: d["features"][0].update(scale=True), "scale must be a finite number"),
        (lambda d: d["features"][0].update(formula="log_ptt"), "no formula 'log_ptt'; did you mean log_pt"),
        (lambda d: d["features"].append(d["features"][0]), "a name stands twice"),
    ],
)
def test_a_spoilt_table_is_refused(spoil, message):
    values = feature_table("kin").to_dict()
    spoil(values)
    with pytest.raises(ValueError, match=message):
        FeatureTable.from_dict(values)


def test_centre_scale_and_clip_are_applied_in_that_order():
    table = FeatureTable((Feature("x", "log_pt", centre=1.0, scale=10.0, clip=3.0),))
    momenta = torch.tensor([[1.0, math.e**x, 0.0, 0.0] for x in (1.1, 1.2, 2.0, -1.0)])
    features = table.packed(momenta, torch.tensor([4]))
    torch.testing.assert_close(features[:, 0], torch.tensor([1.0, 2.0, 3.0, -3.0]), atol=1e-5, rtol=0)


def test_unknown_table():
    with pytest.raises(ValueError, match="no feature table is called 'kinn'; choose one of kin"):
        feature_table("kinn")
