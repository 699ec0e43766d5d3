import json
import math

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
import vector

from zoo.cli import main
from zoo.data.batch import collate, gather
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.datasets import JET_COLUMNS, resolve_file
from zoo.data.features import (
    COLUMN_OF_FORMULA,
    FORMULAS,
    RELATIVE_TO_JET,
    Feature,
    FeatureTable,
    feature_table,
    particle_inputs,
)
from zoo.data.features_yaml import read_features
from zoo.data.readers import read_jets
from zoo.data.store import open_store


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
        (lambda d: d["features"].append(d["features"][0]), "a name is given twice"),
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


def jetclass_by_hand(path) -> np.ndarray:
    """The 17 features of all particles of a file as weaver-core makes them of the file's own columns."""
    with uproot.open(path) as file:
        jets = file["tree"].arrays(filter_name=["part_*", "jet_*"])
    counts = ak.to_numpy(ak.num(jets["part_px"]))
    of = {name: ak.to_numpy(ak.flatten(jets[name])).astype(float) for name in jets.fields if name.startswith("part_")}
    jet_pt, jet_energy = (np.repeat(jets[name].to_numpy().astype(float), counts) for name in ("jet_pt", "jet_energy"))
    pt = np.hypot(of["part_px"], of["part_py"])
    standardised = [
        (np.log(pt) - 1.7) * 0.7,
        (np.log(of["part_energy"]) - 2.0) * 0.7,
        (np.log(pt / jet_pt) + 4.7) * 0.7,
        (np.log(of["part_energy"] / jet_energy) + 4.7) * 0.7,
        (np.hypot(of["part_deta"], of["part_dphi"]) - 0.2) * 4.0,
    ]
    types = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    columns = [
        *np.clip(standardised, -5, 5),
        of["part_charge"],
        *(of[f"part_is{name}"] for name in types),
        np.tanh(of["part_d0val"]),
        np.clip(of["part_d0err"], 0, 1),
        np.tanh(of["part_dzval"]),
        np.clip(of["part_dzerr"], 0, 1),
        of["part_deta"],
        of["part_dphi"],
    ]
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    ("name", "columns"), [("full", range(17)), ("kinpid", [*range(11), 15, 16]), ("kin", [*range(5), 15, 16])]
)
def test_features_of_jetclass_are_those_of_weaver(shared_data, name, columns):
    """Its ``part_deta`` and ``part_dphi`` included, though they are recomputed from the jet's own direction."""
    path = shared_data / "jetclass2" / "JetClassII_example.root"
    features = feature_table(name)
    jets = gather(read_jets(path), np.arange(100), features.columns)
    expected = jetclass_by_hand(path)[:, columns]
    found = collate(jets, features)
    np.testing.assert_allclose(found.features[found.mask].numpy(), expected, rtol=0, atol=1e-6)
    # Control: about the sum of the particles, deta and the fractions of the energy are others.
    sums = collate(jets._replace(columns={key: jets.columns[key] for key in features.columns}), features)
    difference = np.abs(sums.features[sums.mask].numpy() - expected).max(axis=0)
    assert difference[features.names.index("part_deta")] > 0.05
    assert difference[features.names.index("part_logerel")] > 0.02
    assert difference[features.names.index("part_logptrel")] < 1e-6
    assert difference[features.names.index("part_dphi")] < 1e-6


def test_errors_of_impact_parameters_are_clipped():
    columns = {name: torch.zeros(3) for name in feature_table("full").columns}
    columns["part_d0err"] = torch.tensor([-0.5, 0.25, 7.0])
    columns["part_dzval"] = torch.tensor([-100.0, 0.5, 1.0])
    columns["part_isMuon"] = torch.tensor([0, 1, 1], dtype=torch.uint8)
    momenta = torch.tensor([[5.0, 3.0, 0.0, 4.0]] * 3)
    features = feature_table("full").packed(momenta, torch.tensor([3]), columns)
    names = feature_table("full").names
    assert features[:, names.index("part_d0err")].tolist() == [0.0, 0.25, 1.0]
    torch.testing.assert_close(features[:, names.index("part_dz")], torch.tensor([-100.0, 0.5, 1.0]).tanh())
    assert features[:, names.index("part_isMuon")].tolist() == [0.0, 1.0, 1.0]
    assert features.dtype == torch.float32


