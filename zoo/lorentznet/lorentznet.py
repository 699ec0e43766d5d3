"""LorentzNet: a graph network whose every step commutes with Lorentz transformations.

References:
    An Efficient Lorentz Equivariant Graph Neural Network for Jet Tagging (2022), arXiv:2201.08187.
"""

import torch
from torch import Tensor, nn

from zoo.kernels.building import join_context, psi, renamed_weights, stages_of
from zoo.kernels.mode import without_autocast
from zoo.kernels.norms import RowBatchNorm, apply_masked
from zoo.lorentznet import fast
from zoo.model import JetModel
from zoo.physics.lorentz import give_masses, minkowski_dot, resolve_masses, root, squared_mass
from zoo.registry import Paper, register_model


class LorentzNet(JetModel):
    r"""Lorentz group equivariant network over all pairs of particles of a jet.

    Blocks (`LorentzGroupBlock`) update node scalars h and four-momenta x, and the mean scalar is classified. The form
    that runs is the same on packed jets, `zoo.lorentznet.fast`.

    Note: departures from the reference implementation, each with a test.
        - Padding is packed away, so neither the mean over particles nor a batch normalisation sees padded rows.
        - A mass that the precision of the input cannot resolve is zero (`resolve_masses`), so the mass scalar of a
          massless particle is not rounding noise; the geometry is computed in float64 under every precision.
        - The coordinate update is bounded by clamping its invariant weight, not the components of a four-vector,
          which would single out a frame.

    Args:
        num_classes: number of logits.
        embed_dim: width.
        num_layers: number of blocks.
        dropout: before the last layer.
        coordinate_scale: c of the coordinate update.
        num_scalars: invariant numbers of a particle (besides the mass) taken from ``features``, such as one-hot
            particle types; 0 ignores ``features``, whose pt and angles would break the symmetry.
        mass_scalar: whether the mass is an input scalar; with beams, one scalar for particles and one for beams.
        massive: whether the last of ``features`` is the mass of a particle in GeV, and its momentum was made massless;
            `give_masses` then corrects energy and pz.
        beams: whether two beam particles of mass 1 GeV join each jet, which reduces the Lorentz group to the symmetry
            about the beam axis, unless the beams are transformed with the jet.
        readout_rows: divisor of the sum over particles and beams in the read-out; None for their number. The reference
            implementation divides by the rows of the padded batch, and its weights were trained that way.
        as_released: whether the mass scalar is that of float32, rounding noise included (`released_mass2`), no particle
            is put on the light cone, and the coordinate update is bounded component by component
            (`move_apart_by_components`), as in the reference implementation. Its weights were trained that way; no
            symmetry can then be promised.
        context_dim: event quantities that join the mean scalar. They do not change with the momenta, so with them no
            symmetry is promised.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    #: Changes that leave the logits unchanged according to the paper, by their names in `zoo.check`; with
    #: ``num_scalars``, as long as the features stay the same.
    symmetries = frozenset({"beam rotation", "beam boost", "rotation", "boost"})

    def __init__(
        self,
        num_classes: int,
        *,
        embed_dim: int = 72,
        num_layers: int = 6,
        dropout: float = 0.2,
        coordinate_scale: float = 5e-3,
        num_scalars: int = 0,
        mass_scalar: bool = True,
        massive: bool = False,
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
        #: (beam, 4) in GeV, float64; transform them with the jets to see the full symmetry. Not a buffer, as a module's
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
        self.head = nn.Sequential(
            nn.Linear(embed_dim + context_dim, embed_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(embed_dim, num_classes),
        )
        renamed_weights(self, {"decoder": "head"})

    def stages(self) -> dict[str, list[str]]:
        """The embedding, each block, and the head."""
        return {"embedding": ["embedding"], **stages_of("blocks", self.blocks), "head": ["head"]}

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) on padded jets; see `JetModel`."""
        with without_autocast(four_momenta):
            h, is_node = self._reference_scalars(features, four_momenta, mask)
            rows = is_node.sum(1, keepdim=True).clamp(min=1) if self.readout_rows is None else self.readout_rows
            mean = h.where(is_node[..., None], 0).sum(1) / rows
            return self.head(join_context(mean, context, self.context_dim))

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Scalars (batch, particle, embed_dim) after the last block."""
        with without_autocast(four_momenta):
            h, _ = self._reference_scalars(features, four_momenta, mask)
            return h[:, : mask.shape[1]]  # the beams come after them

    def _reference_scalars(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        x, s, is_node = self.nodes(features, four_momenta, mask)
        h = self.embedding(s)
        for block in self.blocks:
            h, x = block(h, x, s, is_node)
        return h, is_node

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same on packed jets."""
        nodes = self.nodes(features, four_momenta, mask)
        h, counts = fast.node_scalars(fast.lorentz_block, self.embedding, self.blocks, *nodes)
        with without_autocast(four_momenta):
            mean = fast.mean_scalars(h, counts, self.readout_rows)
            return self.head(join_context(mean, context, self.context_dim))

    def fast_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Scalars (node, embed_dim) of the real particles after the last block."""
        nodes = self.nodes(features, four_momenta, mask)
        h, counts = fast.node_scalars(fast.lorentz_block, self.embedding, self.blocks, *nodes)
        return fast.leading_rows(h, counts, mask.sum(1))

    def nodes(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Particles, followed by the beams: momenta x (batch, node, 4) in GeV, float64, scalars s (batch, node,
        scalar), and which nodes are real (batch, node)."""
        batch, num_beams = mask.shape[0], len(self.beams)
        beams = self.beams.to(four_momenta.device)
        if self.massive:
            four_momenta = give_masses(four_momenta, features[..., -1]).to(four_momenta.dtype)
        if self.as_released:
            x, mass2 = four_momenta.double(), released_mass2(four_momenta)
        else:
            x, mass2 = resolve_masses(four_momenta)
        x = torch.cat([x, beams.expand(batch, -1, -1)], dim=1)
        mass2 = torch.cat([mass2, squared_mass(beams).expand(batch, -1)], dim=1)
        is_beam = torch.cat([torch.zeros_like(mask), mask.new_ones(batch, num_beams)], dim=1)
        mass = psi(root(mass2.abs()))
        masses = torch.stack([mass * ~is_beam, mass * is_beam] if num_beams else [mass], dim=-1)
        extra = nn.functional.pad(features[..., : self.num_scalars], (0, 0, 0, num_beams))
        scalars = torch.cat([masses, extra] if self.mass_scalar else [extra], dim=-1)
        is_node = torch.cat([mask, mask.new_ones(batch, num_beams)], dim=1)
        return x, scalars.to(self.embedding.weight.dtype), is_node


