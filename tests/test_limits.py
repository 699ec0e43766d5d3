"""Small files that claim to hold what fills a memory: each is an error that names the file, within seconds."""

import time

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from tests.data.weaver.test_data_config import JETCLASS
from tests.data.writers import jetclass_columns, write_root
from zoo.cli import training_command as command
from zoo.data.features_yaml import read_features
from zoo.data.formats.layout import Layout
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.manifest import read_manifest
from zoo.data.readers import read_jets
from zoo.data.weaver.data_config import read_weaver_yaml
from zoo.limits import MAX_DEPTH, MAX_PARTICLES, first_match, parse_json, parse_yaml

MOMENTA = {name: f"part_{name}" for name in ("px", "py", "pz", "energy")}
LAYOUT = Layout("mine", (), MOMENTA, None)


@pytest.fixture(autouse=True)
def within_seconds():
    start = time.perf_counter()
    yield
    assert time.perf_counter() - start < 20  # on a loaded machine


def bomb(levels):
    """Ten aliases of ten aliases of ..."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize("read", [read_layout, read_features, read_weaver_yaml])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "more than 1000000 values, with those that its aliases stand for"),
        ("[" * 100_000, "nested more than 100 deep"),
        ("a: " + "[" * 500 + "]" * 500, "nested more than 100 deep"),
    ],
)
def test_yaml_that_grows_or_nests(tmp_path, read, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=rf"mine\.yaml: .*{message}"):
        read(tmp_path / "mine.yaml")


def test_a_config_that_grows_or_nests(tmp_path):
    for text, message in ((bomb(9), "more than 1000000 values"), ("a: " + "[" * 3000 + "]" * 3000, "100 deep")):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(ValueError, match=rf"mine\.yaml: .*{message}"):
            command.main(["fit", "--config", str(tmp_path / "mine.yaml")])


def test_yaml_within_the_limits_is_read():
    assert parse_yaml(bomb(3))["a3"][9][9][9][9] == "x"
    depth = MAX_DEPTH - 2
    assert parse_yaml("[" * depth + "1" + "]" * depth)
    many = yaml.safe_dump({f"key{i}": i for i in range(5000)})
    assert len(parse_yaml(many)) == 5000


def test_json_that_nests(tmp_path):
    deep = "[" * 200_000 + "]" * 200_000
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(deep)
    (tmp_path / "manifest.json").write_text('{"format": ' + deep + "}")
    with pytest.raises(ValueError, match=r"manifest\.json cannot be read: .*nested too deeply"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("shape", "chunks", "message"),
    [
        ((1, 10**10), (1, 1024), "claims 4e.10 bytes for each row, more than 1.34e.08"),
        ((10**10, 3), (1024, 3), "claims 1.2e.11 bytes and stores 0"),
        ((2, 3, 10**10), (1, 1, 1024), "part_px"),
    ],
)
def test_arrays_that_are_not_there(tmp_path, shape, chunks, message):
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        for name in MOMENTA.values():
            file.create_dataset(name, shape, dtype="f4", chunks=chunks)
    assert (tmp_path / "jets.h5").stat().st_size < 10_000
    with pytest.raises(ValueError, match=rf"jets\.h5: .*{message}"):
        read_jets(tmp_path / "jets.h5", (0, 1), LAYOUT)


def test_empty_chunks_of_sensible_size_are_read(tmp_path):
    with h5py.File(tmp_path / "jets.h5", "w") as file:
        for name in MOMENTA.values():
            file.create_dataset(name, (5, 4), dtype="f4", chunks=(5, 4))[0, :2] = 2 if name == "part_energy" else 1
    with pytest.warns(UserWarning, match="no particles"):
        assert len(read_jets(tmp_path / "jets.h5", layout=LAYOUT)) == 1


def test_lists_longer_than_any_jet(tmp_path):
    """A list of one number again and again takes no space in parquet."""
    length = MAX_PARTICLES + 1
    offsets = pa.array([0, length, length + 1], pa.int32())
    values = pa.array(np.ones(length + 1, dtype=np.float32))
    columns = {name: pa.ListArray.from_arrays(offsets, values) for name in MOMENTA.values()}
    parquet.write_table(pa.table(columns), tmp_path / "two.parquet")
    parquet.write_table(pa.table(columns).slice(0, 1), tmp_path / "one.parquet")
    assert (tmp_path / "one.parquet").stat().st_size < 10_000
    with pytest.raises(ValueError, match=r"one\.parquet: column .* has 100001 values in a row group of 1 rows"):
        read_jets(tmp_path / "one.parquet", layout=LAYOUT)
    with pytest.raises(ValueError, match=r"two\.parquet: row 0 has 100001 particles, a jet or event has at most"):
        read_jets(tmp_path / "two.parquet", layout=LAYOUT)


def test_a_regular_expression_that_takes_years(tmp_path):
    path = write_root(tmp_path / ("a" * 60 + ".root"), jetclass_columns(np.array([2, 3])))
    values = yaml.safe_load(JETCLASS) | {"selection": None, "test_time_selection": None, "observers": ["sample"]}
    values["file_magic"] = {"sample": {"(a+)+$": 1}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ValueError, match=r"mine\.yaml: file_magic: the regular expressions .* take more than 2 s"):
        read_jets(path, layout=read_weaver_yaml(tmp_path / "mine.yaml"))


def test_regular_expressions_of_options_alone_can_take_years_too(monkeypatch):
    monkeypatch.setattr("zoo.limits.PATTERN_SECONDS", 0.3)
    with pytest.raises(ValueError, match=r"take more than 0\.3 s"):
        first_match(("a?" * 40 + "a" * 40 + "X",), "a" * 60)


def test_regular_expressions_that_are_quick():
    assert first_match(("QCD", r"HT(\d+)to(\d+).*\.root$"), "jets/TT_HT5to70_a.root") == r"HT(\d+)to(\d+).*\.root$"
    assert first_match((r"TT.*", "QCD"), "jets/QCD.root") == "QCD"
    assert first_match(("TT", r"W(to|To)\w+"), "jets/QCD.root") is None
