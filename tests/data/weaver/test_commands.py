"""weaver's data files in the commands beside training: convert, data info, data extract and predict."""

import json

import awkward as ak
import numpy as np
import pytest
import torch
import uproot
import yaml

from tests.data.weaver.test_data_config import JETCLASS, WEIGHTS, write_root
from zoo.cli import main
from zoo.data.datamodule import JetDataModule, Split
from zoo.data.datasets import resolve_files
from zoo.data.readers import read_jets
from zoo.data.source import open_source
from zoo.data.weaver.data_config import read_weaver_yaml
from zoo.hub import PretrainedConfig, save_pretrained
from zoo.registry import create_model


def columns_of(label, jets=60, seed=0):
    """Jets of one class as JetClass has them, of which the first is not selected."""
    random = np.random.default_rng([seed, label])
    counts = random.integers(1, 8, jets)
    momenta = random.normal([60, 0, 20], [20, 9, 9], (counts.sum(), 3)).astype(np.float32)
    flat = dict(zip(("part_px", "part_py", "part_pz"), momenta.T, strict=True))
    flat["part_energy"] = np.linalg.norm(momenta.astype(float), axis=1).astype(np.float32) * np.float32(1.01)
    fields = {"jet_pt": random.uniform(200, 900, jets), "jet_sdmass": random.uniform(10, 250, jets)}
    fields["jet_pt"][0] = 10
    fields = {name: values.astype(np.float32) for name, values in fields.items()}
    fields["flavour"] = np.full(jets, label, dtype=np.int32)
    fields |= {f"label_{name}": np.full(jets, label == i) for i, name in enumerate(("QCD", "Hbb", "Tbqq"))}
    return {name: ak.unflatten(np.ascontiguousarray(values), counts) for name, values in flat.items()} | fields


@pytest.fixture
def data_file(tmp_path):
    """A file with three features, and the jets of each class in a file of their own."""
    for label, name in enumerate(("QCD", "Hbb", "Tbqq")):
        write_root(tmp_path / f"{name}.root", columns_of(label))
    values = yaml.safe_load(JETCLASS + WEIGHTS) | {"observers": ["jet_sdmass"]}
    values |= {"selection": "jet_pt > 100", "test_time_selection": "jet_pt > 100"}
    values["inputs"]["pf_features"]["vars"] = [
        ["part_pt_log", 1.7, 0.7],
        ["part_e_log", 2.0, 0.7],
        ["part_size", 50, 0.1],
    ]
    values["new_variables"]["part_size"] = "np.abs(part_px)"
    del values["inputs"]["pf_points"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    files = [str(tmp_path / f"{name}.root") for name in ("QCD", "Hbb", "Tbqq")]
    main(
        ["data", "fit-scaling", *files, "--weaver-yaml", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "w.yaml")]
    )
    return tmp_path / "w.yaml"


