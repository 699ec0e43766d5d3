import dataclasses

import numpy as np
import pytest

from tests.data.writers import LINES
from zoo.cli import main
from zoo.data.datasets import resolve_file
from zoo.data.formats.dark_machines import LAYOUT, is_dark_machines
from zoo.data.formats.momenta import RAISED_AS_STATED
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.source import open_source


@pytest.fixture
def write(tmp_path):
    """Function that writes lines as a file."""

    def write(lines, end="\n"):
        (tmp_path / "events.csv").write_bytes("".join(line + end for line in lines).encode("latin-1"))
        return tmp_path / "events.csv"

    return write


def test_every_number_of_the_real_file_is_read(shared_data):
    """Compared with every line, taken apart one by one."""
    path = shared_data / "four_tops" / "events.csv"
    table = read_jets(path)
    assert len(table) == len(open_source(path)) == 15_843
    assert np.bincount(table.label).tolist() == [2421, 2193, 1675, 2199, 7355]
    lines = [line.split(";") for line in path.read_text().splitlines()]
    assert [table.metadata["classes"][label] for label in table.label] == [line[1] for line in lines]
    np.testing.assert_array_equal(table.fields["met"], np.float32([float(line[3]) * 1e-3 for line in lines]))
    np.testing.assert_array_equal(table.fields["met_phi"], np.float32([float(line[4]) for line in lines]))
    assert table.counts.tolist() == [len(line) - 5 for line in lines]
    objects = [values.split(",") for line in lines for values in line[5:]]
    energy, pt, eta, phi = np.array([values[1:] for values in objects], dtype=float).T
    found = {name: table.particles[f"part_{name}"].astype(float) for name in ("energy", "px", "py", "pz")}
    np.testing.assert_allclose(found["energy"], energy / 1000, rtol=1.1e-5)
    np.testing.assert_allclose(np.hypot(found["px"], found["py"]), pt / 1000, rtol=1e-6)
    np.testing.assert_allclose(np.arctan2(found["py"], found["px"]), phi, atol=1e-6)
    np.testing.assert_allclose(found["pz"] / np.hypot(found["px"], found["py"]), np.sinh(eta), rtol=1e-5, atol=1e-6)
    symbols = np.array([values[0] for values in objects])
    for flag, wanted in {"isBJet": "b", "isElectron": "e", "isMuon": "m", "isPhoton": "g", "isJet": "j"}.items():
        np.testing.assert_array_equal(table.particles[f"part_{flag}"], np.char.startswith(symbols, wanted))
    charge = np.where(np.char.endswith(symbols, "+"), 1, np.where(np.char.endswith(symbols, "-"), -1, 0))
    np.testing.assert_array_equal(table.particles["part_charge"], charge)


#: The rows of the packaged samples, as docs/four_tops.md makes them.
SAMPLES = {"train": (0, 5000), "val": (11_090, 12_090), "test": (12_674, 14_674)}


@pytest.mark.parametrize(("split", "rows"), SAMPLES.items())
def test_the_packaged_samples_are_remade_by_the_command(shared_data, tmp_path, split, rows):
    options = ["--rows", *map(str, rows), "--out", str(tmp_path / "sample.arrow")]
    main(["data", "extract", str(shared_data / "four_tops" / "events.csv"), *options])
    made, shipped = read_jets(tmp_path / "sample.arrow"), read_jets(resolve_file(f"sample:four_tops/{split}"))
    assert len(shipped) == rows[1] - rows[0]
    assert made.metadata == shipped.metadata
    assert made.particles.keys() == shipped.particles.keys()
    assert {"met", "met_phi"} == shipped.fields.keys()
    for name, values in {**made.particles, **made.fields}.items():
        np.testing.assert_array_equal(values, {**shipped.particles, **shipped.fields}[name])
    np.testing.assert_array_equal(made.label, shipped.label)
    with pytest.raises(SystemExit, match="2"):
        main(["data", "extract", "sample:four_tops/val", "--out", str(tmp_path / "sample.arrow")])


