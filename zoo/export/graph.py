"""A model as an ONNX graph, and its answers under ONNX Runtime."""

import contextlib
import io
import json
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.export.operators import OPSET, translated
from zoo.hub import KIND, Pretrained
from zoo.kernels import reference

#: Version of the file format: the first that has the operators.
IR_VERSION = 8


class Answers(nn.Module):
    """The answers of a pretrained model to its inputs in order: logits, scores or the columns of a task.

    Args:
        pretrained: of any kind that answers with numbers per jet.
        inputs: names of its inputs.
        scores: whether to answer with the softmax of the logits.
    """

    def __init__(self, pretrained: Pretrained, inputs: tuple[str, ...], *, scores: bool) -> None:
        super().__init__()
        self.model, self.kind, self.inputs, self.scores = pretrained.model, KIND[pretrained.config.kind], inputs, scores
        self.output = "scores" if scores else self.kind.output

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answers (batch, name)."""
        answers = self.kind.answer(self.model, dict(zip(self.inputs, inputs, strict=True)))
        return answers.softmax(dim=1) if self.scores else answers


def to_onnx(answers: Answers, example: Mapping[str, Tensor]) -> Any:
    """The graph of a model with batch and particle axes of any length.

    Args:
        answers: in evaluation mode.
        example: inputs by name; only their types matter. Its axes must be longer than 1, which torch takes as fixed.

    Returns:
        An ``onnx.ModelProto``; it has every input, even one that the model does not use.
    """
    onnx = _module("onnx")
    axes = {name: {0: "batch", 1: "particle"} for name in ("features", "four_momenta", "mask")}
    axes |= {"context": {0: "batch"}, answers.output: {0: "batch"}}
    with tempfile.TemporaryDirectory() as folder, _silence(), torch.no_grad(), reference(), translated():
        torch.onnx.export(
            answers,
            tuple(example.values()),
            f"{folder}/model.onnx",
            dynamo=False,
            opset_version=OPSET,
            input_names=list(example),
            output_names=[answers.output],
            dynamic_axes={name: axis for name, axis in axes.items() if name in (*example, answers.output)},
        )
        graph = _without_empty_casts(onnx.load(f"{folder}/model.onnx"))
    graph.ir_version = IR_VERSION
    _declare_all(graph.graph, example)
    onnx.checker.check_model(graph, full_check=True)
    return graph


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No warnings from the trace, as its constants are checked afterwards, and no graph printed with an error."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def describe(graph: Any, facts: Mapping[str, Any]) -> None:
    """Write facts into the metadata of a graph, each as JSON under its name."""
    _module("onnx").helper.set_model_props(graph, {name: json.dumps(value) for name, value in facts.items()})


def open_session(content: bytes) -> Any:
    """An ``onnxruntime.InferenceSession`` on one thread of the CPU."""
    runtime = _module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # no warnings about inputs that a model does not use
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run(session: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Answers (batch, name) of a session."""
    (answers,) = session.run(None, {name: np.ascontiguousarray(value.numpy()) for name, value in inputs.items()})
    return torch.from_numpy(answers)


def versions() -> dict[str, str]:
    """Versions of the packages that write and run the graph."""
    return {name: _module(name).__version__ for name in ("torch", "onnx", "onnxruntime")}


def _module(name: str) -> Any:
    try:
        return __import__(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"package {name!r} is missing, which exports need: pip install 'hepzoo[export]'", name=name
        ) from error


def _without_empty_casts(graph: Any) -> Any:
    """The graph without casts of values to their own type, which ONNX Runtime's optimiser cannot handle."""
    inferred = _module("onnx").shape_inference.infer_shapes(graph).graph
    values = [*inferred.value_info, *inferred.input]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    nodes, kept = graph.graph.node, []
    instead: dict[str, str] = {}
    for node in nodes:
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        if node.op_type == "Cast" and types.get(node.input[0]) == node.attribute[0].i:
            instead[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    for output in graph.graph.output:
        if output.name in instead:  # the last step was such a cast
            kept.append(_module("onnx").helper.make_node("Identity", [instead[output.name]], [output.name]))
    del nodes[:]
    nodes.extend(kept)
    return graph


def _declare_all(graph: Any, example: Mapping[str, Tensor]) -> None:
    """Declare all inputs, so that every model takes the same ones in the same order, whichever it uses."""
    helper, numbers = _module("onnx").helper, _module("onnx").TensorProto
    declared = {value.name: value for value in graph.input}
    for name, value in example.items():
        if name not in declared:
            kind = numbers.BOOL if value.dtype == torch.bool else numbers.FLOAT
            axes = ["batch", "particle", *value.shape[2:]] if name != "context" else ["batch", *value.shape[1:]]
            declared[name] = helper.make_tensor_value_info(name, kind, axes)
    del graph.input[:]
    graph.input.extend(declared[name] for name in example)
