"""LGN: a network whose activations are tensors of the Lorentz group and whose nonlinearity is their product.

References:
    Lorentz Group Equivariant Neural Network for Particle Physics (2020), arXiv:2006.04780.
"""

from collections import Counter
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.building import psi, renamed_weights, stages_of
from zoo.kernels.mode import without_autocast
from zoo.lgn import fast
from zoo.lgn.irreps import (
    CLEBSCH_GORDAN,
    COMMUTANT,
    IRREPS,
    Coupling,
    Irreps,
    compress,
    couple,
    square_couplings,
    vector_couplings,
)
from zoo.model import JetModel
from zoo.physics.lorentz import resolve_masses, root, squared_mass
from zoo.registry import Paper, register_model

#: Unit of momentum inside the network, in GeV, which makes the products of momenta of a jet of order one.
GEV = 100.0
#: Sums over the particles of a jet are divided by this for the last layer.
TYPICAL_PARTICLES = 50.0


class LGN(JetModel):
    r"""Lorentz group network over all pairs of particles of a jet.

    Activations are scalars, vectors, bivectors and tensors (`zoo.lgn.irreps`). They start as mixtures of the
    four-momentum and of two scalars of a particle, its mass and whether it is a beam, and pass through several
    `ClebschGordanLayer`. One linear layer classifies the scalars of all layers, summed over the particles.

    Note: departures from the paper, each with a test.
        - The representations of weight up to 2 are realised as real tensors: (2,0) + (0,2), complex conjugates of each
          other, are one antisymmetric tensor, whose mixing weights are complex through its dual. A complex channel
          holds two real ones, so there are twice as many here.
        - Maps that vanish (antisymmetric squares, what follows only the last layer's scalars) have no weights.
        - Scalars are compressed by psi before their MLP, and other tensors by their own invariants (`compress`), which
          keeps products of products finite.
        - Everything is computed in float64 under every precision: components grow with every boost and invariants do
          not, so their cancellation costs digits.

    Args:
        num_classes: number of logits.
        channels: of each representation, at the input and after each layer.
        num_bells: of the radial functions of each layer.
        beams: whether two beam particles of mass 1 GeV join each jet, which reduces the Lorentz group to the symmetry
            about the beam axis, unless the beams are transformed with the jet.

    Shapes:
        features (batch, particle, feature), unused, four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle; logits (batch, class).
    """

    #: Changes that leave the logits unchanged according to the paper, by their names in `zoo.check`.
    symmetries = frozenset({"beam rotation", "beam boost", "rotation", "boost"})
    #: For boosts up to this. Components of a tensor of rank two grow with the square of gamma and their products with
    #: its fourth power, and in invariants they cancel again: after a boost by 100, four digits of float64 are left.
    largest_gamma = 10.0

    def __init__(
        self,
        num_classes: int,
        *,
        channels: tuple[int, ...] = (4, 6, 8, 6),
        num_bells: int = 4,
        beams: bool = True,
    ) -> None:
        super().__init__()
        #: (beam, 4) in GeV, float64; transform them with the jets to see the full symmetry. Not a buffer, as a module's
        #: ``float()`` would round it.
        self.beams = torch.tensor([[2**0.5, 0, 0, 1], [2**0.5, 0, 0, -1]], dtype=torch.float64)[: 2 * beams]
        self.embedding = Mixing({"scalar": 2, "vector": 1}, channels[0])
        names = [["scalar", "vector"]] + [list(IRREPS)] * (len(channels) - 2) + [["scalar"]]
        self.layers = nn.ModuleList(
            ClebschGordanLayer(names[layer], names[layer + 1], channels[layer], channels[layer + 1], num_bells)
            for layer in range(len(channels) - 1)
        )
        self.head = Linear(sum(channels), num_classes)
        renamed_weights(self, {"decoder": "head"})

    def stages(self) -> dict[str, list[str]]:
        """The embedding, each layer, and the head."""
        return {"embedding": ["embedding"], **stages_of("layers", self.layers), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) on padded jets; see `JetModel`."""
        with without_autocast(four_momenta):
            x, scalars, is_node = self.nodes(four_momenta, mask)
            is_pair = is_node[:, :, None] & is_node[:, None] & ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
            p_ij = x[:, :, None] - x[:, None]
            distances = psi(squared_mass(p_ij))
            activations = self.embedding({"scalar": scalars.movedim(-1, 0)[..., None], "vector": x[None] / GEV})
            invariants = [activations["scalar"]]
            for layer in self.layers:
                activations = layer(activations, p_ij / GEV, distances, is_pair)
                invariants.append(activations["scalar"])
            total = torch.cat(invariants).where(is_node[..., None], 0).sum(2).squeeze(-1).T
            return self._classify(total)

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same on packed jets."""
        with without_autocast(four_momenta):
            total = fast.total_invariants(self.embedding, self.layers, *self.nodes(four_momenta, mask), GEV)
            return self._classify(total)

    def nodes(self, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Particles, followed by the beams: momenta (batch, node, 4) in GeV and scalars (batch, node, 2), both
        float64, and which nodes are real (batch, node)."""
        batch, num_beams = mask.shape[0], len(self.beams)
        beams = self.beams.to(four_momenta.device)
        x, mass2 = resolve_masses(four_momenta)
        sort = torch.cat([torch.ones_like(mass2), -mass2.new_ones(batch, num_beams)], dim=1)
        x = torch.cat([x, beams.expand(batch, -1, -1)], dim=1)
        mass2 = torch.cat([mass2, squared_mass(beams).expand(batch, -1)], dim=1)
        is_node = torch.cat([mask, mask.new_ones(batch, num_beams)], dim=1)
        return x, torch.stack([psi(root(mass2.abs())), sort], dim=-1), is_node

    def _classify(self, total: Tensor) -> Tensor:
        """Logits of the sums (batch, channel) of the invariants of each jet."""
        return self.head(total / TYPICAL_PARTICLES).to(self.head.weight.dtype)


class ClebschGordanLayer(nn.Module):
    r"""Mix each activation with its square and with the momentum-weighted sum of the other particles' activations.

    .. math::
        F_i \leftarrow \mathrm{mix} \Big( F_i \oplus (F_i \otimes F_i) \oplus \sum_{j \ne i} f_0(p_{ij}^2) F_j
        \oplus \sum_{j \ne i} f_1(p_{ij}^2) \, p_{ij} \otimes F_j \Big), \quad p_{ij} = p_i - p_j

    followed by an MLP on the scalars and by `compress` on the others. The products are Clebsch-Gordan products of equal
    channels; f are learned functions for each channel (`RadialFunctions`).

    Args:
        inputs: representations of the input.
        outputs: representations of the output.
        in_channels: of each input representation.
        out_channels: of each output representation.
        num_bells: of the radial functions.
    """

    def __init__(
        self, inputs: list[str], outputs: list[str], in_channels: int, out_channels: int, num_bells: int
    ) -> None:
        super().__init__()
        self.carried = [name for name in outputs if name in inputs]
        self.squares = square_couplings(inputs, outputs)
        self.moments = vector_couplings(inputs, outputs)
        moment_names = {name for coupling in self.moments for name in (coupling.left, coupling.right)}
        self.moment_inputs = [name for name in inputs if name in moment_names]
        #: Representation of each term, in the order of `terms`.
        self.term_names = [
            *self.carried,
            *(coupling.out for coupling in self.squares),
            *self.carried,
            *(coupling.out for coupling in self.moments),
        ]
        self.radial = RadialFunctions(num_bells, 2 * in_channels)
        self.mixing = Mixing({name: n * in_channels for name, n in Counter(self.term_names).items()}, out_channels)
        self.mlp = _scalar_mlp(out_channels)

    def forward(self, activations: Irreps, p_ij: Tensor, distances: Tensor, is_pair: Tensor) -> Irreps:
        """Updated activations.

        Args:
            activations: (channel, batch, node, component).
            p_ij: differences of momenta (batch, i, j, 4), in units of `GEV`.
            distances: psi of their squares in GeV^2, (batch, i, j).
            is_pair: (batch, i, j).
        """
        return self.mixed(self.terms(activations, p_ij, distances, is_pair))

    def terms(self, activations: Irreps, p_ij: Tensor, distances: Tensor, is_pair: Tensor) -> list[Tensor]:
        """The mixed terms: F, F times F, and the two sums over partners, (channel, batch, node, component) each."""
        f_0, f_1 = self.radial(distances).where(is_pair, 0).chunk(2)  # (channel, batch, i, j) each
        carried = [activations[name] for name in self.carried]
        squares = couple(activations, activations, self.squares)
        sums = [torch.einsum("cbij,cbjr->cbir", f_0, values) for values in carried]
        weighted = f_1[..., None] * p_ij
        outer = {name: torch.einsum("cbijv,cbjr->cbivr", weighted, activations[name]) for name in self.moment_inputs}
        return [*carried, *squares, *sums, *(_project(outer, coupling) for coupling in self.moments)]

    def mixed(self, terms: list[Tensor]) -> Irreps:
        """Mixtures of the terms, the scalars changed by the MLP and the others compressed."""
        grouped: dict[str, list[Tensor]] = {}
        for name, term in zip(self.term_names, terms, strict=True):
            grouped.setdefault(name, []).append(term)
        mixed = compress(self.mixing({name: torch.cat(terms) for name, terms in grouped.items()}))
        scalars = self.mlp(psi(mixed["scalar"].squeeze(-1)).movedim(0, -1))
        return {**mixed, "scalar": scalars.movedim(-1, 0)[..., None]}


def _project(outer: dict[str, Tensor], coupling: Coupling) -> Tensor:
    """Clebsch-Gordan map of the outer products (..., vector, component) of vectors and each representation."""
    coefficients = CLEBSCH_GORDAN[coupling]
    if coupling.left == "vector" and coupling.right in outer:
        values = outer[coupling.right]
    else:
        values, coefficients = outer[coupling.left], coefficients.mT
    return torch.einsum("cbivr,ovr->cbio", values, coefficients.to(values.device))


def _scalar_mlp(channels: int) -> nn.Sequential:
    """Three hidden layers, twice as wide, initialised so that they preserve the spread of the scalars."""
    widths = [channels, 2 * channels, 2 * channels, 2 * channels, channels]
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [Linear(before, after), nn.LeakyReLU()]
        nn.init.kaiming_normal_(modules[-2].weight, nonlinearity="leaky_relu")
        nn.init.zeros_(modules[-2].bias)
    return nn.Sequential(*modules[:-1])


class RadialFunctions(nn.Module):
    r"""Learned functions of an invariant, mixtures of Lorentzian bells and a constant.

    .. math:: f_a(x) = b_a + \sum_k w_{ak} \, \frac{1}{1 + (c_k x)^2}

    Args:
        num_bells: number of bells, whose widths 1/c start at 1, 2, 4, ...
        num_functions: number of functions.
    """

    def __init__(self, num_bells: int, num_functions: int) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(0.5 ** torch.arange(num_bells))
        self.mixing = Linear(num_bells, num_functions)

    def forward(self, x: Tensor) -> Tensor:
        """Functions (function, ...) of float64 invariants (...)."""
        bells = 1 / (1 + (self.sharpness.double()[:, None] * x.flatten()).square())
        functions = torch.addmm(self.mixing.bias.double()[:, None], self.mixing.weight.double(), bells)
        return functions.view(functions.shape[0], *x.shape)


class Mixing(nn.Module):
    """Linear maps between the channels of each representation, the most general ones that commute with the group.

    Args:
        in_channels: number of channels of each representation.
        out_channels: number of channels of every output representation.
    """

    def __init__(self, in_channels: dict[str, int], out_channels: int) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        for name, channels in in_channels.items():
            fan_in = channels * len(COMMUTANT[name])
            self.weights[name] = nn.Parameter(torch.empty(out_channels, fan_in).uniform_(-1, 1) * fan_in**-0.5)

    def forward(self, activations: Irreps) -> Irreps:
        """Activations with ``out_channels`` channels."""
        mixed = {}
        for name, weight in self.weights.items():
            values = activations[name]
            if len(COMMUTANT[name]) > 1:
                values = torch.cat([values @ matrix.T.to(values.device) for matrix in COMMUTANT[name]])
            mixed[name] = torch.tensordot(weight.double(), values, dims=1)
        return mixed


class Linear(nn.Linear):
    """Affine map in float64, whatever the precision of its weights."""

    def forward(self, values: Tensor) -> Tensor:
        """Float64 (row, feature) in and out."""
        return F.linear(values, self.weight.double(), self.bias.double())


PAPER = Paper("arXiv:2006.04780", "Lorentz Group Equivariant Neural Network for Particle Physics")


@register_model(paper=PAPER, sees="jets")
def lgn(input_dim: int, num_classes: int) -> LGN:
    """LGN for top tagging, 4,498 parameters with 2 classes; the paper's has 4.5k.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return LGN(num_classes)
