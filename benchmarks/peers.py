"""Models of other packages behind the interface of the zoo, for the benchmarks.

weaver-core comes with the zoo; ``pip install 'hepzoo[benchmarks]'`` adds lgatr and pelican-lite.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.edge_list_lorentznet import EdgeListLorentzNet
from zoo.kernels.pairs import complete_pairs
from zoo.physics.lorentz import minkowski_dot

INPUT_DIM, NUM_CLASSES = 7, 2
DETA, DPHI = 5, 6  # columns of the features


class WeaverParticleTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        from weaver.nn.model.ParticleTransformer import ParticleTransformer

        self.net = ParticleTransformer(INPUT_DIM, NUM_CLASSES, use_pre_activation_pair=False)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        # weaver gives its embedding a gradient only where the input has one.
        features = features.mT.requires_grad_(torch.is_grad_enabled())
        return self.net(features, v=four_momenta[..., [1, 2, 3, 0]].mT, mask=mask[:, None])


class WeaverParticleNet(nn.Module):
    NEIGHBOURS = 16

    def __init__(self) -> None:
        super().__init__()
        from weaver.nn.model.ParticleNet import ParticleNet

        blocks = [(self.NEIGHBOURS, (width,) * 3) for width in (64, 128, 256)]
        self.net = ParticleNet(INPUT_DIM, NUM_CLASSES, blocks, [(256, 0.1)], use_fusion=False)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        # It needs neighbours besides the particle itself, even if they are padding.
        padding = (0, 0, 0, max(self.NEIGHBOURS + 1 - mask.shape[1], 0))
        features, mask = nn.functional.pad(features, padding), nn.functional.pad(mask, padding[2:])
        points = features[..., [DETA, DPHI]].mT
        return self.net(points, features.mT, mask[:, None])


class LGATrTagger(nn.Module):
    """L-GATr with the channels, heads and blocks of its top tagger (arXiv:2411.00446), read out at a separate token."""

    def __init__(self) -> None:
        super().__init__()
        from lgatr import LGATr

        self.net = LGATr(
            num_blocks=12,
            in_mv_channels=1,
            out_mv_channels=1,
            hidden_mv_channels=16,
            in_s_channels=INPUT_DIM,
            out_s_channels=NUM_CLASSES,
            hidden_s_channels=32,
            attention={"num_heads": 8},
            mlp={},
        )

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        from lgatr.interface import embed_vector

        vectors, scalars, keys = (nn.functional.pad(x, (0, 0, 1, 0)) for x in (four_momenta, features, mask[..., None]))
        keys[:, 0] = True
        _, out = self.net(embed_vector(vectors)[..., None, :], scalars, attn_mask=keys[:, None].mT)
        return out[:, 0]


class PelicanTagger(nn.Module):
    """PELICAN of pelican-lite on the Minkowski products of all pairs, with about the 208k parameters of its paper."""

    def __init__(self) -> None:
        super().__init__()
        from pelican import PELICAN

        self.net = PELICAN(1, 0, 0, out_rank=0, out_channels=NUM_CLASSES, num_blocks=6, hidden_channels=46)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        counts, momenta = mask.sum(1), four_momenta[mask]
        pairs, alone = complete_pairs(counts), torch.arange(len(momenta))
        i, j = torch.cat([pairs.i, alone]), torch.cat([pairs.j, alone])
        products = minkowski_dot(momenta[i], momenta[j])[:, None]
        jets = torch.repeat_interleave(counts)
        return self.net(
            torch.stack([i, j]), jets, in_rank2=products.to(features.dtype).abs().log1p(), num_graphs=len(mask)
        )


#: Package and model -> what builds it.
PEERS: dict[str, Callable[[], nn.Module]] = {
    "weaver particle_transformer": WeaverParticleTransformer,
    "weaver particlenet": WeaverParticleNet,
    "edge list lorentznet": lambda: EdgeListLorentzNet(num_classes=NUM_CLASSES),
    "lgatr": LGATrTagger,
    "pelican-lite": PelicanTagger,
}
