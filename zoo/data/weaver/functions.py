"""Functions for the expressions in weaver's data files: parts of NumPy and awkward, and weaver's own helpers."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zoo.data.expressions import Language

#: Functions of NumPy besides its universal ones.
_NUMPY = """
argmax argmin all any array asarray clip concatenate digitize expand_dims full full_like interp isclose isin max mean
median min nan_to_num ones ones_like prod ptp round select stack std squeeze sum var where zeros zeros_like
"""

#: Functions of awkward.
_AWKWARD = """
all any argcartesian argcombinations argmax argmin argsort broadcast_arrays cartesian combinations concatenate count
count_nonzero drop_none fill_none firsts flatten full_like is_none isclose local_index mask max mean min nan_to_num
num ones_like pad_none prod ptp singletons softmax sort std sum to_numpy to_packed to_regular unflatten unzip
values_astype var where zeros_like
"""

_MATH = "acos asin atan atan2 ceil cos cosh exp fabs floor hypot log log10 log2 pow radians sin sinh sqrt tan tanh"

#: Functions that can reduce a whole block of jets to one number, which would depend on where a file is cut.
_REDUCTIONS = "argmax argmin all any count count_nonzero max mean median min prod ptp std sum var"

_TYPES = "bool_ float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
_NUMBERS = "e inf nan newaxis pi"

_KEYWORDS = """
a_max a_min atol axis axis1 clip copy counts decimals default depth_limit dtype equal_nan fields fill_value keepdims
left mask_identity max maxlen min n nan nan_equal neginf posinf replacement right rtol target to valid_when value
"""

#: Attributes and methods of the four-momenta that ``_p4_from_...`` make, see the library vector.
_ATTRIBUTES = """
E M Mt Mt2 E2 M2 beta costheta cottheta energy energy2 eta et et2 gamma m m2 mag mag2 mass mass2 mt mt2 p p2 phi pt pt2
px py pz rapidity rho rho2 tau tau2 theta transverse_energy transverse_mass x y z t
"""
_METHODS = "boost boostX boostY boostZ boost_p4 deltaR deltaR2 deltaRapidityPhi deltaangle deltaeta deltaphi dot"

_RANDOM = ("_batch_permute_indices", "_batch_permute_and_drop_indices")


@functools.cache
def weaver_language() -> Language:
    """The language of the expressions in weaver's data files."""
    import awkward as ak

    universal = {name: _of_one_shape(value) for name, value in vars(np).items() if isinstance(value, np.ufunc)}
    parts = {
        "np": universal
        | {name: getattr(np, name) for name in (*_NUMPY.split(), *_TYPES.split())}
        | {"clip": _clip, "where": _of_one_shape(np.where)},
        "ak": {name: getattr(ak, name) for name in _AWKWARD.split()} | {"where": _of_one_shape(ak.where)},
        "math": {name: getattr(math, name) for name in _MATH.split()},
    }
    for name in _REDUCTIONS.split():
        for module in ("np", "ak"):
            if name in parts[module]:
                parts[module][name] = _of_each_jet(f"{module}.{name}", parts[module][name])
    parts |= {"numpy": parts["np"], "awkward": parts["ak"]}
    functions = {f"{module}.{name}": value for module, part in parts.items() for name, value in part.items()}
    constants = {
        f"{module}.{name}": getattr(np, name)
        for module in ("np", "numpy")
        for name in (*_NUMBERS.split(), *_TYPES.split())
    }
    constants |= {f"math.{name}": getattr(math, name) for name in ("e", "inf", "nan", "pi")}
    return Language(
        functions=functions | _HELPERS,
        constants=constants | {"bool": bool, "float": float, "int": int},
        keywords=frozenset(_KEYWORDS.split()),
        attributes=frozenset(_ATTRIBUTES.split()),
        methods=frozenset(_METHODS.split()),
        check=_require_one_shape,
    )


def _require_one_shape(*values: Any) -> None:
    """Refuse a number per jet together with an array (jet, length), as NumPy would align their last axes.

    NumPy fails where the axes differ in length, and is wrong where the number of jets equals the length of the array.

    Raises:
        ValueError: if there are such values.
    """
    import awkward as ak

    arrays = [value for value in values if isinstance(value, np.ndarray | ak.Array) and value.ndim]
    of_jets = {len(value) for value in arrays if value.ndim == 1}
    for value in arrays:
        if value.ndim > 1 and len(value) in of_jets and _is_rectangular(value):
            raise ValueError(
                f"a number of each of {len(value)} jets meets an array padded to one length, of which NumPy would take "
                "the last axes together; write [:, np.newaxis] behind the number of the jet"
            )


