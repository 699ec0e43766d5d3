"""What two or more models share: packing of padded jets, and sums over the particles or pairs of a jet."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from zoo.physics import kinematics


def pack(values: Tensor, mask: Tensor) -> Tensor:
    """Real particles of all jets in one list, (batch, particle, ...) -> (node, ...), jet after jet."""
    return values[mask]


def leading_mask(counts: Tensor) -> Tensor:
    """Mask (batch, particle) of jets with ``counts`` (jet,) particles, these first, and as wide as the longest jet."""
    longest = int(counts.max()) if len(counts) else 0
    return torch.arange(longest, device=counts.device) < counts[:, None]


@dataclass(frozen=True)
class LengthGroup:
    """A run of whole jets of similar length, for what can only be computed on padded jets."""

    counts: Tensor  #: (jet,) particles of each jet
    nodes: int  #: particles of all its jets
    mask: Tensor  #: (jet, particle) as of `leading_mask`
    cells: Tensor  #: (node,) position of each particle in the flat mask

    def pad(self, rows: Tensor) -> Tensor:
        """The particles of this group, (node, feature) -> (jet, particle, feature), zero where there is none."""
        padded = rows.new_zeros(self.mask.numel(), rows.shape[1]).index_copy_(0, self.cells, rows)
        return padded.unflatten(0, self.mask.shape)

    def unpad(self, padded: Tensor) -> Tensor:
        """Inverse of `pad`."""
        return padded.flatten(0, 1).index_select(0, self.cells)


#: A jet shorter than this fraction of the longest of a group opens a new group, so at most 36 % of the cells of a
#: group's (particle, particle) matrices are padding, and in the mean far fewer.
SIMILAR_LENGTH = 0.8

#: Most (jet, particle, particle) cells of a group on a CPU, so that matrices of 8 heads stay in the cache.
CPU_CELLS = 1 << 16


def length_groups(counts: Tensor) -> list[LengthGroup]:
    """Groups of jets with ``counts`` (jet,) particles, none longer than the one before.

    Example:
        >>> [group.counts.tolist() for group in length_groups(torch.tensor([9, 8, 3, 0]))]
        [[9, 8], [3], [0]]
        >>> [group.counts.tolist() for group in length_groups(torch.tensor([], dtype=torch.int64))]
        [[]]
    """
    lengths = counts.tolist() or [0]  # of no jets there is one group, without jets
    most_cells = CPU_CELLS if counts.device.type == "cpu" else math.inf
    groups, begin = [], 0
    for end in range(1, len(lengths) + 1):
        longest = lengths[begin]
        is_full = (end + 1 - begin) * longest**2 > most_cells
        if end < len(lengths) and lengths[end] >= SIMILAR_LENGTH * longest and not is_full:
            continue
        mask = leading_mask(counts[begin:end])
        cells = mask.flatten().nonzero().squeeze(1)
        groups.append(LengthGroup(counts[begin:end], sum(lengths[begin:end]), mask, cells))
        begin = end
    return groups


class SortedJets(NamedTuple):
    """Packed jets, the longest first."""

    counts: Tensor  #: (jet,) particles of each jet
    groups: list[LengthGroup]
    place: Tensor  #: (batch,) where each jet of the batch went

    def unsort(self, rows: Tensor) -> Tensor:
        """Packed particles (node, feature) in the order of the batch again."""
        counts = self.counts[self.place]
        shift = offsets(self.counts)[self.place] - offsets(counts)[:-1]
        return rows[torch.arange(len(rows), device=rows.device) + shift.repeat_interleave(counts)]


def sort_by_length(mask: Tensor, *values: Tensor) -> tuple[SortedJets, *tuple[Tensor, ...]]:
    """The jets of a batch, the longest first, and their ``values`` (batch, particle, ...) packed in that order."""
    counts, order = mask.sum(1).sort(descending=True, stable=True)
    jets = SortedJets(counts, length_groups(counts), order.argsort())
    return jets, *(pack(padded[order], mask[order]) for padded in values)


def join_context(pooled: Tensor, context: Tensor | None, context_dim: int) -> Tensor:
    """What a model made of the particles of each jet, and event quantities beside it.

    Args:
        pooled: (batch, feature).
        context: (batch, context_dim); None counts as zero.
        context_dim: number of event quantities that the model was built for.

    Returns:
        (batch, feature + context_dim), of the dtype of ``pooled``.

    Raises:
        ValueError: if ``context`` has another width.
    """
    if context is None:
        context = pooled.new_zeros(len(pooled), context_dim)
    if context.shape != (len(pooled), context_dim):
        raise ValueError(
            f"context is {tuple(context.shape)}, but this model takes ({len(pooled)}, {context_dim}): "
            "build it with that context_dim, or give it the event quantities it was built for"
        )
    return torch.cat([pooled, context.to(pooled.dtype)], dim=1) if context_dim else pooled


def stages_of(name: str, modules: Iterable[nn.Module]) -> dict[str, list[str]]:
    """A stage of fine-tuning for each module of the list ``name`` that has weights: ``name.0``, ``name.1``, ..."""
    return {f"{name}.{n}": [f"{name}.{n}"] for n, module in enumerate(modules) if module.state_dict()}


def psi(value: Tensor) -> Tensor:
    r"""Compress the range of a Minkowski product, :math:`\psi(v) = \operatorname{sgn}(v) \ln(1 + |v|)`."""
    return value.sign() * value.abs().log1p()


def falling_pt(features: Tensor, four_momenta: Tensor, counts: Tensor) -> Tensor:
    """Order of packed particles by falling transverse momentum within each jet, whatever their order before.

    Args:
        features: (particle, feature); they and the momenta order particles of equal transverse momentum.
        four_momenta: (particle, 4) as (E, px, py, pz) in GeV, the jets one after the other.
        counts: (jet,) particles of each jet.

    Returns:
        (particle,) indices.

    Example:
        >>> momenta = torch.tensor([[9.0, 1, 0, 0], [9.0, 3, 0, 0], [9.0, 0, 2, 0], [9.0, 0, 4, 0]])
        >>> falling_pt(torch.zeros(4, 0), momenta, torch.tensor([3, 1])).tolist()
        [1, 2, 0, 3]
    """
    momenta = four_momenta.double()
    # NaN counts as the largest, so that no model that looks at the hardest particles only can overlook it
    keys = [-kinematics.pt(momenta).nan_to_num(nan=torch.inf, posinf=torch.inf), torch.repeat_interleave(counts)]
    order = _lexsort(keys)
    tied = torch.stack([key[order].diff() == 0 for key in keys]).all(0)
    # Rare enough that only they should pay for a sort by everything.
    if tied.any():
        order = _lexsort([*features.unbind(1), *momenta.unbind(1), *keys])
    return order


def _lexsort(keys: Sequence[Tensor]) -> Tensor:
    """Indices that sort by the last key, where it is equal by the one before, and so on."""
    order = keys[0].argsort(stable=True)
    for key in keys[1:]:
        order = order[key[order].argsort(stable=True)]
    return order


class RowBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of packed rows (row, feature), so that no statistic sees padding.

    In training, fewer than two rows have no variance; they are normalised by the running statistics.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Normalised rows, of the same shape."""
        if self.training and len(rows) < 2:
            return F.batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(rows)


