"""Particle flow and energy flow networks: a function of a sum over particles, and of nothing else.

References:
    Energy Flow Networks: Deep Sets for Particle Jets (2018), arXiv:1810.05165.
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772, for the size of `pfn`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.kernels.building import join_context, stages_of
from zoo.kernels.cpu import Linear
from zoo.kernels.packing import pack
from zoo.kernels.segments import offsets, segment_sum
from zoo.physics import kinematics
from zoo.registry import Paper, register_model

#: Sizes of arXiv:1810.05165, with 256 latent numbers.
ENERGYFLOW_PHI = (100, 100, 256)
ENERGYFLOW_F = (100, 100, 100)


class PFN(nn.Module):
    r"""Particle flow network, any function of a set of particles.

    .. math:: \mathrm{logits} = F\Big(\sum_i \Phi(x_i)\Big)

    :math:`\Phi` acts on packed particles, so neither it nor the sum pays for padding. Weights begin as torch has it,
    which makes up for the size of a sum over tens of particles; :math:`\Phi` of (z, y, phi), which are small, begins
    He-uniform without biases.

    Note: EnergyFlow begins F He-uniform as well. The first logits would then be of order ten, and the first steps
    would only bring them down; a test holds them to order one.

    Args:
        num_classes: number of logits.
        num_features: columns of ``features`` that make x; 0 ignores ``features`` and takes x = (z, y, phi) of
            `jet_coordinates` from the four-momenta.
        phi_dims: widths of the layers of :math:`\Phi`, each with a ReLU.
        f_dims: widths of the hidden layers of F, each with a ReLU.
        context_dim: event quantities, such as the missing transverse momentum, that join the sum as inputs of F.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int = 0,
        *,
        phi_dims: Sequence[int] = (128, 128, 128),
        f_dims: Sequence[int] = (128, 128, 128),
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.context_dim = context_dim
        #: What leaves the logits alone, in the words of `zoo.check`; with ``features`` that is up to them.
        self.symmetries = frozenset() if num_features else frozenset({"beam rotation", "beam boost"})
        self.phi = _dense(num_features or 3, phi_dims)
        self.f = _dense(phi_dims[-1] + context_dim, f_dims).append(nn.Linear(f_dims[-1], num_classes))
        if not num_features:
            _he_uniform(self.phi)

    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        return {**stages_of("phi", self.phi), "head": ["f"]}

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        starts = offsets(mask.sum(1))
        if self.num_features:
            x = pack(features, mask)
        else:
            particles = jet_coordinates(pack(four_momenta, mask), starts)
            x = torch.stack(particles, dim=-1).to(self.phi[0].weight.dtype)
        return _classify_sum(self.f, self.phi(x), starts, context, self.context_dim)


