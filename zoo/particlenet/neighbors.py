"""Which particles are neighbours of which, on padded jets.

References:
    ParticleNet: Jet Tagging via Particle Clouds (2019), arXiv:1902.08570.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Slots(NamedTuple):
    """Neighbours of the particles of padded jets."""

    slot: Tensor  #: (jet, particle, neighbour) row of each neighbour in its jet
    is_real: Tensor  #: (jet, particle, neighbour) whether there is such a neighbour


@torch.no_grad()
def nearest(points: Tensor, mask: Tensor, num_neighbors: int) -> Slots:
    """The nearest other particles of the same jet, by the Euclidean distance.

    The choice between particles at the same distance is undefined.

    Args:
        points: coordinates (jet, particle, coordinate).
        mask: (jet, particle), True for a real particle.
        num_neighbors: of each particle, at most as many as rows.
    """
    points = _resolved(points)
    with torch.autocast(points.device.type, enabled=False):
        square = points.square().sum(-1)
        distance = torch.baddbmm(square[:, None, :], points, points.mT, alpha=-2)  # minus the square of the point
    distance.masked_fill_(~mask[:, None, :], torch.inf)
    itself = torch.eye(points.shape[1], dtype=torch.bool, device=points.device)
    # no fill_ of the diagonal: it is a view, and a trace would omit it
    distance.add_(torch.where(itself, torch.inf, 0.0).to(distance.dtype))
    distance, slot = distance.topk(num_neighbors, largest=False)
    return Slots(slot, distance.isfinite() & mask[:, :, None])


@torch.no_grad()
def nearest_of_weaver(points: Tensor, mask: Tensor, num_neighbors: int) -> Slots:
    """The neighbours of weaver-core: one more is found, and the nearest is dropped as the particle itself.

    If there are fewer, rows without a particle fill up, so every particle has ``num_neighbors``. Among particles at the
    same point any may be dropped; which one depends on the number of rows.

    Args:
        points: coordinates (jet, particle, coordinate), more rows than neighbours.
        mask: (jet, particle), True for a real particle.
        num_neighbors: of each particle.
    """
    distance = distance_of_weaver(points).masked_fill(~mask[:, None, :], torch.inf)
    slot = distance.topk(num_neighbors + 1, largest=False).indices[..., 1:]
    return Slots(slot, mask[:, :, None].expand_as(slot))


def distance_of_weaver(points: Tensor) -> Tensor:
    """Squared distances (jet, particle, particle) as in weaver-core, of points (jet, particle, coordinate)."""
    columns = _resolved(points).mT.contiguous()
    with torch.autocast(points.device.type, enabled=False):
        square = columns.square().sum(1, keepdim=True)
        # written as there, which decides between particles at the same point
        return (square.mT - 2 * (columns.mT @ columns) + square).clamp(min=0)


def _resolved(points: Tensor) -> Tensor:
    return points.float() if points.dtype in (torch.float16, torch.bfloat16) else points