@torch.no_grad()
def track_statistics(norm: nn.BatchNorm1d, mean: Tensor, variance: Tensor, rows: int) -> None:
    """Move running statistics by the mean and the biased variance (feature,) of a batch of ``rows``."""
    norm.num_batches_tracked += 1
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * rows / max(rows - 1, 1), norm.momentum)


def offsets(counts: Tensor) -> Tensor:
    """Where each segment of a packed list starts, with the end of the list appended, (segment,) -> (segment + 1,)."""
    return F.pad(counts.cumsum(0), (1, 0))


def segment_sum(values: Tensor, starts: Tensor) -> Tensor:
    """Sum over the segments of a packed list.

    Args:
        values: (item, feature).
        starts: (segment + 1,) first item of each segment, and the end; an empty segment gives zero.

    Returns:
        (segment, feature).
    """
    return _SegmentSum.apply(values, starts)


def segment_mean(values: Tensor, starts: Tensor) -> Tensor:
    """Mean over the segments of a packed list, as `segment_sum`; an empty segment gives zero."""
    return segment_sum(values, starts) / starts.diff().clamp(min=1)[:, None]


def gather_sum(values: Tensor, index: Tensor, starts: Tensor, weight: Tensor | None = None) -> Tensor:
    r"""Weighted sum of indexed rows in one pass that copies nothing.

    .. math:: y_s = \sum_{k \in s} w_k \, x_{\mathrm{index}_k}

    Args:
        values: (row, feature).
        index: (item,) row of each item, of the dtype of ``starts``.
        starts: (segment + 1,) first item of each segment, and the end.
        weight: (item,) of the dtype of ``values``; by default one.

    Returns:
        (segment, feature).
    """
    return F.embedding_bag(index, values, starts, mode="sum", per_sample_weights=weight, include_last_offset=True)


