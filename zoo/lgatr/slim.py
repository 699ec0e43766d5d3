r"""L-GATr-slim: a transformer of Lorentz scalars and four-vectors.

References:
    Economical Jet Taggers -- Equivariant, Slim, and Quantized (2025), arXiv:2512.17011.
    A Lorentz-Equivariant Transformer for All of the LHC (2024), arXiv:2411.00446.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.kernels.building import stages_of
from zoo.lgatr import fast
from zoo.model import JetModel
from zoo.physics.lorentz import METRIC
from zoo.registry import Paper, register_model

#: Where the model is described.
PAPER = Paper("arXiv:2512.17011", "Economical Jet Taggers - Equivariant, Slim, and Quantized")

#: Reference vectors by name, (E, px, py, pz): the directions fixed in the laboratory.
REFERENCES = {
    "beams": ((1.0, 0.0, 0.0, 1.0), (1.0, 0.0, 0.0, -1.0)),
    "time": ((1.0, 0.0, 0.0, 0.0),),
}

#: Unit of the four-momenta at the input, in GeV, in which they are about one.
MOMENTUM_UNIT = 20.0


class LGATrSlim(JetModel):
    r"""Attention blocks over tokens that carry scalars and four-vectors, which mix only by Minkowski products.

    Each particle is a token, with its four-momentum as the vector and its features as scalars. There are two more kinds
    of tokens: one for the whole jet, whose scalars are classified, and the reference vectors, the directions that the
    detector singles out. Every token also has its kind as scalars, one-hot.

    The scalars see the vectors only through the attention weights and the joint norm; without scalars of their own they
    would be zero.

    Note:
        The tokens are particles on the light cone and references of length one, in `MOMENTUM_UNIT`; the jet is not
        boosted to its rest frame, in which the reference implementation trains on top jets.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
        embed_dim: scalars of a token.
        num_vectors: four-vectors of a token.
        num_layers: attention blocks.
        num_heads: attention heads, among which scalars and vectors are divided.
        dropout: after the attention and in the feed-forward network of a block; a vector is dropped as a whole.
        mlp_ratio: hidden width of the feed-forward network, in widths of a token.
        use_features: whether ``features`` are scalars of the particles. The answers are invariant as long as these stay
            the same; features that depend on the frame, such as pt, break the symmetry on purpose.
        references: which of `REFERENCES` join each jet. They reduce the Lorentz group to the subgroup that leaves them
            unchanged, unless they are transformed with the jet (`beams`).

    Raises:
        ValueError: if the number of heads does not divide the widths, or a reference is unknown.

    Shapes:
        features (batch, particle, feature), four_momenta (batch, particle, 4) as (E, px, py, pz) in GeV,
        mask (batch, particle), True for a real particle; logits (batch, class).
    """

    symmetries = frozenset({"beam rotation", "beam boost", "rotation", "boost"})

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        *,
        embed_dim: int = 128,
        num_vectors: int = 32,
        num_layers: int = 8,
        num_heads: int = 8,
        dropout: float = 0.0,
        mlp_ratio: int = 2,
        use_features: bool = True,
        references: Sequence[str] = ("beams", "time"),
    ) -> None:
        super().__init__()
        if embed_dim % num_heads or num_vectors % num_heads:
            raise ValueError(f"num_heads {num_heads} must divide embed_dim {embed_dim} and num_vectors {num_vectors}")
        if unknown := set(references) - REFERENCES.keys():
            raise ValueError(f"references: {', '.join(sorted(unknown))}: choose of {', '.join(REFERENCES)}")
        self.embed_dim = embed_dim
        self.num_features = input_dim if use_features else 0
        #: Reference vectors (reference, 4), float64; transform them with the jets to see the full symmetry. Not a
        #: buffer, as a module's ``float()`` would round it.
        self.beams = torch.tensor([v for name in references for v in REFERENCES[name]], dtype=torch.float64).view(-1, 4)
        num_kinds = 2 + len(self.beams)  # of the jet, of each reference, of particles
        self.embedding = VectorLinear(1, num_vectors, num_kinds + self.num_features, embed_dim)
        self.blocks = nn.ModuleList(
            SlimBlock(embed_dim, num_vectors, num_heads, dropout, mlp_ratio, is_last=layer == num_layers - 1)
            for layer in range(num_layers)
        )
        self.head = nn.Linear(embed_dim, num_classes)

    def stages(self) -> dict[str, list[str]]:
        """Modules and parameters of each fine-tuning stage, from the input to the ``head``."""
        return {"embedding": ["embedding"], **stages_of("blocks", self.blocks), "head": ["head"]}

    def tokens(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (batch, token, 4, 1), scalars (batch, token, scalar) and mask: the jet, references, particles."""
        batch, (dtype, device) = mask.shape[0], (features.dtype, features.device)
        momenta = (four_momenta / MOMENTUM_UNIT).to(dtype).masked_fill(~mask[..., None], 0.0)
        fixed = torch.cat([self.beams.new_zeros(1, 4), self.beams]).to(device, dtype)
        kinds = torch.eye(len(fixed) + 1, dtype=dtype, device=device)
        of_particles = features[..., : self.num_features].masked_fill(~mask[..., None], 0.0)
        vectors = torch.cat([fixed.expand(batch, -1, -1), momenta], dim=1)
        scalars = torch.cat(
            [
                F.pad(kinds[:-1], (0, self.num_features)).expand(batch, -1, -1),
                torch.cat([kinds[-1].expand(*mask.shape, -1), of_particles], dim=-1),
            ],
            dim=1,
        )
        return vectors[..., None], scalars, F.pad(mask, (len(fixed), 0), value=True)

    def reference_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """Logits (batch, class) of the scalars of the jet's token."""
        return self.head(self._reference_tokens(features, four_momenta, mask)[:, 0])

    def reference_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Scalars (batch, particle, embed_dim) of the particles after the last block."""
        return self._reference_tokens(features, four_momenta, mask)[:, 1 + len(self.beams) :]

    def _reference_tokens(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        vectors, scalars, is_token = self.tokens(features, four_momenta, mask)
        vectors, scalars = self.embedding(vectors, scalars)
        for block in self.blocks:
            vectors, scalars = block(vectors, scalars, is_token)
        return scalars

    def fast_forward(
        self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None
    ) -> Tensor:
        """The same, packed."""
        scalars, jets, first = fast.tokens_after_blocks(self, features, four_momenta, mask)
        return self.head(scalars[first[jets.place]])

    def fast_encode(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """The same, packed."""
        scalars, jets, _ = fast.tokens_after_blocks(self, features, four_momenta, mask)
        return fast.without_leading(jets.unsort(scalars), mask.sum(1), 1 + len(self.beams))


class VectorLinear(nn.Module):
    r"""Linear map of the scalars, and one of the vector channels, without a bias, as there is no invariant vector.

    .. math:: v_c' = \sum_d W_{cd} \, v_d, \qquad s' = W_s s + b

    Args:
        vectors_in: vectors of a token; if ``vectors_out`` is 0 they are not mapped.
        vectors_out: vectors after it.
        scalars_in: scalars of a token.
        scalars_out: scalars after it.
        bias: whether the scalars have one.
        scale: of the initial weights.
    """

    def __init__(
        self,
        vectors_in: int,
        vectors_out: int,
        scalars_in: int,
        scalars_out: int,
        *,
        bias: bool = True,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.scalars = nn.Linear(scalars_in, scalars_out, bias=bias)
        self.vectors = nn.Linear(vectors_in, vectors_out, bias=False) if vectors_out else None
        for layer in (self.scalars, self.vectors):
            if layer is not None:
                bound = scale / math.sqrt(layer.in_features)
                nn.init.uniform_(layer.weight, -bound, bound)
        if bias:
            nn.init.zeros_(self.scalars.bias)

    def forward(self, vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors (..., 4, vector) and scalars (..., scalar), mapped; the vectors unchanged if there is no map."""
        return vectors if self.vectors is None else self.vectors(vectors), self.scalars(scalars)


