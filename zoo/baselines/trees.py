"""Boosted decision trees as a model: LightGBM's text in, logits out; and the inputs of the trees.

The text is parsed and evaluated here, so that other people's trees do not need LightGBM and never reach its parser,
which trusts its input.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.baselines.fast import hardest_objects
from zoo.baselines.hardest import MAX_OBJECTS
from zoo.physics.kinematics import pair_features
from zoo.physics.substructure import observables, substructure

Inputs = Literal["objects", "pairs", "substructure", "subjets"]
#: Inputs of the trees -> name of such a model.
TITLES: dict[Inputs, str] = {
    "objects": "lightgbm",
    "pairs": "lightgbm_pairs",
    "substructure": "lightgbm_substructure",
    "subjets": "lightgbm_subjets",
}
#: Inputs for jets, not for events.
OF_JETS = ("substructure", "subjets")
#: Numbers of a pair, in the order of `pair_features`.
PAIR_NAMES = ("ln_kt", "ln_z", "ln_delta", "ln_m2")

#: Most leaves of a tree, and cuts of all trees.
MAX_LEAVES, MAX_CUTS = 1024, 4_000_000

#: Bits of ``decision_type``, and above them which values count as missing: none, zeros or NaN.
_IS_CATEGORY, _GOES_LEFT, _SHIFT = 1, 2, 2
_ZERO, _NAN = 1, 2
#: Absolute values up to this count as zero in LightGBM.
_SMALLEST = 1e-35

#: Events times trees that are evaluated at once.
_BLOCK = 4_000_000


class ForestError(ValueError):
    """A text does not describe trees that can be evaluated; the message says where."""


def input_names(inputs: Inputs, features: Sequence[str], context: Sequence[str]) -> list[str]:
    """Names of the columns of `flatten`; objects are counted from 1, the hardest.

    Args:
        inputs: what the trees see.
        features: names of the features of a particle.
        context: names of the context features.
    """
    if inputs in OF_JETS:
        return [*observables(of_subjets=inputs == "subjets"), *context]
    places = range(1, MAX_OBJECTS + 1)
    names = [f"{name}_{place}" for place in places for name in features]
    names += context
    if inputs == "pairs":
        names += [f"{name}_{i}_{j}" for i in places for j in places if i < j for name in PAIR_NAMES]
    return names


def flatten(inputs: Inputs, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor) -> Tensor:
    """Features of the hardest objects in order, the context, and the numbers of pairs i < j; NaN for absent objects.

    Or the substructure, which is never absent, and the context.

    Args:
        inputs: what the trees see.
        features: (batch, particle, feature).
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: (batch, particle), True for a real particle.
        context: (batch, context_feature).

    Returns:
        (batch, input), float32.
    """
    if inputs in OF_JETS:
        of_jets = substructure(four_momenta, mask, of_subjets=inputs == "subjets").values()
        return torch.cat([torch.stack(list(of_jets), dim=1), context], dim=1)
    values = torch.cat([features, four_momenta], dim=-1)
    table = hardest_objects(values, four_momenta, mask, MAX_OBJECTS, absent=torch.nan)
    features, momenta = table.split([features.shape[-1], 4], dim=-1)
    columns = [features.flatten(1), context]
    if inputs == "pairs":
        first_row = MAX_OBJECTS * torch.arange(len(table), device=table.device)[:, None]
        ends = torch.triu_indices(MAX_OBJECTS, MAX_OBJECTS, 1, device=table.device)
        i, j = ((first_row + end).flatten() for end in ends)
        pairs = pair_features(momenta.flatten(0, 1), i, j).float()
        columns.append(pairs.reshape(len(table), len(PAIR_NAMES) * ends.shape[1]))
    return torch.cat(columns, dim=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Forest:
    """Trees as arrays, one tree after the other.

    A node is a cut if it is 0 or more, else the leaf ``-1 - node``.

    Shapes:
        names: (input,), of the inputs in the order of ``cut_input``. root (tree,): first node of each tree. cut_input,
        threshold, kind, left and right (cut,): ``kind`` is LightGBM's ``decision_type``. leaf (leaf,): the number added
        to the logit.
    """

    names: tuple[str, ...]
    num_logits: int
    root: np.ndarray
    cut_input: np.ndarray
    threshold: np.ndarray
    kind: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaf: np.ndarray


def parse_forest(text: str) -> Forest:
    """The trees that LightGBM's ``model_to_string`` wrote, for two classes or more.

    Raises:
        ForestError: if it is not such a text, the trees are of another kind, or a number in it is impossible.
    """
    first, *further = text.partition("\nend of trees")[0].split("\nTree=")
    header, trees = dict(_entries(first)), [dict(_entries(part)) for part in further]
    is_counted = all(part.split("\n", 1)[0].strip() == str(number) for number, part in enumerate(further))
    names = tuple(header.get("feature_names", "").split())
    outputs = _outputs(header)
    is_whole = "\nend of trees" in text and is_counted and len(trees) % outputs == 0
    if not names or not trees or not is_whole or "average_output" in text:
        raise ForestError("is no text of boosted trees, or a part of it is missing")
    parts = []
    first_cut = first_leaf = 0
    for number, tree in enumerate(trees):
        try:
            parts.append(_tree(tree, len(names), first_cut, first_leaf))
        except (KeyError, ValueError, OverflowError) as error:
            raise ForestError(f"tree {number}: {error}") from None
        first_cut, first_leaf = first_cut + len(parts[-1][1]), first_leaf + len(parts[-1][-1])
        if first_cut > MAX_CUTS:
            raise ForestError(f"the trees have more than {MAX_CUTS:,} cuts")
    roots, *columns = zip(*parts, strict=True)
    return Forest(names, outputs, np.array(roots), *map(np.concatenate, columns))


def _entries(section: str) -> Iterator[tuple[str, str]]:
    for line in section.splitlines():
        key, found, value = line.partition("=")
        if found:
            yield key, value


def _outputs(header: Mapping[str, str]) -> int:
    """Number of logits that the trees add to: one for two classes, else one per class."""
    objective = header.get("objective", "")
    outputs = header.get("num_tree_per_iteration", "")
    if objective == "binary sigmoid:1" and outputs == "1":
        return 1
    if objective == f"multiclass num_class:{outputs}" and outputs.isdecimal() and 2 < int(outputs) <= 1000:
        return int(outputs)
    raise ForestError(
        f"the objective {objective!r} with {outputs or 'no'} trees a round is neither binary nor multiclass"
    )


def _tree(tree: Mapping[str, str], num_inputs: int, first_cut: int, first_leaf: int) -> tuple:
    """Root, input, threshold, kind, left and right of each cut, and the leaves; counted over all trees."""
    leaves = int(tree["num_leaves"])
    if not 1 <= leaves <= MAX_LEAVES:
        raise ValueError(f"num_leaves must be 1 to {MAX_LEAVES}, is {leaves}")
    if tree.get("num_cat", "0") != "0" or tree.get("is_linear", "0") != "0":
        raise ValueError("cuts on categories and linear leaves are not evaluated")
    leaf = _numbers(tree, "leaf_value", float, leaves)
    keys = {"split_feature": int, "threshold": float, "decision_type": int, "left_child": int, "right_child": int}
    if leaves == 1:
        keys = dict.fromkeys(keys, int)
        tree = dict.fromkeys(keys, "")
    column, threshold, kind, left, right = (_numbers(tree, key, of, leaves - 1) for key, of in keys.items())
    if not ((column >= 0) & (column < num_inputs)).all():
        raise ValueError(f"split_feature must be 0 to {num_inputs - 1}")
    if not ((kind & _IS_CATEGORY == 0) & (kind >= 0) & (kind >> _SHIFT <= _NAN)).all():
        raise ValueError("decision_type must be of cuts on numbers")
    cuts = np.arange(leaves - 1)
    for child in (left, right):  # a later cut or a leaf, so that every path ends
        if not (((child > cuts) & (child < leaves - 1)) | ((child < 0) & (child >= -leaves))).all():
            raise ValueError("a child is no later cut and no leaf")
    left, right = (np.where(child >= 0, child + first_cut, child - first_leaf) for child in (left, right))
    root = first_cut if leaves > 1 else -1 - first_leaf
    return root, column, threshold.astype(float), kind, left, right, leaf


def _numbers(tree: Mapping[str, str], key: str, of: type, count: int) -> np.ndarray:
    values = np.array([of(value) for value in tree[key].split()], dtype=np.int64 if of is int else np.float64)
    is_number = ~np.isnan(values) if key == "threshold" else np.isfinite(values)  # a cut may separate numbers from NaN
    if len(values) != count or not is_number.all():
        raise ValueError(f"{key} must have {count} finite numbers")
    return values


class BoostedTrees(nn.Module):
    """Boosted trees, called like the networks: logits of two classes are 0 and the log-odds of the second.

    Inputs are found by name, so that additional ones or another order change nothing.

    References:
        LightGBM: A Highly Efficient Gradient Boosting Decision Tree (2017), Advances in Neural Information Processing
        Systems 30.

    Args:
        text: as LightGBM writes it.
        inputs: what the trees see.
        features: names of the features of a particle.
        context: names of the context features.

    Raises:
        ForestError: if the text is wrong, or the trees use something that is not among these inputs.
    """

    #: Rounding may send a jet to another leaf, so a logit can jump.
    jumps = True

    def __init__(self, text: str, inputs: Inputs, features: Sequence[str], context: Sequence[str]) -> None:
        super().__init__()
        self.text, self.inputs, self.context_dim = text, inputs, len(context)
        self.forest = parse_forest(text)
        there = {name.replace(" ", "_"): i for i, name in enumerate(input_names(inputs, features, context))}
        if absent := [name for name in self.forest.names if name not in there]:
            raise ForestError(f"the trees see {absent[0]!r}, which is not among the inputs {inputs!r}")
        self.columns = [there[name] for name in self.forest.names]
        for field in dataclasses.fields(Forest):
            if isinstance(values := getattr(self.forest, field.name), np.ndarray):
                self.register_buffer(field.name, torch.from_numpy(values), persistent=False)

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return max(2, self.forest.num_logits)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class), float32; arguments as for `flatten`.

        They are NaN for a jet with a number that is not finite, which the trees would take for an absent one.
        """
        if context is None:
            context = four_momenta.new_zeros(len(mask), 0)
        values = flatten(self.inputs, features, four_momenta, mask, context)[:, self.columns]
        sums = self.raw_scores(values.double())
        logits = (F.pad(sums, (1, 0)) if sums.shape[1] == 1 else sums).float()
        seen = four_momenta if self.inputs in OF_JETS else torch.cat([features, four_momenta], dim=-1)
        is_finite = (seen.isfinite().all(-1) | ~mask).all(1) & context.isfinite().all(1)
        return logits.masked_fill(~is_finite[:, None], torch.nan)

    @torch.no_grad()
    def raw_scores(self, values: Tensor) -> Tensor:
        """Sums of leaves, float64 (event, output), of float64 inputs (event, input), NaN where there is none."""
        sums = values.new_zeros(len(values), self.forest.num_logits)
        output = torch.arange(len(self.root), device=values.device) % self.forest.num_logits
        step = max(1, _BLOCK // max(1, len(values)))
        for first in range(0, len(self.root), step):
            leaves = self._walk(values, self.root[first : first + step])
            sums.index_add_(1, output[first : first + step], self.leaf[leaves].double())
        return sums

    def _walk(self, values: Tensor, root: Tensor) -> Tensor:
        """Leaf (event, tree) that each event reaches from each root."""
        node = root.expand(len(values), -1)
        while (node >= 0).any():
            cut = node.clamp(min=0)
            x, kind = values.gather(1, self.cut_input[cut]), self.kind[cut]
            absent = kind >> _SHIFT
            x = torch.where(x.isnan() & (absent != _NAN), 0.0, x)
            is_absent = ((absent == _ZERO) & (x.abs() <= _SMALLEST)) | ((absent == _NAN) & x.isnan())
            is_left = torch.where(is_absent, kind & _GOES_LEFT != 0, x <= self.threshold[cut])
            node = torch.where(node < 0, node, torch.where(is_left, self.left[cut], self.right[cut]))
        return -1 - node
