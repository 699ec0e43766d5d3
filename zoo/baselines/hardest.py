"""Events as tables of a fixed number of objects, for what can only work on such."""

import torch
from einops import repeat
from torch import Tensor
from torch.nn.functional import pad

from zoo.kernels.packing import hardest_first

#: Objects of an event that are looked at: as many as the public events of arXiv:2211.05143 have at most.
MAX_OBJECTS = 18


def hardest_objects(
    values: Tensor, four_momenta: Tensor, mask: Tensor, num_objects: int = MAX_OBJECTS, absent: float = 0.0
) -> Tensor:
    """The objects of largest transverse momentum of each event, the largest first.

    Softer ones are left out, and rows of ``absent`` stand where an event has fewer. Equal transverse momenta are
    ordered by the other components and the values, so the order of the input does not matter (`hardest_first`).

    Args:
        values: (batch, particle, feature).
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: (batch, particle), True for a real object.
        num_objects: how many.
        absent: what stands for the values of an object that is not there.

    Returns:
        (batch, num_objects, feature).

    Example:
        >>> momenta = torch.tensor([[[9.0, 1, 0, 0], [9.0, 3, 0, 0], [9.0, 0, 2, 0], [0.0, 0, 0, 0]]])
        >>> mask = torch.tensor([[True, True, True, False]])
        >>> hardest_objects(momenta[..., 1:2], momenta, mask, 2).flatten().tolist()
        [3.0, 0.0]
        >>> hardest_objects(momenta[..., 1:2], momenta, mask, 4).flatten().tolist()
        [3.0, 0.0, 1.0, 0.0]
    """
    order = hardest_first(values, four_momenta, mask)
    order = repeat(order, "event object -> event object feature", feature=values.shape[-1])
    table = torch.where(mask[..., None], values, absent).gather(1, order)
    # As many absent ones more, so that an event has enough of them whatever its size.
    return pad(table, (0, 0, 0, num_objects), value=absent)[:, :num_objects]
