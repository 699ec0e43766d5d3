"""Particle flow and energy flow networks: functions of a sum over particles.

References:
    Energy Flow Networks: Deep Sets for Particle Jets (2018), arXiv:1810.05165.
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772, for the size of `pfn`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import reduce
from torch import Tensor, nn

from zoo.deepsets import fast
from zoo.kernels.building import join_context, renamed_weights, stages_of
from zoo.kernels.cpu import Linear
from zoo.kernels.padding import harmless_padding
from zoo.model import JetModel
from zoo.physics import kinematics
from zoo.registry import Paper, register_model

#: Sizes of arXiv:1810.05165, with 256 latent numbers.
ENERGYFLOW_PHI = (100, 100, 256)
ENERGYFLOW_F = (100, 100, 100)


class PFN(JetModel):
    r"""Particle flow network, any function of a set of particles.

    .. math:: \mathrm{logits} = F\Big(\sum_i \Phi(x_i)\Big)

    Weights have torch's default initialisation, which compensates for the size of a sum over tens of particles;
    :math:`\Phi` of (z, y, phi), which are small, is initialised He-uniform without biases.

    Note: EnergyFlow also initialises F He-uniform. The first logits would then be of order ten, and the first steps
    would only reduce them; a test holds them to order one.

    Args:
        input_dim: number of columns of ``features``, which are x; 0 ignores ``features`` and takes x = (z, y, phi) of
            `jet_coordinates` from the four-momenta.
        num_classes: number of logits.
        phi_dims: widths of the layers of :math:`\Phi`, each with a ReLU.
        f_dims: widths of the hidden layers of F, each with a ReLU; F is the ``head``.
        context_dim: event quantities, such as the missing transverse momentum, that join the sum as inputs of F.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        phi_dims: Sequence[int] = (128, 128, 128),
        f_dims: Sequence[int] = (128, 128, 128),
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.context_dim = context_dim
        #: Changes that leave the logits unchanged, by their names in `zoo.check`; with ``features`` it depends on them.
        self.symmetries = frozenset() if input_dim else frozenset({"beam rotation", "beam boost"})
        self.phi = _dense(input_dim or 3, phi_dims)
        self.head = _dense(phi_dims[-1] + context_dim, f_dims).append(nn.Linear(f_dims[-1], num_classes))
        renamed_weights(self, {"f": "head"})
        if not input_dim:
            _he_uniform(self.phi)

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {**stages_of("phi", self.phi), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        x = features
        if not self.input_dim:
            x = torch.stack(jet_coordinates(four_momenta, mask), dim=-1).to(self.phi[0].weight.dtype)
        terms = torch.where(mask[..., None], self.phi(x), 0.0).to(self.head[0].weight.dtype)
        total = reduce(terms, "batch particle latent -> batch latent", "sum")
        return _classify(self.head, join_context(total, context, self.context_dim))

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, from packed particles."""
        total = fast.pfn_sum(self.phi, features if self.input_dim else None, four_momenta, mask)
        return _classify(self.head, join_context(total, context, self.context_dim))


class EFN(JetModel):
    r"""Energy flow network, any infrared and collinear safe function of a set of particles.

    .. math:: \mathrm{logits} = F\Big(\sum_i z_i \, \Phi(y_i, \phi_i)\Big)

    The sum is linear in the momentum fraction :math:`z_i`, and :math:`z`, :math:`y` and :math:`\phi` refer to sums over
    the jet that are themselves safe (`jet_coordinates`). So collinear splittings and additional particles with
    vanishing momentum change nothing. Initial weights are He-uniform without biases.

    Args:
        num_classes: number of logits.
        phi_dims: widths of the layers of :math:`\Phi`, each with a ReLU.
        f_dims: widths of the hidden layers of F, each with a ReLU; F is the ``head``.

    Shapes:
        features (batch, particle, feature), not used; four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle; logits (batch, class).
    """

    #: Changes that leave the logits unchanged according to the paper, by their names in `zoo.check`.
    symmetries = frozenset({"beam rotation", "beam boost", "collinear splitting", "soft emission"})

    def __init__(
        self, num_classes: int, *, phi_dims: Sequence[int] = ENERGYFLOW_PHI, f_dims: Sequence[int] = ENERGYFLOW_F
    ) -> None:
        super().__init__()
        self.phi = _dense(2, phi_dims)
        self.head = _dense(phi_dims[-1], f_dims).append(nn.Linear(f_dims[-1], num_classes))
        renamed_weights(self, {"f": "head"})
        _he_uniform(self.phi)
        _he_uniform(self.head)

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {**stages_of("phi", self.phi), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        z, y, phi = jet_coordinates(four_momenta, mask)
        dtype = self.phi[0].weight.dtype
        terms = z[..., None].to(dtype) * self.phi(torch.stack([y, phi], dim=-1).to(dtype))
        total = reduce(terms, "batch particle latent -> batch latent", "sum")
        return _classify(self.head, total)

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, from packed particles."""
        total = fast.efn_sum(self.phi, four_momenta, mask)
        return _classify(self.head, total)


class JetCoordinates(NamedTuple):
    """Coordinates of a particle relative to its jet, (...) each in float64."""

    z: Tensor  #: fraction of the transverse momentum
    y: Tensor  #: rapidity relative to the jet
    phi: Tensor  #: azimuth relative to the jet, in [-pi, pi)


def jet_coordinates(four_momenta: Tensor, mask: Tensor) -> JetCoordinates:
    r"""Momentum fraction, rapidity and azimuth of particles relative to their jets, (batch, particle) each.

    .. math::
        z_i = p_{T,i} \Big/ \sum_j p_{T,j}, \qquad y_i - y_J, \qquad \phi_i - \phi_J, \qquad p_J = \sum_j p_j

    Both sums are linear in the momenta, so collinear splittings and soft particles do not change them. Rotations about
    the beam and boosts along it change none of the three. All three are zero in padding.

    Args:
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: (batch, particle), True for a real particle.
    """
    momenta = harmless_padding(four_momenta, mask).double()
    pt = torch.where(mask, kinematics.pt(momenta), 0.0)
    jets = reduce(torch.where(mask[..., None], momenta, 0.0), "batch particle component -> batch 1 component", "sum")
    jets = harmless_padding(jets, reduce(mask, "batch particle -> batch 1", "any"))
    jet_pt = reduce(pt, "batch particle -> batch 1", "sum").clamp(min=torch.finfo(pt.dtype).tiny)
    (y_i, phi_i), (y_jet, phi_jet) = ((kinematics.finite_rapidity(p), kinematics.phi(p)) for p in (momenta, jets))
    y, phi = kinematics.from_axis(y_i, phi_i, y_jet, phi_jet)
    return JetCoordinates(pt / jet_pt, torch.where(mask, y, 0.0), torch.where(mask, phi, 0.0))


def _classify(head: nn.Sequential, total: Tensor) -> Tensor:
    """Logits (batch, class) of the sum over the particles of each jet (batch, latent)."""
    # The layers after the sum cost next to nothing, and half precision would lose digits.
    with torch.autocast(total.device.type, enabled=False):
        return head(total)


def _dense(input_dim: int, dims: Sequence[int]) -> nn.Sequential:
    """Linear layers of widths ``dims``, a ReLU after each."""
    layers = nn.Sequential()
    for in_dim, out_dim in zip([input_dim, *dims], dims, strict=False):
        layers.append(Linear(in_dim, out_dim)).append(nn.ReLU())
    return layers


def _he_uniform(layers: nn.Sequential) -> None:
    """Initialise with He-uniform weights and zero biases."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


PAPER = Paper("arXiv:1810.05165", "Energy Flow Networks: Deep Sets for Particle Jets")


@register_model(paper=PAPER, sees="jets", variant="in the size of arXiv:2202.03772")
def pfn(input_dim: int, num_classes: int) -> PFN:
    """PFN as in the JetClass study, arXiv:2202.03772; 86,154 parameters with 17 features and 10 classes.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
    """
    return PFN(input_dim, num_classes)


@register_model(paper=PAPER, sees="events", variant="in the size of arXiv:2202.03772")
def pfn_for_events(input_dim: int, num_classes: int) -> PFN:
    """`pfn` for the objects of an event, with the missing transverse momentum as ``context``: magnitude and azimuth.

    Args:
        input_dim: number of features of an object.
        num_classes: number of logits.
    """
    return PFN(input_dim, num_classes, context_dim=2)


@register_model(paper=PAPER, sees="jets", variant="without particle types")
def pfn_energyflow(input_dim: int, num_classes: int) -> PFN:
    """PFN without particle types of arXiv:1810.05165, 82,458 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return PFN(0, num_classes, phi_dims=ENERGYFLOW_PHI, f_dims=ENERGYFLOW_F)


@register_model(paper=PAPER, sees="jets")
def efn(input_dim: int, num_classes: int) -> EFN:
    """EFN of arXiv:1810.05165, 82,358 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return EFN(num_classes)
