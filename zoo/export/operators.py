"""ONNX versions of torch operators that its exporter does not know, or writes in a form that ONNX Runtime refuses.

The exporter keeps registered operators for the whole process; `translated` registers them for one export.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.onnx import symbolic_helper
from torch.onnx.utils import register_custom_op_symbolic, unregister_custom_op_symbolic

#: Version of ONNX's operators in which models are written.
OPSET = 17

_FLOAT, _DOUBLE = 1, 11  #: ONNX's numbers of float32 and float64
#: Torch's numbers of its types -> ONNX's.
_ONNX_TYPES = {0: 2, 1: 3, 2: 5, 3: 6, 4: 7, 5: 10, 6: _FLOAT, 7: _DOUBLE, 11: 9}
_DEFAULT = 6  #: torch's number of float32


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Let the exporter use the operators of this file."""
    for name, symbolic in _SYMBOLICS.items():
        register_custom_op_symbolic(name, symbolic, OPSET)
    try:
        yield
    finally:
        for name in _SYMBOLICS:
            unregister_custom_op_symbolic(name, OPSET)


def _hypot(g: Any, x: Any, y: Any) -> Any:
    """The squares of float32 neither overflow nor vanish in float64."""
    x_double, y_double = _double(g, x), _double(g, y)
    squares = g.op("Add", g.op("Mul", x_double, x_double), g.op("Mul", y_double, y_double))
    return _like(g, g.op("Sqrt", squares), x)


def _asinh(g: Any, x: Any) -> Any:
    """ln(|x| + √(x² + 1)) with the sign of x: ONNX Runtime has no Asinh in float64."""
    double = _double(g, x)
    size = g.op("Abs", double)
    root = g.op("Sqrt", g.op("Add", g.op("Mul", size, size), _number(g, 1.0)))
    value = g.op("Mul", g.op("Sign", double), g.op("Log", g.op("Add", size, root)))
    return _like(g, value, x)


def _atan2(g: Any, y: Any, x: Any) -> Any:
    """ONNX Runtime has Atan only in float32, which a step of Newton's method refines; 1/y gives the sign of -0."""
    sine, cosine, zero = _double(g, y), _double(g, x), _number(g, 0.0)
    cosine = g.op("Where", g.op("Equal", cosine, zero), zero, cosine)  # no -0, with which the slope would change sign
    slope = g.op("Cast", g.op("Div", sine, cosine), to_i=_FLOAT)
    half_turn = g.op("Where", g.op("Less", g.op("Reciprocal", sine), zero), _number(g, -math.pi), _number(g, math.pi))
    further = g.op("Where", g.op("Less", cosine, zero), half_turn, zero)
    rough = g.op("Add", g.op("Cast", g.op("Atan", slope), to_i=_DOUBLE), further)
    rough_sine, rough_cosine = g.op("Sin", rough), g.op("Cos", rough)
    across = g.op("Sub", g.op("Mul", sine, rough_cosine), g.op("Mul", cosine, rough_sine))
    along = g.op("Add", g.op("Mul", cosine, rough_cosine), g.op("Mul", sine, rough_sine))
    angle = g.op("Add", rough, g.op("Div", across, along))
    is_origin = g.op("And", g.op("Equal", sine, zero), g.op("Equal", cosine, zero))
    return _like(g, g.op("Where", is_origin, zero, angle), x)


def _expm1(g: Any, x: Any) -> Any:
    return _like(g, g.op("Sub", g.op("Exp", _double(g, x)), _number(g, 1.0)), x)


def _log1p(g: Any, x: Any) -> Any:
    return _like(g, g.op("Log", g.op("Add", _double(g, x), _number(g, 1.0))), x)


def _matrix_transpose(g: Any, x: Any) -> Any:
    axes = list(range(_rank(x)))
    return g.op("Transpose", x, perm_i=[*axes[:-2], axes[-1], axes[-2]])