class _SegmentSum(torch.autograd.Function):
    # The gradient only repeats rows; that of a general embedding bag would sort and scatter.
    @staticmethod
    def forward(ctx, values: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(starts)
        return gather_sum(values, torch.arange(len(values), dtype=starts.dtype, device=values.device), starts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (starts,) = ctx.saved_tensors
        return gradient.repeat_interleave(starts.diff(), dim=0), None


class Linear(nn.Linear):
    """Affine map of rows, (row, in) -> (row, out), by `linear`."""

    def forward(self, rows: Tensor) -> Tensor:
        """Mapped rows."""
        return linear(rows, self.weight, self.bias)


#: What `linear` can apply to its result.
_ACTIVATIONS = {"none": lambda values: values, "relu": F.relu, "gelu": F.gelu}


def linear(values: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """Affine map of (row, in) by ``weight`` (out, in) and ``bias`` (out,), then an ``activation``: none, relu or gelu.

    On a CPU it is done by oneDNN where torch has it, twice as fast in float32 as MKL on processors of other makers, and
    where no gradient is asked for together with the activation.
    """
    if not _is_for_onednn(values, weight):
        return _ACTIVATIONS[activation](F.linear(values, weight, bias))
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in (values, weight, bias)):
        return _ACTIVATIONS[activation](_OneDnnLinear.apply(values, weight, bias))
    if not weight.T.is_contiguous():
        weight = weight.contiguous()  # oneDNN has no fast product for, say, half of the columns of a matrix
    return torch.ops.mkldnn._linear_pointwise(values, weight, bias, activation, [], "none")


def fold_norm(layer: nn.Linear, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer and of the normalisation after it, with fixed statistics, in one."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    mean = norm.running_mean if layer.bias is None else norm.running_mean - layer.bias
    return layer.weight * scale[:, None], norm.bias - mean * scale


def _is_for_onednn(values: Tensor, weight: Tensor) -> bool:
    if values.device.type != "cpu" or values.dtype not in _ONEDNN_DTYPES or not len(values):
        return False
    # autocast and other mixtures of types are torch's
    return values.dtype == weight.dtype and not (values.dtype == torch.float32 and torch.is_autocast_enabled("cpu"))


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(values, weight)
        return linear(values, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, weight = ctx.saved_tensors
        of_values, of_weight, of_bias = ctx.needs_input_grad
        gradient = gradient.contiguous()
        return (
            linear(gradient, weight.T) if of_values else None,
            outer_sum(gradient, values) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


class Dropout(nn.Dropout):
    """Dropout that on a CPU costs a third of torch's, see `dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        """The values, in training with some set to zero and the others scaled."""
        return dropout(values, self.p) if self.training else values


def dropout(values: Tensor, p: float) -> Tensor:
    r"""Zero with the probability ``p``, else the value times :math:`1 / (1 - p)`.

    Note:
        On a CPU a random number of 64 bits decides on four values, so ``p`` is rounded to a multiple of
        :math:`2^{-16}`; torch draws one number for each, and more slowly.
    """
    threshold = round(p * 2**16)
    if values.device.type != "cpu" or not 0 < threshold < 2**16:
        return F.dropout(values, p)
    bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    keep = values.new_empty(values.shape)
    # Written as numbers, for torch is slow in turning truth values into them.
    torch.ge(bits[: values.numel()].view(values.shape), threshold - 2**15, out=keep)
    return values * keep.mul_(1 / (1 - threshold / 2**16))


def outer_sum(left: Tensor, right: Tensor) -> Tensor:
    r"""Sum of outer products of rows, :math:`L^T R`, of (row, m) and (row, n): the gradient of a weight.

    On a CPU in float32 it is had as that of a 1x1 convolution, which torch gives to oneDNN without copies; with a
    single thread it does so only for a dilated one, and a kernel of one pixel is the same when dilated. It works on 16
    columns at a time, so a narrower ``left`` is left to MKL.
    """
    if left.device.type == "cpu" and left.dtype == torch.float32 and len(left) and left.shape[1] >= 16:
        image, gradient = (rows[None, None].permute(0, 3, 1, 2) for rows in (right, left))
        weight = left.new_empty(left.shape[1], right.shape[1], 1, 1)
        dilation = 2 if left.shape[1] % 16 == 0 and right.shape[1] % 16 == 0 else 1
        return torch.ops.aten.convolution_backward(
            gradient, image, weight, None, [1, 1], [0, 0], [dilation] * 2, False, [0, 0], 1, [False, True, False]
        )[1].flatten(1)
    return left.T @ right


def _onednn_dtypes() -> tuple[torch.dtype, ...]:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


_ONEDNN_DTYPES = _onednn_dtypes()

# glibc returns freed memory to the system beyond twice the largest mapped piece that was freed so far, and each block
# of pairs would fault its pages in again: a fifth of a training step. Freeing this piece, never touched, keeps 60 MB.
torch.empty(30 << 20, dtype=torch.uint8)


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs i != j of particles of the same jet, sorted by jet, then i, then j.

    No pair is listed that is not real, so nothing computed on this list pays for padding.
    """

    i: Tensor  #: (pair,) node that receives
    j: Tensor  #: (pair,) node that sends
    reverse: Tensor  #: (pair,) position of the pair (j, i)
    starts: Tensor  #: (node + 1,) first pair of each node i, and the end


@dataclass(frozen=True)
class PairBlock:
    """The pairs of a run of whole jets, few enough to stay in the cache; indices count from the block's start."""

    node_slice: slice
    pair_slice: slice
    pairs: Pairs
    rows: Tensor  #: (pair,) 0, 1, 2, ...
    ends: Tensor  #: (2 * pair,) i and j of each pair in turn, j counted from the number of nodes of the block
    end_starts: Tensor  #: (pair + 1,) 0, 2, 4, ...

    def sum_ends(self, at_i: Tensor, at_j: Tensor) -> Tensor:
        """A term of i and a term of j, (node, feature) each, added for each pair, (pair, feature)."""
        return gather_sum(torch.cat([at_i, at_j]), self.ends, self.end_starts)


def complete_pairs(counts: Tensor) -> Pairs:
    """All pairs of jets with ``counts`` (jet,) particles each.

    Example:
        >>> pairs = complete_pairs(torch.tensor([1, 3]))
        >>> list(zip(pairs.i.tolist(), pairs.j.tolist()))
        [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)]
    """
    first_node = offsets(counts)
    jet = torch.repeat_interleave(counts)
    partners = counts[jet] - 1
    starts = offsets(partners)
    i = torch.repeat_interleave(partners)
    first_of_jet = first_node[jet[i]]
    i_in_jet = i - first_of_jet
    rank = torch.arange(len(i), device=i.device) - starts[i]
    j_in_jet = rank + (rank >= i_in_jet)
    j = first_of_jet + j_in_jet
    reverse = starts[j] + i_in_jet - (i_in_jet > j_in_jet).long()
    return Pairs(i, j, reverse, starts)


def unordered_pairs(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs i >= j of jets with ``counts`` (jet,) particles each, that of a particle with itself included.

    Example:
        >>> i, j = unordered_pairs(torch.tensor([1, 2]))
        >>> list(zip(i.tolist(), j.tolist()))
        [(0, 0), (1, 1), (2, 1), (2, 2)]
    """
    first_of_jet = torch.repeat_interleave(offsets(counts)[:-1], counts)
    rank = torch.arange(len(first_of_jet), device=counts.device) - first_of_jet
    i = torch.repeat_interleave(rank + 1)
    j = torch.arange(len(i), device=counts.device) - offsets(rank + 1)[i] + first_of_jet[i]
    return i, j


def pair_blocks(pairs: Pairs, counts: Tensor, max_pairs: int) -> list[PairBlock]:
    """Cut the pairs of jets with ``counts`` (jet,) particles into runs of at most ``max_pairs``, or of one jet."""
    node_edges = offsets(counts)
    pair_edges = pairs.starts[node_edges].tolist()
    node_edges = node_edges.tolist()
    blocks, begin = [], 0
    for end in range(1, len(node_edges)):
        if end + 1 < len(node_edges) and pair_edges[end + 1] - pair_edges[begin] <= max_pairs:
            continue
        if pair_edges[end] > pair_edges[begin]:
            nodes = slice(node_edges[begin], node_edges[end])
            blocks.append(_block(pairs, nodes, slice(pair_edges[begin], pair_edges[end])))
        begin = end
    return blocks


def _block(pairs: Pairs, nodes: slice, rows: slice) -> PairBlock:
    # Half the index bytes make the gathers measurably faster.
    i = (pairs.i[rows] - nodes.start).int()
    j = (pairs.j[rows] - nodes.start).int()
    reverse = (pairs.reverse[rows] - rows.start).int()
    starts = (pairs.starts[nodes.start : nodes.stop + 1] - rows.start).int()
    ends = torch.stack([i, j + (nodes.stop - nodes.start)], dim=1).flatten()
    counting = torch.arange(2 * len(i) + 1, dtype=i.dtype, device=i.device)
    return PairBlock(nodes, rows, Pairs(i, j, reverse, starts), counting[: len(i)], ends, counting[::2].contiguous())


def pair_sum(values: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
    r"""Weighted sum over the partners of each particle, :math:`\sum_{j \ne i} w_{ij} v_j`.

    Args:
        values: v, (node, feature).
        weight: w, (pair,) of the same dtype.
        pairs: of the nodes.

    Returns:
        (node, feature).
    """
    return _PairSum.apply(values, weight, pairs)


def pair_dot(left: Tensor, right: Tensor, pairs: Pairs) -> Tensor:
    r"""Product of the rows of each pair, :math:`\sum_c l_{ic} r_{jc}`.

    Args:
        left: l, (node, column).
        right: r, (node, column) of the same dtype.
        pairs: of the nodes.

    Returns:
        (pair,).
    """
    # By columns, for gathers of single numbers beat those of short rows.
    total = left.new_zeros(len(pairs.i))
    for left_column, right_column in zip(left.T.contiguous(), right.T.contiguous(), strict=True):
        total.addcmul_(left_column.index_select(0, pairs.i), right_column.index_select(0, pairs.j))
    return total


class _PairSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor, weight: Tensor, pairs: Pairs) -> Tensor:
        ctx.save_for_backward(values, weight)
        ctx.pairs = pairs
        return gather_sum(values, pairs.j, pairs.starts, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        values, weight = ctx.saved_tensors
        pairs = ctx.pairs
        grad_values = gather_sum(gradient, pairs.j, pairs.starts, weight.index_select(0, pairs.reverse))
        return grad_values, pair_dot(gradient, values, pairs), None
