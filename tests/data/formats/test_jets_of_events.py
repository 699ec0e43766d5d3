"""Several jets an event, by an index, by links and by nesting: the witness is a loop over events and jets."""

import dataclasses

import awkward as ak
import numpy as np
import pytest
import uproot

from zoo.data.convert import convert
from zoo.data.formats.jets_of_events import Grouping
from zoo.data.formats.layout import Layout
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.readers import read_jets
from zoo.data.source import open_source

EVENTS = 40
LAYOUT = Layout(
    name="nano",
    classes=("light", "b"),
    momenta={"px": "cand_px", "py": "cand_py", "pz": "cand_pz"},
    label="jet_flavour",
    particles={"part_charge": "cand_q"},
    fields={"jet_m": "jet_m", "run": "run", "event": "jets/event", "number": "jets/number"},
)


@pytest.fixture(scope="module")
def events():
    """Events of 0 to 4 jets with 1 to 5 candidates each, of which some are in two jets and some in none."""
    random = np.random.default_rng(8)
    found = []
    for event in range(EVENTS):
        number = int(random.integers(0, 5))
        candidates = int(random.integers(5, 12))
        momenta = random.normal(10, 3, (candidates, 3)).astype(np.float32)
        members = [random.choice(candidates, random.integers(1, 6), replace=False).tolist() for _ in range(number)]
        found.append(
            {
                "run": event // 10,
                "jet_m": random.uniform(1, 9, number).astype(np.float32).tolist(),
                "jet_flavour": random.integers(0, 2, number).tolist(),
                "momenta": momenta,
                "charge": random.integers(-1, 2, candidates).astype(np.int32),
                "members": members,
            }
        )
    return found