def _permute(g: Any, x: Any, axes: Any) -> Any:
    """ONNX counts axes from the front only."""
    found = symbolic_helper._parse_arg(axes, "is")
    return g.op("Transpose", x, perm_i=[axis % len(found) for axis in found])


def _movedim(g: Any, x: Any, sources: Any, targets: Any) -> Any:
    rank = _rank(x)
    moved, to = ([axis % rank for axis in _integers(axes)] for axes in (sources, targets))
    place = dict(zip(to, moved, strict=True))
    left = iter(axis for axis in range(rank) if axis not in moved)
    return g.op("Transpose", x, perm_i=[place[axis] if axis in place else next(left) for axis in range(rank)])


def _integers(value: Any) -> list[int]:
    found = value.node().t("value") if value.node().kind() == "onnx::Constant" else None
    return found.reshape(-1).tolist() if found is not None else symbolic_helper._parse_arg(value, "is")


def _eye(g: Any, rows: Any, *further: Any) -> Any:
    """Row = column: ONNX Runtime has EyeLike for few types."""
    *columns, dtype, _, _, _ = further
    number = symbolic_helper._get_const(dtype, "i", "dtype")
    down = g.op("Unsqueeze", _places(g, rows), g.op("Constant", value_t=torch.tensor([1])))
    across = _places(g, columns[0] if columns else rows)
    return g.op("Cast", g.op("Equal", down, across), to_i=_ONNX_TYPES[_DEFAULT if number is None else number])


def _places(g: Any, length: Any) -> Any:
    zero, one = (g.op("Constant", value_t=torch.tensor(value)) for value in (0, 1))
    return g.op("Range", zero, length, one)


def _argsort(g: Any, x: Any, *settings: Any) -> Any:
    return _sort(g, x, *settings)[1]


def _sort(g: Any, x: Any, *settings: Any) -> Any:
    """A stable sort: of equal values TopK gives the first one."""
    axis, is_descending = (symbolic_helper._get_const(value, "i", "setting") for value in settings[-2:])
    length = g.op("Gather", g.op("Shape", x), g.op("Constant", value_t=torch.tensor([axis])), axis_i=0)
    return g.op("TopK", x, length, axis_i=axis, largest_i=is_descending, sorted_i=1, outputs=2)


def _index_add(g: Any, x: Any, axis: Any, index: Any, source: Any, alpha: Any = None) -> Any:
    """Every term counts, where torch's own translation keeps one of those with the same index."""
    dim = symbolic_helper._get_const(axis, "i", "dim")
    rank = _rank(source)
    others = [other for other in range(rank) if other != dim % rank]
    if others:
        index = g.op("Unsqueeze", index, g.op("Constant", value_t=torch.tensor(others)))
    index = g.op("Expand", index, g.op("Shape", source))
    return g.op("ScatterElements", x, index, source, axis_i=dim, reduction_s="add")


def _rank(x: Any) -> int:
    rank = symbolic_helper._get_tensor_rank(x)
    if rank is None:
        raise ValueError("a tensor has no known number of axes; write the page of the model without what hides it")
    return rank


def _double(g: Any, x: Any) -> Any:
    return x if x.type().scalarType() == "Double" else g.op("Cast", x, to_i=_DOUBLE)


def _like(g: Any, value: Any, x: Any) -> Any:
    """A float64 value in the type of the value that it was computed from."""
    return value if x.type().scalarType() == "Double" else g.op("Cast", value, to_i=_FLOAT)


def _number(g: Any, value: float) -> Any:
    return g.op("Constant", value_t=torch.tensor(value, dtype=torch.float64))


_SYMBOLICS: dict[str, Callable[..., Any]] = {
    "aten::argsort": _argsort,
    "aten::asinh": _asinh,
    "aten::atan2": _atan2,
    "aten::expm1": _expm1,
    "aten::eye": _eye,
    "aten::hypot": _hypot,
    "aten::index_add": _index_add,
    "aten::log1p": _log1p,
    "aten::mT": _matrix_transpose,
    "aten::movedim": _movedim,
    "aten::permute": _permute,
    "aten::sort": _sort,
}
