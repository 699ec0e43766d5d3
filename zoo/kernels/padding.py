"""Values in padding for formulas that are evaluated on padded jets."""

import torch
from torch import Tensor


def harmless_padding(four_momenta: Tensor, mask: Tensor) -> Tensor:
    """Four-momenta with padding replaced by a massless particle of 1 GeV transverse to the beam.

    Zeros would do for sums, but azimuth, rapidity and their derivatives are undefined there, and even a NaN that is
    left out later spoils a derivative.

    Args:
        four_momenta: (..., 4) as (E, px, py, pz) in GeV, anything in padding.
        mask: (...), True for a real particle.

    Returns:
        (..., 4) of the same dtype.
    """
    return torch.where(mask[..., None], four_momenta, four_momenta.new_tensor([1.0, 1.0, 0.0, 0.0]))