def test_other_processes_by_a_layout(write):
    """Channels of the anomaly challenge have processes of their own."""
    lines = [line.replace("ttH", "njets").replace("ttZ", "w_jets").replace("tttt", "stop_02") for line in LINES]
    with pytest.raises(ValueError, match=r"column 'process' must be one of ttH, .* not njets as in row 0"):
        read_jets(write(lines))
    layout = dataclasses.replace(
        LAYOUT,
        name="anomalies",
        classes=("background", "signal"),
        label_values={"njets": "background", "w_jets": "background", "ttW": "background", "stop_02": "signal"},
    )
    table = read_jets(write(lines), layout=layout)
    assert table.label.tolist() == [0, 1, 0, 0]
    assert table.weight.tolist() == [1, 0.5, 1, 2]
    of_file = dataclasses.replace(layout, label={"events*": "background"}, label_values=None)
    assert read_jets(write(lines), layout=of_file).label.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("end", ["\n", "\r\n", ";\n"])
def test_ends_of_lines(write, end):
    table = read_jets(write(LINES, end))
    assert table.counts.tolist() == [2, 1, 3, 1]
    assert table.label.tolist() == [0, 4, 3, 1]
    assert table.weight.tolist() == [1, 0.5, 1, 2]
    assert table.particles["part_charge"].tolist() == [0, 0, 1, -1, 1, 0, -1]
    np.testing.assert_allclose(table.fields["met"], [239.0737, 1, 0, 1], rtol=1e-6)
    assert table.metadata["units"] == "GeV"


def test_blank_lines_at_the_end(write):
    assert len(read_jets(write([*LINES, "", ""]))) == 4


@pytest.mark.parametrize("rows", [(0, 4), (1, 3), (3, 4)])
def test_row_ranges_and_chunks(write, monkeypatch, rows):
    path = write(LINES)
    whole = read_jets(path).slice(*rows)
    monkeypatch.setattr("zoo.data.source.CHUNK_JETS", 1)
    part = read_jets(path, rows)
    for name, values in whole.particles.items():
        np.testing.assert_array_equal(part.particles[name], values)
    assert part.source_rows.tolist() == list(range(*rows))


