"""How much boosts change LorentzNet in float32, beside the naive formula and the effect of rounding the inputs.

    python -m benchmarks.boosts

Jet and beams are boosted together in float64 and the momenta then rounded to float32, as in a file. The exact logits do
not change; the table shows how far the computed ones move, per jet. A second table has the same in float64 throughout,
for momenta as stored in the file and for exactly massless ones.
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.edge_list_lorentznet import EdgeListLorentzNet
from benchmarks.jets import DEFAULT_FILE, load_batches
from zoo import load_pretrained
from zoo.data.batch import JetBatch
from zoo.physics.lorentz import random_lorentz


class BoostedBeams(EdgeListLorentzNet):
    """The edge-list implementation with beams in any frame, rounded like the momenta."""

    transformation: Tensor

    def beams(self, dtype: torch.dtype) -> Tensor:
        return (super().beams(torch.float64) @ self.transformation.mT).to(dtype)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--file", type=Path, default=DEFAULT_FILE, help="Top Tagging Reference HDF5 file")
    parser.add_argument("--jets", type=int, default=64)
    parser.add_argument("--model", default="lorentznet.top_tagging", help="pretrained model")
    options = parser.parse_args()

    (batch,) = load_batches(options.file, options.jets, 1, first_row=80_000)
    ours = load_pretrained(options.model).model
    naive = BoostedBeams(num_classes=2).eval()
    naive.load_state_dict(ours.state_dict())
    lab_beams = ours.beams

    @torch.no_grad()
    def score(model: nn.Module, matrix: Tensor, precision: torch.dtype) -> Tensor:
        """Log-odds of the boosted jets, their momenta rounded to float32, from a model of the given precision."""
        momenta = batch.four_momenta.double() @ matrix.mT
        if not torch.equal(matrix, torch.eye(4, dtype=torch.float64)):
            momenta = momenta.float()
        ours.beams, naive.transformation = lab_beams @ matrix.mT, matrix
        logits = model.to(precision)(batch.features.to(precision), momenta.to(precision), batch.mask).double()
        return logits[:, 1] - logits[:, 0]

    columns = {
        "rounding of the inputs": (ours, torch.float64),
        "zoo, float32": (ours, torch.float32),
        "naive float32": (naive, torch.float32),
    }
    table = Table("gamma", *columns, title=f"median (largest) change of the log-odds of {options.jets} jets")
    identity = torch.eye(4, dtype=torch.float64)
    for gamma in (2.0, 10.0, 100.0):
        matrix = random_lorentz(gamma=gamma, generator=torch.Generator().manual_seed(1))
        cells = []
        for model, precision in columns.values():
            change = (score(model, matrix, precision) - score(model, identity, precision)).abs()
            cells.append(f"{change.median():.1e} ({change.max():.1e})")
        table.add_row(f"{gamma:g}", *cells)
    Console().print(table)
    Console().print(boosted_in_float64(ours, lab_beams, batch))
    ours.beams = lab_beams


@torch.no_grad()
def boosted_in_float64(model: nn.Module, lab_beams: Tensor, batch: JetBatch) -> Table:
    """Changes of the log-odds where nothing is rounded after the boost; by the energies of the momenta."""
    in_file = batch.four_momenta.double()
    momentum = in_file[..., 1:]
    massless = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
    table = Table("gamma", "as in the file", "massless", title="the same in float64, nothing rounded")
    model.double()

    def score(momenta: Tensor, matrix: Tensor) -> Tensor:
        model.beams = lab_beams @ matrix.mT
        logits = model(batch.features.double(), momenta @ matrix.mT, batch.mask)
        return logits[:, 1] - logits[:, 0]

    for gamma in (2.0, 10.0, 100.0, 1000.0):
        matrix = random_lorentz(gamma=gamma, generator=torch.Generator().manual_seed(1))
        cells = []
        for momenta in (in_file, massless):
            change = (score(momenta, matrix) - score(momenta, torch.eye(4, dtype=torch.float64))).abs()
            cells.append(f"{change.median():.1e} ({change.max():.1e})")
        table.add_row(f"{gamma:g}", *cells)
    return table


if __name__ == "__main__":
    main()