@pytest.fixture
def custom(data_file):
    """The same with custom labels and no weights."""
    values = yaml.safe_load(data_file.read_text()) | {"weights": None}
    values["labels"] = {"type": "custom", "value": {"truth": "flavour"}}
    data_file.with_name("custom.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return data_file.with_name("custom.yaml")


@pytest.fixture
def folder(data_file):
    """A pretrained folder with random weights, of the features of the data file."""
    description = read_weaver_yaml(data_file)
    table = description.feature_table
    config = PretrainedConfig(
        "pfn", list(description.classes), table.to_dict(), "mine", "GeV", {}, licence="MIT", paper="arXiv:1810.05165"
    )
    torch.manual_seed(1)
    momenta, mask = torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    path = data_file.with_name("model")
    model = create_model("pfn", input_dim=3, num_classes=3)
    columns = {name: torch.ones(2, 3) for name in table.columns}
    save_pretrained(path, model, config, momenta, mask, "card", columns=columns)
    return path


def test_convert_keeps_selection_weights_and_inputs(data_file, tmp_path):
    main(["convert", str(tmp_path / "*.root"), "--weaver-yaml", str(data_file), "--out", str(tmp_path / "folder")])
    description = read_weaver_yaml(data_file, split="train")
    (shard,), _ = open_source(tmp_path / "folder", description).tables()
    names = ["Hbb", "QCD", "Tbqq"]  # sorted, as the shell does
    tables = [read_jets(tmp_path / f"{name}.root", layout=description) for name in names]
    assert len(shard) == 3 * 59
    for number, table in enumerate(tables):
        mine = np.flatnonzero(shard.fields["source_file"] == number)
        mine = mine[np.argsort(shard.fields["source_row"][mine])]
        np.testing.assert_array_equal(shard.fields["source_row"][mine], table.source_rows)
        np.testing.assert_array_equal(shard.weight[mine], table.weight)
        np.testing.assert_array_equal(shard.label[mine], table.label)
        part = shard.take(mine)
        for name, values in table.particles.items():
            np.testing.assert_array_equal(part.particles[name], values)
    manifest = json.loads((tmp_path / "folder" / "manifest.json").read_text())
    assert manifest["layout"]["split"] == "train"
    module = JetDataModule(weaver_yaml=str(data_file), train=Split([str(tmp_path / "folder")]))
    module.setup("fit")
    assert next(iter(module.train_dataloader())).features.shape[2] == 3


@pytest.mark.slow
def test_convert_on_several_processes_is_the_same(data_file, tmp_path):
    for name, processes in (("one", "1"), ("two", "2")):
        command = ["convert", str(tmp_path / "*.root"), "--weaver-yaml", str(data_file), "--out", str(tmp_path / name)]
        main([*command, "--processes", processes])
    one, two = (next((tmp_path / name).glob("shard*")).read_bytes() for name in ("one", "two"))
    assert one == two


def test_convert_with_custom_labels_and_for_another_split(custom, tmp_path, capsys):
    command = ["convert", str(tmp_path / "*.root"), "--weaver-yaml", str(custom), "--out", str(tmp_path / "folder")]
    with pytest.raises(SystemExit, match="2"):
        main(command)
    assert "give the names in 'classes'" in capsys.readouterr().err
    main([*command, "--classes", "b", "c", "light", "--split", "test"])
    (shard,), _ = open_source(tmp_path / "folder").tables()
    assert np.bincount(shard.label).tolist() == [59, 59, 59]
    assert "jet_sdmass" in shard.fields
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--classes", "b", "c", "light", "--split", "train"])
    assert "split" in capsys.readouterr().err


def test_info_and_extract(custom, data_file, tmp_path, capsys):
    main(["data", "info", str(tmp_path / "Hbb.root"), "--weaver-yaml", str(data_file)])
    assert "jets: 59 Hbb" in capsys.readouterr().out
    main(["data", "info", str(tmp_path / "Hbb.root"), "--weaver-yaml", str(custom)])
    assert "jets: 59 of a class that is not known" in capsys.readouterr().out
    where = ["--weaver-yaml", str(custom), "--classes", "b", "c", "light", "--out", str(tmp_path / "small.arrow")]
    main(["data", "extract", str(tmp_path / "Hbb.root"), "--rows", "0", "20", *where])
    assert read_jets(tmp_path / "small.arrow").label.tolist() == [1] * 19


def test_predict_needs_no_labels(custom, data_file, folder, tmp_path):
    """Custom labels without names, and a file that has neither labels nor observers."""
    columns = columns_of(1)
    there = {name: values for name, values in columns.items() if name.startswith("part_") or name == "jet_pt"}
    write_root(tmp_path / "bare.root", there)
    scores = {}
    for name, file, described in (
        ("labelled", "Hbb.root", [data_file]),
        ("named", "Hbb.root", [custom, "--classes", "QCD", "Hbb", "Tbqq"]),
        ("custom", "Hbb.root", [custom]),
        ("bare", "bare.root", [data_file]),
    ):
        out = tmp_path / f"scores_{name}.root"
        options = ["--weaver-yaml", *map(str, described), "--out", str(out)]
        main(["predict", str(tmp_path / file), "--model", str(folder), *options])
        with uproot.open(out) as found:
            scores[name] = found["scores"].arrays(library="np")
    for name, found in scores.items():
        np.testing.assert_array_equal(found["score_Hbb"], scores["labelled"]["score_Hbb"])
        assert ("label" in found) == (name in ("labelled", "named"))
        assert ("jet_sdmass" in found) == (name != "bare")
    assert scores["labelled"]["label"].tolist() == scores["named"]["label"].tolist() == [-1] + [1] * 59


def test_patterns_and_names_before_them(data_file, tmp_path):
    paths = [tmp_path / f"{name}.root" for name in ("Hbb", "QCD", "Tbqq")]
    assert resolve_files([f"{tmp_path}/*.root"]) == paths
    assert resolve_files([f"Hbb:{tmp_path}/H*.root", f"rest:{tmp_path}/[QT]*.root"]) == paths
    assert resolve_files([f"QCD:{tmp_path}/QCD.root"]) == paths[1:2]
    with pytest.raises(FileNotFoundError, match=r"no file fits the pattern .*nothing"):
        resolve_files([f"a:{tmp_path}/nothing*"])
    with pytest.raises(ValueError, match=r"QCD\.root is named twice"):
        resolve_files([f"{tmp_path}/*.root", str(paths[1])])


@pytest.mark.parametrize("limit", [{"train_jets": 30}, {"train_fraction": 1 / 6}])
def test_files_of_one_class_each_stay_mixed(data_file, tmp_path, limit):
    module = JetDataModule(weaver_yaml=str(data_file), train=Split([f"{tmp_path}/*.root"]), **limit)
    module.setup("fit")
    labels = torch.cat([batch.label for batch in module.train_dataloader()])
    assert torch.bincount(labels).tolist() == [9, 9, 9]  # of ten rows each, the first of which is not selected