def test_padded_columns_equal_packed(make_table):
    four_momenta, counts = packed(make_table(6))
    mask = torch.arange(int(counts.max()) + 2) < counts[:, None]
    table = feature_table("full")
    columns = {name: torch.randn(len(four_momenta)) for name in table.columns}
    jets = {name: 1 + torch.rand(6) for name in JET_COLUMNS}
    padded = {name: torch.full(mask.shape, math.nan) for name in columns}
    momenta = torch.full((*mask.shape, 4), math.nan)
    for values, flat in [(momenta, four_momenta), *((padded[name], columns[name]) for name in columns)]:
        values[mask] = flat
    features = table.padded(momenta, mask, padded | jets)
    torch.testing.assert_close(features[mask], table.packed(four_momenta, counts, columns | jets), rtol=0, atol=0)
    assert (features[~mask] == 0).all()


@pytest.mark.parametrize(
    ("name", "missing", "message"),
    [
        ("full", "part_charge", "particle column 'part_charge' is missing, .* use the features kin, or jets"),
        ("full", "part_dzerr", "particle column 'part_dzerr' is missing, .* use the features kin or kinpid, or jets"),
        ("kinpid", "part_isMuon", "particle column 'part_isMuon' is missing, .* use the features kin, or jets"),
    ],
)
def test_a_missing_column_is_named_with_the_tables_that_work(make_table, name, missing, message):
    four_momenta, counts = packed(make_table(3))
    columns = {key: torch.zeros(len(four_momenta)) for key in feature_table("full").columns if key != missing}
    with pytest.raises(ValueError, match=message):
        feature_table(name).packed(four_momenta, counts, columns)


def test_columns_of_the_tables():
    pid = (
        "part_charge",
        "part_isChargedHadron",
        "part_isNeutralHadron",
        "part_isPhoton",
        "part_isElectron",
        "part_isMuon",
    )
    assert feature_table("kin").columns == ()
    assert feature_table("kinpid").columns == pid
    assert feature_table("full").columns == (*pid, "part_d0val", "part_d0err", "part_dzval", "part_dzerr")
    assert [feature_table(name).input_dim for name in ("kin", "kinpid", "full")] == [7, 13, 17]


def test_features_of_objects_are_those_of_the_text(shared_data):
    """Compared with each line taken apart, in the order of the four-top study."""
    path = shared_data / "four_tops" / "events.csv"
    with path.open() as file:
        lines = [next(file).strip() for _ in range(300)]
    objects = [values.split(",") for line in lines for values in line.split(";")[5:]]
    energy, pt, eta, phi = np.array([values[1:] for values in objects], dtype=float).T
    kind = np.array([values[0] for values in objects])
    expected = [
        (np.log(pt / 1000) - 4.25) * 1.32,
        (np.log(energy / 1000) - 4.77) * 1.19,
        eta * 0.8,
        phi * 0.467,
        *(kind == symbol for symbol in ("j", "b", "e-", "e+", "m-", "m+", "g")),
        np.char.endswith(kind, "+").astype(int) - np.char.endswith(kind, "-"),
    ]
    table = feature_table("events")
    batch = collate(gather(read_jets(path, (0, 300)), np.arange(300), table.columns), table)
    assert set(kind) == {"j", "b", "e-", "e+", "m-", "m+", "g"}
    np.testing.assert_allclose(batch.features[batch.mask], np.stack(expected, axis=1), atol=3e-5)


USER_FEATURES = """
features:
  - {name: pt_log, formula: log_pt, centre: 1.7, scale: 0.7, clip: 5}
  - {name: significance, formula: tanh(part_d0val / part_d0err), clip: [-0.5, 0.9]}
  - {name: hard_muon, formula: "where((part_isMuon > 0) & (log_pt > 2), 1, 0)"}
  - {name: ring, formula: "hypot(deta, dphi) - minimum(delta_r, 0.1)", centre: 0.1, scale: 10.0}
"""


