"""Files without jets are skipped, and a split that lost too many of its jets is refused."""

import awkward as ak
import numpy as np
import pytest

from tests.data.writers import write_parquet
from zoo.cli import main
from zoo.data import JetDataModule
from zoo.data.convert import convert, describe
from zoo.data.datamodule import Split
from zoo.data.fit import fit_features
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.read_report import RejectedJetsWarning
from zoo.inference import predict

LAYOUT = """
units: GeV
classes: [a, b]
label: label
momenta: {px: px, py: py, pz: pz, energy: energy}
"""


@pytest.fixture
def layout(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(LAYOUT)
    return str(path)


@pytest.fixture
def write(tmp_path):
    """Function that writes jets of three particles each, some of which have too little energy."""

    def write(name, jets, bad=0):
        random = np.random.default_rng(jets)
        momentum = random.normal(0, 10, (3, jets, 3)).astype(np.float32)
        energy = np.sqrt(np.sum(momentum.astype(float) ** 2, axis=0)).astype(np.float32)
        energy[:bad] *= np.float32(0.9)
        columns = dict(zip(("px", "py", "pz", "energy"), (*momentum, energy), strict=True))
        lists = {key: ak.unflatten(values.ravel(), np.full(jets, 3)) for key, values in columns.items()}
        return str(write_parquet(tmp_path / name, lists | {"label": np.arange(jets) % 2}))

    return write


@pytest.fixture
def read(layout):
    """Function that reads the files of one split."""

    def read(files, split="train", stage="fit", rows=None, fraction=None, **options):
        datamodule = JetDataModule(layout=layout, **{split: Split(files, rows, fraction)}, **options)
        datamodule.setup(stage)
        return datamodule._datasets[split]

    return read


def test_empty_files_and_files_of_one_row_are_skipped(read, write):
    files = [write("empty.parquet", 0), write("one.parquet", 1), write("many.parquet", 20)]
    with pytest.warns(UserWarning, match="train: skipped a file: .*one.parquet") as caught:
        dataset = read(files, fraction=(0.0, 0.8))
    assert len(dataset) == 16
    messages = [str(warning.message) for warning in caught if "has no row for this split" in str(warning.message)]
    assert len(messages) == 2
    assert "empty.parquet" in messages[0]
    assert dataset.first_index == [1]  # rows are counted through all files
    with (
        pytest.warns(UserWarning, match="skipped"),
        pytest.raises(ValueError, match=r"train: there is no jet: .*empty.parquet: has no row"),
    ):
        read(files[:2], fraction=(0.0, 0.8))


def test_a_file_of_bad_jets_only_is_skipped(read, write):
    with pytest.warns(UserWarning, match=r"train: skipped a file: .*bad.parquet: left out 2 of 2 jets"):
        assert len(read([write("bad.parquet", 2, bad=2), write("good.parquet", 30)])) == 30


@pytest.mark.parametrize(("split", "stage"), [("train", "fit"), ("val", "validate"), ("test", "test")])
def test_a_split_that_lost_many_of_its_jets_is_refused(read, write, split, stage):
    file = write("jets.parquet", 50, bad=6)
    message = rf"{split}: 6 of 50 jets were left out, more than the part data.max_rejected = 0.1: .*6 momentum above"
    with pytest.warns(RejectedJetsWarning), pytest.raises(ValueError, match=message):
        read([file], split, stage)
    with pytest.warns(RejectedJetsWarning):
        assert len(read([file], split, stage, max_rejected=0.12)) == 44
    with pytest.warns(RejectedJetsWarning):
        assert len(read([file], "predict", "predict")) == 44
    with pytest.raises(ValueError, match="max_rejected: must be from 0 to 1, not 2"):
        read([file], max_rejected=2)


def test_so_is_a_converted_folder(read, write, layout, tmp_path):
    files = [write("jets.parquet", 50, bad=6), write("empty.parquet", 0)]
    manifest = convert(files, tmp_path / "folder", processes=1, layout=read_layout(layout))
    assert manifest.jets == 44
    assert "empty.parquet: skipped, it holds no row" in describe(tmp_path / "folder", manifest)
    with pytest.raises(ValueError, match=r"train: 6 of 50 jets .*folder: left out 6 when it was converted"):
        JetDataModule("mine", layout=layout, train=Split([str(tmp_path / "folder")])).setup("fit")
    with pytest.raises(ValueError, match=r"empty.parquet and all other files hold no row"):
        convert(files[1:], tmp_path / "other", processes=1, layout=read_layout(layout))


def test_scales_are_fitted_to_the_files_with_rows(write, layout, tmp_path):
    features = tmp_path / "features.yaml"
    features.write_text("features: [{name: part_pt_log, formula: log_pt, centre: auto}]")
    files = [write("empty.parquet", 0), write("jets.parquet", 20)]
    with pytest.warns(UserWarning, match="skipped .*empty.parquet: it holds no row"):
        fit_features(files, features, tmp_path / "both.yaml", layout)
    fit_features(files[1:], features, tmp_path / "one.yaml", layout)
    assert (tmp_path / "both.yaml").read_text() == (tmp_path / "one.yaml").read_text()
    with pytest.warns(UserWarning, match="skipped"), pytest.raises(ValueError, match="none of 1 holds a row"):
        fit_features(files[:1], features, tmp_path / "none.yaml", layout)


def test_an_empty_file_has_no_scores(write, layout):
    result = predict("lorentznet.top_tagging", write("empty.parquet", 0), layout=layout)
    assert len(result) == 0
    assert str(result) == "0 of 0 rows scored for qcd, top"


def test_info_does_not_end_well_after_it_rejected_jets(write, layout, capsys):
    main(["data", "info", write("jets.parquet", 50, bad=6), "--layout", layout])
    shown = capsys.readouterr().out
    assert "left out: 6 momentum above energy" in shown
    assert "odd: 6 of 50 jets (12 %) were left out" in shown
    assert "nothing odd was found" not in shown
    with pytest.raises(SystemExit, match="2"):
        main(["data", "info", write("empty.parquet", 0), "--layout", layout])
    assert "empty.parquet: holds no row" in capsys.readouterr().err