class EFN(nn.Module):
    r"""Energy flow network, any infrared and collinear safe function of a set of particles.

    .. math:: \mathrm{logits} = F\Big(\sum_i z_i \, \Phi(y_i, \phi_i)\Big)

    The sum is linear in the momentum fraction :math:`z_i`, and :math:`z`, :math:`y` and :math:`\phi` refer to sums over
    the jet that are safe themselves (`jet_coordinates`). So a particle that splits into parallel parts, and one that
    is added with vanishing momentum, change nothing. Initial weights are He-uniform without biases.

    Args:
        num_classes: number of logits.
        phi_dims: widths of the layers of :math:`\Phi`, each with a ReLU.
        f_dims: widths of the hidden layers of F, each with a ReLU.

    Shapes:
        features (batch, particle, feature), not used; four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle; logits (batch, class).
    """

    #: What the paper promises to leave the logits alone, in the words of `zoo.check`.
    symmetries = frozenset({"beam rotation", "beam boost", "collinear splitting", "soft emission"})

    def __init__(
        self, num_classes: int, *, phi_dims: Sequence[int] = ENERGYFLOW_PHI, f_dims: Sequence[int] = ENERGYFLOW_F
    ) -> None:
        super().__init__()
        self.phi = _dense(2, phi_dims)
        self.f = _dense(phi_dims[-1], f_dims).append(nn.Linear(f_dims[-1], num_classes))
        _he_uniform(self.phi)
        _he_uniform(self.f)

    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        return {**stages_of("phi", self.phi), "head": ["f"]}

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Logits (batch, class) of the jets; see the class for the shapes."""
        starts = offsets(mask.sum(1))
        particles = jet_coordinates(pack(four_momenta, mask), starts)
        z, angles = particles.z[:, None], torch.stack([particles.y, particles.phi], dim=-1)
        dtype = self.phi[0].weight.dtype
        return _classify_sum(self.f, z.to(dtype) * self.phi(angles.to(dtype)), starts)


class JetCoordinates(NamedTuple):
    """What a particle is to its jet, each (particle,) in float64."""

    z: Tensor  #: part of the transverse momentum
    y: Tensor  #: rapidity less that of the jet
    phi: Tensor  #: azimuth less that of the jet, in [-pi, pi)


def jet_coordinates(four_momenta: Tensor, starts: Tensor) -> JetCoordinates:
    r"""Momentum fraction, rapidity and azimuth of packed particles relative to their jets.

    .. math::
        z_i = p_{T,i} \Big/ \sum_j p_{T,j}, \qquad y_i - y_J, \qquad \phi_i - \phi_J, \qquad p_J = \sum_j p_j

    Both sums are linear in the momenta, so parallel splittings and soft particles leave them alone. Rotations about
    the beam and boosts along it change none of the three.

    Args:
        four_momenta: (particle, 4) as (E, px, py, pz) in GeV, jet after jet.
        starts: (jet + 1,) first particle of each jet, and the end.
    """
    momenta = four_momenta.double()
    pt, rapidity, phi = kinematics.pt(momenta), kinematics.finite_rapidity(momenta), kinematics.phi(momenta)
    sums = segment_sum(torch.cat([momenta, pt[:, None]], dim=-1), starts)
    jets, jet_pt = sums[:, :4], sums[:, 4].clamp(min=torch.finfo(sums.dtype).tiny)
    of_jet = torch.stack([jet_pt, kinematics.finite_rapidity(jets), kinematics.phi(jets)], dim=-1)
    jet_pt, jet_rapidity, jet_phi = of_jet.repeat_interleave(starts.diff(), dim=0).unbind(-1)
    return JetCoordinates(pt / jet_pt, rapidity - jet_rapidity, kinematics.delta_phi(phi, jet_phi))


def _classify_sum(
    f: nn.Module, terms: Tensor, starts: Tensor, context: Tensor | None = None, context_dim: int = 0
) -> Tensor:
    """Logits (jet, class), F of the sum over the particles of each jet, and of the context."""
    # The sum and what follows once a jet cost next to nothing, and half precision would cost digits.
    with torch.autocast(terms.device.type, enabled=False):
        total = segment_sum(terms.to(f[0].weight.dtype), starts)
        return f(join_context(total, context, context_dim))


def _dense(input_dim: int, dims: Sequence[int]) -> nn.Sequential:
    """Linear layers of widths ``dims``, a ReLU after each."""
    layers = nn.Sequential()
    for in_dim, out_dim in zip([input_dim, *dims], dims, strict=False):
        layers.append(Linear(in_dim, out_dim)).append(nn.ReLU())
    return layers


def _he_uniform(layers: nn.Sequential) -> None:
    """Begin with He-uniform weights and no biases."""
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
    return PFN(num_classes, num_features=input_dim)


@register_model(paper=PAPER, sees="events", variant="in the size of arXiv:2202.03772")
def pfn_for_events(input_dim: int, num_classes: int) -> PFN:
    """`pfn` for the objects of an event, with the missing transverse momentum as ``context``: magnitude and azimuth.

    Args:
        input_dim: number of features of an object.
        num_classes: number of logits.
    """
    return PFN(num_classes, num_features=input_dim, context_dim=2)


@register_model(paper=PAPER, sees="jets", variant="without particle types")
def pfn_energyflow(input_dim: int, num_classes: int) -> PFN:
    """PFN without particle types of arXiv:1810.05165, 82,458 parameters with 2 classes.

    Args:
        input_dim: accepted as by every model and not used: a jet is seen through its four-momenta only.
        num_classes: number of logits.
    """
    return PFN(num_classes, phi_dims=ENERGYFLOW_PHI, f_dims=ENERGYFLOW_F)


@register_model(paper=PAPER, sees="jets")
def efn(input_dim: int, num_classes: int) -> EFN:
    """EFN of arXiv:1810.05165, 82,358 parameters with 2 classes.

    Args:
        input_dim: accepted as by every model and not used: a jet is seen through its four-momenta only.
        num_classes: number of logits.
    """
    return EFN(num_classes)
