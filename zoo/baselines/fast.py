"""The hardest objects of events, from packed objects."""

import torch
from torch import Tensor

from zoo.kernels.packing import falling_pt, pack
from zoo.kernels.segments import offsets


def hardest_objects(
    values: Tensor, four_momenta: Tensor, mask: Tensor, num_objects: int, absent: float = 0.0
) -> Tensor:
    """As `zoo.baselines.hardest.hardest_objects`, by one sort of packed objects unless there are ties."""
    counts = mask.sum(1)
    rows = pack(values, mask)
    order = falling_pt(rows, pack(four_momenta, mask), counts)
    event = torch.repeat_interleave(counts)
    place = torch.arange(len(event), device=event.device) - offsets(counts)[event]
    chosen = place < num_objects
    table = rows.new_full((len(mask) * num_objects, rows.shape[1]), absent)
    table[(event * num_objects + place)[chosen]] = rows[order[chosen]]
    return table.unflatten(0, (len(mask), num_objects))
