"""What may go wrong with a file of each format, and what has to come of it.

Files are written in the form in which their format has checksums. ROOT has none for what does not compress, so numbers
are chosen that do; HDF5 has some for data with a filter, and for headers if they are of the newest version. Text has
none at all: of a file of DarkMachines, bits are flipped in separators, and it is cut where fields are missing.
"""

import dataclasses
import json
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awkward as ak
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa

from tests.data import writers
from zoo.data.convert import convert
from zoo.data.datasets import JET_COLUMNS
from zoo.data.store import JetTable, write_store

JETS = 24

#: Row that the changes of content damage.
ROW = 3

#: Files by their names in a folder; the only one has no name.
Files = dict[str, bytes]


@dataclasses.dataclass(frozen=True)
class Format:
    """How a format is written and what may go wrong with it.

    Args:
        name: name of the file.
        content: makes the content of an undamaged file.
        write: writes a content to a path.
        wrong: changes of the content, each with what has to come of it: what the error says, the reason for which row
            `ROW` is left out, or the number of particles of that row, which is then read as it is.
        flippable: the bytes that are flipped; None: any.
        can_end: whether this may be a whole file, so that nothing tells that it was truncated.
    """

    name: str
    content: Callable[[], Any]
    write: Callable[[Path, Any], object]
    wrong: dict[str, tuple[Callable[[Any], Any], str | int]]
    flippable: bytes | None = None
    can_end: Callable[[bytes], bool] = lambda content: False


def write_files(path: Path, files: Files) -> None:
    """Write files to a folder, or the only one to a path."""
    if path.is_dir():
        shutil.rmtree(path)
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def read_files(path: Path) -> Files:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {"" if file == path else file.name: file.read_bytes() for file in files}


# --- JetClass -------------------------------------------------------------------------------------------------------


def jetclass() -> dict:
    """Numbers that compress, as ROOT stores what does not without a checksum."""
    columns = writers.jetclass_columns(1 + np.arange(JETS) % 5)
    counts = ak.num(columns["part_px"])
    momenta = np.resize([[13, 12, 3, 4], [7, 2, 3, 6], [9, -8, 1, 4], [3, 1, 2, 2]], (int(ak.sum(counts)), 4))
    names = ("part_energy", "part_px", "part_py", "part_pz", "part_d0val")
    particles = zip(names, (*momenta.T, momenta[:, 1] / 4), strict=True)
    return {
        **{name: ak.unflatten(np.float32(values), counts) for name, values in particles},
        "part_charge": columns["part_charge"],
        **{name: np.resize(np.float32([1, 2.5, 2]) + i, JETS) for i, name in enumerate(JET_COLUMNS)},
        "jet_label": np.arange(JETS, dtype=np.int32),
    }


def _lists(columns: dict, change: Callable[[list], list]) -> dict:
    """The columns with other particles in row `ROW`."""
    changed = {}
    for name, values in columns.items():
        if isinstance(values, ak.Array):
            lists = ak.to_list(values)
            lists[ROW] = change(lists[ROW])
            values = ak.values_astype(ak.Array(lists), ak.to_numpy(ak.flatten(values)).dtype)
        changed[name] = values
    return changed


def _shorter(columns: dict, name: str) -> dict:
    lists = ak.to_list(columns[name])
    lists[ROW] = lists[ROW][:-1]
    return {**columns, name: ak.values_astype(ak.Array(lists), np.float32)}


def _without(mapping: dict, *names: str) -> dict:
    return {name: values for name, values in mapping.items() if name not in names}


def _renamed(mapping: dict, old: str, new: str) -> dict:
    return {new if name == old else name: values for name, values in mapping.items()}


