"""Particle Transformer (ParT): attention between particles, biased by what is known of each pair.

References:
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772.
    Going Deeper with Image Transformers (2021), arXiv:2103.17239: attention of a class token.
    NormFormer (2021), arXiv:2110.09456: the extra norms and scales of a block.
    Attention to the strengths of physical interactions (2022), arXiv:2211.05143: events, and couplings of pairs.
"""

import itertools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.building import join_context, stages_of
from zoo.kernels.cpu import Dropout, Linear, dropout, linear
from zoo.kernels.norms import RowBatchNorm
from zoo.kernels.packing import LengthGroup, SortedJets, sort_by_length
from zoo.kernels.pairs import unordered_pairs
from zoo.particle_transformer.pair_embedding import PairEmbedding
from zoo.physics.couplings import NO_TYPE, OBJECT_TYPES, pair_couplings, pair_mass
from zoo.physics.kinematics import SMALLEST, delta_phi, pair_features, phi
from zoo.registry import Paper, register_model

#: Added to the score of a padded key: finite in half precision too, so that a jet without particles gives no NaN.
MASKED = -6e4


class PairInputs(nn.Module):
    """Numbers that describe a pair of particles: subclass it to add an interaction matrix of your own.

    It may have parameters, which are then trained with the model. One without any is not differentiated.
    """

    #: How many numbers.
    dim: int

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """Numbers of the pairs, which must be the same for (i, j) and (j, i): they are computed once.

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
    r"""The pair inputs of the paper in the precision of the momenta, as weaver-core forms them.

    Where :math:`m^2 = E^2 - p^2` of the sum of a pair is rounding noise, as of a massless particle and itself, its
    logarithm is that of the noise, on which weights that weaver-core trained have learnt; `KinematicPairs` takes such
    particles as massless. In float64 both are the same.
    """

    dim = 4

    def forward(self, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
        energy, px, py, pz = four_momenta.unbind(-1)
        pt, azimuth = (px.square() + py.square()).sqrt(), phi(four_momenta)
        # the last limit is ours: there is no finite answer for a massless particle against the z axis
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

    An object is of the type whose column is the largest, so the columns may be one-hot or standardised, and of no type
    where none is above zero.

    Note:
        That an object does not couple to itself, and the scale of a pair, are choices of this implementation.

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


class ParticleTransformer(nn.Module):
    r"""Particle attention blocks, then class attention blocks, then a linear layer.

    Note: departures from the reference implementation, each with a test.
        - Particles and pairs are packed, so no layer but the attention itself works on padding, and no batch
          normalisation sees it.
        - The pair inputs are formed in float64.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        pair_inputs: what enters the attention scores for each pair; none leaves attention without interactions.
        embed_dims: widths of the embedding of a particle; the last is the width of all that follows.
        pair_embed_dims: widths of the embedding of a pair, before that to ``num_heads``.
        pair_activation: whether the embedding of a pair ends with a GELU, as in the published weights.
        num_heads: attention heads.
        num_layers: particle attention blocks.
        num_class_layers: class attention blocks.
        dropout: in the particle attention blocks, also of attention weights.
        context_dim: event quantities, such as the missing transverse momentum, that join the class token.
        head_dims: widths of hidden layers before the logits.
        head_dropout: after each of them.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle, context (batch, context_dim); logits (batch, class).
    """

    #: Parts that `encode` does not use.
    readout = ("class_blocks", "class_token", "norm", "head")

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        pair_inputs: Sequence[PairInputs] = (),
        embed_dims: Sequence[int] = (128, 512, 128),
        pair_embed_dims: Sequence[int] = (64, 64, 64),
        pair_activation: bool = True,
        num_heads: int = 8,
        num_layers: int = 8,
        num_class_layers: int = 2,
        dropout: float = 0.1,
        context_dim: int = 0,
        head_dims: Sequence[int] = (),
        head_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim = embed_dims[-1]
        self.context_dim = context_dim
        self.embedding = _particle_embedding(input_dim, embed_dims)
        self.pair_inputs = nn.ModuleList(pair_inputs)
        self.pair_embedding = None
        if pair_inputs:
            pair_dim = sum(inputs.dim for inputs in pair_inputs)
            self.pair_embedding = PairEmbedding(
                pair_dim, (*pair_embed_dims, num_heads), last_activation=pair_activation
            )
        self.blocks = nn.ModuleList(ParticleAttention(embed_dim, num_heads, dropout) for _ in range(num_layers))
        self.class_blocks = nn.ModuleList(ClassAttention(embed_dim, num_heads) for _ in range(num_class_layers))
        self.class_token = nn.Parameter(torch.empty(embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        self.head = _head(embed_dim + context_dim, head_dims, num_classes, head_dropout)
        self._initialise()

    def stages(self) -> dict[str, list[str]]:
        """What fine-tuning tells apart, from the input to the ``head``: the modules and parameters of each stage."""
        pairs = {} if self.pair_embedding is None else {"pair_embedding": ["pair_inputs", "pair_embedding"]}
        return {
            "embedding": ["embedding"],
            **pairs,
            **stages_of("blocks", self.blocks),
            "class_attention": ["class_token", "class_blocks", "norm"],
            "head": ["head"],
        }

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        x, jets = self._particles(features, four_momenta, mask)
        token = self.class_token.expand(len(mask), -1)
        for block in self.class_blocks:
            token = block(token, x, jets.groups)
        token = self.norm(token)[jets.place]
        return self.head(join_context(token, context, self.context_dim))

    def encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles after the last block, packed as by `pack`."""
        x, jets = self._particles(features, four_momenta, mask)
        return jets.unsort(x)

    def _particles(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, SortedJets]:
        """Particles (node, embed_dim) after the last block, those of the longest jet first."""
        jets, features, four_momenta = sort_by_length(mask, features, four_momenta)
        biases = self._attention_biases(features, four_momenta, jets)
        x = self.embedding(features)
        for block in self.blocks:
            x = block(x, jets.groups, biases)
        return x, jets

    def _attention_biases(self, features: Tensor, four_momenta: Tensor, jets: SortedJets) -> list[Tensor]:
        """What is added to the scores of each group, broadcastable to (jet, head, particle, particle)."""
        dtype = self.class_token.dtype
        if self.pair_embedding is None:
            return [_key_bias(group.mask, dtype) for group in jets.groups]
        i, j = unordered_pairs(jets.counts)
        pairs = [_describe_pairs(inputs, features, four_momenta, i, j).to(dtype) for inputs in self.pair_inputs]
        embedded = self.pair_embedding(torch.cat(pairs, dim=1)).to(dtype)
        pairs_of_groups = [int((group.counts * (group.counts + 1) // 2).sum()) for group in jets.groups]
        parts = embedded.split(pairs_of_groups)
        return [_pair_bias(rows, group) for rows, group in zip(parts, jets.groups, strict=True)]

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, _AttentionBlock):
                for weight in module.in_proj.weight.chunk(3):  # query, key and value are three layers in one
                    nn.init.xavier_uniform_(weight)
        for depth, block in enumerate(self.blocks, start=1):
            for layer in (block.out_proj, block.fc2):  # so that the sum of all residuals keeps its size
                layer.weight.data /= (2 * depth) ** 0.5


class _AttentionBlock(nn.Module):
    """What particle and class attention share: the layers, and what follows the attention."""

    def __init__(self, embed_dim: int, num_heads: int, dropout: float, expansion: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_in = nn.LayerNorm(embed_dim)
        self.in_proj = Linear(embed_dim, 3 * embed_dim)
        self.out_proj = Linear(embed_dim, embed_dim)
        self.head_scale = nn.Parameter(torch.ones(num_heads))
        self.norm_out = nn.LayerNorm(embed_dim)
        self.norm_mlp = nn.LayerNorm(embed_dim)
        self.fc1 = Linear(embed_dim, expansion * embed_dim)
        self.norm_hidden = nn.LayerNorm(expansion * embed_dim)
        self.fc2 = Linear(expansion * embed_dim, embed_dim)
        self.residual_scale = nn.Parameter(torch.ones(embed_dim))
        self.dropout = Dropout(dropout)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Attention of (batch, particle, feature) tensors, with the same shape as ``query``."""
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (query, key, value))
        return _attention(query, key, value, bias, self.dropout.p if self.training else 0.0).transpose(1, 2).flatten(2)

    def update(self, x: Tensor, attended: Tensor) -> Tensor:
        r"""The rest of a block, on rows (row, feature).

        .. math::
            x &\leftarrow x + \mathrm{LN}(s_\mathrm{head} W_o \, a) \\
            x &\leftarrow s \, x + W_2 \, \mathrm{LN}(\mathrm{GELU}(W_1 \mathrm{LN}(x)))
        """
        scale = self.head_scale.repeat_interleave(x.shape[1] // self.num_heads)  # of the weight: rows are many
        heads = linear(attended, self.out_proj.weight * scale[:, None], self.out_proj.bias * scale)
        x = x + self.dropout(self.norm_out(heads))
        hidden = self.norm_hidden(
            self.dropout(linear(self.norm_mlp(x), self.fc1.weight, self.fc1.bias, activation="gelu"))
        )
        return self.residual_scale * x + self.dropout(self.fc2(hidden))


class ParticleAttention(_AttentionBlock):
    """Self-attention between the particles of a jet."""

    def forward(self, x: Tensor, groups: Sequence[LengthGroup], biases: Sequence[Tensor]) -> Tensor:
        """Updated particles (node, feature); ``biases`` are added to the scores (jet, head, particle, particle)."""
        projected = self.in_proj(self.norm_in(x)).split([group.nodes for group in groups])
        attended = [
            group.unpad(self.attend(*group.pad(rows).chunk(3, dim=-1), bias))
            for group, rows, bias in zip(groups, projected, biases, strict=True)
        ]
        return self.update(x, torch.cat(attended))


class ClassAttention(_AttentionBlock):
    """Attention of a class token to itself and the particles; without dropout, as in the paper."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__(embed_dim, num_heads, dropout=0.0)

    def forward(self, token: Tensor, x: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
        """Updated token (jet, feature) of particles ``x`` (node, feature)."""
        width = token.shape[1]
        # Only keys and values are normalised; the query is the bare token.
        queries = linear(token, self.in_proj.weight[:width], self.in_proj.bias[:width])
        of_token, of_particles = (
            linear(self.norm_in(rows), self.in_proj.weight[width:], self.in_proj.bias[width:]) for rows in (token, x)
        )
        attended = [
            self._attend(group, *parts)
            for group, *parts in zip(
                groups,
                queries.split([len(group.mask) for group in groups]),
                of_token.split([len(group.mask) for group in groups]),
                of_particles.split([group.nodes for group in groups]),
                strict=True,
            )
        ]
        return self.update(token, torch.cat(attended))

    def _attend(self, group: LengthGroup, query: Tensor, of_token: Tensor, of_particles: Tensor) -> Tensor:
        """What the tokens of a group see of themselves and of their particles, (jet, feature)."""
        key, value = torch.cat([of_token[:, None], group.pad(of_particles)], dim=1).chunk(2, dim=-1)
        bias = _key_bias(F.pad(group.mask, (1, 0), value=True), query.dtype)
        return self.attend(query[:, None], key, value, bias)[:, 0]


def _attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, p: float) -> Tensor:
    """Attention of (jet, head, particle, feature) with a ``bias`` of its scores and dropout ``p`` of its weights."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=p)
    # The scores of a group stay in the cache, so torch's blocks of them gain nothing on a CPU; with a gradient it has
    # but a general form there, which looks for rows without keys and has a slow dropout.
    scores = query @ (key * query.shape[-1] ** -0.5).mT + bias
    weights = scores.softmax(-1)
    return (dropout(weights, p) if p else weights) @ value


def _describe_pairs(inputs: PairInputs, features: Tensor, four_momenta: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Numbers (pair, dim) of the pairs; like in the paper without a gradient, unless there is something to learn."""
    is_learnt = torch.is_grad_enabled() and any(parameter.requires_grad for parameter in inputs.parameters())
    # the logarithms of small numbers would lose their meaning in half precision
    with torch.set_grad_enabled(is_learnt), torch.autocast(features.device.type, enabled=False):
        return inputs(features, four_momenta, i, j)


def _key_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Zero for a real key and `MASKED` for padding, (jet, 1, 1, particle)."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, MASKED)[:, None, None, :]


def _pair_bias(embedded: Tensor, group: LengthGroup) -> Tensor:
    """Matrices (jet, head, particle, particle) of the numbers (pair, head) of each pair of `unordered_pairs`."""
    jets, particles = group.mask.shape
    i, j = unordered_pairs(group.counts)
    bias = embedded.new_full((jets * particles * particles, embedded.shape[1]), MASKED)
    slot = group.cells % particles
    for one, other in ((i, j), (j, i)):
        bias.index_copy_(0, group.cells[one] * particles + slot[other], embedded)
    return bias.unflatten(0, (jets, particles, particles)).permute(0, 3, 1, 2).contiguous()


def _particle_embedding(input_dim: int, dims: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = [RowBatchNorm(input_dim)]
    for before, after in itertools.pairwise([input_dim, *dims]):
        layers += [nn.LayerNorm(before), Linear(before, after), nn.GELU()]
    return nn.Sequential(*layers)


def _head(input_dim: int, dims: Sequence[int], num_classes: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise([input_dim, *dims]):
        layers += [Linear(before, after), nn.ReLU(), Dropout(dropout)]
    return nn.Sequential(*layers, Linear([input_dim, *dims][-1], num_classes))


PAPER = Paper("arXiv:2202.03772", "Particle Transformer for Jet Tagging")
EVENTS_PAPER = Paper("arXiv:2211.05143", "Attention to the strengths of physical interactions")


@register_model(paper=PAPER, sees="jets")
def particle_transformer(input_dim: int, num_classes: int) -> ParticleTransformer:
    """Particle Transformer of arXiv:2202.03772, 2,141,134 parameters with 7 features and 2 classes."""
    return ParticleTransformer(input_dim, num_classes, pair_inputs=[KinematicPairs()])


@register_model(paper=PAPER, sees="jets", variant="for weights of weaver-core")
def particle_transformer_weaver(input_dim: int, num_classes: int) -> ParticleTransformer:
    """`particle_transformer` for weights that weaver-core trained with ``use_pre_activation_pair=False``.

    The published ones are such. The numbers of a pair are formed in the precision of the momenta, as there
    (`WeaverPairs`). Train `particle_transformer` instead.
    """
    return ParticleTransformer(input_dim, num_classes, pair_inputs=[WeaverPairs()])


@register_model(paper=PAPER, sees="jets", variant="for weights of weaver-core, use_pre_activation_pair=True")
def particle_transformer_weaver_pre_activation(input_dim: int, num_classes: int) -> ParticleTransformer:
    """`particle_transformer_weaver` for ``use_pre_activation_pair=True``, weaver-core's default.

    The embedding of a pair then ends before its last GELU.
    """
    return ParticleTransformer(input_dim, num_classes, pair_inputs=[WeaverPairs()], pair_activation=False)


@register_model(paper=PAPER, sees="jets", variant="without pair interactions")
def particle_transformer_plain(input_dim: int, num_classes: int) -> ParticleTransformer:
    """Particle Transformer without pair interactions, 2,131,566 parameters with 7 features and 2 classes."""
    return ParticleTransformer(input_dim, num_classes)


#: Columns of the types in the feature table ``events``.
EVENT_TYPE_COLUMNS = range(4, 11)


@register_model(paper=EVENTS_PAPER, sees="events")
def particle_transformer_for_events(input_dim: int, num_classes: int) -> ParticleTransformer:
    """Particle Transformer for the objects of an event, as for four tops in arXiv:2211.05143.

    Its ``context`` is the missing transverse momentum: two numbers, magnitude and azimuth, standardised like features.
    """
    return _for_events(input_dim, num_classes, [KinematicPairs()])


@register_model(paper=EVENTS_PAPER, sees="events", variant="without pair interactions")
def particle_transformer_for_events_plain(input_dim: int, num_classes: int) -> ParticleTransformer:
    """`particle_transformer_for_events` without pair interactions."""
    return _for_events(input_dim, num_classes, [])


@register_model(paper=EVENTS_PAPER, sees="events", variant="running Standard Model couplings of pairs, too")
def particle_transformer_for_events_sm(input_dim: int, num_classes: int) -> ParticleTransformer:
    """`particle_transformer_for_events` with the running Standard Model couplings of each pair beside its kinematics.

    Args:
        input_dim: number of features of an object; columns 4 to 10 are its type, as in the feature table ``events``, or
            the last seven where there are fewer.
        num_classes: number of logits.
    """
    return _for_events(input_dim, num_classes, [KinematicPairs(), _event_couplings(input_dim)])


@register_model(paper=EVENTS_PAPER, sees="events", variant="running Standard Model couplings of pairs alone")
def particle_transformer_for_events_sm_only(input_dim: int, num_classes: int) -> ParticleTransformer:
    """`particle_transformer_for_events_sm` without the kinematics of the pairs."""
    return _for_events(input_dim, num_classes, [_event_couplings(input_dim)])


def _for_events(input_dim: int, num_classes: int, pair_inputs: Sequence[PairInputs]) -> ParticleTransformer:
    return ParticleTransformer(input_dim, num_classes, pair_inputs=pair_inputs, context_dim=2, head_dims=(64, 256, 64))


def _event_couplings(input_dim: int) -> CouplingPairs:
    if input_dim < len(EVENT_TYPE_COLUMNS):
        raise ValueError(f"input_dim is {input_dim}, but the types of objects alone are {len(OBJECT_TYPES)} features")
    shift = min(0, input_dim - EVENT_TYPE_COLUMNS.stop)
    return CouplingPairs([column + shift for column in EVENT_TYPE_COLUMNS])