def _is_rectangular(value: Any) -> bool:
    import awkward as ak

    return isinstance(value, np.ndarray) or isinstance(value.type.content, ak.types.RegularType)


def _of_one_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with `_require_one_shape` called on its arguments first."""

    def checked(*arguments: Any, **keywords: Any) -> Any:
        _require_one_shape(*arguments)
        return function(*arguments, **keywords)

    return checked


def _of_each_jet(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(*arguments: Any, **keywords: Any) -> Any:
        result = function(*arguments, **keywords)
        if np.ndim(result) == 0:
            raise ValueError(f"{name} makes one number of all jets that happen to be read together; give it an axis=1")
        return result

    return reduce


def _hash(*columns: Sequence[Any]) -> np.ndarray:
    """Python's hash of the values of each row."""
    return np.array([hash(row) for row in zip(*columns, strict=True)])


def _concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    import awkward as ak

    if not len(arrays):
        return np.array([])
    join = np.concatenate if isinstance(arrays[0], np.ndarray) else ak.concatenate
    return join(arrays, axis=axis)


def _stack(arrays: Sequence[Any], axis: int = 1) -> Any:
    import awkward as ak

    if not len(arrays) or isinstance(arrays[0], np.ndarray):
        return np.stack(arrays, axis=axis) if len(arrays) else np.array([])
    with_axis = (*[slice(None)] * axis, np.newaxis)
    return ak.concatenate([array[with_axis] for array in arrays], axis=axis)


def _clip(array: Any, a_min: Any, a_max: Any) -> Any:
    """Numbers limited to a range, NaN left as it is, in lists of any length."""
    _require_one_shape(array, a_min, a_max)
    return np.minimum(np.maximum(array, a_min), a_max)


def _pad(array: Any, maxlen: int, value: float = 0, dtype: str = "float32") -> np.ndarray:
    """Lists cut or padded to one length, (jet, maxlen)."""
    import awkward as ak

    if isinstance(array, np.ndarray) and array.ndim >= 2 and array.shape[1] == maxlen:
        return array
    lists = ak.values_astype(_as_lists(array), dtype)
    padded = ak.fill_none(ak.pad_none(lists, maxlen, axis=1, clip=True), value, axis=1)
    return ak.to_numpy(padded).astype(dtype)


def _repeat_pad(array: Any, maxlen: int, dtype: str = "float32") -> np.ndarray:
    """Lists cut, or repeated from their start, up to one length (jet, maxlen); an empty list gives zeros."""
    import awkward as ak

    lists = _as_lists(array)
    counts, values = ak.to_numpy(ak.num(lists)), ak.to_numpy(ak.flatten(lists))
    place = np.arange(maxlen) % np.maximum(counts, 1)[:, None] + (np.cumsum(counts) - counts)[:, None]
    repeated = np.append(values, 0)[np.minimum(place, len(values))]
    return np.where(counts[:, None] > 0, repeated, 0).astype(dtype)


def _as_lists(array: Any) -> Any:
    import awkward as ak

    lists = ak.Array(array)
    return ak.unflatten(lists, 1) if lists.ndim == 1 else lists


def _batch_argsort(array: Any) -> Any:
    import awkward as ak

    return ak.argsort(array)


def _batch_gather(array: Any, indices: Any) -> Any:
    return array[indices]


def _refuse_random(*arguments: Any, **keywords: Any) -> None:
    raise ValueError(
        "a random order or choice of particles is not made when a file is read, as the zoo reads it once; leave it out"
    )


def _p4_from_pxpypze(px: Any, py: Any, pz: Any, energy: Any) -> Any:
    return _p4({"px": px, "py": py, "pz": pz, "energy": energy})


def _p4_from_ptetaphie(pt: Any, eta: Any, phi: Any, energy: Any) -> Any:
    return _p4({"pt": pt, "eta": eta, "phi": phi, "energy": energy})


def _p4_from_ptetaphim(pt: Any, eta: Any, phi: Any, mass: Any) -> Any:
    return _p4({"pt": pt, "eta": eta, "phi": phi, "mass": mass})


def _p4(components: dict[str, Any]) -> Any:
    import vector

    return vector.zip(components)


_HELPERS: dict[str, Callable[..., Any]] = {
    "len": len,
    "_hash": _hash,
    "_concat": _concat,
    "_stack": _stack,
    "_clip": _clip,
    "_pad": _pad,
    "_repeat_pad": _repeat_pad,
    "_batch_argsort": _batch_argsort,
    "_batch_gather": _batch_gather,
    "_p4_from_pxpypze": _p4_from_pxpypze,
    "_p4_from_ptetaphie": _p4_from_ptetaphie,
    "_p4_from_ptetaphim": _p4_from_ptetaphim,
    **dict.fromkeys(_RANDOM, _refuse_random),
}
