"""Operators that torch's exporter is told of: the same numbers under ONNX Runtime as in torch."""

import io

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from zoo.export.operators import OPSET, translated

# The exporter in use is on its way out, and says so.
pytestmark = pytest.mark.filterwarnings("ignore")

VALUES = torch.tensor([0.0, -0.0, 1.0, -1.0, 1e-12, -3e-8, 0.3, -17.5, 1e8, -2e15])
PAIRS = torch.cartesian_prod(VALUES, VALUES).T.contiguous()


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def graph_of(function, *inputs: torch.Tensor, axes: dict | None = None) -> onnxruntime.InferenceSession:
    file = io.BytesIO()
    names = [f"x{i}" for i in range(len(inputs))]
    with translated():
        torch.onnx.export(
            Function(function), inputs, file, dynamo=False, opset_version=OPSET, input_names=names, dynamic_axes=axes
        )
    return onnxruntime.InferenceSession(file.getvalue())


def under_onnx(function, *inputs: torch.Tensor) -> np.ndarray:
    return graph_of(function, *inputs).run(None, {f"x{i}": value.numpy() for i, value in enumerate(inputs)})[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [torch.asinh, lambda x: torch.expm1(-x.abs()), lambda x: torch.log1p(x.abs())])
def test_functions_of_a_number(function, dtype):
    values = VALUES.to(dtype)
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    np.testing.assert_allclose(under_onnx(function, values), function(values).numpy(), rtol=bound, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [torch.atan2, torch.hypot])
def test_functions_of_two_numbers(function, dtype):
    """In all quadrants, on the axes with either sign of zero, and at the origin."""
    y, x = PAIRS.to(dtype)
    if function is torch.atan2:  # atan2(0, -0) = π is a convention
        y, x = (value[(y != 0) | (x != 0)] for value in (y, x))
    bound = 2e-7 if dtype == torch.float32 else 4e-15
    np.testing.assert_allclose(under_onnx(function, y, x), function(y, x).numpy(), rtol=bound, atol=0)


@pytest.mark.parametrize("descending", [False, True])
def test_sorting_is_stable(descending):
    values = torch.tensor([[2.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0]])
    expected = values.argsort(dim=1, stable=True, descending=descending)
    found = under_onnx(lambda x: x.argsort(dim=1, stable=True, descending=descending), values)
    np.testing.assert_array_equal(found, expected)


def test_terms_with_the_same_index_are_summed():
    rows, index = torch.arange(12.0).reshape(4, 3), torch.tensor([1, 0, 1, 1])
    found = under_onnx(lambda x: x.new_zeros(2, 3).index_add(0, index, x), rows)
    np.testing.assert_array_equal(found, [[3, 4, 5], [15, 18, 21]])


@pytest.mark.parametrize(
    "function",
    [lambda x: x.mT, lambda x: x.permute(-1, 0, 1), lambda x: x.movedim(-1, 0), lambda x: x.movedim((-2, 0), (0, 2))],
)
def test_axes_from_behind(function):
    values = torch.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(under_onnx(function, values), function(values))


def test_the_unit_matrix_grows_with_the_jet():
    def function(x):
        return x + torch.eye(x.shape[0], x.shape[1], dtype=torch.bool)

    session = graph_of(function, torch.zeros(2, 3), axes={"x0": {0: "row", 1: "column"}})
    np.testing.assert_array_equal(session.run(None, {"x0": np.zeros((5, 4), np.float32)})[0], np.eye(5, 4))
