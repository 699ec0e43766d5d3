"""Particle Transformer (ParT): attention between particles, biased by the kinematics or couplings of each pair.

References:
    Particle Transformer for Jet Tagging (2022), arXiv:2202.03772.
    Going Deeper with Image Transformers (2021), arXiv:2103.17239: attention of a class token.
    NormFormer (2021), arXiv:2110.09456: the extra norms and scales of a block.
    Attention to the strengths of physical interactions (2022), arXiv:2211.05143: events, and couplings of pairs.
"""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zoo.kernels.building import join_context, stages_of
from zoo.kernels.cpu import Dropout, Linear
from zoo.kernels.norms import RowBatchNorm, apply_masked
from zoo.kernels.padding import harmless_padding
from zoo.model import JetModel
from zoo.particle_transformer import fast
from zoo.particle_transformer.fast import MASKED
from zoo.particle_transformer.pair_inputs import (
    CouplingPairs,
    KinematicPairs,
    PairInputs,
    WeaverPairs,
    describe_pairs,
)
from zoo.physics.couplings import OBJECT_TYPES
from zoo.registry import Paper, register_model


class ParticleTransformer(JetModel):
    r"""Particle attention blocks, then class attention blocks, then a linear layer.

    .. math::
        U_{ij} = \mathrm{embed}(u_{ij}), \quad x_i \leftarrow \mathrm{ParticleAttention}(x, U)_i, \quad
        t \leftarrow \mathrm{ClassAttention}(t, x), \quad \mathrm{logits} = W \, \mathrm{LN}(t) + b

    with numbers :math:`u_{ij}` of each pair and a learnt class token t.

    Note: departures from the reference implementation, each with a test.
        - No batch normalisation sees padding, of particles or of pairs.
        - The pair inputs are computed in float64.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        embed_dims: widths of the embedding of a particle; the last is the width of all later layers.
        num_layers: number of particle attention blocks.
        num_heads: number of attention heads.
        dropout: in the particle attention blocks, also of attention weights.
        num_class_layers: number of class attention blocks.
        pair_inputs: the inputs of the attention scores for each pair; if empty, attention has no interactions.
        pair_embed_dims: widths of the embedding of a pair, before the last layer to ``num_heads``.
        pair_activation: whether the embedding of a pair ends with a GELU, as in the published weights.
        context_dim: number of event quantities, such as the missing transverse momentum, that join the class token.
        head_dims: widths of the hidden layers before the logits.
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
        embed_dims: Sequence[int] = (128, 512, 128),
        num_layers: int = 8,
        num_heads: int = 8,
        dropout: float = 0.1,
        num_class_layers: int = 2,
        pair_inputs: Sequence[PairInputs] = (),
        pair_embed_dims: Sequence[int] = (64, 64, 64),
        pair_activation: bool = True,
        context_dim: int = 0,
        head_dims: Sequence[int] = (),
        head_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim = embed_dims[-1]
        self.context_dim = context_dim
        self.embedding = ParticleEmbedding(input_dim, embed_dims)
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
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        pairs = {} if self.pair_embedding is None else {"pair_embedding": ["pair_inputs", "pair_embedding"]}
        return {
            "embedding": ["embedding"],
            **pairs,
            **stages_of("blocks", self.blocks),
            "class_attention": ["class_token", "class_blocks", "norm"],
            "head": ["head"],
        }

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class); see the class for the shapes. A ``context`` left out counts as zero."""
        x = self.reference_encode(features, four_momenta, mask)
        token = self.class_token.expand(mask.shape[0], 1, -1)
        for block in self.class_blocks:
            token = block(token, x, mask)
        token = rearrange(self.norm(token), "batch 1 feature -> batch feature")
        return self.head(join_context(token, context, self.context_dim))

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (batch, particle, embed_dim) of the particles after the last block."""
        bias = self._attention_bias(features, four_momenta, mask)
        x = self.embedding(features, mask)
        for block in self.blocks:
            x = block(x, bias)
        return x

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same logits, from packed particles and pairs."""
        token = fast.class_tokens(self, features, four_momenta, mask)
        return self.head(join_context(token, context, self.context_dim))

    def fast_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Representation (node, embed_dim) of the real particles, from packed particles and pairs."""
        x, jets = fast.particles(self, features, four_momenta, mask)
        return jets.unsort(x)

    def _attention_bias(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Bias of the attention scores: U of each pair, `MASKED` where the key is padding."""
        if self.pair_embedding is None:
            return key_bias(mask)
        dtype = self.class_token.dtype
        batch, particles = mask.shape
        node = torch.arange(batch * particles, device=mask.device).unflatten(0, (batch, particles))
        i, j = torch.broadcast_tensors(node[:, :, None], node[:, None, :])
        numbers = describe_pairs(
            self.pair_inputs,
            features.flatten(0, 1),
            harmless_padding(four_momenta, mask).flatten(0, 1),
            i.flatten(),
            j.flatten(),
            dtype,
        ).unflatten(0, (batch, particles, particles))
        # Each pair is embedded once, so that batch normalisations do not count it twice.
        is_real, is_once = mask[:, :, None] & mask[:, None, :], i >= j
        embedded = rearrange(self.pair_embedding(numbers, is_real & is_once), "batch i j head -> batch head i j")
        embedded = torch.where(is_once[:, None], embedded, embedded.mT).to(dtype)
        return torch.where(is_real[:, None], embedded, MASKED)

    def _initialise(self) -> None:
        nn.init.trunc_normal_(self.class_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, AttentionBlock):
                for weight in module.in_proj.weight.chunk(3):  # query, key and value are three layers in one
                    nn.init.xavier_uniform_(weight)
        for depth, block in enumerate(self.blocks, start=1):
            for layer in (block.out_proj, block.fc2):  # so that the sum of all residuals keeps its size
                layer.weight.data /= (2 * depth) ** 0.5