class LorentzGroupBlock(nn.Module):
    r"""Lorentz group equivariant block (LGEB).

    .. math::
        e_{ij} &= \phi_e(h_i, h_j, \psi(\|x_i - x_j\|^2), \psi(\langle x_i, x_j \rangle)), \quad
        m_{ij} = \phi_m(e_{ij}) \, e_{ij} \\
        x_i &\leftarrow x_i + c \, \mathrm{mean}_{j \ne i} \, \phi_x(m_{ij}) (x_i - x_j) \\
        h_i &\leftarrow h_i + \phi_h(h_i, \textstyle\sum_{j \ne i} m_{ij}, s_i)
    """

    def __init__(
        self, embed_dim: int, num_scalars: int, coordinate_scale: float, is_last: bool, as_released: bool = False
    ) -> None:
        super().__init__()
        self.coordinate_scale = coordinate_scale
        self.as_released = as_released
        self.phi_e = nn.Sequential(
            nn.Linear(2 * embed_dim + 2, embed_dim, bias=False),
            RowBatchNorm(embed_dim),
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

    def forward(self, h: Tensor, x: Tensor, s: Tensor, is_node: Tensor) -> tuple[Tensor, Tensor]:
        """Updated scalars h (batch, node, embed_dim) and four-momenta x (batch, node, 4), float64 and GeV."""
        x_i, x_j, is_pair = all_pairs(x, is_node)
        h_i, h_j = torch.broadcast_tensors(h[:, :, None], h[:, None])
        invariants = psi(torch.stack([squared_mass(x_i - x_j), minkowski_dot(x_i, x_j)], dim=-1)).to(h.dtype)
        e = apply_masked(self.phi_e, torch.cat([h_i, h_j, invariants], dim=-1), is_pair)
        m = (self.phi_m(e) * e).where(is_pair[..., None], 0)
        if self.phi_x is not None:
            push = self._push(self.phi_x(m).double(), x_i - x_j)
            x = x + self.coordinate_scale * mean_over_partners(push, is_pair)
        return h + apply_masked(self.phi_h, torch.cat([h, m.sum(2), s], dim=-1), is_node), x

    def _push(self, weight: Tensor, difference: Tensor) -> Tensor:
        if self.as_released:
            return (weight * difference).clamp(-fast.MAX_COMPONENT, fast.MAX_COMPONENT)
        return weight.clamp(-fast.MAX_COORDINATE_WEIGHT, fast.MAX_COORDINATE_WEIGHT) * difference


def all_pairs(x: Tensor, is_node: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Coordinates x_i (batch, node, 1, coordinate) and x_j (batch, 1, node, coordinate), and which (batch, node, node)
    are pairs of two different nodes of a jet."""
    is_other = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    return x[:, :, None], x[:, None], is_node[:, :, None] & is_node[:, None] & is_other


def mean_over_partners(values: Tensor, is_pair: Tensor) -> Tensor:
    """Mean over j of values (batch, i, j, coordinate) of the pairs; zero where i has no partner."""
    return values.where(is_pair[..., None], 0).sum(2) / is_pair.sum(2).clamp(min=1)[..., None]


def released_mass2(four_momenta: Tensor) -> Tensor:
    r"""Squared masses :math:`2 E^2 - (E^2 + p^2)` (...) in GeV^2, in float32 as in the reference implementation.

    For a massless particle they are rounding noise of about :math:`10^{-7} E^2`, which its weights have learnt from.
    """
    energy2, x2, y2, z2 = four_momenta.float().square().unbind(-1)
    return (2 * energy2 - (energy2 + x2 + y2 + z2)).double()  # in this order, which determines the noise


PAPER = Paper("arXiv:2201.08187", "An Efficient Lorentz Equivariant Graph Neural Network for Jet Tagging")
_WEIGHTS = "https://github.com/sdogsq/LorentzNet-release"


@register_model(paper=PAPER, sees="jets")
def lorentznet(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for top tagging, 224,072 parameters with 2 classes.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
        num_classes: number of logits.
    """
    return LorentzNet(num_classes)


@register_model(paper=PAPER, sees="jets", variant="for its released weights, faults included", weights=_WEIGHTS)
def lorentznet_release(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for the published weights of top tagging: the reference implementation's answers, faults included.

    Masses and coordinate updates are those of the reference implementation (`LorentzNet`'s ``as_released``), and so is
    the read-out, which divides by the rows of the padded batch: there the answer for a jet depends on the longest jet
    of its batch. Here the number is fixed to 100, about the longest of 32 jets plus the beams; set
    ``model.readout_rows`` to reproduce another batch. Train `lorentznet` instead.

    Args:
        input_dim: accepted for a common interface and not used: the model sees only the four-momenta.
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
    return LorentzNet(num_classes, num_scalars=input_dim, mass_scalar=False, beams=False, coordinate_scale=1e-3)


@register_model(
    paper=PAPER, sees="jets", variant="particle types as scalars, no beams; for its released weights", weights=_WEIGHTS
)
def lorentznet_qg_release(input_dim: int, num_classes: int) -> LorentzNet:
    """LorentzNet for the published weights of quarks and gluons: the reference implementation's answers.

    As `lorentznet_release`. The reference pads all of EnergyFlow's two million jets to the 148 particles of the
    longest, so the read-out always divides by that number, and particles have the masses of their kinds.

    Args:
        input_dim: number of features of a particle, the one-hot types followed by the mass: the feature table
            ``quark_gluon_types``.
        num_classes: number of logits.
    """
    return LorentzNet(
        num_classes,
        num_scalars=input_dim - 1,
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

    The features enter as scalars beside the mass. Transverse momenta and angles among them, and the context, already
    single out the beam, so there are no beam particles: with about nine objects they would be a fifth of the nodes.

    Args:
        input_dim: number of features of an object.
        num_classes: number of logits.
    """
    return LorentzNet(num_classes, num_scalars=input_dim, beams=False, context_dim=2)
