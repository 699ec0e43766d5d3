"""Jets without padding: particles in one list, and groups of consecutive jets of similar length."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.kernels.segments import offsets
from zoo.physics import kinematics


def pack(values: Tensor, mask: Tensor) -> Tensor:
    """Real particles of all jets in one list, (batch, particle, ...) -> (node, ...), jet after jet."""
    return values[mask]


def leading_mask(counts: Tensor) -> Tensor:
    """Mask (batch, particle) of jets whose ``counts`` (jet,) particles come first, as wide as the longest jet."""
    longest = int(counts.max()) if len(counts) else 0
    return torch.arange(longest, device=counts.device) < counts[:, None]


@dataclass(frozen=True)
class LengthGroup:
    """Consecutive whole jets of similar length, for computations that need padded jets."""

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


#: A jet shorter than this fraction of the longest of a group starts a new group, so at most 36 % of the cells of a
#: group's (particle, particle) matrices are padding, and on average far fewer.
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
    lengths = counts.tolist() or [0]  # without jets there is one empty group
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
        """Packed particles (node, feature) back in the order of the batch."""
        counts = self.counts[self.place]
        shift = offsets(self.counts)[self.place] - offsets(counts)[:-1]
        return rows[torch.arange(len(rows), device=rows.device) + shift.repeat_interleave(counts)]


def sort_by_length(mask: Tensor, *values: Tensor) -> tuple[SortedJets, *tuple[Tensor, ...]]:
    """The jets of a batch, the longest first, and their ``values`` (batch, particle, ...) packed in that order."""
    counts, order = mask.sum(1).sort(descending=True, stable=True)
    jets = SortedJets(counts, length_groups(counts), order.argsort())
    return jets, *(pack(padded[order], mask[order]) for padded in values)


def falling_pt(features: Tensor, four_momenta: Tensor, counts: Tensor) -> Tensor:
    """Order of packed particles by decreasing transverse momentum within each jet, whatever their order before.

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
    keys = [_falling_pt_key(four_momenta), torch.repeat_interleave(counts)]
    order = _lexsort(keys)
    tied = torch.stack([key[order].diff() == 0 for key in keys]).all(0)
    # Ties are rare, so only they pay for a sort by all numbers.
    if tied.any():
        order = _lexsort([*features.unbind(1), *four_momenta.double().unbind(1), *keys])
    return order


def hardest_first(features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
    """`falling_pt` on padded jets: real particles by decreasing transverse momentum, then the padding.

    Args:
        features: (batch, particle, feature); they and the momenta order particles of equal transverse momentum.
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: (batch, particle), True for a real particle.

    Returns:
        (batch, particle) indices within each jet.

    Example:
        >>> momenta = torch.tensor([[[9.0, 5, 0, 0], [9.0, 1, 0, 0], [9.0, 0, 3, 0]]])
        >>> hardest_first(torch.zeros(1, 3, 0), momenta, torch.tensor([[False, True, True]])).tolist()
        [[2, 1, 0]]
    """
    momenta = four_momenta.double()
    return _lexsort([*features.unbind(-1), *momenta.unbind(-1), _falling_pt_key(momenta), (~mask).long()])


def _falling_pt_key(four_momenta: Tensor) -> Tensor:
    # NaN counts as the largest, so that a model that sees only the hardest particles cannot miss it
    return -kinematics.pt(four_momenta.double()).nan_to_num(nan=torch.inf, posinf=torch.inf)


@torch.no_grad()
def _lexsort(keys: Sequence[Tensor]) -> Tensor:
    """Indices that sort (..., item) by the last key, ties by the one before, and so on."""
    order = keys[0].argsort(dim=-1, stable=True)
    for key in keys[1:]:
        order = order.gather(-1, key.gather(-1, order).argsort(dim=-1, stable=True))
    return order
