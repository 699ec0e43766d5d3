import dataclasses
import hashlib

import numpy as np
import pytest
from rich.console import Console

from zoo.cli import main
from zoo.data import datasets
from zoo.data.convert import convert
from zoo.data.info import describe_file, show_datasets, show_file
from zoo.data.store import write_store


@pytest.fixture
def describe(make_table, tmp_path):
    """Function from changes of a table of 40 jets to what is known of its file."""

    def describe(**changes):
        write_store(tmp_path / "jets.arrow", dataclasses.replace(make_table(40), **changes))
        return describe_file(tmp_path / "jets.arrow")

    return describe


def test_what_a_good_file_holds(describe, make_table):
    info, table = describe(), make_table(40)
    assert (info.format, info.dataset, info.rows) == ("jets of the zoo, Arrow", "top_tagging", 40)
    assert info.jets == {"qcd": 20, "top": 20}
    assert info.particles[0] == table.counts.min()
    assert info.particles[-1] == table.counts.max()
    energy = info.columns[0]
    assert (energy.name, energy.unit) == ("part_energy", "GeV")
    assert energy.smallest == table.particles["part_energy"].min()
    assert energy.largest == table.particles["part_energy"].max()
    assert energy.median == pytest.approx(np.median(table.particles["part_energy"]))
    assert info.oddities == ()


def test_a_converted_folder_is_described_like_its_file(make_table, tmp_path):
    write_store(tmp_path / "jets.arrow", make_table(40))
    convert([tmp_path / "jets.arrow"], tmp_path / "folder", processes=1)
    of_file, of_folder = describe_file(tmp_path / "jets.arrow"), describe_file(tmp_path / "folder")
    assert of_folder.format == "folder of the zoo, Arrow"
    assert (of_folder.rows, of_folder.jets, of_folder.particles) == (of_file.rows, of_file.jets, of_file.particles)


@pytest.mark.parametrize(("factor", "message"), [(1000, "is the file in MeV"), (1e-3, "in GeV and its layout in MeV")])
def test_a_wrong_unit_is_seen(describe, make_table, factor, message):
    momenta = {name: values * np.float32(factor) for name, values in make_table(40).particles.items()}
    (oddity,) = describe(particles=momenta).oddities
    assert message in oddity


def test_other_oddities(describe, make_table):
    table = make_table(40)
    zeros, fives = np.zeros(table.offsets[-1], dtype=np.float32), np.full(40, 5.0)
    info = describe(
        particles={**table.particles, "part_charge": zeros},
        fields={"met": fives, "event": np.arange(40)},
        label=np.zeros(40, dtype=np.int64),
        weight=np.where(np.arange(40) < 3, -1, 1).astype(np.float32),
    )
    assert info.oddities == (
        "all jets are of the class 'qcd'; a training needs files of the others too",
        "the column 'part_charge' is 0 everywhere",
        "the column 'met' is 5 everywhere",
        "3 jets have a negative weight",
    )


def test_a_class_without_jets(describe):
    metadata = {"dataset": "mine", "classes": ["b", "c", "g", *map(str, range(12))], "units": "GeV"}
    (oddity,) = describe(metadata=metadata).oddities
    assert oddity == "no jet is of the class g, 0, 1, 2, 3, 4, 5, 6, 7, 8 and 3 more"


def test_copies_are_counted(describe, make_table):
    table = make_table(40)
    single = np.flatnonzero(table.counts == 1)
    first, *others = table.offsets[single]
    for values in table.particles.values():
        values[others] = values[first]
    (oddity,) = describe(particles=table.particles).oddities
    assert oddity.startswith(f"{len(others)} jets are copies of others")


def test_the_same_particles_in_another_order_are_no_copy(describe, make_table):
    table = make_table(40)
    jet = int(np.flatnonzero(table.counts == table.counts.max())[0])
    start, stop = table.offsets[jet : jet + 2]
    other = int(np.flatnonzero((table.counts == table.counts[jet]) & (np.arange(40) != jet))[0])
    place = slice(*table.offsets[other : other + 2])
    for values in table.particles.values():
        values[place] = values[start:stop][::-1]
    assert describe(particles=table.particles).oddities == ()


def test_published_checksums_are_compared(describe, monkeypatch, tmp_path):
    describe()
    md5 = hashlib.md5((tmp_path / "jets.arrow").read_bytes()).hexdigest()
    for published, oddities in ((md5, 0), ("0" * 32, 1)):
        remote = datasets.RemoteFile("jets.arrow", "https://example.org/jets.arrow", published)
        facts = dataclasses.replace(datasets.DATASETS["top_tagging"], files=(remote,))
        monkeypatch.setitem(datasets.DATASETS, "top_tagging", facts)
        found = describe_file(tmp_path / "jets.arrow").oddities
        assert len(found) == oddities
        assert all("the MD5 sum is" in text and published in text for text in found)


def test_rejected_jets_and_the_first_rows(top_tagging_frame, write_hdf5):
    top_tagging_frame.loc[1, "PX_0"] = np.nan
    path, console = write_hdf5(top_tagging_frame), Console(record=True, width=200)
    show_file(path, max_rows=4, console=console)
    shown = console.export_text()
    assert "Top Tagging Reference, HDF5, data set top_tagging, 6 rows, of which the first 4 were read" in shown
    assert "left out: 1 not finite (part_px in 1)" in shown
    assert "jets: 2 qcd, 1 top" in shown
    with pytest.raises(ValueError, match="jets: must be at least 1, not 0"):
        describe_file(path, max_rows=0)


def test_all_data_sets_are_listed():
    console = Console(record=True, width=200)
    show_datasets(console)
    shown = console.export_text()
    for facts in datasets.DATASETS.values():
        assert facts.name in shown
        assert facts.source in shown


def test_commands(capsys, tmp_path):
    main(["data", "list"])
    assert "lhc_olympics" in capsys.readouterr().out
    main(["data", "info", "sample:top_tagging/test", "--jets", "50"])
    assert "nothing odd was found" in capsys.readouterr().out
    (tmp_path / "jets.txt").write_text("nothing")
    with pytest.raises(SystemExit, match="2"):
        main(["data", "info", str(tmp_path / "jets.txt")])
    assert "jets.txt starts with b'nothing', which is none of the known formats" in capsys.readouterr().err
