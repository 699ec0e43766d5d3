import dataclasses
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from zoo.data.batch import gather
from zoo.data.readers import read_jets
from zoo.data.store import JetTable, StoreFile, bad_jets, open_store, write_store
from zoo.files import atomic_write

COMPRESSIONS = [None, "lz4", "zstd"]


@pytest.fixture
def table(make_table) -> JetTable:
    """Jets with a further particle column and a further jet column."""
    table = make_table(30)
    charge = np.arange(table.offsets[-1], dtype=np.int32) % 3 - 1
    d0 = np.sqrt(np.arange(table.offsets[-1], dtype=np.float32))
    mass = np.linspace(0, 200, 30)
    return dataclasses.replace(
        table,
        particles={**table.particles, "part_charge": charge, "part_d0val": d0},
        fields={"jet_sdmass": mass},
        metadata={**table.metadata, "seed": 7},
    )


def assert_same(one: JetTable, two: JetTable) -> None:
    for group_one, group_two in ((one.particles, two.particles), (one.fields, two.fields)):
        assert group_one.keys() == group_two.keys()
        for name in group_one:
            assert group_one[name].dtype == group_two[name].dtype
            np.testing.assert_array_equal(group_one[name], group_two[name])
    for name in ("offsets", "label", "weight", "source_rows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.metadata == two.metadata


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_written_is_read(table, tmp_path, compression):
    write_store(tmp_path / "jets.arrow", table, compression=compression)
    assert_same(open_store(tmp_path / "jets.arrow"), table)
    assert len(StoreFile(tmp_path / "jets.arrow")) == 30


def test_massive_particles_survive_packing(table, tmp_path):
    energy = table.particles["part_energy"]
    energy *= np.linspace(1, 1e6, len(energy), dtype=np.float32)
    write_store(tmp_path / "jets.arrow", table, compression="zstd")
    assert_same(open_store(tmp_path / "jets.arrow"), table)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_same_table_same_bytes(table, tmp_path, compression):
    one, two = tmp_path / "one.arrow", tmp_path / "two.arrow"
    write_store(one, table, compression=compression)
    reordered = dataclasses.replace(table, metadata=dict(reversed(table.metadata.items())))
    write_store(two, reordered, compression=compression)
    assert one.read_bytes() == two.read_bytes()


def test_uncompressed_columns_stay_on_the_disk(table, tmp_path):
    path = tmp_path / "jets.arrow"
    write_store(path, table)
    opened = open_store(path)
    address = opened.particles["part_px"].ctypes.data
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if str(path) in line]
    bounds = [[int(end, 16) for end in fields[0].split("-")] for fields in maps]
    assert any(first <= address < last for first, last in bounds)


def test_any_arrow_reader_can_read_the_columns(table, tmp_path):
    write_store(tmp_path / "jets.arrow", table)
    particles = pa.ipc.open_file(tmp_path / "jets.arrow").read_all()["particles"].to_pylist()
    assert [len(jet) for jet in particles] == table.counts.tolist()
    assert particles[1][0]["part_px"] == table.particles["part_px"][table.offsets[1]]


def test_packing_makes_real_jets_a_third_smaller(shared_data, tmp_path):
    table = read_jets(shared_data / "top_tagging" / "train_100k.h5", rows=(0, 2000))
    write_store(tmp_path / "packed.arrow", table, compression="zstd")
    assert (tmp_path / "packed.arrow").stat().st_size < 0.67 * 16 * table.offsets[-1]
    assert_same(open_store(tmp_path / "packed.arrow"), dataclasses.replace(table, source_rows=None))


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_flipped_bit_is_never_read_silently(table, tmp_path, compression):
    path = tmp_path / "jets.arrow"
    write_store(path, table, compression=compression)
    good = path.read_bytes()
    refused = 0
    for position in np.random.default_rng(0).choice(len(good), 400, replace=False):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(position % 8)
        path.write_bytes(damaged)
        try:
            opened = open_store(path)
        except ValueError:
            refused += 1
        else:  # padding, and parts of Arrow's headers that it keeps twice
            assert_same(opened, table)
    assert refused > 200


@pytest.mark.parametrize("column", ["part_px", "part_charge", "part_energy"])
def test_the_error_names_the_damaged_column(table, tmp_path, column):
    path = tmp_path / "jets.arrow"
    write_store(path, table)
    values = table.particles[column].tobytes()
    damaged = path.read_bytes().replace(values, values[:-1] + bytes([values[-1] ^ 1]))
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"jets.arrow.*'particles.{column}' does not match its checksum.*again"):
        open_store(path)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("fraction", [0.0005, 0.01, 0.5, 0.99, 0.9999])
