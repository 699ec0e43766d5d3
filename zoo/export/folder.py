"""An exported model on disk: the graph, facts about it, and golden answers that any language can read."""

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

import zoo
from zoo.baselines.trees import BoostedTrees
from zoo.export.graph import IR_VERSION, Answers, describe, to_onnx, versions
from zoo.export.operators import OPSET
from zoo.export.parity import TOLERANCE, ExportError, Parity, compare, odd_jets
from zoo.files import atomic_folder, disk_errors_name, sync
from zoo.hub import Pretrained, PretrainedConfig, find_pretrained, load_contents, read_checked
from zoo.hub.contents import GOLDEN, checksums
from zoo.publish import publish_run

MODEL, FACTS, ANSWERS, SUMS = "model.onnx", "config.json", "golden.npz", "SHA256SUMS"

#: Version of the format.
FORMAT_VERSION = 1

_AXES = {
    "features": ("batch", "particle", "feature"),
    "four_momenta": ("batch", "particle", "E px py pz"),
    "mask": ("batch", "particle"),
    "context": ("batch", "context feature"),
}


def export(name: str | Path, out: Path, *, scores: bool = False) -> Parity:
    """Write a model as an ONNX graph, with all that is needed to use it correctly, after a comparison with PyTorch.

    Args:
        name: pretrained model, its folder, or ``hf://owner/repo@commit``; or the folder of a run that was tested.
        out: folder to write; must not exist.
        scores: answer with the softmax of the logits.

    Returns:
        How well it agrees.

    Raises:
        FileExistsError: if ``out`` exists.
        FileNotFoundError: if there is no such model.
        ExportError: if it cannot be exported, or the graph gives other answers.
        ModuleNotFoundError: if the extra ``export`` is not installed.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; remove it or choose another folder")
    pretrained, golden = _load(name)
    _require_exportable(name, pretrained, scores)
    inputs = {key: golden[key] for key in _AXES if key in golden}
    answers = Answers(pretrained, tuple(inputs), scores=scores).eval()
    try:
        graph = to_onnx(answers, odd_jets(inputs))
        facts = _facts(pretrained, answers)
        describe(graph, facts)
        content = graph.SerializeToString()
        parity = compare(content, answers, pretrained, inputs)
    except ExportError as error:
        raise ExportError(f"{name}: {error}; nothing was written") from error
    except ModuleNotFoundError:
        raise
    except Exception as error:  # those of torch's exporter, ONNX and ONNX Runtime have no class in common
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(
            f"{name}: {pretrained.config.model} cannot be exported: {reason}; nothing was written"
        ) from error
    _write(out, content, {**facts, "parity": _told(parity)}, _golden(answers, inputs))
    return parity


def _load(name: str | Path) -> tuple[Pretrained, dict[str, Tensor]]:
    """A model and its golden jets; the model of a run as it would be published."""
    if (Path(name) / "config.yaml").is_file():
        with tempfile.TemporaryDirectory() as drafts:
            publish_run(Path(name), Path(drafts) / "run", licence="not stated")
            return _load(Path(drafts) / "run")
    folder = find_pretrained(name)
    contents = read_checked(folder)
    return load_contents(folder, contents), load_tensors(contents[GOLDEN])


def _require_exportable(name: str | Path, pretrained: Pretrained, scores: bool) -> None:
    config = pretrained.config
    if any(isinstance(module, BoostedTrees) for module in pretrained.model.modules()):
        raise ExportError(f"{name}: boosted trees are not exported; LightGBM reads model.txt of the folder from C++")
    if config.kind == "backbone":
        raise ExportError(f"{name}: a backbone gives no answers; fine-tune it, and export what comes of it")
    if scores and not config.classes:
        raise ExportError(f"{name}: --scores: has no classes; leave it out")


def _facts(pretrained: Pretrained, answers: Answers) -> dict[str, Any]:
    """What a program must know, in the graph and beside it."""
    config: PretrainedConfig = pretrained.config
    return {
        "format_version": FORMAT_VERSION,
        "zoo": zoo.__version__,
        "model": config.model,
        "kind": config.kind,
        "dataset": config.dataset,
        "paper": config.paper,
        "licence": config.licence,
        "units": config.units,
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "inputs": {
            name: {"type": "bool" if name == "mask" else "float32", "axes": list(_AXES[name])}
            for name in answers.inputs
        },
        "output": {"name": answers.output, "type": "float32", "axes": ["batch", "name"], "names": pretrained.names},
        "features": pretrained.feature_table.to_dict(),
        "context": pretrained.context_table.to_dict() if pretrained.context_table.context_dim else None,
        "versions": versions(),
    }


def _told(parity: Parity) -> dict[str, Any]:
    return {**parity._asdict(), "tolerance": TOLERANCE}


@torch.no_grad()
def _golden(answers: Answers, inputs: Mapping[str, Tensor]) -> bytes:
    """Inputs of the golden jets and PyTorch's answers to them, as NumPy arrays."""
    arrays = {**inputs, answers.output: answers(*inputs.values())}
    file = io.BytesIO()
    np.savez(file, **{name: value.numpy() for name, value in arrays.items()})
    return file.getvalue()


def _write(out: Path, graph: bytes, facts: Mapping[str, Any], golden: bytes) -> None:
    contents = {MODEL: graph, FACTS: (json.dumps(facts, indent=2) + "\n").encode(), ANSWERS: golden}
    contents[SUMS] = checksums(contents)
    with atomic_folder(out) as draft:
        for name, content in contents.items():
            with disk_errors_name(out / name), (draft / name).open("wb") as file:
                file.write(content)
                sync(file)
