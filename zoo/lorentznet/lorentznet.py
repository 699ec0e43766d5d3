"""LorentzNet: a graph network whose every step commutes with Lorentz transformations.

References:
    An Efficient Lorentz Equivariant Graph Neural Network for Jet Tagging (2022), arXiv:2201.08187.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.kernels.building import join_context, psi, stages_of
from zoo.kernels.norms import RowBatchNorm, track_statistics
from zoo.kernels.packing import pack
from zoo.kernels.pairs import PairBlock, Pairs, complete_pairs, pair_blocks, pair_sum
from zoo.kernels.segments import offsets, segment_sum
from zoo.lorentznet.messages import MessageWeights, pair_invariants, pair_messages
from zoo.physics.lorentz import give_masses, resolve_masses, squared_mass
from zoo.registry import Paper, register_model

#: Pairs that are worked on at a time: on a CPU few enough for the cache, elsewhere enough to fill the device.
PAIRS_PER_BLOCK = {"cpu": 12288, "default": 1 << 20}


class JetGraph(NamedTuple):
    """What stays the same through all blocks."""

    scalars: Tensor  #: (node, scalar), the input scalars
    jet_starts: Tensor  #: (jet + 1,) first node of each jet, and the end
    pairs: Pairs
    blocks: list[PairBlock]
    message_dtype: torch.dtype


def jet_graph(scalars: Tensor, counts: Tensor) -> JetGraph:
    """The graph of all pairs of the nodes of each jet; under autocast, messages are of its dtype.

    Args:
        scalars: input scalars (node, scalar).
        counts: (jet,) nodes of each jet.
    """
    device = scalars.device.type
    message_dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else scalars.dtype
    pairs = complete_pairs(counts)
    blocks = pair_blocks(pairs, counts, PAIRS_PER_BLOCK.get(device, PAIRS_PER_BLOCK["default"]))
    return JetGraph(scalars, offsets(counts), pairs, blocks, message_dtype)


class LorentzNet(nn.Module):
    r"""Lorentz group equivariant network over all pairs of particles of a jet.

    Node scalars h and four-momenta x are updated by blocks (`LorentzGroupBlock`), and the mean scalar is classified.

    Note: departures from the reference implementation, each with a test.
        - Padding is packed away, so neither the mean over particles nor a batch normalisation sees padded rows.
        - A mass that the precision of the input cannot resolve is zero (`resolve_masses`), so the mass scalar of a
          massless particle is not rounding noise; the geometry is formed in float64 under every precision.
        - The coordinate update is bounded by clamping its invariant weight, not the components of a four-vector,
          which would single out a frame.

    Args:
        num_classes: number of logits.
        num_scalars: invariant numbers of a particle (mass aside) taken from ``features``, such as one-hot particle
            types; 0 ignores ``features``, whose pt and angles would break the symmetry.
        mass_scalar: whether the mass of a particle is an input scalar, with beams one for particles and one for them.
        embed_dim: width.
        num_layers: number of blocks.
        dropout: before the last layer.
        coordinate_scale: c of the coordinate update.
        massive: whether the last of ``features`` is the mass of a particle in GeV, and its momentum was made massless;
            energy and pz are then put right by `give_masses`.
        beams: whether two beam particles of mass 1 GeV join each jet, which leaves of the Lorentz group the
            symmetry about the beam axis, unless the beams are transformed with the jet.
        readout_rows: what the sum over particles and beams is divided by for the read-out; None for their number. The
            reference implementation divides by the rows of the padded batch, which its weights are used to.
        as_released: whether the mass scalar is that of float32, rounding noise included (`released_mass2`), no particle
            is put on the light cone, and the coordinate update is bounded component by component
            (`move_apart_by_components`), as in the reference implementation. Its weights are used to that; no symmetry
            is left that could be promised.
        context_dim: event quantities that join the mean scalar. They do not change with the momenta, so with them no
            symmetry is promised.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    #: What the paper promises to leave the logits alone, in the words of `zoo.check`; with ``num_scalars``, as long as
    #: the features stay the same.
    symmetries = frozenset({"beam rotation", "beam boost", "rotation", "boost"})
    #: Parts that `encode` does not use.
    readout = ("decoder",)

    def __init__(
        self,
        num_classes: int,
        num_scalars: int = 0,
        *,
        mass_scalar: bool = True,
        massive: bool = False,
        embed_dim: int = 72,
        num_layers: int = 6,
        dropout: float = 0.2,
        coordinate_scale: float = 5e-3,
        beams: bool = True,
        readout_rows: int | None = None,
        as_released: bool = False,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.readout_rows = readout_rows
        self.as_released = as_released
        self.context_dim = context_dim
        if context_dim or as_released:
            self.symmetries = frozenset()
        self.num_scalars = num_scalars
        self.mass_scalar = mass_scalar
        self.massive = massive
        #: (beam, 4) in GeV, float64; transform them with the jets to see the full symmetry. No buffer, for a module's
        #: ``float()`` would round it.
        self.beams = torch.tensor([[2**0.5, 0, 0, 1], [2**0.5, 0, 0, -1]], dtype=torch.float64)[: 2 * beams]
        node_scalars = num_scalars + mass_scalar * (1 + beams)
        self.embedding = nn.Linear(node_scalars, embed_dim)
        self.blocks = nn.ModuleList(
            LorentzGroupBlock(
                embed_dim, node_scalars, coordinate_scale, is_last=layer == num_layers - 1, as_released=as_released
            )
            for layer in range(num_layers)
        )
        self.decoder = nn.Sequential(
            nn.Linear(embed_dim + context_dim, embed_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(embed_dim, num_classes),
        )

    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        return {"embedding": ["embedding"], **stages_of("blocks", self.blocks), "head": ["decoder"]}

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        h, counts = self._scalars(features, four_momenta, mask)
        with torch.autocast(four_momenta.device.type, enabled=False):
            rows = counts.clamp(min=1)[:, None] if self.readout_rows is None else self.readout_rows
            mean = segment_sum(h, offsets(counts)) / rows
            return self.decoder(join_context(mean, context, self.context_dim))

    def encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Scalars (node, embed_dim) of the real particles after the last block, packed as by `pack`."""
        h, counts = self._scalars(features, four_momenta, mask)
        rank = torch.arange(len(h), device=h.device) - offsets(counts)[:-1].repeat_interleave(counts)
        return h[rank < mask.sum(1).repeat_interleave(counts)]  # the beams are a jet's last nodes

    def _scalars(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars (node, embed_dim) after the last block and number of nodes (jet,), beams last."""
        x, scalars, counts = self._nodes(features, four_momenta, mask)
        graph = jet_graph(scalars, counts)
        # Only products of (pair, embed_dim) matrices gain from half precision; the rest would only lose digits.
        with torch.autocast(four_momenta.device.type, enabled=False):
            h = self.embedding(scalars)
            for block in self.blocks:
                h, x = block(h, x, graph)
        return h, counts

    def _nodes(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Packed momenta (node, 4) in float64, scalars (node, scalar) and number of nodes (jet,), beams last."""
        batch, num_beams = len(mask), len(self.beams)
        beams = self.beams.to(four_momenta.device)
        if self.massive:
            four_momenta = give_masses(four_momenta, features[..., -1]).to(four_momenta.dtype)
        if self.as_released:
            x, mass2 = four_momenta.double(), released_mass2(four_momenta)
        else:
            x, mass2 = resolve_masses(four_momenta)
        x = torch.cat([x, beams.expand(batch, -1, -1)], dim=1)
        mass2 = torch.cat([mass2, squared_mass(beams).expand(batch, -1)], dim=1)
        mask = torch.cat([mask, mask.new_ones(batch, num_beams)], dim=1)
        is_beam = torch.zeros_like(mask)
        is_beam[:, is_beam.shape[1] - num_beams :] = True
        mass = psi(mass2.abs().sqrt())
        masses = torch.stack([mass * ~is_beam, mass * is_beam] if num_beams else [mass], dim=-1)
        extra = nn.functional.pad(features[..., : self.num_scalars], (0, 0, 0, num_beams))
        scalars = torch.cat([masses, extra] if self.mass_scalar else [extra], dim=-1)
        return pack(x, mask), pack(scalars, mask).to(self.embedding.weight.dtype), mask.sum(1)


class LorentzGroupBlock(nn.Module):
    r"""Lorentz group equivariant block (LGEB).

    .. math::
        e_{ij} &= \phi_e(h_i, h_j, \psi(\|x_i - x_j\|^2), \psi(\langle x_i, x_j \rangle)), \quad
        m_{ij} = \phi_m(e_{ij}) \, e_{ij} \\
        x_i &\leftarrow x_i + c \, \mathrm{mean}_{j \ne i} \, \phi_x(m_{ij}) (x_i - x_j) \\
        h_i &\leftarrow h_i + \phi_h(h_i, \textstyle\sum_{j \ne i} m_{ij}, s_i)

    The first layer of :math:`\phi_e` acts on concatenated inputs, so it is the sum of a term of i, a term of j and a
    term of the two invariants; the first two are formed once a node, and the statistics of its batch normalisation
    follow from sums over nodes (`PairBatchNorm`). What remains to be done for each pair is `pair_messages`.
    """

    def __init__(
        self, embed_dim: int, num_scalars: int, coordinate_scale: float, is_last: bool, as_released: bool = False
    ) -> None:
        super().__init__()
        self.coordinate_scale = coordinate_scale
        self.as_released = as_released
        self.phi_e = nn.Sequential(
            nn.Linear(2 * embed_dim + 2, embed_dim, bias=False),
            PairBatchNorm(embed_dim),
            nn.ReLU(),
            nn.Linear(embed_dim, embed_dim),
            nn.ReLU(),
        )
        self.phi_h = nn.Sequential(
            nn.Linear(2 * embed_dim + num_scalars, embed_dim),
            RowBatchNorm(embed_dim),
            nn.ReLU(),
            nn.Linear(embed_dim, embed_dim),
        )
        self.phi_m = nn.Sequential(nn.Linear(embed_dim, 1), nn.Sigmoid())
        self.phi_x = None
        if not is_last:
            last = nn.Linear(embed_dim, 1, bias=False)
            nn.init.xavier_uniform_(last.weight, gain=1e-3)
            self.phi_x = nn.Sequential(nn.Linear(embed_dim, embed_dim), nn.ReLU(), last)

    def forward(self, h: Tensor, x: Tensor, graph: JetGraph) -> tuple[Tensor, Tensor]:
        """Updated scalars (node, embed_dim) and four-momenta (node, 4), the latter in float64 and GeV."""
        invariants = pair_invariants(x, graph.pairs, h.dtype)
        weight_i, weight_j, weight_invariants = self.phi_e[0].weight.T.split([h.shape[1], h.shape[1], 2])
        receiver, sender, weight_invariants = self.phi_e[1](
            h @ weight_i, h @ weight_j, invariants, weight_invariants, graph
        )
        total, weight = pair_messages(
            receiver, sender, invariants, weight_invariants, self._message_weights(), graph.blocks, graph.message_dtype
        )
        if self.phi_x is not None and self.as_released:
            x = move_apart_by_components(x, weight, graph.blocks, self.coordinate_scale)
        elif self.phi_x is not None:
            x = move_apart(x, weight, graph.pairs, self.coordinate_scale)
        return h + self.phi_h(torch.cat([h, total, graph.scalars], dim=1)), x

    def _message_weights(self) -> MessageWeights:
        weights = [self.phi_e[3].weight, self.phi_e[3].bias, self.phi_m[0].weight, self.phi_m[0].bias]
        if self.phi_x is not None:
            weights += [self.phi_x[0].weight, self.phi_x[0].bias, self.phi_x[2].weight]
        return MessageWeights(*weights)


#: Bound on the weight of a pair, so that no update exceeds 10 c times the largest difference of coordinates.
MAX_COORDINATE_WEIGHT = 10.0


def move_apart(x: Tensor, weight: Tensor, pairs: Pairs, scale: float) -> Tensor:
    r"""Coordinate update :math:`x_i + c \, \mathrm{mean}_{j \ne i} \, w_{ij} (x_i - x_j)`, the weights bounded.

    Args:
        x: (node, coordinate) in float64.
        weight: w, (pair,).
        pairs: of the nodes.
        scale: c.
    """
    weight = weight.double().clamp(-MAX_COORDINATE_WEIGHT, MAX_COORDINATE_WEIGHT)
    # With a one appended to the coordinates, one pass gives both sum_j w_ij x_j and sum_j w_ij.
    total = pair_sum(nn.functional.pad(x, (0, 1), value=1.0), weight, pairs)
    partners = pairs.starts.diff().clamp(min=1)[:, None]
    return x + scale * (total[:, -1:] * x - total[:, :-1]) / partners


#: Bound of the reference implementation on each component of the update of a pair, in GeV.
MAX_COMPONENT = 100.0


def move_apart_by_components(x: Tensor, weight: Tensor, blocks: Sequence[PairBlock], scale: float) -> Tensor:
    r"""Coordinate update :math:`x_i + c \, \mathrm{mean}_{j \ne i} \, b(w_{ij} (x_i - x_j))` of the reference
    implementation: b bounds each component by `MAX_COMPONENT`, which depends on the frame.

    Args:
        x: (node, coordinate) in GeV, float64.
        weight: w, (pair,).
        blocks: the pairs, cut into runs of jets.
        scale: c.
    """
    moved = [x.new_zeros(0, x.shape[1])]
    for block in blocks:
        nodes, pairs = x[block.node_slice], block.pairs
        difference = nodes.index_select(0, pairs.i) - nodes.index_select(0, pairs.j)
        update = weight[block.pair_slice, None].double() * difference
        total = segment_sum(update.clamp(-MAX_COMPONENT, MAX_COMPONENT), pairs.starts)
        moved.append(nodes + scale * total / pairs.starts.diff().clamp(min=1)[:, None])
    return torch.cat(moved)


def released_mass2(four_momenta: Tensor) -> Tensor:
    r"""Squared masses :math:`2 E^2 - (E^2 + p^2)` (...) in GeV^2, formed in float32 as by the reference implementation.

    For a massless particle they are rounding noise of some :math:`10^{-7} E^2`, which its weights have learnt from.
    """
    energy2, x2, y2, z2 = four_momenta.float().square().unbind(-1)
    return (2 * energy2 - (energy2 + x2 + y2 + z2)).double()  # in this order, which decides on the noise


class PairBatchNorm(nn.BatchNorm1d):
    r"""Batch normalisation of :math:`r_i + s_j + W e_{ij}` over all pairs, without forming the sum.

    Its mean and variance over pairs follow from sums over nodes, since within a jet
    :math:`\sum_{i \ne j} r_i s_j = (\sum_i r_i)(\sum_j s_j) - \sum_i r_i s_i`. The affine map that results is
    applied to the three terms.
    """

    def forward(
        self, receiver: Tensor, sender: Tensor, invariants: Tensor, weight: Tensor, graph: JetGraph
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The terms r and s (node, embed_dim) and the matrix W (2, embed_dim), of which the normalised sum is made."""
        if self.training and len(invariants):
            mean, variance = _pair_moments(receiver, sender, invariants, weight, graph)
            track_statistics(self, mean, variance, len(invariants))
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * (variance + self.eps).rsqrt()
        return receiver * scale + (self.bias - mean * scale), sender * scale, weight * scale


def _pair_moments(
    receiver: Tensor, sender: Tensor, invariants: Tensor, weight: Tensor, graph: JetGraph
) -> tuple[Tensor, Tensor]:
    """Mean and variance over all pairs of r_i + s_j + W e_ij, each (embed_dim,)."""
    num_pairs = len(invariants)
    partners = graph.pairs.starts.diff()[:, None].to(receiver.dtype)
    mean_r, mean_s = ((partners * term).sum(0) / num_pairs for term in (receiver, sender))
    mean_e = invariants.mean(0)
    # Centred terms, so that nothing is lost to cancellation.
    r, s, e = receiver - mean_r, sender - mean_s, invariants - mean_e
    same_jet = segment_sum(r, graph.jet_starts) * segment_sum(s, graph.jet_starts)
    # The invariants are symmetric, so a node's sum over partners is the same whether it receives or sends.
    node_e = segment_sum(e, graph.pairs.starts) @ weight
    variance = (
        (partners * (r.square() + s.square())).sum(0)
        + 2 * (same_jet.sum(0) - (r * s).sum(0) + ((r + s) * node_e).sum(0))
        + (weight * (e.T @ e @ weight)).sum(0)
    ) / num_pairs
    return mean_r + mean_s + mean_e @ weight, variance.clamp(min=0)


PAPER = Paper("arXiv:2201.08187", "An Efficient Lorentz Equivariant Graph Neural Network for Jet Tagging")
_WEIGHTS = "https://github.com/sdogsq/LorentzNet-release"


@register_model(paper=PAPER, sees="jets")
def lorentznet(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for top tagging, 224,072 parameters with 2 classes.

    Args:
        input_dim: accepted as by every model and not used: a jet is seen through its four-momenta only.
        num_classes: number of logits.
    """
    return LorentzNet(num_classes)


@register_model(paper=PAPER, sees="jets", variant="for its released weights, faults included", weights=_WEIGHTS)
def lorentznet_release(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for the published weights of top tagging: the reference implementation's answers, faults included.

    Masses and coordinate updates are those of the reference implementation (`LorentzNet`'s ``as_released``), and so is
    the read-out, which divides by the rows of the padded batch: there the answer for a jet depends on the longest jet
    of its batch. Here the number is fixed, to 100, about the longest of 32 jets and the beams; set
    ``model.readout_rows`` to reproduce another batch. Train `lorentznet` instead.

    Args:
        input_dim: accepted as by every model and not used: a jet is seen through its four-momenta only.
        num_classes: number of logits.
    """
    return LorentzNet(num_classes, readout_rows=100, as_released=True)


@register_model(paper=PAPER, sees="jets", variant="particle types as scalars, no beams")
def lorentznet_qg(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for quarks and gluons, without beams; 227,096 parameters with 8 particle types and 2 classes.

    Args:
        input_dim: number of scalars of a particle, all of ``features``: one-hot particle types, so that the logits are
            invariant. Features that depend on the frame, such as pt, would break the symmetry.
        num_classes: number of logits.
    """
    return LorentzNet(num_classes, input_dim, mass_scalar=False, beams=False, coordinate_scale=1e-3)


@register_model(
    paper=PAPER, sees="jets", variant="particle types as scalars, no beams; for its released weights", weights=_WEIGHTS
)
def lorentznet_qg_release(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for the published weights of quarks and gluons: the reference implementation's answers.

    As `lorentznet_release`. There all of EnergyFlow's two million jets are padded to the 148 particles of the longest,
    so the read-out always divides by that, and particles have the masses of their kinds.

    Args:
        input_dim: number of features of a particle, the one-hot types and last the mass: the feature table
            ``quark_gluon_types``.
        num_classes: number of logits.
    """
    return LorentzNet(
        num_classes,
        input_dim - 1,
        mass_scalar=False,
        massive=True,
        beams=False,
        coordinate_scale=1e-3,
        readout_rows=148,
        as_released=True,
    )


@register_model(paper=PAPER, sees="events", variant="features as scalars, no beams")
def lorentznet_for_events(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for the objects of an event, with the missing transverse momentum as ``context``.

    The features enter as scalars beside the mass. Transverse momenta and angles among them, and the context, single out
    the beam already, so there are no beam particles: beside some nine objects they would be a fifth of the nodes.

    Args:
        input_dim: number of features of an object.
        num_classes: number of logits.
    """
    return LorentzNet(num_classes, input_dim, beams=False, context_dim=2)
