"""Exported models: what lies in their folders answers as the model does, and nothing else is written."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from tests.baselines.test_trees import TEXT
from tests.hub.test_hub import config
from tests.test_publish import fit
from zoo import create_model, list_models, load_pretrained
from zoo.baselines.trees import BoostedTrees
from zoo.cli import main
from zoo.data.context import NO_CONTEXT
from zoo.data.features import FeatureTable, feature_table
from zoo.ensemble import make_ensemble
from zoo.export import ExportError, export, folder, parity
from zoo.export.graph import Answers, to_onnx
from zoo.hub import Parts, save_parts
from zoo.tasks import Regression

NAME = "pfn_energyflow.top_tagging"

#: Models that compute what rounding decides in float32, as weaver-core does: masses of collinear pairs, and which of
#: the particles at almost the same distance are neighbours. How far they may differ.
ROUNDED = {
    "particle_transformer_weaver": 1e-2,
    "particle_transformer_weaver_pre_activation": 1e-2,
    "particlenet_weaver": 1e-2,
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "pfn"
    main(["export", NAME, "--to", "onnx", "--out", str(out)])
    return out


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_the_folder_is_whole_and_reproduces_its_golden_answers(exported):
    """With ONNX Runtime and NumPy alone."""
    listed = dict(reversed(line.split("  ")) for line in (exported / "SHA256SUMS").read_text().splitlines())
    assert listed.keys() == {"model.onnx", "config.json", "golden.npz"}
    for name, digest in listed.items():
        assert hashlib.sha256((exported / name).read_bytes()).hexdigest() == digest
    golden = arrays(exported / "golden.npz")
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    inputs = {value.name: golden[value.name] for value in session.get_inputs()}
    assert list(inputs) == ["features", "four_momenta", "mask"]
    (logits,) = session.run(["logits"], inputs)
    np.testing.assert_allclose(logits, golden["logits"], rtol=0, atol=1e-5)


def test_golden_answers_are_those_of_the_pretrained_model(exported):
    golden = {name: torch.from_numpy(values) for name, values in arrays(exported / "golden.npz").items()}
    expected = load_pretrained(NAME)(golden["four_momenta"], golden["mask"])
    assert expected.std() > 0.1
    torch.testing.assert_close(golden["logits"], expected, rtol=0, atol=1e-5)


def test_facts_stand_in_the_graph_and_beside_it(exported):
    facts, pretrained = json.loads((exported / "config.json").read_text()), load_pretrained(NAME)
    graph = onnx.load(exported / "model.onnx")
    within = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert {name: value for name, value in facts.items() if name != "parity"} == within
    assert FeatureTable.from_dict(facts["features"]) == pretrained.feature_table
    assert facts["output"]["names"] == ["qcd", "top"]
    assert facts["units"] == "GeV"
    assert (graph.opset_import[0].version, graph.ir_version) == (facts["opset"], facts["ir_version"]) == (17, 8)
    assert facts["parity"]["largest_change"] < facts["parity"]["tolerance"] == 1e-5
    shapes = [tuple(shape) for shape in facts["parity"]["shapes"]]
    assert {(batch, length) for batch in (1, 5) for length in (1, 2, 3, 17, 50, 128)} <= set(shapes)


def test_scores_are_the_softmax(tmp_path, exported):
    export(NAME, tmp_path / "scores", scores=True)
    golden, logits = arrays(tmp_path / "scores" / "golden.npz"), arrays(exported / "golden.npz")["logits"]
    session = onnxruntime.InferenceSession(tmp_path / "scores" / "model.onnx")
    (scores,) = session.run(["scores"], {value.name: golden[value.name] for value in session.get_inputs()})
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_a_graph_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    """Control: one weight of the graph, moved by a thousandth."""

    def spoilt(*arguments):
        graph = to_onnx(*arguments)
        weight = next(tensor for tensor in graph.graph.initializer if tensor.name.endswith("0.weight"))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.001)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        return graph

    monkeypatch.setattr(folder, "to_onnx", spoilt)
    with pytest.raises(ExportError, match=r"golden jets: logits .* differ by .* more than 1e-05; nothing was written"):
        export(NAME, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_says_why(tmp_path, jets, monkeypatch):
    trees = BoostedTrees(TEXT, "substructure", (), ())
    settings = config(
        model="lightgbm_substructure", kind="trees", features={"features": []}, observables=["multiplicity", "mass"]
    )
    parts = Parts(trees, FeatureTable(()), NO_CONTEXT)
    save_parts(tmp_path / "trees", parts, settings, jets.four_momenta[:4], jets.mask[:4], "", {})
    make_ensemble([NAME, str(tmp_path / "trees")], tmp_path / "both")
    for name, message in (
        (tmp_path / "trees", "boosted trees are not exported"),
        (tmp_path / "both", "boosted trees are not exported"),
        ("particle_transformer.substructure", "a backbone gives no answers"),
    ):
        with pytest.raises(ExportError, match=message):
            export(name, tmp_path / "out")
    with pytest.raises(FileExistsError, match="remove it or choose another folder"):
        export(NAME, tmp_path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"hepzoo\[export\]"):
        export(NAME, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Eigenvalues(torch.nn.Module):
    def forward(self, features, four_momenta, mask):
        return torch.linalg.eigvalsh(four_momenta.mT @ four_momenta)[:, :2]


def test_an_operator_that_onnx_lacks_is_named(tmp_path, monkeypatch, capsys):
    pretrained, golden = folder._load(NAME)
    monkeypatch.setattr(folder, "_load", lambda _: (dataclasses.replace(pretrained, model=Eigenvalues()), golden))
    with pytest.raises(ExportError, match=r"cannot be exported: .*eig.*nothing was written"):
        export(NAME, tmp_path / "out")
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_regression_answers_with_its_columns(tmp_path, jets):
    network = create_model("pfn", input_dim=7, num_classes=2)
    task = Regression(network, ["jet_mass"]).eval()
    columns = ["jet_mass", "jet_mass_sigma"]
    facts = {
        "name": "zoo.tasks.Regression",
        "arguments": {"targets": ["jet_mass"]},
        "num_outputs": 2,
        "columns": columns,
    }
    settings = config(model="pfn", kind="task", classes=[], task=facts, paper="arXiv:1810.05165")
    parts = Parts(task, feature_table("kin"), NO_CONTEXT)
    save_parts(tmp_path / "mass", parts, settings, jets.four_momenta[:4], jets.mask[:4], "", {})
    export(tmp_path / "mass", tmp_path / "out")
    golden = arrays(tmp_path / "out" / "golden.npz")
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    (answers,) = session.run(["answers"], {value.name: golden[value.name] for value in session.get_inputs()})
    expected = load_pretrained(tmp_path / "mass")(jets.four_momenta[:4], jets.mask[:4])
    for i, name in enumerate(json.loads((tmp_path / "out" / "config.json").read_text())["output"]["names"]):
        np.testing.assert_allclose(answers[:, i], expected[name], rtol=1e-5)
    with pytest.raises(ExportError, match="--scores: has no classes"):
        export(tmp_path / "mass", tmp_path / "scores", scores=True)


def test_an_ensemble_is_one_graph(tmp_path):
    make_ensemble([NAME, "particlenet.top_tagging"], tmp_path / "two")
    assert export(tmp_path / "two", tmp_path / "out").jets == 49


@pytest.mark.slow
def test_a_run_is_exported_as_it_would_be_published(tmp_path):
    builder = {"class_path": "zoo.particlenet.particlenet_lite", "init_args": {"input_dim": 7, "num_classes": 2}}
    run = fit(tmp_path, builder)
    main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["model"] == "particlenet_lite"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if name.partition(".")[0] == name])
def test_every_model_agrees(name, monkeypatch):
    """With random weights and the running statistics of four real jets; of fewer lengths than an export compares."""
    monkeypatch.setattr(parity, "LENGTHS", (1, 2, 40))
    pretrained, golden = folder._load(NAME)
    inputs = {key: golden[key][:4] for key in ("features", "four_momenta", "mask")}
    model = create_model(name, input_dim=7, num_classes=2)
    if model.context_dim:
        inputs["context"] = torch.randn(len(inputs["mask"]), model.context_dim)
    with torch.no_grad():
        for _ in range(3):
            model(*inputs.values())
    pretrained = dataclasses.replace(pretrained, model=model.eval())
    answers = Answers(pretrained, tuple(inputs), scores=False).eval()
    graph = to_onnx(answers, parity.odd_jets(inputs)).SerializeToString()
    monkeypatch.setattr(parity, "TOLERANCE", ROUNDED.get(name, parity.TOLERANCE))
    assert parity.compare(graph, answers, pretrained, inputs).jets == 27
