"""Scores of a file: one a row, in its order, of every format, the same as the model's own answers."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import uproot
import yaml
from pyarrow import parquet

import zoo
from tests.hub.test_hub import config
from zoo.cli import main
from zoo.data.convert import convert
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.read_report import RejectedJetsWarning
from zoo.data.readers import read_jets
from zoo.data.store import MOMENTUM_COLUMNS, JetTable, write_store
from zoo.hub import save_pretrained
from zoo.inference import JetScores, predict

MODEL = "lorentznet.top_tagging"
SAMPLE = "sample:top_tagging/test"
JETS = 30


@pytest.fixture(scope="module")
def table() -> JetTable:
    return read_jets(resolve_file(SAMPLE), rows=(0, JETS))


@pytest.fixture(scope="module")
def tagger() -> zoo.hub.Pretrained:
    return zoo.load_pretrained(MODEL)


@pytest.fixture(scope="module")
def expected(table: JetTable, tagger: zoo.hub.Pretrained) -> np.ndarray:
    """Logits (jet, class) of each jet on its own, without batches, padding or files."""
    logits = []
    for first, stop in zip(table.offsets, table.offsets[1:], strict=False):
        four_momenta = np.stack([table.particles[name][first:stop] for name in MOMENTUM_COLUMNS], axis=1)
        logits.append(tagger(torch.tensor(four_momenta)[None], torch.ones(1, stop - first, dtype=torch.bool)))
    return torch.cat(logits).numpy()


def write_top_tagging(path: Path, table: JetTable, energies: dict[int, float] | None = None) -> Path:
    """The jets as a file of the reference set; ``energies`` replaces those of the first particle of some."""
    longest = int(table.counts.max())
    rows = np.zeros((len(table), longest, 4), dtype=np.float32)
    for jet, (first, stop) in enumerate(zip(table.offsets, table.offsets[1:], strict=False)):
        rows[jet, : stop - first] = np.stack([table.particles[name][first:stop] for name in MOMENTUM_COLUMNS], axis=1)
    for jet, energy in (energies or {}).items():
        rows[jet, 0, 0] = energy
    names = [f"{component}_{i}" for i in range(longest) for component in ("E", "PX", "PY", "PZ")]
    frame = pd.DataFrame(rows.reshape(len(table), -1), columns=names)
    frame["is_signal_new"] = table.label
    frame.to_hdf(path, key="table", format="table", mode="w")
    return path


def write_described(folder: Path, table: JetTable, **changes: object) -> tuple[Path, Path]:
    """The jets as a parquet file without labels, and its layout."""
    names = {"energy": "E", "px": "x", "py": "y", "pz": "z"}
    columns = {
        column: pa.ListArray.from_arrays(pa.array(table.offsets, pa.int32()), pa.array(table.particles[name]))
        for name, column in zip(MOMENTUM_COLUMNS, names.values(), strict=True)
    }
    parquet.write_table(pa.table(columns), folder / "jets.parquet")
    (folder / "layout.yaml").write_text(yaml.safe_dump({"units": "GeV", "momenta": names} | changes))
    return folder / "jets.parquet", folder / "layout.yaml"


def test_each_row_has_the_answer_of_its_jet(table, expected, tmp_path):
    result = zoo.predict(MODEL, write_top_tagging(tmp_path / "jets.h5", table))
    np.testing.assert_allclose(result.logits, expected, rtol=1e-4, atol=1e-4)
    assert result.index.tolist() == list(range(JETS))
    assert result.label.tolist() == table.label.tolist()
    assert result.classes == ("qcd", "top")
    assert result.is_scored.all()
    assert len(set(map(tuple, expected.round(3).tolist()))) == JETS  # no two rows could be exchanged unseen


def test_scores_are_probabilities_of_the_logits():
    logits = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [0.0, 0.0, 30.0], [np.nan] * 3], dtype=np.float32)
    result = JetScores(logits, np.full(4, -1), np.arange(4), ("a", "b", "c"), {})
    expected = torch.tensor(logits[:3]).double().softmax(dim=1).numpy()
    np.testing.assert_allclose(result.score[:3], expected, rtol=1e-12)
    assert result.score[2, 2] < 1  # where float32 has no number left below 1
    assert np.isnan(result.score[3]).all()
    assert result.is_scored.tolist() == [True, True, True, False]


def test_rejected_jets_keep_their_rows(table, expected, tmp_path):
    path = write_top_tagging(tmp_path / "jets.h5", table, {3: np.nan, 7: -1.0})
    with pytest.warns(
        RejectedJetsWarning, match="left out 2 of 30 jets: 1 not finite .part_energy in 1., 1 negative energy"
    ):
        result = predict(MODEL, path)
    kept = np.delete(np.arange(JETS), [3, 7])
    assert np.flatnonzero(~result.is_scored).tolist() == [3, 7]
    assert result.label[[3, 7]].tolist() == [-1, -1]
    np.testing.assert_allclose(result.logits[kept], expected[kept], rtol=1e-4, atol=1e-4)
    assert str(result) == "28 of 30 rows scored for qcd, top, left out (NaN): 1 not finite, 1 negative energy"


def test_a_range_of_rows(table, expected, tmp_path):
    path = write_top_tagging(tmp_path / "jets.h5", table)
    result = predict(MODEL, path, rows=(10, 14))
    np.testing.assert_allclose(result.logits, expected[10:14], rtol=1e-4, atol=1e-4)
    assert result.index.tolist() == [10, 11, 12, 13]
    with pytest.raises(ValueError, match=r"rows 10 to 1000000000000 are not within its 30 rows"):
        predict(MODEL, path, rows=(10, 10**12))


def test_files_of_the_zoo(table, expected, tmp_path):
    write_store(tmp_path / "jets.arrow", table)
    result = predict(MODEL, tmp_path / "jets.arrow", rows=(5, 30))
    np.testing.assert_allclose(result.logits, expected[5:], rtol=1e-4, atol=1e-4)
    convert([tmp_path / "jets.arrow"], tmp_path / "jets", jets_per_shard=8, processes=1)
    result = predict(MODEL, tmp_path / "jets")
    shuffled = read_jets(tmp_path / "jets")
    place = {float(energy): row for row, energy in enumerate(table.particles["part_energy"][table.offsets[:-1]])}
    rows = [place[float(energy)] for energy in shuffled.particles["part_energy"][shuffled.offsets[:-1]]]
    np.testing.assert_allclose(result.logits, expected[rows], rtol=1e-4, atol=1e-4)
    assert result.label.tolist() == table.label[rows].tolist()


def test_a_damaged_file_of_the_zoo_is_refused(table, tmp_path):
    path = tmp_path / "jets.arrow"
    write_store(path, table)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"jets\.arrow"):
        predict(MODEL, path, rows=(20, 30))


def test_a_layout_needs_no_labels(table, expected, tmp_path):
    path, layout = write_described(tmp_path, table)
    result = predict(MODEL, path, layout=layout)
    np.testing.assert_allclose(result.logits, expected, rtol=1e-4, atol=1e-4)
    assert (result.label == -1).all()
    assert list(result.columns) == ["index", "score_qcd", "score_top"]


def test_labels_of_other_classes_are_no_labels(table, tmp_path):
    path, layout = write_described(tmp_path, table, classes=["top", "qcd"], label={"*.parquet": "top"})
    assert (predict(MODEL, path, layout=layout).label == -1).all()
    path, layout = write_described(tmp_path, table, classes=["qcd", "top"], label={"*.parquet": "top"})
    assert (predict(MODEL, path, layout=layout).label == 1).all()


def test_what_a_file_lacks_is_named(table, tmp_path, jets):
    write_store(tmp_path / "jets.arrow", table)
    features = feature_table("kinpid")
    model = zoo.create_model("pfn", input_dim=13, num_classes=2)
    inputs = (jets.four_momenta[:3], jets.mask[:3])
    made_up = {name: torch.rand(inputs[1].shape) for name in features.columns}
    settings = config(model="pfn", features=features.to_dict())
    save_pretrained(tmp_path / "mine", model, settings, *inputs, "", columns=made_up)
    with pytest.raises(ValueError, match=r"jets\.arrow: particle column 'part_charge' is missing"):
        predict(tmp_path / "mine", tmp_path / "jets.arrow")
    write_store(tmp_path / "mev.arrow", dataclasses.replace(table, metadata={**table.metadata, "units": "MeV"}))
    with pytest.raises(ValueError, match=r"mev\.arrow: its units are MeV, the model takes GeV"):
        predict(MODEL, tmp_path / "mev.arrow")


def test_a_backbone_gives_no_scores(tagger):
    backbone = dataclasses.replace(tagger, config=dataclasses.replace(tagger.config, kind="backbone", classes=[]))
    with pytest.raises(ValueError, match="lorentznet: a backbone gives no scores; fine-tune it, or choose a tagger"):
        predict(backbone, SAMPLE)


def test_an_answer_that_is_no_number_is_an_error(table, tagger, tmp_path):
    write_store(tmp_path / "jets.arrow", table)
    broken = zoo.create_model("lorentznet", input_dim=7, num_classes=2).eval()
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.inf)
    with pytest.raises(ValueError, match=r"the model's answer to row \d+ is not finite"):
        predict(dataclasses.replace(tagger, model=broken), tmp_path / "jets.arrow")


def read_scores(path: Path) -> dict[str, np.ndarray]:
    """The columns of a file of scores by a library that did not write them, where there is one."""
    if path.suffix == ".csv":
        return {name: values.to_numpy() for name, values in pd.read_csv(path).items()}
    if path.suffix == ".parquet":
        return {name: values.to_numpy() for name, values in pd.read_parquet(path).items()}
    if path.suffix == ".arrow":
        table = pa.ipc.open_file(pa.py_buffer(path.read_bytes())).read_all()
        return {name: table[name].to_numpy() for name in table.column_names}
    if path.suffix == ".root":
        with uproot.open(path) as file:
            return dict(file["scores"].arrays(library="np"))
    with h5py.File(path) as file:
        return {name: values[:] for name, values in file.items()}


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".arrow", ".root", ".h5"])
def test_a_file_of_scores(table, tagger, tmp_path, suffix):
    path = write_top_tagging(tmp_path / "jets.h5", table, {3: np.nan})
    with pytest.warns(RejectedJetsWarning):
        result = predict(tagger, path)
    result.save(tmp_path / "new" / f"scores{suffix}")
    found = read_scores(tmp_path / "new" / f"scores{suffix}")
    assert list(found) == ["index", "label", "score_qcd", "score_top"]
    np.testing.assert_array_equal(found["index"], np.arange(JETS))
    np.testing.assert_array_equal(found["label"], result.label)
    np.testing.assert_array_equal(found["score_top"], result.score[:, 1])
    assert np.isnan(found["score_qcd"][3])
    with pytest.raises(FileExistsError, match="add --force"):
        result.save(tmp_path / "new" / f"scores{suffix}")
    result.save(tmp_path / "new" / f"scores{suffix}", force=True)


@pytest.mark.parametrize(("rntuple", "name"), [(False, "TTree"), (True, "ROOT::RNTuple")])
def test_a_root_file_holds_a_tree_to_be_a_friend_of_others(table, tagger, tmp_path, rntuple, name):
    path = write_top_tagging(tmp_path / "jets.h5", table, {3: np.nan})
    out = tmp_path / "scores.root"
    main(["predict", "--model", MODEL, str(path), "--out", str(out), *(["--rntuple"] if rntuple else [])])
    with uproot.open(out) as file:
        assert file.classnames() == {"scores;1": name}
        assert file["scores"].num_entries == JETS  # a row for each, so that entries are those of the jets' own tree
    with pytest.raises(SystemExit, match="2"):
        main(["predict", "--model", MODEL, str(path), "--out", str(tmp_path / "scores.h5"), "--rntuple"])


def test_fields_that_are_asked_for_stand_beside_the_scores(table, tagger, tmp_path, capfd):
    path, layout = write_described(tmp_path, table, fields={"event": "event", "jet_tau21": "tau"})
    columns = parquet.read_table(path)
    event, tau = 2**60 + np.arange(JETS), np.linspace(0, 1, JETS, dtype=np.float32)
    energy = columns["E"].combine_chunks()
    broken = energy.values.to_numpy().copy()
    broken[table.offsets[3]] = np.nan
    columns = columns.set_column(0, "E", pa.ListArray.from_arrays(energy.offsets, pa.array(broken)))
    parquet.write_table(columns.append_column("event", pa.array(event)).append_column("tau", pa.array(tau)), path)
    words = ["predict", "--model", MODEL, str(path), "--layout", str(layout)]
    main([*words, "--rows", "2", "9", "--fields", "event", "jet_tau21", "--out", str(tmp_path / "scores.root")])
    found = read_scores(tmp_path / "scores.root")
    assert list(found) == ["index", "score_qcd", "score_top", "event", "jet_tau21"]
    np.testing.assert_array_equal(found["event"], np.where(np.arange(2, 9) == 3, -1, event[2:9]))
    np.testing.assert_array_equal(found["jet_tau21"], np.where(np.arange(2, 9) == 3, np.nan, tau[2:9]))
    with pytest.raises(SystemExit, match="2"):
        main([*words, "--fields", "jet_tau32"])
    assert "field 'jet_tau32' is not among the numbers of the jets, of which there are event" in capfd.readouterr().err


def test_labels_that_are_not_needed_stop_nothing(table, tagger, expected, tmp_path):
    path = write_top_tagging(tmp_path / "jets.h5", dataclasses.replace(table, label=np.where(table.label == 1, 1, 7)))
    result = predict(tagger, path)
    np.testing.assert_allclose(result.logits, expected, atol=1e-4)
    np.testing.assert_array_equal(result.label, np.where(table.label == 1, 1, -1))


def test_no_output_is_the_input(table, tmp_path, capfd):
    path = write_top_tagging(tmp_path / "jets.h5", table)
    before = path.read_bytes()
    (tmp_path / "link.h5").symlink_to(path)
    for out in (path, tmp_path / "link.h5"):
        with pytest.raises(SystemExit, match="2"):
            main(["predict", "--model", MODEL, str(path), "--out", str(out), "--force"])
        assert "an input" in capfd.readouterr().err
    assert path.read_bytes() == before


def test_one_line_of_shell(table, tmp_path, capfd):
    path = write_top_tagging(tmp_path / "jets.h5", table, {3: np.nan})
    main(["predict", "--model", MODEL, str(path), "--rows", "2", "6"])
    shown = capfd.readouterr()
    header, *rows = shown.out.splitlines()
    assert header.replace('"', "") == "index,label,score_qcd,score_top"
    assert [row.partition(",")[0] for row in rows] == ["2", "3", "4", "5"]
    assert rows[1] == "3,-1,nan,nan"
    assert "jets.h5: 3 of 4 rows scored for qcd, top, left out (NaN): 1 not finite" in shown.err
    main(["predict", "--model", MODEL, str(path), "--out", str(tmp_path / "scores.parquet")])
    assert len(read_scores(tmp_path / "scores.parquet")["index"]) == JETS
    for words, message in (
        (["--model", MODEL, "--out", "scores.txt"], "scores.txt: scores are written as .arrow, .parquet, .csv"),
        (["--model", "lorentznet.toptagging"], "did you mean lorentznet.top_tagging"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main(["predict", *words, str(path)])
        assert message in capfd.readouterr().err


def test_predict_is_imported_when_it_is_used():
    code = "import sys, zoo; before = 'h5py' in sys.modules; zoo.predict; print(before, 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
    with pytest.raises(AttributeError, match="no attribute 'predicted'"):
        zoo.predicted  # noqa: B018


def test_the_auc_of_the_reference_set(shared_data):
    """The metric in the folder, on a part of the jets that it was measured with."""
    from sklearn.metrics import roc_auc_score

    result = zoo.predict(MODEL, shared_data / "top_tagging" / "train_100k.h5", rows=(80_000, 80_300))
    auc = roc_auc_score(result.label, result.score[:, 1])
    published = zoo.load_pretrained(MODEL).config.metrics["auc"]["value"]
    assert abs(auc - published) < 0.02  # three errors of so few jets