class AttentionBlock(nn.Module):
    """The parts that particle and class attention share: the layers, the attention, and the rest of the block."""

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
        r"""Attention in each head, with the bias of the pairs.

        .. math:: a = \mathrm{SoftMax}\big(Q K^T / \sqrt{d} + U\big) \, V

        Args:
            query: Q, (batch, query, feature).
            key: K, (batch, particle, feature).
            value: V, (batch, particle, feature).
            bias: U, broadcast against (batch, head, query, particle).

        Returns:
            (batch, query, feature), the heads one after the other.
        """
        query, key, value = (
            rearrange(part, "batch particle (head feature) -> batch head particle feature", head=self.num_heads)
            for part in (query, key, value)
        )
        weights = (query @ key.mT / query.shape[-1] ** 0.5 + bias).softmax(-1)
        return rearrange(
            self.dropout(weights).to(value.dtype) @ value, "batch head query feature -> batch query (head feature)"
        )

    def update(self, x: Tensor, attended: Tensor) -> Tensor:
        r"""The rest of a block.

        .. math::
            x &\leftarrow x + \mathrm{LN}(s_\mathrm{head} W_o \, a) \\
            x &\leftarrow s \, x + W_2 \, \mathrm{LN}(\mathrm{GELU}(W_1 \mathrm{LN}(x)))

        Args:
            x: (batch, query, feature).
            attended: a, of the same shape.
        """
        heads = self.out_proj(attended).unflatten(-1, (self.num_heads, -1)) * self.head_scale[:, None]
        x = x + self.dropout(self.norm_out(heads.flatten(-2)))
        hidden = self.norm_hidden(self.dropout(F.gelu(self.fc1(self.norm_mlp(x)))))
        return self.residual_scale * x + self.dropout(self.fc2(hidden))


class ParticleAttention(AttentionBlock):
    """Attention of the particles of a jet to one another."""

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Updated particles (batch, particle, feature); ``bias`` is added to (batch, head, particle, particle)."""
        query, key, value = self.in_proj(self.norm_in(x)).chunk(3, dim=-1)
        return self.update(x, self.attend(query, key, value, bias))


class ClassAttention(AttentionBlock):
    """Attention of a class token to itself and the particles; without dropout, as in the paper."""

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__(embed_dim, num_heads, dropout=0.0)

    def forward(self, token: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Updated token (batch, 1, feature) of particles ``x`` (batch, particle, feature)."""
        weights, biases = self.in_proj.weight.chunk(3), self.in_proj.bias.chunk(3)
        # Only keys and values are normalised; the query is the bare token.
        seen = self.norm_in(torch.cat([token, x], dim=1))
        query, key, value = (
            F.linear(rows, weight, bias)
            for rows, weight, bias in zip((token, seen, seen), weights, biases, strict=True)
        )
        return self.update(token, self.attend(query, key, value, key_bias(F.pad(mask, (1, 0), value=True))))


def key_bias(mask: Tensor) -> Tensor:
    """Zero for a real particle and `MASKED` for padding, (batch, particle) -> (batch, 1, 1, particle)."""
    return torch.where(mask, 0.0, MASKED)[:, None, None, :]


class Embedding(nn.Sequential):
    """Layers one after the other, with batch normalisations over real rows only."""

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Embedded values (..., feature); ``mask`` (...) is True where they are real."""
        return apply_masked(self, values, mask)


class ParticleEmbedding(Embedding):
    """A batch normalisation, then linear layers, each with a layer normalisation before and a GELU after it.

    Args:
        input_dim: features of a particle.
        dims: widths of the layers.
    """

    def __init__(self, input_dim: int, dims: Sequence[int]) -> None:
        layers: list[nn.Module] = [RowBatchNorm(input_dim)]
        for before, after in itertools.pairwise([input_dim, *dims]):
            layers += [nn.LayerNorm(before), Linear(before, after), nn.GELU()]
        super().__init__(*layers)


class PairEmbedding(Embedding):
    """A batch normalisation, then linear layers, each followed by a batch normalisation and a GELU.

    Args:
        input_dim: numbers of a pair.
        dims: widths of the layers.
        last_activation: whether there is also a GELU after the last layer.
    """

    def __init__(self, input_dim: int, dims: Sequence[int], *, last_activation: bool = True) -> None:
        layers: list[nn.Module] = [RowBatchNorm(input_dim)]
        for before, after in itertools.pairwise([input_dim, *dims]):
            layers += [Linear(before, after), RowBatchNorm(after), nn.GELU()]
        super().__init__(*(layers if last_activation else layers[:-1]))
        self.last_activation = last_activation


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

    The published weights are of this kind. The numbers of a pair are computed in the precision of the momenta, as in
    weaver-core (`WeaverPairs`). For a training of your own, use `particle_transformer`.
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

    Raises:
        ValueError: if there are fewer features than types.
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