def test_truncated_file(table, tmp_path, fraction, compression):
    path = tmp_path / "jets.arrow"
    write_store(path, table, compression=compression)
    path.write_bytes(path.read_bytes()[: int(fraction * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"jets.arrow"):
        open_store(path)


def test_other_arrow_files_and_versions_are_refused(table, tmp_path):
    path = tmp_path / "jets.arrow"
    with pa.ipc.new_file(path, pa.schema([("x", pa.int64())])) as writer:
        writer.write_batch(pa.record_batch({"x": [1]}))
    with pytest.raises(ValueError, match="metadata 'zoo'"):
        open_store(path)
    path.write_text("not Arrow at all")
    with pytest.raises(ValueError, match="read_jets"):
        open_store(path)
    with pytest.raises(FileNotFoundError):
        open_store(tmp_path / "absent.arrow")


def test_a_newer_version_is_refused(table, tmp_path):
    path = tmp_path / "jets.arrow"
    write_store(path, table)
    file = pa.ipc.open_file(path)
    header = json.loads(file.schema.metadata[b"zoo"])
    header["version"] += 1
    text = json.dumps(header)
    metadata = {"zoo": text, "zoo_crc32": str(zlib.crc32(text.encode()))}
    batch = file.get_batch(0).replace_schema_metadata(metadata)
    with pa.ipc.new_file(tmp_path / "new.arrow", batch.schema) as writer:
        writer.write_batch(batch)
    with pytest.raises(ValueError, match="version 2, this zoo reads zoo-jets version 1"):
        open_store(tmp_path / "new.arrow")


BAD_PARTICLES = {
    "not finite": ("part_px", np.nan),
    "negative energy": ("part_energy", -1.0),
    "momentum above energy": ("part_pz", 1e4),
}


@pytest.mark.parametrize("reason", BAD_PARTICLES)
def test_unphysical_jets_are_not_written(table, tmp_path, reason):
    column, value = BAD_PARTICLES[reason]
    table.particles[column][table.offsets[3]] = value
    with pytest.raises(ValueError, match=f"jet 3 of the table: {reason}"):
        write_store(tmp_path / "jets.arrow", table)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("group", "column"), [("particles", "part_d0val"), ("fields", "jet_sdmass")])
def test_further_columns_must_be_finite_too(table, tmp_path, group, column):
    getattr(table, group)[column][-1] = np.inf
    with pytest.raises(ValueError, match="jet 29 of the table: not finite"):
        write_store(tmp_path / "jets.arrow", table)


def test_weights_must_be_finite(table, tmp_path):
    table.weight[4] = np.nan
    with pytest.raises(ValueError, match="jet 4 of the table: not finite"):
        write_store(tmp_path / "jets.arrow", table)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_columns_may_be_strided(table, tmp_path, compression):
    columns = np.stack([table.particles[name] for name in ("part_energy", "part_px", "part_py", "part_pz")], axis=1)
    strided = dict(zip(("part_energy", "part_px", "part_py", "part_pz"), columns.T, strict=True))
    write_store(tmp_path / "jets.arrow", dataclasses.replace(table, particles=strided), compression=compression)
    np.testing.assert_array_equal(open_store(tmp_path / "jets.arrow").particles["part_py"], columns[:, 2])


def test_bad_jets_counts_each_jet_once(table):
    table.particles["part_energy"][table.offsets[2]] = np.inf
    table.particles["part_energy"][table.offsets[3] - 1] = -1.0
    table.particles["part_energy"][table.offsets[5]] = -1.0
    found = {reason: np.flatnonzero(mask).tolist() for reason, mask in bad_jets(table).items()}
    assert found == {"not finite": [2], "negative energy": [5], "no particles": [], "momentum above energy": []}


def test_rounding_to_float32_is_no_momentum_above_energy(make_table):
    table = make_table(5000)
    momentum = np.sqrt(sum(table.particles[name].astype(float) ** 2 for name in ("part_px", "part_py", "part_pz")))
    assert (momentum > table.particles["part_energy"]).any()
    assert not any(mask.any() for mask in bad_jets(table).values())


def test_jets_without_particles_are_bad(table):
    empty = dataclasses.replace(
        table,
        offsets=np.append(table.offsets, table.offsets[-1]),
        label=np.append(table.label, 0),
        weight=np.append(table.weight, np.float32(1)),
        fields={},
        source_rows=None,
    )
    assert np.flatnonzero(bad_jets(empty)["no particles"]).tolist() == [30]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_half_way() -> None:
        with atomic_write(path) as file:
            file.write(b"half of the n")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail_half_way()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.zeros(30)}, "'label' must hold int64, not float64"),
        ({"weight": np.ones(29, dtype=np.float32)}, r"'weight' must have shape \(30,\), not \(29,\)"),
        ({"fields": {"name": np.array(["x"] * 30)}}, "'fields.name' must hold numbers"),
        ({"offsets": np.array([0, 5, 3])}, "never fall"),
        ({"offsets": np.array([0.0, 5.0])}, "offsets must be int64"),
    ],
)
def test_tables_that_do_not_fit_together(table, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(table, **changes)


def test_particle_columns_are_required_and_float32(table):
    with pytest.raises(ValueError, match="'part_pz' is missing"):
        dataclasses.replace(table, particles={k: v for k, v in table.particles.items() if k != "part_pz"})
    with pytest.raises(ValueError, match="part_px' must hold float32, not float64"):
        dataclasses.replace(table, particles={**table.particles, "part_px": table.particles["part_px"].astype(float)})


def test_slice_keeps_jets_and_source_rows(table):
    part = table.slice(4, 9)
    assert part.source_rows.tolist() == [4, 5, 6, 7, 8]
    np.testing.assert_array_equal(part.counts, table.counts[4:9])
    np.testing.assert_array_equal(
        part.particles["part_py"], table.particles["part_py"][table.offsets[4] : table.offsets[9]]
    )
    assert part.particles["part_py"].base is not None


@pytest.mark.parametrize("read", [lambda table: table.take(np.arange(5)), lambda table: gather(table, np.arange(5))])
def test_a_mapped_file_that_is_cut_is_told_by_name(table, tmp_path, read):
    """Where the pages are gone, reading them would end this process by SIGBUS."""
    path = tmp_path / "jets.arrow"
    write_store(path, table)
    opened = open_store(path).slice(3, 20)
    os.truncate(path, 100)
    with pytest.raises(ValueError, match=r"jets.arrow: was cut from \d+ to 100 bytes while it was read"):
        read(opened)
    path.unlink()
    write_store(path, table)
    opened = open_store(path)
    path.unlink()  # the pages stay
    read(opened)