def test_rounding_makes_no_particle_too_fast(write):
    line = "1;ttH;1;0;0;m-,20000,20000.9,0,0"
    table, report = open_source(write([line])).read()
    assert table.particles["part_energy"][0] == table.particles["part_px"][0] == np.float32(20.0009)
    assert dict(report.mended) == {RAISED_AS_STATED: 1}
    with pytest.raises(ValueError, match="1 momentum above energy"):
        read_jets(write([line.replace("20000.9", "20003")]))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("112430.6", "nan", "not finite"),
        ("-2.85950", "inf", "not finite"),
        ("112430.6", "-112430.6", "negative energy"),
        ("81538.2", "-81538.2", "negative energy"),
        ("81538.2", "281538.2", "momentum above energy"),
        (";e+,112430.6,81538.2,-0.84511,-2.85950", "", "no particles"),
        (";1000;", ";nan;", "not finite"),
    ],
)
def test_bad_events_are_counted(write, old, new, reason):
    assert old in LINES[1]
    with pytest.warns(RejectedJetsWarning, match=f"left out 1 of 4 jets: 1 {reason}"):
        table = read_jets(write([LINES[0], LINES[1].replace(old, new), *LINES[2:]]))
    assert table.source_rows.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ttZ", "ttz", "column 'process' must be one of ttH, ttW, ttWW, ttZ, tttt, not ttz as in row 2; correct"),
        ("m+", "mu+", r"line 3: object of object 2 is 'mu\+'; did you mean 'm\+'"),
        ("60000", "6e4x", r"line 3: the energy of object 2 must be a number, not '6e4x'; correct"),
        ("60000", "", r"line 3: the energy of object 2 must be a number, not ''"),
        (
            "60000,",
            "",
            r"line 3: must have object, energy, pt, eta, phi of object 2, not \['m\+', '30000', '1.31', '1'\]",
        ),
        ("m+,60000,30000,1.31,1;", ";", r"line 3: must have object, .* of object 2, not \[''\]"),
        ("60000,", "60000,6,", r"line 3: must have object, energy, pt, eta, phi of object 2"),
        ("9;ttZ;1;0;0", "9;ttZ;1;0", r"line 3: the met_phi must be a number, not 'm-,27914.3"),
        ("9;ttZ;1;0;0;", "9;ttZ;one;0;0;", r"line 3: the weight must be a number, not 'one'"),
        ("g,20000,20000,0,0", "g,20000,20", r"line 3: must have object, energy, pt, eta, phi of object 3"),
        (";1;0;0;", ";1;-5.5;0;", r"line 3: the met must be 0 or more, not -5\.5; correct the line"),
        ("9;ttZ;1;0;0;m-", "9,ttZ,1,0,0,m-", r"line 3: must have event, process, weight, met, met_phi, not \['9,"),
        ("9;ttZ;1;0;0;", "9\tttZ\t1\t0\t0\t", r"line 3: must have event, process, weight, met, met_phi, not"),
        ("m-,27914.3,22684.4", "m-;27914.3;22684.4", r"line 3: must have object, .* of object 1, not \['m-'\]"),
        ("m-,27914.3", "m- 27914.3", r"line 3: must have object, energy, pt, eta, phi of object 1, not \['m- 27914"),
        ("27914.3", "27914,3", r"line 3: must have object, energy, pt, eta, phi of object 1"),
        ("27914.3", "2791\xe9.3", r"line 3: the energy of object 1 must be a number"),
        ("27914.3", "2791\x004.3", r"line 3: the energy of object 1 must be a number"),
        ("27914.3", '"27914.3"', r"line 3: the energy of object 1 must be a number, not '\"27914.3\"'"),
    ],
)
def test_wrong_lines_are_named(write, old, new, message):
    assert old in LINES[2]
    with pytest.raises(ValueError, match=f"events.csv: {message}"):
        read_jets(write([*LINES[:2], LINES[2].replace(old, new), LINES[3]]))


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ("event;process;weight;met;met_phi", "line 1: the weight must be a number, not 'weight'"),
        (LINES[0].replace(";j,", ";j;"), "line 1: must have object, energy, pt, eta, phi of object 1"),
        (LINES[0][:-10], "line 1: must have object, energy, pt, eta, phi of object 2"),
    ],
)
def test_a_wrong_first_line_is_named(write, first, message):
    with pytest.raises(ValueError, match=f"events.csv: {message}"):
        read_jets(write([first, *LINES[1:]]))


def test_rows_of_a_range_are_named_by_their_line(write):
    with pytest.raises(ValueError, match=r"line 4: object of object 1 is 'x-'"):
        read_jets(write([*LINES[:3], LINES[3].replace("e-", "x-")]), rows=(2, 4))


@pytest.mark.parametrize("blank", ["", "   ", "9"])
def test_a_line_without_an_event(write, blank):
    with pytest.raises(ValueError, match=r"events.csv: line 3: must have event, process, weight, met, met_phi, not"):
        read_jets(write([*LINES[:2], blank, LINES[3]]))


def test_a_file_cut_inside_a_number_is_found_by_its_fields(write):
    path = write(LINES)
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b",")])
    with pytest.raises(ValueError, match="line 4: must have object, energy, pt, eta, phi of object 1"):
        read_jets(path)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (LINES[0].encode(), True),
        (LINES[0].encode()[:90], True),
        (b"\n".join(line.encode() for line in LINES), True),
        (b"1;ttH;1;0;0", True),
        (b"1;ttH;1;0;0;\n", True),
        (b"event;process;weight;met;met_phi\n", False),
        (b"E_0,PX_0\n1,1\n", False),
        (b"a;b;1;2;3;j,1,2\n", False),
        (b"event;process;weight;met;met_phi\n" + LINES[0].encode(), True),
        (b"", False),
    ],
)
def test_events_are_told_by_a_line(start, expected):
    assert is_dark_machines(start) is expected
