"""Formulas in layouts, parts of structs, odd names, and padding that is not zero."""

import dataclasses

import awkward as ak
import h5py
import numpy as np
import pyarrow as pa
import pytest
import uproot
from pyarrow import parquet

from zoo.data.formats.layout import Layout
from zoo.data.read_report import MendedWarning
from zoo.data.readers import read_jets
from zoo.data.store import NoJetsError

COUNTS = np.array([2, 1, 3])
RANDOM = np.random.default_rng(3)
THETA, PHI = RANDOM.uniform(0.3, 2.8, 6), RANDOM.uniform(-3, 3, 6)
MOMENTUM = RANDOM.uniform(1, 50, 6)
EXPECTED = {
    "part_px": MOMENTUM * np.sin(THETA) * np.cos(PHI),
    "part_py": MOMENTUM * np.sin(THETA) * np.sin(PHI),
    "part_pz": MOMENTUM * np.cos(THETA),
    "part_energy": MOMENTUM,
}


def lists(**flat):
    return {name: ak.unflatten(np.ascontiguousarray(values), COUNTS) for name, values in flat.items()}


def layout(**momenta):
    return Layout("mine", (), momenta, None)


def check(table):
    for name, values in EXPECTED.items():
        np.testing.assert_allclose(table.particles[name], values, rtol=2e-6, atol=1e-6)


def test_momenta_of_a_track_by_its_charge_over_momentum(tmp_path):
    charge = np.array([1, -1, 1, 1, -1, -1])
    columns = lists(qOverP=charge / (1000 * MOMENTUM), theta=THETA, phi=PHI)
    ak.to_parquet(ak.Array(columns), tmp_path / "jets")
    found = layout(pt="abs(1 / qOverP) * sin(theta)", eta="-log(tan(theta / 2))", phi="phi")
    check(read_jets(tmp_path / "jets", layout=dataclasses.replace(found, units="MeV")))


def test_an_angle_by_its_sine_and_cosine_in_hdf5(tmp_path):
    """Padded arrays of a group, whose names stand in backticks."""
    columns = lists(pt=MOMENTUM * np.sin(THETA), eta=np.arctanh(np.cos(THETA)), sin=np.sin(PHI), cos=np.cos(PHI))
    with h5py.File(tmp_path / "jets", "w") as file:
        for name, values in columns.items():
            file[f"tracks/{name}"] = ak.to_numpy(ak.fill_none(ak.pad_none(values, 4, clip=True), 0))
    momenta = {"pt": "tracks/pt", "eta": "tracks/eta", "phi": "arctan2(`tracks/sin`, `tracks/cos`)"}
    check(read_jets(tmp_path / "jets", layout=layout(**momenta)))


def test_small_whole_numbers_do_not_wrap(tmp_path):
    columns = lists(**EXPECTED, hits=np.array([3, 250, 9, 9, 9, 9], dtype=np.uint8))
    columns["jet_hits"] = np.array([200, 1, 1], dtype=np.uint8)
    ak.to_parquet(ak.Array(columns), tmp_path / "jets")
    found = layout(px="part_px", py="part_py", pz="part_pz", energy="part_energy")
    further = {"less": "hits - 5", "more": "hits + jet_hits"}
    table = read_jets(
        tmp_path / "jets", layout=dataclasses.replace(found, particles=further, fields={"jet": "jet_hits * 2"})
    )
    assert table.particles["less"].tolist() == [-2, 245, 4, 4, 4, 4]
    assert table.particles["more"].tolist() == [203, 450, 10, 10, 10, 10]  # a number of a jet for its own particles
    assert table.fields["jet"].tolist() == [400, 2, 2]


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("abs(pq)", r"column 'abs\(pq\)' is missing"),
        ("abs(px) * pq", "column 'pq' is missing, which the formula .* needs"),
        ("open(px)", r"the formula 'open\(px\)' of the layout: .*no function 'open'"),
        ("px / other", "have different lengths"),
        ("px * name", "column 'name' in 'px \\* name' must hold numbers, not text"),
    ],
)
def test_wrong_formulas_are_named(tmp_path, formula, message):
    columns = lists(px=MOMENTUM, py=MOMENTUM, pz=MOMENTUM)
    columns["other"] = ak.unflatten(MOMENTUM, [1, 2, 3])
    columns["name"] = ak.Array(["a", "b", "c"])
    ak.to_parquet(ak.Array(columns), tmp_path / "jets")
    with pytest.raises(ValueError, match=rf"jets: .*{message}"):
        read_jets(tmp_path / "jets", layout=layout(px=formula, py="py", pz="pz"))


