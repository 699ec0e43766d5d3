"""The inputs of Particle Transformer for each pair of particles.

References:
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772: the kinematics of a pair.
    Attention to the strengths of physical interactions (2022), arXiv:2211.05143: the couplings of a pair.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.physics.couplings import NO_TYPE, OBJECT_TYPES, pair_couplings, pair_mass
from zoo.physics.kinematics import SMALLEST, delta_phi, pair_features, phi


class PairInputs(nn.Module):
    """Numbers that describe a pair of particles; subclass it to add your own interaction matrix.

    It may have parameters, which are then trained with the model. Without parameters it is not differentiated. One
    formula serves both forms of the model: the fast path lists the pairs of real particles, the reference those of
    padded jets, where padding is a massless particle of 1 GeV without features. A formula looks up both particles by
    their numbers (``four_momenta[i]``) and computes elementwise, so it can be exported.
    """

    #: Number of values per pair.
    dim: int

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Numbers of the pairs, which must be the same for (i, j) and (j, i): each pair is evaluated in one order only.

        Args:
            features: (node, feature), the particles of all jets.
            four_momenta: (node, 4) as (E, px, py, pz) in GeV.
            i: (pair,) first particle of each pair.
            j: (pair,) second particle, of the same jet.

        Returns:
            (pair, dim).
        """
        raise NotImplementedError


class KinematicPairs(PairInputs):
    """ln kT, ln z, ln Delta and ln m^2 (`pair_features`), the pair inputs of the paper."""

    dim = 4

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return pair_features(four_momenta, i, j)


class WeaverPairs(PairInputs):
    r"""The pair inputs of the paper in the precision of the momenta, as in weaver-core.

    Where :math:`m^2 = E^2 - p^2` of the sum of a pair is rounding noise, as for a massless particle with itself, its
    logarithm is that of the noise, and weights trained with weaver-core depend on it; `KinematicPairs` treats such
    particles as massless. In float64 both agree.
    """

    dim = 4

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        energy, px, py, pz = four_momenta.unbind(-1)
        pt, azimuth = (px.square() + py.square()).sqrt(), phi(four_momenta)
        # the last limit is ours: there is no finite answer for a massless particle opposite to the z axis
        rapidity = 0.5 * torch.log((1 + 2 * pz / (energy - pz).clamp(min=1e-20)).clamp(min=1e-20))
        of_angles = (rapidity[i] - rapidity[j]).square() + delta_phi(azimuth[i], azimuth[j]).square()
        distance, softer = of_angles.sqrt(), torch.minimum(pt[i], pt[j])
        energy2, x2, y2, z2 = (four_momenta[i] + four_momenta[j]).square().unbind(-1)
        mass2 = energy2 - (x2 + y2 + z2)
        fraction = softer / (pt[i] + pt[j]).clamp(min=SMALLEST)
        return torch.stack([softer * distance, fraction, distance, mass2], dim=-1).clamp(min=SMALLEST).log()


class CouplingPairs(PairInputs):
    """How strongly the types of two objects couple in the Standard Model: the SM matrix of arXiv:2211.05143.

    - ``binary``: 1 where `pair_couplings` is not zero.
    - ``fixed``: `pair_couplings`.
    - ``running``: the same at the invariant mass of the pair as the scale.

    The type of an object is the one with the largest column, so the columns may be one-hot or standardised; an object
    has no type if no column is above zero.

    Note:
        That an object does not couple to itself and the scale of a pair are choices of this implementation.

    Args:
        type_columns: columns of ``features``, one for each of `OBJECT_TYPES` in that order.
        couplings: which of the three.

    Raises:
        ValueError: if there are not that many columns, or the kind is unknown.
    """

    dim = 1

    def __init__(
        self, type_columns: Sequence[int], couplings: Literal["binary", "fixed", "running"] = "running"
    ) -> None:
        super().__init__()
        if not len(set(type_columns)) == len(type_columns) == len(OBJECT_TYPES) or min(type_columns) < 0:
            raise ValueError(
                f"type_columns: give a column of the features for each type of {', '.join(OBJECT_TYPES)}, none twice, "
                f"not {list(type_columns)}"
            )
        if couplings not in ("binary", "fixed", "running"):
            raise ValueError(f"couplings: must be binary, fixed or running, not {couplings!r}")
        self.type_columns = list(type_columns)
        self.couplings = couplings

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if max(self.type_columns) >= features.shape[1]:
            raise ValueError(
                f"type_columns {self.type_columns}: the features have columns 0 to {features.shape[1] - 1}; give those "
                "that hold the types"
            )
        largest, number = features[:, self.type_columns].max(dim=1)
        types = torch.where(largest > 0, number, NO_TYPE)
        scale = pair_mass(four_momenta, i, j) if self.couplings == "running" else None
        coupling = torch.where(i == j, 0.0, pair_couplings(types[i], types[j], scale))
        return (coupling.sign() if self.couplings == "binary" else coupling)[:, None]


def describe_pairs(
    pair_inputs: Sequence[PairInputs], features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor, dtype: torch.dtype
) -> Tensor:
    """The values of all ``pair_inputs`` for the pairs, (pair, number) in ``dtype``.

    As in the paper there is no gradient through inputs without parameters.
    """
    numbers = []
    for inputs in pair_inputs:
        is_learnt = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in inputs.parameters())
        # the logarithms of small numbers would lose their meaning in half precision
        with torch.set_grad_enabled(is_learnt), torch.autocast(features.device.type, enabled=False):
            numbers.append(inputs(features, four_momenta, i, j))
    return torch.cat([of_one.to(dtype) for of_one in numbers], dim=1)
