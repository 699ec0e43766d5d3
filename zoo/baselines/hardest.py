"""Events as tables of a fixed number of objects, for models that need them."""

import torch
from einops import repeat
from torch import Tensor
from torch.nn.functional import pad

from zoo.kernels.packing import hardest_first

#: Number of objects per event that are used: the most in the public events of arXiv:2211.05143.
MAX_OBJECTS = 18


def hardest_objects(
    values: Tensor, four_momenta: Tensor, mask: Tensor, num_objects: int = MAX_OBJECTS, absent: float = 0.0
) -> Tensor:
    """The objects with the largest transverse momenta of each event, the hardest first.

    Softer ones are left out, and rows of ``absent`` fill up events with fewer. Equal transverse momenta are ordered by
    the other components and the values, so the order of the input does not matter (`hardest_first`).

    Args:
        values: (batch, particle, feature).
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: (batch, particle), True for a real object.
        num_objects: number of objects to keep.
        absent: values of an absent object.

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
    # Append as many absent ones, so that every event has enough objects.
    return pad(table, (0, 0, 0, num_objects), value=absent)[:, :num_objects]