@pytest.fixture(scope="module")
def expected(events):
    """Particles and fields of each jet, one after the other."""
    return [
        (event["momenta"][event["members"][j]], event["charge"][event["members"][j]], event["jet_m"][j],
         event["jet_flavour"][j], i // 10, i, j)
        for i, event in enumerate(events)
        for j in range(len(event["members"]))
    ]  # fmt: skip


def of_jets(events):
    columns = {"run": np.array([event["run"] for event in events], dtype=np.int32)}
    columns["jet_m"] = ak.values_astype(ak.Array([event["jet_m"] for event in events]), np.float32)
    columns["jet_flavour"] = ak.values_astype(ak.Array([event["jet_flavour"] for event in events]), np.int32)
    return columns


def of_candidates(events):
    columns = {f"cand_p{axis}": ak.Array([event["momenta"][:, i] for event in events]) for i, axis in enumerate("xyz")}
    columns["cand_q"] = ak.Array([event["charge"] for event in events])
    return {
        name: ak.values_astype(values, np.int32 if name == "cand_q" else np.float32) for name, values in columns.items()
    }


def indexed(events):
    """As NanoAOD has it: a link for each particle of each jet, those of the jets mixed, and some that lead nowhere."""
    jets, particles = [], []
    for event in events:
        members = event["members"]
        longest = max(map(len, members), default=0)
        links = [(j, of[k]) for k in range(longest) for j, of in reversed(list(enumerate(members))) if k < len(of)]
        links += [(-1, 0), (0, -1)][: 2 if members else 1]
        jets.append([jet for jet, _ in links])
        particles.append([particle for _, particle in links])
    columns = of_jets(events) | of_candidates(events)
    columns["link_jet"] = ak.values_astype(ak.Array(jets), np.int32)
    columns["link_cand"] = ak.values_astype(ak.Array(particles), np.int32)
    return columns, Grouping(index="link_jet", particles="link_cand")


def linked(events):
    columns = of_jets(events) | of_candidates(events)
    columns["members"] = ak.values_astype(ak.Array([event["members"] for event in events]), np.int64)
    return columns, Grouping(links="members")


def atlas(events):
    """Links as ATLAS has them, with the key of the collection, which is 0 for those that lead nowhere."""
    columns, _ = linked(events)
    members = columns.pop("members")
    lost = ak.concatenate([members, ak.zeros_like(members[:, :, :1])], axis=2)
    key = ak.concatenate([ak.full_like(members, 490246363), ak.zeros_like(members[:, :, :1])], axis=2)
    links = {"m_persKey": ak.values_astype(key, np.uint32), "m_persIndex": ak.values_astype(lost, np.uint32)}
    columns["Aux.links"] = ak.zip(links)
    return columns, Grouping(links="Aux.links")


def nested(events):
    columns = of_jets(events)
    for i, axis in enumerate("xyz"):
        values = [[event["momenta"][jet, i].tolist() for jet in event["members"]] for event in events]
        columns[f"cand_p{axis}"] = ak.values_astype(ak.Array(values), np.float32)
    values = [[event["charge"][jet].tolist() for jet in event["members"]] for event in events]
    columns["cand_q"] = ak.values_astype(ak.Array(values), np.int32)
    return columns, Grouping(nested="cand_px")


def write_parquet(path, columns):
    ak.to_parquet(ak.Array(columns), path, row_group_size=7)


def write_rntuple(path, columns):
    with uproot.recreate(path) as file:
        file.mkrntuple("tree", columns)


def write_ttree(path, columns):
    with uproot.recreate(path) as file:
        file.mktree("tree", {name: ak.type(ak.Array(values)).content for name, values in columns.items()})
        file["tree"].extend(columns)


CASES = [(way, write) for way in (indexed, linked, nested) for write in (write_parquet, write_rntuple)]
CASES += [(indexed, write_ttree), (atlas, write_rntuple)]


def check(table, expected):
    assert len(table) == len(expected)
    for row, (momenta, charge, mass, flavour, run, event, number) in enumerate(expected):
        particles = slice(table.offsets[row], table.offsets[row + 1])
        found = np.stack([table.particles[f"part_p{axis}"][particles] for axis in "xyz"], axis=1)
        np.testing.assert_array_equal(found, momenta)
        np.testing.assert_array_equal(table.particles["part_charge"][particles], charge)
        assert table.fields["jet_m"][row] == np.float32(mass)
        found = [int(table.fields[name][row]) for name in ("run", "event", "number")]
        assert [int(table.label[row]), *found] == [flavour, run, event, number]


@pytest.mark.parametrize(("way", "write"), CASES)
def test_jets_are_rows(events, expected, tmp_path, way, write):
    columns, grouping = way(events)
    write(tmp_path / "events", columns)
    layout = dataclasses.replace(LAYOUT, jets=grouping)
    assert len(open_source(tmp_path / "events", layout)) == len(expected)
    check(read_jets(tmp_path / "events", layout=layout), expected)
    for rows in ((0, 1), (5, 23), (len(expected) - 3, len(expected))):
        part = read_jets(tmp_path / "events", rows, layout)
        check(part, expected[slice(*rows)])
        assert list(part.source_rows) == list(range(*rows))


def test_conversion_and_yaml(events, expected, tmp_path):
    columns, _ = indexed(events)
    write_parquet(tmp_path / "events", columns)
    (tmp_path / "nano.yaml").write_text(
        """
units: GeV
classes: [light, b]
momenta:
  pt: hypot(cand_px, cand_py)
  eta: arcsinh(cand_pz / hypot(cand_px, cand_py))
  phi: arctan2(cand_py, cand_px)
label: jet_flavour
particles: {part_charge: cand_q}
fields: [jet_m, run]
jets: {index: link_jet, particles: link_cand}
"""
    )
    layout = read_layout(tmp_path / "nano.yaml")
    assert layout.jets == Grouping(index="link_jet", particles="link_cand")
    manifest = convert([tmp_path / "events"], tmp_path / "folder", layout=layout, processes=1)
    assert manifest.layout["jets"]["index"] == "link_jet"
    (table,), _ = open_source(tmp_path / "folder").tables()
    row = np.argsort(table.fields["source_row"])
    assert table.fields["jet_m"][row].tolist() == [np.float32(jet[2]) for jet in expected]
    momenta = table.take(row).particles["part_px"]
    np.testing.assert_allclose(momenta, np.concatenate([jet[0][:, 0] for jet in expected]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"jets": Grouping(index="link_jetIdx")}, "column 'link_jetIdx' is missing; did you mean 'link_jet'"),
        ({"jets": Grouping(nested="cand_px")}, "column 'cand_px' must hold lists of lists, not lists of float32"),
        ({"jets": Grouping(index="link_jet")}, "number .* for 'cand_px', of which there are|number"),
        ({"fields": {}, "label": None, "classes": ()}, "nothing says how many jets an event has"),
        ({"particles": {"part_charge": "run"}}, "column 'run' of the particles must hold lists of numbers, not int32"),
        ({"fields": {"jet_m": "cand_px"}}, "column 'cand_px' has .* entries in event|must hold"),
    ],
)
def test_mistakes_are_named(events, tmp_path, changes, message):
    columns, grouping = indexed(events)
    write_parquet(tmp_path / "events", columns)
    layout = dataclasses.replace(LAYOUT, **{"jets": grouping, **changes})
    with pytest.raises(ValueError, match=rf"events: .*{message}"):
        read_jets(tmp_path / "events", layout=layout)


def test_links_to_several_collections_are_refused(events, tmp_path):
    columns, grouping = atlas(events)
    links = columns["Aux.links"]
    columns["Aux.links"] = ak.with_field(
        links, ak.values_astype(links.m_persKey + links.m_persIndex, np.uint32), "m_persKey"
    )
    write_rntuple(tmp_path / "events", columns)
    with pytest.raises(ValueError, match=r"column 'Aux\.links' has links to several collections"):
        read_jets(tmp_path / "events", layout=dataclasses.replace(LAYOUT, jets=grouping))


def test_one_way_alone():
    with pytest.raises(ValueError, match=r"must have one of nested .* not \['nested', 'index'\]"):
        Grouping(nested="a", index="b")
    with pytest.raises(ValueError, match="must have one of nested"):
        Grouping(particles="a")