def minkowski(left: Tensor, right: Tensor) -> Tensor:
    """Minkowski product of (..., 4, vector) with (..., 4, vector), (..., vector)."""
    return torch.einsum("...mc, ...mc, m -> ...c", left, right, left.new_tensor(METRIC))


def joint_norm(vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
    r"""Vectors (..., 4, vector) and scalars (..., scalar) divided by their common size.

    .. math:: n^2 = \frac{\sum_c |\langle v_c, v_c \rangle| + \sum_c s_c^2}{C_v + C_s} + \epsilon

    A square that is zero within rounding, such as that of a massless particle, is set to zero (`fast.lengths`);
    otherwise the sign of its noise would be the sign of a gradient.
    """
    squares = torch.cat([fast.lengths(vectors, dim=-2), scalars.square()], dim=-1)
    scale = (squares.mean(-1, keepdim=True) + fast.EPSILON).rsqrt()
    return vectors * scale[..., None], scalars * scale


class SlimNorm(nn.Module):
    """`joint_norm`, then a factor for each vector and each scalar."""

    def __init__(self, num_vectors: int, num_scalars: int, *, scale_vectors: bool = True) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.ones(num_vectors)) if scale_vectors else None
        self.scalars = nn.Parameter(torch.ones(num_scalars))

    def forward(self, vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised vectors (..., 4, vector) and scalars (..., scalar)."""
        vectors, scalars = joint_norm(vectors, scalars)
        return vectors if self.vectors is None else vectors * self.vectors, scalars * self.scalars


class SlimBlock(nn.Module):
    r"""Attention and a feed-forward network, each with a norm before it and a residual connection.

    Args:
        num_scalars: scalars of a token.
        num_vectors: four-vectors of a token.
        num_heads: attention heads.
        dropout: see `LGATrSlim`.
        mlp_ratio: hidden width of the feed-forward network, in widths of a token.
        is_last: whether only the scalars are used afterwards, so that the feed-forward network has no vectors.
    """

    def __init__(
        self, num_scalars: int, num_vectors: int, num_heads: int, dropout: float, mlp_ratio: int, *, is_last: bool
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.is_last = is_last
        of_mlp = 0 if is_last else num_vectors
        self.norm_attention = SlimNorm(num_vectors, num_scalars)
        self.in_proj = VectorLinear(num_vectors, 3 * num_vectors, num_scalars, 3 * num_scalars, bias=False, scale=0.1)
        self.out_proj = VectorLinear(num_vectors, num_vectors, num_scalars, num_scalars, scale=0.1)
        self.norm_mlp = SlimNorm(num_vectors, num_scalars, scale_vectors=not is_last)
        self.gates = VectorLinear(num_vectors, 3 * mlp_ratio * of_mlp, num_scalars, 2 * mlp_ratio * num_scalars)
        self.mlp_out = VectorLinear(mlp_ratio * num_vectors, of_mlp, mlp_ratio * num_scalars, num_scalars)

    def forward(self, vectors: Tensor, scalars: Tensor, is_token: Tensor) -> tuple[Tensor, Tensor]:
        """Updated vectors (batch, token, 4, vector) and scalars (batch, token, scalar)."""
        of_vectors, of_scalars = self.attend(*self.norm_attention(vectors, scalars), is_token)
        vectors, scalars = vectors + self.drop(of_vectors, dim=-2), scalars + self.drop(of_scalars)
        of_vectors, of_scalars = self.feed_forward(*self.norm_mlp(vectors, scalars))
        return vectors if self.is_last else vectors + of_vectors, scalars + of_scalars

    def attend(self, vectors: Tensor, scalars: Tensor, is_token: Tensor) -> tuple[Tensor, Tensor]:
        r"""Attention by products of vectors and scalars, over d = 4 vectors and scalars of a head together.

        .. math:: a_{ij} = \mathrm{softmax}_j \,
            \frac{\sum_c \langle q_{ic}, k_{jc} \rangle + \sum_c q_{ic} k_{jc}}{\sqrt{d}}
        """
        vectors, scalars = self.in_proj(vectors, scalars)
        # to (3, batch, head, token, 4, c) and (3, batch, head, token, c)
        vectors, scalars = (
            part.unflatten(-1, (3, self.num_heads, -1)).movedim((-3, -2), (0, 2)) for part in (vectors, scalars)
        )
        (query_v, key_v, value_v), (query_s, key_s, value_s) = (part.unbind() for part in joint_norm(vectors, scalars))
        metric = query_v.new_tensor(METRIC)
        products = torch.einsum("bhimc, bhjmc, m -> bhij", query_v, key_v, metric)
        products = products + torch.einsum("bhic, bhjc -> bhij", query_s, key_s)
        scores = products / math.sqrt(4 * key_v.shape[-1] + key_s.shape[-1])
        weights = scores.masked_fill(~is_token[:, None, None], -math.inf).softmax(-1)
        of_vectors = torch.einsum("bhij, bhjmc -> bimhc", weights, value_v).flatten(-2)
        of_scalars = torch.einsum("bhij, bhjc -> bihc", weights, value_s).flatten(-2)
        return self.out_proj(of_vectors, of_scalars)

    def feed_forward(self, vectors: Tensor, scalars: Tensor) -> tuple[Tensor, Tensor]:
        r"""Gated vectors and scalars.

        .. math::
            v' = \sigma(\tfrac{1}{2} \langle g_1, g_2 \rangle) \, v, \qquad s' = \mathrm{GELU}(g) \, s
        """
        vectors, scalars = self.gates(vectors, scalars)
        scalars, gate = scalars.chunk(2, dim=-1)
        scalars = self.drop(F.gelu(gate, approximate="tanh") * scalars)
        if not self.is_last:
            vectors, left, right = vectors.chunk(3, dim=-1)
            vectors = self.drop((0.5 * minkowski(left, right)).sigmoid()[..., None, :] * vectors, dim=-2)
        return self.mlp_out(vectors, scalars)

    def drop(self, values: Tensor, dim: int | None = None) -> Tensor:
        """Dropout, of whole slices along ``dim``."""
        if not self.training or not self.dropout:
            return values
        return values * F.dropout(torch.ones_like(values if dim is None else values.narrow(dim, 0, 1)), self.dropout)


@register_model(paper=PAPER, sees="jets", variant="with features as scalars")
def lgatr_slim(input_dim: int, num_classes: int) -> LGATrSlim:
    """L-GATr-slim of 1.4 million parameters, with the features of the particles as scalars.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
    """
    return LGATrSlim(input_dim, num_classes)


@register_model(paper=PAPER, sees="jets", variant="with features as scalars, half as wide")
def lgatr_slim_small(input_dim: int, num_classes: int) -> LGATrSlim:
    """L-GATr-slim of 0.27 million parameters.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
    """
    return LGATrSlim(input_dim, num_classes, embed_dim=64, num_vectors=16, num_layers=6, num_heads=4)


@register_model(paper=PAPER, sees="jets", variant="with features as scalars, the smallest")
def lgatr_slim_tiny(input_dim: int, num_classes: int) -> LGATrSlim:
    """L-GATr-slim of 45,000 parameters.

    Args:
        input_dim: number of features of a particle.
        num_classes: number of logits.
    """
    return LGATrSlim(input_dim, num_classes, embed_dim=32, num_vectors=8, num_layers=4, num_heads=4)