def test_lists_of_structs_in_parquet(tmp_path):
    momenta = {name.removeprefix("part_"): values for name, values in EXPECTED.items()}
    rows, start = [], 0
    for count in COUNTS:
        members = range(start, start + count)
        rows.append([{name: float(values[i]) for name, values in momenta.items()} for i in members])
        start += count
    particles = pa.array(rows, pa.list_(pa.struct([(name, pa.float64()) for name in momenta])))
    jets = pa.array([{"mass": 1.0}, {"mass": 2.0}, {"mass": 3.0}])
    parquet.write_table(pa.table({"particles": particles, "jet": jets}), tmp_path / "jets", row_group_size=2)
    found = layout(**{name: f"particles.{name}" for name in momenta})
    found = dataclasses.replace(found, fields={"jet_m": "jet.mass", "twice": "2 * `jet.mass`"})
    table = read_jets(tmp_path / "jets", layout=found)
    check(table)
    assert table.counts.tolist() == COUNTS.tolist()
    assert table.fields["twice"].tolist() == [2, 4, 6]
    some = read_jets(tmp_path / "jets", (1, 3), found)
    assert some.particles["part_energy"].tolist() == table.particles["part_energy"][2:].tolist()
    with pytest.raises(ValueError, match=r"column 'particles\.pq' is missing; did you mean 'particles\.px'"):
        read_jets(tmp_path / "jets", layout=layout(px="particles.pq", py="particles.py", pz="particles.pz"))


def test_fields_of_records_and_names_with_dots_and_colons_in_rntuples(tmp_path):
    columns = lists(**EXPECTED)
    names = [name.removeprefix("part_") for name in columns]
    record = ak.zip(dict(zip(names, columns.values(), strict=True)))
    odd = {f"A::{name}": values for name, values in zip(names, columns.values(), strict=True)}
    dots = {f"x.{name}": values for name, values in zip(names, columns.values(), strict=True)}
    with uproot.recreate(tmp_path / "jets.root") as file:
        file.mkrntuple("tree", {"p": record} | odd | dots)
    for prefix in ("p.", "A::", "x."):
        check(read_jets(tmp_path / "jets.root", layout=layout(**{name: f"{prefix}{name}" for name in names})))


def test_colons_in_the_name_of_a_root_file(tmp_path):
    columns = lists(**EXPECTED)
    with uproot.recreate(tmp_path / "a.root") as file:
        file.mktree("tree", {name: ak.type(values[:0]).content for name, values in columns.items()})
        file["tree"].extend(columns)
    path = (tmp_path / "a.root").rename(tmp_path / "QCD::2024.root")
    check(read_jets(path, layout=layout(px="part_px", py="part_py", pz="part_pz", energy="part_energy")))


@pytest.mark.parametrize("padding", [np.nan, 1e10])
def test_padding_that_is_not_zero_points_to_the_mask(tmp_path, padding):
    pt = np.array([[5, 6, padding], [3, padding, padding], [1, 2, 3]])
    eta = np.where(pt == padding, 1e10, 0.1) if padding == 1e10 else pt * 0.1
    with h5py.File(tmp_path / "jets", "w") as file:
        file["pt"], file["eta"], file["phi"] = np.where(pt == 1e10, 1, pt), eta, eta * 0.1
        file["valid"] = np.isfinite(pt) & (pt < 1e9)
    polar = layout(pt="pt", eta="eta", phi="phi")
    with pytest.warns(
        MendedWarning, match=r"3 entries of padded arrays.* name the column that tells particles in 'mask'"
    ):
        read_jets(tmp_path / "jets", layout=polar)
    assert read_jets(tmp_path / "jets", layout=dataclasses.replace(polar, mask="valid")).counts.tolist() == [2, 1, 3]


def test_the_mask_is_pointed_to_where_lists_have_one_length(tmp_path):
    """As an array that was written to parquet."""
    pt, eta = np.full((3, 4), 5.0), np.full((3, 4), 1e10)
    eta[:, :2] = 0.1
    columns = {"pt": pt, "eta": eta, "phi": pt}
    parquet.write_table(pa.table({name: values.tolist() for name, values in columns.items()}), tmp_path / "jets")
    with pytest.raises(NoJetsError, match=r"left out 3 of 3 jets.*; 6 entries of padded arrays.* in 'mask'"):
        read_jets(tmp_path / "jets", layout=layout(pt="pt", eta="eta", phi="phi"))
