"""Size and speed of every model of the zoo, on real jets.

    python -m benchmarks.models

Operations are the multiplications and additions of matrix products and convolutions, as torch counts them, for one jet
of 50 and of 128 particles. Times are of inference in float32, batches of 64; the models take turns.
"""

import statistics
from pathlib import Path

import torch
from rich.progress import track
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.compare import describe, infer, parse_options, seconds, tell
from benchmarks.jets import load_batches
from zoo import create_model, list_models

RESULTS = Path(__file__).parent / "results" / "models.csv"


def build(name: str) -> nn.Module:
    torch.manual_seed(1)
    return create_model(name, input_dim=7, num_classes=2).eval()


def operations(name: str, particles: int) -> int:
    """Operations of the forward pass for one jet; in float64, since torch does not count calls of oneDNN."""
    momentum = torch.randn(1, particles, 3, dtype=torch.float64)
    four_momenta = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
    features = torch.randn(1, particles, 7, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(name).double().requires_grad_(False)(features, four_momenta, torch.ones(1, particles, dtype=torch.bool))
    return counter.get_total_flops()


def main() -> None:
    options = parse_options(__doc__, batch_size=64)

    batches = load_batches(options.file, options.batch_size, options.batches)
    models = {name: build(name) for name in list_models()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        infer(model, batches[0])
    for _ in track(range(options.rounds), description="inference"):
        for name, model in models.items():
            total = sum(seconds(lambda b=batch, m=model: infer(m, b)) for batch in batches)
            times[name].append(1e3 * total / options.batch_size / options.batches)
    rows = [
        {
            "model": name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "mflop_50": round(operations(name, 50) / 1e6, 1),
            "mflop_128": round(operations(name, 128) / 1e6, 1),
            "ms_per_jet": round(statistics.median(times[name]), 3),
            "ms_min": round(min(times[name]), 3),
            "ms_max": round(max(times[name]), 3),
        }
        for name, model in models.items()
    ]
    tell(rows, RESULTS, describe(batches, options))


if __name__ == "__main__":
    main()
