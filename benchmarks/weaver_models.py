"""Time and memory of Particle Transformer and ParticleNet beside those of weaver-core, on the same real jets.

    python -m benchmarks.weaver_models

Both have the same weights and take turns; weaver trims its padding as it does by default. Memory is the peak of a
process of its own above what it held before the first step.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn

from benchmarks.compare import describe, measure, parse_options, peak_memory, summarise, tell
from benchmarks.jets import load_batches
from benchmarks.peers import PEERS
from zoo.importers import import_weights
from zoo.registry import create_model

RESULTS = Path(__file__).parent / "results" / "weaver_models.csv"
MODELS = ("particle_transformer", "particlenet")
#: Model for which the importer asks about the last activation of pairs; the peer has that activation.
PRE_ACTIVATION = ("particle_transformer",)


def build(name: str) -> nn.Module:
    """``weaver MODEL``, or ``zoo MODEL`` with its weights."""
    who, model = name.split()
    torch.manual_seed(1)
    peer = PEERS[f"weaver {model}"]()
    if who == "weaver":
        return peer
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(peer.net.state_dict(), file.name)
        imported = import_weights(file.name, use_pre_activation_pair=False if model in PRE_ACTIVATION else None)
    own = create_model(model, input_dim=imported.input_dim, num_classes=imported.num_classes)
    own.load_state_dict(imported.model.state_dict())
    return own


def main() -> None:
    options = parse_options(__doc__, batch_size=64)

    batches = load_batches(options.file, options.batch_size, options.batches)
    rows = []
    for model in MODELS:
        names = (f"zoo {model}", f"weaver {model}")
        rows += summarise(measure(build, names, batches, options.rounds), *names)
        memory = {name: peak_memory(build, name, batches[0], options.threads) for name in names}
        for row in rows[-4:]:
            row["peak_mb_training_step"] = round(memory[row["model"]] / 1e6, 1)
    tell(rows, RESULTS, describe(batches, options))


if __name__ == "__main__":
    main()