def _row(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[ROW] = value
    return values


JETCLASS_WRONG = {
    "no part_px": (lambda c: _without(c, "part_px"), "column 'part_px' is missing"),
    "no part_energy": (lambda c: _without(c, "part_energy"), "column 'part_energy' is missing"),
    "no jet_eta": (lambda c: _without(c, "jet_eta"), "column 'jet_eta' is missing"),
    "no label": (lambda c: _without(c, "jet_label"), "no column of labels"),
    "part_py renamed": (lambda c: _renamed(c, "part_py", "part_Py"), "'part_py' is missing; did you mean 'part_Py'"),
    "part_d0val renamed": (lambda c: _renamed(c, "part_d0val", "part_d0vsl"), "did you mean 'part_d0vsl'"),
    "label renamed": (lambda c: _renamed(c, "jet_label", "jet_lable"), "did you mean 'jet_lable'"),
    "part_pz integer": (lambda c: {**c, "part_pz": ak.values_astype(c["part_pz"], np.int32)}, "'part_pz' must hold"),
    "part_px flat": (lambda c: {**c, "part_px": np.ones(JETS, np.float32)}, "column 'part_px' must hold lists"),
    "jet_pt lists": (lambda c: {**c, "jet_pt": c["part_px"]}, "column 'jet_pt' must hold"),
    "label no whole number": (lambda c: {**c, "jet_label": c["jet_label"] + 0.5}, "'jet_label' must be 0 to 187, not"),
    "label too large": (lambda c: {**c, "jet_label": _row(c["jet_label"], 188)}, f"not 188 as in row {ROW}"),
    "label negative": (lambda c: {**c, "jet_label": _row(c["jet_label"], -1)}, f"not -1 as in row {ROW}"),
    "lengths differ": (lambda c: _shorter(c, "part_pz"), f"column 'part_pz' has 3 particles in row {ROW}"),
    "particle without flag": (lambda c: _shorter(c, "part_d0val"), "column 'part_d0val' has 3 particles"),
    "nan": (lambda c: writers.changed(c, "part_px", ROW, 1, np.nan), "not finite"),
    "infinite": (lambda c: writers.changed(c, "part_d0val", ROW, 1, np.inf), "not finite"),
    "infinite jet": (lambda c: {**c, "jet_pt": _row(c["jet_pt"], -np.inf)}, "not finite"),
    "negative energy": (lambda c: writers.changed(c, "part_energy", ROW, 0, -2.0), "negative energy"),
    "too fast": (lambda c: writers.changed(c, "part_px", ROW, 0, 1e4), "momentum above energy"),
    "no particles": (lambda c: _lists(c, lambda values: []), "no particles"),
    "ten thousand particles": (lambda c: _lists(c, lambda values: values[:1] * 10_000), 10_000),
}

# --- padded formats -------------------------------------------------------------------------------------------------


def seal(path: Path) -> None:
    """Write an HDF5 file again in the form in which all of it has checksums."""
    old = path.rename(path.with_suffix(".old"))
    with h5py.File(old) as source, h5py.File(path, "w", libver="latest") as target:

        def copy(name: str, member: h5py.Group | h5py.Dataset) -> None:
            if isinstance(member, h5py.Group):
                made = target.create_group(name)
            else:
                made = target.create_dataset(name, data=member[()], compression="gzip", fletcher32=True)
            for key, value in member.attrs.items():
                made.attrs[key] = value

        source.visititems(copy)
    old.unlink()


def write_top_tagging(path: Path, frame: pd.DataFrame) -> None:
    frame.to_hdf(path, key="table", format="table", mode="w")
    seal(path)


def _cell(frame: pd.DataFrame, column: str, value: float) -> pd.DataFrame:
    frame = frame.copy()
    frame.loc[ROW, column] = value
    return frame


def _momenta(frame: pd.DataFrame) -> list[str]:
    return [name for name in frame if name[-2] == "_"]


def _widened(frame: pd.DataFrame, particles: int) -> pd.DataFrame:
    names = [f"{component}_{i}" for i in range(particles) for component in ("E", "PX", "PY", "PZ")]
    momenta = np.tile(frame[["E_0", "PX_0", "PY_0", "PZ_0"]].to_numpy(), particles)
    return pd.concat([pd.DataFrame(momenta, columns=names), frame.drop(columns=_momenta(frame))], axis=1)


TOP_TAGGING_WRONG = {
    "no PX_2": (lambda f: f.drop(columns="PX_2"), "column 'PX_2' is missing"),
    "no E_0": (lambda f: f.drop(columns="E_0"), "column 'E_0' is missing"),
    "no momenta": (lambda f: f.drop(columns=_momenta(f)), "column 'E_0' is missing"),
    "no label": (lambda f: f.drop(columns="is_signal_new"), "column 'is_signal_new' is missing"),
    "PY_1 renamed": (lambda f: f.rename(columns={"PY_1": "Py_1"}), "'PY_1' is missing; did you mean 'Py_1'"),
    "label renamed": (lambda f: f.rename(columns={"is_signal_new": "is_signal"}), "did you mean 'is_signal'"),
    "PZ_0 integer": (lambda f: f.astype({"PZ_0": int}), "column 'PZ_0' must hold floating-point numbers, not int64"),
    "label float": (lambda f: f.astype({"is_signal_new": float}), "column 'is_signal_new' must hold integers"),
    "label 2": (lambda f: _cell(f, "is_signal_new", 2), f"'is_signal_new' must be 0 to 1, not 2 as in row {ROW}"),
    "label -1": (lambda f: _cell(f, "is_signal_new", -1), f"not -1 as in row {ROW}"),
    "201 particles": (lambda f: f.rename(columns={"E_3": "E_200"}), "column 'E_200' is one particle too many"),
    "ten times the particles": (lambda f: _widened(f, 300), "column 'E_200' is one particle too many"),
    "nan": (lambda f: _cell(f, "PX_1", np.nan), "not finite"),
    "infinite": (lambda f: _cell(f, "PZ_0", np.inf), "not finite"),
    "negative energy": (lambda f: _cell(f, "E_0", -5), "negative energy"),
    "too fast": (lambda f: _cell(f, "PY_2", 1e4), "momentum above energy"),
    "no particles": (lambda f: _cell(f, _momenta(f), 0), "no particles"),
}


def _put(arrays: dict, name: str, place: Any, value: Any) -> dict:
    values = arrays[name].copy()
    values[place] = value
    return {**arrays, name: values}


def _padded(arrays: dict, name: str, particles: int) -> dict:
    """The array with so many copies of the first particle of each row."""
    return {**arrays, name: np.repeat(arrays[name][:, :1], particles, axis=1)}


def quark_gluon() -> dict:
    arrays = writers.quark_gluon_arrays()
    return {"X": np.tile(arrays["X"], (JETS // 3, 1, 1)), "y": np.tile(arrays["y"], JETS // 3)}


QUARK_GLUON_WRONG = {
    "no X": (lambda a: _without(a, "X"), "array 'X' is missing"),
    "no y": (lambda a: _without(a, "y"), "array 'y' is missing"),
    "X renamed": (lambda a: _renamed(a, "X", "x"), "array 'X' is missing, found x.npy"),
    "y renamed": (lambda a: _renamed(a, "y", "Y"), "array 'y' is missing, found X.npy, Y.npy"),
    "X text": (lambda a: {**a, "X": a["X"].astype("U8")}, "array 'X' must hold numbers"),
    "X objects": (lambda a: {**a, "X": a["X"].astype(object)}, "array 'X' must hold numbers"),
    "y objects": (lambda a: {**a, "y": a["y"].astype(object)}, "array 'y' must hold numbers"),
    "three numbers a particle": (lambda a: {**a, "X": a["X"][..., :3]}, r"arrays 'X' and 'y' must be"),
    "flat particles": (lambda a: {**a, "X": a["X"][:, 0]}, r"arrays 'X' and 'y' must be"),
    "fewer labels": (lambda a: {**a, "y": a["y"][1:]}, r"arrays 'X' and 'y' must be .* and \(23,\)"),
    "label 2": (lambda a: _put(a, "y", ROW, 2), f"column 'y' must be 0 to 1, not 2 as in row {ROW}"),
    "label 0.5": (lambda a: _put(a, "y", ROW, 0.5), f"'y' of row {ROW} is 0.5"),
    "label nan": (lambda a: _put(a, "y", ROW, np.nan), f"'y' of row {ROW} is nan"),
    "unknown particle": (lambda a: _put(a, "X", (ROW, 0, 3), 17), f"'X' has a particle of the pdg id 17 in row {ROW}"),
    "kind nan": (lambda a: _put(a, "X", (ROW, 0, 3), np.nan), f"'X' has a particle of the pdg id nan in row {ROW}"),
    "nan": (lambda a: _put(a, "X", (ROW, 0, 0), np.nan), "not finite"),
    "infinite": (lambda a: _put(a, "X", (ROW, 0, 1), np.inf), "not finite"),
    "large rapidity": (lambda a: _put(a, "X", (ROW, 0, 1), 1e4), "not finite"),
    "negative energy": (lambda a: _put(a, "X", (ROW, 0, 0), -5), "negative energy"),
    "no particles": (lambda a: _put(a, "X", ROW, 0), "no particles"),
    "no jets": (lambda a: {name: values[:0] for name, values in a.items()}, "holds no row"),
}


def write_hdf5(path: Path, arrays: dict) -> None:
    writers.write_arrays(path, arrays)
    seal(path)


def _names(arrays: dict, member: str, old: str, new: str) -> dict:
    names = [new if name == old.encode() else name.decode() for name in arrays[member]]
    return {**arrays, member: np.array(names, dtype="S")}


_PARTICLES, _PARTICLE_NAMES = "jetConstituentList", "particleFeatureNames"

HLS4ML_WRONG = {
    "no particles at all": (lambda a: _without(a, _PARTICLES), "which is none of the known formats"),
    "no jets at all": (lambda a: _without(a, "jets"), "data set 'jets' with 2 axes is missing"),
    "no names": (lambda a: _without(a, _PARTICLE_NAMES), f"'{_PARTICLE_NAMES}' with 1 axes is missing"),
    "no names of jets": (lambda a: _without(a, "jetFeatureNames"), "'jetFeatureNames' with 1 axes is missing"),
    "py renamed": (lambda a: _names(a, _PARTICLE_NAMES, "j1_py", "j1_Py"), "j1_py' is missing; did you mean .*j1_Py'"),
    "label renamed": (lambda a: _names(a, "jetFeatureNames", "j_t", "top"), "column 'jets/j_t' is missing"),
    "names twice": (lambda a: _names(a, _PARTICLE_NAMES, "j1_pt", "j1_px"), "has the name 'j1_px' twice"),
    "few names": (lambda a: {**a, _PARTICLE_NAMES: a[_PARTICLE_NAMES][:5]}, "has 5 names for 16 columns"),
    "names of numbers": (lambda a: {**a, _PARTICLE_NAMES: np.arange(16)}, f"'{_PARTICLE_NAMES}' must hold names"),
    "flat particles": (lambda a: {**a, _PARTICLES: a[_PARTICLES][:, 0]}, f"'{_PARTICLES}' with 3 axes is missing"),
    "integers": (lambda a: {**a, _PARTICLES: a[_PARTICLES].astype(int)}, "must hold lists of floating-point numbers"),
    "fewer jets": (lambda a: {**a, "jets": a["jets"][1:]}, "'/jets' has 23 rows, '/jetConstituentList' has 24"),
    "no class": (lambda a: _put(a, "jets", (ROW, slice(5, None)), 0), f"row {ROW} has the labels none"),
    "two classes": (lambda a: _put(a, "jets", (ROW, [5, 6]), 1), f"row {ROW} has the labels"),
    "label nan": (lambda a: _put(a, "jets", (ROW, 5), np.nan), "column 'jets/j_g' must be 0 or 1, not nan"),
    "151 particles": (lambda a: _padded(a, _PARTICLES, 151), "row 0 has 151 particles, hls4ml has at most 150"),
    "ten thousand particles": (lambda a: _padded(a, _PARTICLES, 10_000), "row 0 has 10000 particles"),
    "nan": (lambda a: _put(a, _PARTICLES, (ROW, 1, 0), np.nan), "not finite"),
    "infinite": (lambda a: _put(a, "jets", (ROW, 2), np.inf), "not finite"),
    "negative energy": (lambda a: _put(a, _PARTICLES, (ROW, 1, 3), -1), "negative energy"),
    "too fast": (lambda a: _put(a, _PARTICLES, (ROW, 1, 2), 1e4), "momentum above energy"),
    "no particles": (lambda a: _put(a, _PARTICLES, ROW, 0), "no particles"),
}

_FEATURES = "particle_features"

JETNET_WRONG = {
    "no particles at all": (lambda a: _without(a, _FEATURES), "which is none of the known formats"),
    "no jets at all": (lambda a: _without(a, "jet_features"), "array 'jet_features' .* is missing"),
    "jets renamed": (lambda a: _renamed(a, "jet_features", "jets"), "array 'jet_features' .* is missing"),
    "integers": (lambda a: {**a, _FEATURES: a[_FEATURES].astype(int)}, f"'{_FEATURES}' .* is int64"),
    "three numbers a particle": (lambda a: {**a, _FEATURES: a[_FEATURES][..., :3]}, f"'{_FEATURES}' .* of shape"),
    "three numbers a jet": (lambda a: {**a, "jet_features": a["jet_features"][:, :3]}, "'jet_features' .* of shape"),
    "fewer jets": (lambda a: {**a, "jet_features": a["jet_features"][1:]}, "data set '/jet_features' has 23 rows"),
    "ten thousand particles": (lambda a: _padded(a, _FEATURES, 10_000), "row 0 has 10000 particles"),
    "mask nan": (lambda a: _put(a, _FEATURES, (ROW, 0, 3), np.nan), f"mask' is not a number in row {ROW}"),
    "nan": (lambda a: _put(a, _FEATURES, (ROW, 0, 0), np.nan), "not finite"),
    "infinite": (lambda a: _put(a, _FEATURES, (ROW, 0, 1), np.inf), "not finite"),
    "infinite jet": (lambda a: _put(a, "jet_features", (ROW, 0), np.inf), "not finite"),
    "negative energy": (lambda a: _put(a, _FEATURES, (ROW, 0, 2), -0.1), "negative energy"),
    "no particles": (lambda a: _put(a, _FEATURES, (ROW, slice(None), 3), 0), "no particles"),
}


def write_lhc_olympics(path: Path, rows: np.ndarray | pd.DataFrame) -> None:
    pd.DataFrame(rows).to_hdf(path, key="df", mode="w")
    seal(path)


def _number(rows: np.ndarray, place: Any, value: float) -> np.ndarray:
    rows = rows.copy()
    rows[ROW, place] = value
    return rows


LHC_OLYMPICS_WRONG = {
    "no label": (lambda r: r[:, :-1], "rows of 21 numbers have no label"),
    "half a particle": (lambda r: r[:, 1:], "not 21 numbers|rows of 21 numbers"),
    "a third of a particle": (lambda r: r[:, 2:], "not 20 numbers"),
    "column missing": (lambda r: pd.DataFrame(r).drop(columns=5), "of 21 numbers|are not 0, 1, 2"),
    "column renamed": (lambda r: pd.DataFrame(r).rename(columns={5: 99}), "are not 0, 1, 2"),
    "ten thousand particles": (lambda r: np.column_stack([np.tile(r[:, :3], 10_000), r[:, -1]]), "not 30001 numbers"),
    "label 2": (lambda r: _number(r, -1, 2), f"column 'label' must be 0 to 1, not 2 as in row {ROW}"),
    "label -1": (lambda r: _number(r, -1, -1), f"not -1 as in row {ROW}"),
    "label 0.5": (lambda r: _number(r, -1, 0.5), f"label of row {ROW} is 0.5"),
    "label nan": (lambda r: _number(r, -1, np.nan), f"label of row {ROW} is nan"),
    "label infinite": (lambda r: _number(r, -1, np.inf), f"label of row {ROW} is inf|not .* as in row {ROW}"),
    "nan": (lambda r: _number(r, 0, np.nan), "not finite"),
    "infinite": (lambda r: _number(r, 1, np.inf), "not finite"),
    "large rapidity": (lambda r: _number(r, 1, 1e4), "not finite"),
    "negative energy": (lambda r: _number(r, 0, -4), "negative energy"),
    "no particles": (lambda r: _number(r, slice(21), 0), "no particles"),
    "no events": (lambda r: r[:0], "holds no row|events.h5"),
}

# --- text -----------------------------------------------------------------------------------------------------------


def dark_machines() -> list[str]:
    return [writers.LINES[event % 4].replace(";", f"{event};", 1) for event in range(JETS)]


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines))


def _line(old: str, new: str) -> Callable[[list[str]], list[str]]:
    """Change of the line `ROW`, which is the last of `writers.LINES`."""

    def change(lines: list[str]) -> list[str]:
        assert old in lines[ROW]
        return [*lines[:ROW], lines[ROW].replace(old, new, 1), *lines[ROW + 1 :]]

    return change


_AT = f"line {ROW + 1}"


def ends_with_an_object(content: bytes) -> bool:
    """Whether the last line may be a whole event: nothing tells whether its last number was longer."""
    event = content.rpartition(b"\n")[2].rstrip(b";").split(b";")
    return event == [b""] or len(event) == 5 or (len(event) > 5 and re.fullmatch(rb".*,.*,.*,.*,.+", event[-1]))


DARK_MACHINES_WRONG = {
    "blank line": (lambda lines: [*lines[:ROW], "", *lines[ROW + 1 :]], f"{_AT}: must have event"),
    "header": (lambda lines: ["event;process;weight;met;met_phi", *lines], "line 1: the weight must be a number"),
    "unknown process": (_line("ttW", "ttw"), f"column 'process' must be one of .* not ttw as in row {ROW}"),
    "unknown object": (_line("e-", "e"), f"{_AT}: object of object 1 is 'e'"),
    "no process": (_line("ttW;", ""), f"{_AT}: the .* must be a number|{_AT}: must have"),
    "no met": (_line("1e3;", ""), f"{_AT}: the met_phi must be a number"),
    "no energy": (_line("112430.6,", ""), f"{_AT}: must have object, energy, pt, eta, phi of object 1"),
    "one number more": (_line("112430.6,", "112430.6,5,"), f"{_AT}: must have object, energy, pt, eta, phi"),
    "energy text": (_line("112430.6", "11243O.6"), f"{_AT}: the energy of object 1 must be a number"),
    "weight text": (_line(";2;", ";two;"), f"{_AT}: the weight must be a number"),
    "met empty": (_line("1e3", ""), f"{_AT}: the met must be a number, not ''"),
    "decimal commas": (_line("112430.6", "112430,6"), f"{_AT}: must have object, energy"),
    "a zero byte": (_line("112430.6", "1124\x0030.6"), f"{_AT}: the energy of object 1 must be a number"),
    "nan": (_line("112430.6", "nan"), "not finite"),
    "infinite": (_line("-0.84511", "inf"), "not finite"),
    "huge number": (_line("112430.6", "1e400"), "not finite"),
    "weight nan": (_line(";2;", ";nan;"), "not finite"),
    "negative energy": (_line("112430.6", "-112430.6"), "negative energy"),
    "too fast": (_line("81538.2", "281538.2"), "momentum above energy"),
    "no particles": (_line(";e-,112430.6,81538.2,-0.84511,-2.85950", ""), "no particles"),
    "ten thousand particles": (_line(";e-", 9_999 * ";e-,112430.6,81538.2,-0.84511,-2.85950" + ";e-"), 10_000),
}

# --- the zoo's own ----------------------------------------------------------------------------------------------------


def store() -> JetTable:
    counts = 1 + np.arange(JETS) % 7
    momenta = writers.random_momenta(counts.sum(), seed=2)
    names = ("part_energy", "part_px", "part_py", "part_pz")
    return JetTable(
        particles={name: momenta[:, i].copy() for i, name in enumerate(names)},
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        fields={"jet_mass": np.arange(JETS, dtype=np.float32)},
        label=np.arange(JETS) % 2,
        weight=1 + np.arange(JETS, dtype=np.float32),
        metadata={"dataset": "top_tagging", "classes": ["qcd", "top"], "units": "GeV"},
    )


def store_batch() -> pa.RecordBatch:
    """What the file of `store` holds, header included."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "jets.arrow", store())
        with pa.OSFile(str(Path(folder) / "jets.arrow")) as file:
            return pa.ipc.open_file(file).get_batch(0)


def write_batch(path: Path, batch: pa.RecordBatch) -> None:
    with pa.ipc.new_file(path, batch.schema) as writer:
        writer.write_batch(batch)


def _replaced(name: str, change: Callable[[pa.Array], pa.Array]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Change of one column."""

    def replace(batch: pa.RecordBatch) -> pa.RecordBatch:
        columns = {other: change(batch[other]) if other == name else batch[other] for other in batch.schema.names}
        return pa.RecordBatch.from_pydict(columns).replace_schema_metadata(batch.schema.metadata)

    return replace


def _numbers(name: str, change: Callable[[np.ndarray], None]) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Change of the numbers of one column of the particles."""

    def replace(particles: pa.Array) -> pa.Array:
        columns = {field.name: particles.values.field(field.name).to_numpy() for field in particles.type.value_type}
        change(values := columns[name].copy())
        flat = pa.StructArray.from_arrays([pa.array(v) for v in (columns | {name: values}).values()], list(columns))
        return pa.LargeListArray.from_arrays(particles.offsets, flat)

    return _replaced("particles", replace)


def _moved(particles: pa.Array) -> pa.Array:
    """The particles of row `ROW` belong to the next one."""
    offsets = particles.offsets.to_numpy().copy()
    offsets[ROW + 1] = offsets[ROW]
    return pa.LargeListArray.from_arrays(pa.array(offsets), particles.values)


def _header(**changes: object) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    """Change of the header, with its checksum."""

    def change(batch: pa.RecordBatch) -> pa.RecordBatch:
        text = json.dumps(json.loads(batch.schema.metadata[b"zoo"]) | changes).encode()
        return batch.replace_schema_metadata({"zoo": text, "zoo_crc32": str(zlib.crc32(text))})

    return change


def _renamed_column(old: str, new: str) -> Callable[[pa.RecordBatch], pa.RecordBatch]:
    def rename(batch: pa.RecordBatch) -> pa.RecordBatch:
        names = [new if name == old else name for name in batch.schema.names]
        return batch.rename_columns(names).replace_schema_metadata(batch.schema.metadata)

    return rename


_CHECKSUM = "does not match its checksum"

STORE_WRONG = {
    "no label": (lambda b: b.drop_columns(["label"]), "label"),
    "no particles column": (lambda b: b.drop_columns(["particles"]), "particles"),
    "no field": (lambda b: b.drop_columns(["fields.jet_mass"]), "'fields.jet_mass'.* missing or unknown"),
    "label renamed": (_renamed_column("label", "Label"), "label"),
    "field renamed": (_renamed_column("fields.jet_mass", "fields.mass"), "'fields.jet_mass'.* missing or unknown"),
    "label floats": (_replaced("label", lambda v: v.cast("float64")), "column 'label' must hold int64, not float64"),
    "weight float64": (_replaced("weight", lambda v: v.cast("float64")), "column 'weight' must hold float32"),
    "label text": (_replaced("label", lambda v: v.cast("string")), "column 'label' must hold numbers, not string"),
    "weights exchanged": (
        _replaced("weight", lambda v: v.take(pa.array(range(JETS - 1, -1, -1)))),
        "'weight' does not",
    ),
    "nan": (_numbers("part_px", lambda v: v.put(ROW, np.nan)), f"'particles.part_px' {_CHECKSUM}"),
    "infinite": (_numbers("part_pz", lambda v: v.put(ROW, np.inf)), f"'particles.part_pz' {_CHECKSUM}"),
    "negative energy": (_numbers("part_energy", lambda v: v.put(ROW, -1)), f"'particles.part_energy' {_CHECKSUM}"),
    "no particles": (_replaced("particles", _moved), f"'offsets' {_CHECKSUM}"),
    "no jets": (lambda b: b[:0].replace_schema_metadata(b.schema.metadata), "0 jets instead of 24"),
    "fewer jets": (lambda b: b[1:].replace_schema_metadata(b.schema.metadata), "23 jets instead of 24"),
    "no header": (lambda b: b.replace_schema_metadata(None), "without the metadata 'zoo'"),
    "other version": (_header(version=2), "zoo-jets version 2, this zoo reads zoo-jets version 1"),
    "no checksums": (_header(checksums={}), "missing or unknown"),
    "other checksum": (lambda b: b.replace_schema_metadata({**b.schema.metadata, b"zoo_crc32": b"1"}), _CHECKSUM),
}


def write_compressed(path: Path, table: JetTable) -> None:
    write_store(path, table, compression="zstd")


def _ten_thousand(table: JetTable) -> JetTable:
    rows = np.repeat(table.offsets[ROW], 10_000)
    particle = np.concatenate([np.arange(rows[0]), rows, np.arange(table.offsets[ROW + 1], table.offsets[-1])])
    counts = table.counts.copy()
    counts[ROW] = 10_000
    particles = {name: values[particle] for name, values in table.particles.items()}
    return dataclasses.replace(table, particles=particles, offsets=np.concatenate([[0], np.cumsum(counts)]))


COMPRESSED_WRONG = {"ten thousand particles": (_ten_thousand, 10_000)}


def folder_files() -> Files:
    """A converted folder with three shards."""
    with tempfile.TemporaryDirectory() as parent:
        write_store(Path(parent) / "jets.arrow", store())
        convert([Path(parent) / "jets.arrow"], Path(parent) / "out", jets_per_shard=JETS // 3, processes=1)
        return read_files(Path(parent) / "out")


_SHARD, _OTHER = "shard-000001.arrow", "shard-000002.arrow"


def _manifest(change: Callable[[dict], object]) -> Callable[[Files], Files]:
    """Change of the manifest's content."""

    def replace(files: Files) -> Files:
        content = json.loads(files["manifest.json"])
        change(content)
        return {**files, "manifest.json": json.dumps(content).encode()}

    return replace


_MANIFEST = r"manifest.json cannot be read: .*"

FOLDER_WRONG = {
    "no manifest": (lambda f: _without(f, "manifest.json"), "has no manifest.json"),
    "no shard": (lambda f: _without(f, _SHARD), f"{_SHARD} is missing"),
    "shard renamed": (lambda f: _renamed(f, _SHARD, "shard-000007.arrow"), f"{_SHARD} is missing"),
    "shards exchanged": (lambda f: {**f, _SHARD: f[_OTHER], _OTHER: f[_SHARD]}, "shard-00000[12].arrow (has|is not)"),
    "shard of another kind": (lambda f: {**f, _SHARD: b"x" * len(f[_SHARD])}, f"{_SHARD} is not a jet file of the zoo"),
    "manifest of a list": (lambda f: {**f, "manifest.json": b"[]"}, _MANIFEST),
    "manifest of nothing": (lambda f: {**f, "manifest.json": b"null"}, _MANIFEST),
    "manifest of bytes": (lambda f: {**f, "manifest.json": bytes(range(256))}, _MANIFEST),
    "version 1": (_manifest(lambda m: m.update(version=1)), "is zoo-jet-folder version 1"),
    "fewer shards": (_manifest(lambda m: m["shards"].pop()), _MANIFEST + _CHECKSUM),
    "no classes": (_manifest(lambda m: m.pop("class_jets")), _MANIFEST + _CHECKSUM),
    "a key more": (_manifest(lambda m: m.update(more=1)), _MANIFEST + _CHECKSUM),
    "other path": (_manifest(lambda m: m["shards"][0].update(file="/etc/passwd")), _MANIFEST + _CHECKSUM),
    "text for a number": (_manifest(lambda m: m.update(jets=str(JETS))), _MANIFEST + _CHECKSUM),
}


FORMATS = {
    "top tagging": Format("jets.h5", lambda: writers.top_tagging_rows(JETS), write_top_tagging, TOP_TAGGING_WRONG),
    "TTree": Format("jets.root", jetclass, lambda p, c: writers.write_root(p, c, JETS), JETCLASS_WRONG),
    "RNTuple": Format("jets.root", jetclass, lambda p, c: writers.write_rntuple(p, c, JETS), JETCLASS_WRONG),
    "parquet": Format("jets.parquet", jetclass, lambda p, c: writers.write_parquet(p, c, JETS), JETCLASS_WRONG),
    "quark gluon": Format("QG.npz", quark_gluon, lambda p, a: np.savez_compressed(p, **a), QUARK_GLUON_WRONG),
    "hls4ml": Format("jets.h5", lambda: writers.hls4ml_arrays(JETS), write_hdf5, HLS4ML_WRONG),
    "jetnet": Format("t.hdf5", lambda: writers.jetnet_arrays(JETS), write_hdf5, JETNET_WRONG),
    "lhc olympics": Format(
        "events.h5", lambda: writers.lhc_olympics_rows(JETS), write_lhc_olympics, LHC_OLYMPICS_WRONG
    ),
    "dark machines": Format(
        "events.csv", dark_machines, write_lines, DARK_MACHINES_WRONG, b";,\n", can_end=ends_with_an_object
    ),
    "store": Format("jets.arrow", store_batch, write_batch, STORE_WRONG),
    "compressed store": Format("jets.arrow", store, write_compressed, COMPRESSED_WRONG),
    "folder": Format("out", folder_files, lambda path, files: write_files(path, files), FOLDER_WRONG),
}
