"""What stands in padding where a formula is worked out on padded jets."""

import torch
from torch import Tensor


def harmless_padding(four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Four-momenta with a massless particle of 1 GeV across the beam wherever there is none.

    Zeros would do for sums, but azimuth, rapidity and their derivatives have no value there, and a NaN that is left out
    later still spoils a derivative.

    Args:
        four_momenta: (..., 4) as (E, px, py, pz) in GeV, anything in padding.
        mask: (...), True for a real particle.

    Returns:
        (..., 4) of the same dtype.
    """
    return torch.where(mask[..., None], four_momenta, four_momenta.new_tensor([1.0, 1.0, 0.0, 0.0]))
