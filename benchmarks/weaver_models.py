"""Time and memory of Particle Transformer and ParticleNet beside those of weaver-core, on the same real jets.

    python -m benchmarks.weaver_models

Both have the same weights and take turns; weaver trims its padding as it does by default. Memory is the peak of a
process of its own above what it held before the first step.
"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from weaver.nn.model.ParticleNet import ParticleNet
from weaver.nn.model.ParticleTransformer import ParticleTransformer

from benchmarks.compare import describe, measure, parse_options, peak_memory, summarise, tell
from benchmarks.jets import load_batches
from zoo.importers import import_weights

RESULTS = Path(__file__).parent / "results" / "weaver_models.csv"
INPUT_DIM, NUM_CLASSES = 7, 2
DETA, DPHI = 5, 6  # columns of the features


class WeaverParticleTransformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = ParticleTransformer(INPUT_DIM, NUM_CLASSES, use_pre_activation_pair=False)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        # weaver gives its embedding a gradient only where the input has one.
        features = features.mT.requires_grad_(torch.is_grad_enabled())
        return self.net(features, v=four_momenta[..., [1, 2, 3, 0]].mT, mask=mask[:, None])


class WeaverParticleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        blocks = [(16, (64, 64, 64)), (16, (128, 128, 128)), (16, (256, 256, 256))]
        self.net = ParticleNet(INPUT_DIM, NUM_CLASSES, blocks, [(256, 0.1)], use_fusion=False)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        points = features[..., [DETA, DPHI]].mT
        return self.net(points, features.mT, mask[:, None])


PEERS = {"particle_transformer": WeaverParticleTransformer, "particlenet": WeaverParticleNet}


def build(name: str) -> nn.Module:
    """``weaver MODEL``, or ``zoo MODEL`` with its weights."""
    who, model = name.split()
    torch.manual_seed(1)
    peer = PEERS[model]()
    if who == "weaver":
        return peer
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(peer.net.state_dict(), file.name)
        return import_weights(file.name).model


def main() -> None:
    options = parse_options(__doc__, batch_size=64)

    batches = load_batches(options.file, options.batch_size, options.batches)
    rows = []
    for model in PEERS:
        names = (f"zoo {model}", f"weaver {model}")
        rows += summarise(measure(build, names, batches, options.rounds), *names)
        memory = {name: peak_memory(build, name, batches[0], options.threads) for name in names}
        for row in rows[-4:]:
            row["peak_mb_training_step"] = round(memory[row["model"]] / 1e6, 1)
    tell(rows, RESULTS, describe(batches, options))


if __name__ == "__main__":
    main()
