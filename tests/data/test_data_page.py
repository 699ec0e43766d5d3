"""What docs/data.md tells a physicist to do works as it stands there."""

import re
from pathlib import Path

import awkward as ak
import numpy as np
import pytest
import uproot
import yaml

from zoo import load_pretrained
from zoo.cli import training_command as command
from zoo.data.features_yaml import read_features
from zoo.data.formats.known import known_formats
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.weaver.data_config import read_weaver_yaml
from zoo.inference import predict
from zoo.publish import publish_run

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def nano(tmp_path, monkeypatch):
    """Forty events as PFNano has them: the links of the particles to the jets are in no order, some belong to none."""
    random = np.random.default_rng(8)
    jets, candidates = random.integers(0, 4, 40), random.integers(20, 30, 40)

    def fill(counts, low, high, dtype=np.float32):
        return ak.unflatten(random.uniform(low, high, counts.sum()).astype(dtype), counts)

    events = {f"Jet_{name}": fill(jets, 1, 2) for name in ("pt", "eta", "phi", "mass")}
    events |= {f"PFCands_{name}": fill(candidates, 0, 2) for name in ("pt", "eta", "phi", "mass", "d0", "d0Err")}
    events["PFCands_charge"] = fill(candidates, -1, 2, np.int32)
    events["Jet_hadronFlavour"] = ak.unflatten(random.choice([5, 4, 0], jets.sum()).astype(np.int32), jets)
    events["genWeight"] = random.uniform(0.5, 1.5, 40).astype(np.float32)
    links = [random.permutation(np.repeat(np.arange(count), 5)) for count in jets]
    events["JetPFCands_jetIdx"] = ak.Array([link.astype(np.int32) for link in links])
    events["JetPFCands_pFCandsIdx"] = ak.Array([random.permutation(20)[: len(link)].astype(np.int32) for link in links])
    monkeypatch.chdir(tmp_path)
    with uproot.recreate("nano.root") as file:
        file["Events"] = {name: values for name, values in events.items() if not name.startswith("Jet_")} | {
            name: values for name, values in events.items() if name.startswith("Jet_")
        }
    return events


def test_from_a_nano_file_to_a_trained_tagger(nano):
    layout, config, *_ = blocks("yaml")
    Path("layout.yaml").write_text(layout)
    (read,) = blocks("python")
    scope: dict = {}
    exec(read, scope)
    table = scope["table"]
    assert len(table) == ak.sum(ak.num(nano["Jet_pt"]))
    assert set(table.counts.tolist()) == {5}
    np.testing.assert_array_equal(table.fields["jet_pt"], ak.flatten(nano["Jet_pt"]))
    event, jet, row = next((e, len(pts) - 1, -1) for e, pts in reversed(list(enumerate(nano["Jet_pt"]))) if len(pts))
    mine = nano["JetPFCands_pFCandsIdx"][event][nano["JetPFCands_jetIdx"][event] == jet]
    last = slice(*table.offsets[row - 1 :])
    pt = np.hypot(table.particles["part_px"][last], table.particles["part_py"][last])
    np.testing.assert_allclose(pt, nano["PFCands_pt"][event][mine], rtol=1e-5)
    np.testing.assert_array_equal(table.particles["part_charge"][last], nano["PFCands_charge"][event][mine])
    assert table.weight[row] == nano["genWeight"][event]

    settings = yaml.safe_load(config) | {"trainer": {"max_epochs": 1, "enable_progress_bar": False}}
    settings["data"]["test"]["fraction"] = [0.8, 1.0]
    Path("my_tagger.yaml").write_text(yaml.safe_dump(settings))
    command.main(["fit", "--config", "my_tagger.yaml"])
    publish_run(Path("runs/my_tagger"), Path("published"), licence="MIT", paper="arXiv:2202.03772")
    assert load_pretrained("published").config.classes == ["b", "c", "light"]
    assert "trained on layout.\n" in Path("published/README.md").read_text()
    scores = predict("published", "nano.root", layout="layout.yaml")
    assert scores.index.tolist() == table.source_rows.tolist()
    assert scores.label.tolist() == table.label.tolist()
    assert scores.is_scored.all()


def test_the_layout_of_the_page(tmp_path):
    (tmp_path / "layout.yaml").write_text(blocks("yaml")[0])
    layout = read_layout(tmp_path / "layout.yaml")
    assert layout.tree == "Events"
    assert layout.classes == ("b", "c", "light")


def test_the_features_and_the_data_file_of_weaver_of_the_page(tmp_path):
    *_, features, weaver = blocks("yaml")
    (tmp_path / "my_features.yaml").write_text(features)
    (tmp_path / "JetClass_top.yaml").write_text(weaver)
    assert read_features(tmp_path / "my_features.yaml").columns == ("part_d0val", "part_d0err")
    description = read_weaver_yaml(tmp_path / "JetClass_top.yaml")
    assert description.classes == ("QCD", "Tbqq")
    with pytest.raises(ValueError, match=r"histograms of 'weights' are yet to be fitted, .*'zoo data fit-scaling"):
        description.for_split("train").require_scaling()


def test_every_format_stands_in_the_table():
    rows = len(re.findall(r"^\| (?!files|---)", PAGE.split("## 1.")[0], flags=re.MULTILINE))
    assert rows == len(known_formats()) - 1  # JetClass is one row there, two formats here