def test_features_of_a_user(tmp_path, shared_data):
    (tmp_path / "mine.yaml").write_text(USER_FEATURES)
    table = read_features(tmp_path / "mine.yaml")
    assert table.columns == ("part_d0val", "part_d0err", "part_isMuon")
    assert FeatureTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table
    path = shared_data / "jetclass2" / "JetClassII_example.root"
    jets = gather(read_jets(path), np.arange(100), table.columns)
    found = collate(jets, table)
    of = {name: values.astype(float) for name, values in jets.columns.items()}
    pt = np.hypot(*jets.four_momenta[:, 1:3].astype(float).T)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = [
            np.clip((np.log(pt) - 1.7) * 0.7, -5, 5),
            np.clip(np.tanh(of["part_d0val"] / of["part_d0err"]), -0.5, 0.9),
            (of["part_isMuon"] > 0) & (np.log(pt) > 2),
        ]
    np.testing.assert_allclose(found.features[found.mask].numpy()[:, :3], np.stack(expected, axis=1), atol=1e-6)
    kin = collate(jets, feature_table("kin")).features[found.mask].numpy()
    ring = np.hypot(kin[:, 5], kin[:, 6])
    np.testing.assert_allclose(
        found.features[found.mask].numpy()[:, 3], (ring - np.minimum(ring, 0.1) - 0.1) * 10, atol=1e-5
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("log_pt,", "log_ptt,", "mine.yaml: feature 'pt_log': no formula 'log_ptt'; did you mean log_pt"),
        (
            "tanh(part_d0val / part_d0err)",
            "cot(part_d0val)",
            "feature 'significance': .* there is no function 'cot' here",
        ),
        ("tanh(part_d0val / part_d0err)", "part_d0val.__class__", "'significance': .* is not allowed"),
        ("tanh(part_d0val / part_d0err)", "1 + 2", "'significance': .* no quantity and no column"),
        ("clip: [-0.5, 0.9]", "clip: [0.9, -0.5]", "'significance': clip must be one limit or two rising ones"),
        ("centre: 1.7", "center: 1.7", "there is no key 'center'; did you mean 'centre'"),
        ("centre: 1.7", "centre: wide", "pt_log.centre: must be a finite number, not 'wide'"),
        ("centre: 1.7", "centre: auto", "mine.yaml: the centre .* of 'pt_log' are yet to be .* 'zoo data fit-scaling"),
        ("formula: log_pt,", "", "the key 'formula' is missing; a feature has at least name, formula"),
        ("name: pt_log", "name: ring", "a name is given twice"),
        ("features:", "feature:", "there is no key 'feature'; did you mean 'features'"),
    ],
)
def test_mistakes_in_features_of_a_user_are_named(tmp_path, old, new, message):
    assert old in USER_FEATURES
    (tmp_path / "mine.yaml").write_text(USER_FEATURES.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_features(tmp_path / "mine.yaml")


def test_scales_are_fitted_on_demand(tmp_path):
    text = USER_FEATURES.replace("centre: 1.7, scale: 0.7", "centre: auto").replace(
        "centre: 0.1, scale: 10.0", "centre: auto"
    )
    text = "\n".join(line for line in text.splitlines() if "part_" not in line)
    (tmp_path / "mine.yaml").write_text(text)
    out = tmp_path / "scaled.yaml"
    arguments = ["--features", str(tmp_path / "mine.yaml"), "--out", str(out)]
    main(["data", "fit-scaling", "sample:top_tagging/val", *arguments])
    features = read_features(out)
    assert [feature.clip for feature in features.features] == [5, None]
    jets = open_store(resolve_file("sample:top_tagging/val"))
    batch = collate(gather(jets, np.arange(len(jets))), features)
    low, centre, high = np.percentile(batch.features[batch.mask].numpy(), [16, 50, 84], axis=0)
    np.testing.assert_allclose(centre, 0, atol=1e-4)
    np.testing.assert_allclose(np.maximum(high, -low), 1, atol=1e-4)
    with pytest.raises(SystemExit, match="2"):
        main(["data", "fit-scaling", "sample:top_tagging/val", *arguments])


def test_small_whole_numbers_do_not_wrap_in_formulas():
    table = FeatureTable((Feature("less", "part_hits - 5"), Feature("more", "part_hits * part_hits")))
    columns = {"part_hits": torch.tensor([3, 250], dtype=torch.uint8)}
    found = table.packed(torch.ones(2, 4), torch.tensor([2]), columns)
    assert found.tolist() == [[-2, 9], [245, 62500]]


def test_training_with_features_of_a_user(tmp_path):
    (tmp_path / "mine.yaml").write_text("features: [{name: x, formula: log_pt - log_energy}]")
    module = JetDataModule(features=str(tmp_path / "mine.yaml"), train=Split(["sample:top_tagging/val"]))
    module.setup("fit")
    assert next(iter(module.train_dataloader())).features.shape[2] == module.input_dim == 1


def test_formulas_relative_to_the_jet_are_those_that_change_with_it(jets):
    """Taking the first particle away changes these of the others, and no other."""
    momenta = jets.four_momenta[0][jets.mask[0]]
    whole, rest = (particle_inputs(part, torch.tensor([len(part)])) for part in (momenta, momenta[1:]))
    of_momenta = FORMULAS.keys() - COLUMN_OF_FORMULA.keys()
    assert {name for name in of_momenta if not FORMULAS[name](whole)[1:].equal(FORMULAS[name](rest))} == RELATIVE_TO_JET
