"""Average images of simulated QCD and top jets before and after they are rotated and flipped.

python docs/jet_images.py --jets 12000 --out docs/pictures
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import LogNorm

from zoo.cnn_jetimage import JetImage
from zoo.data.batch import collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.store import open_store

CLASSES = ("QCD", "top")
STEPS = {"centred": JetImage(rotate=False, flip=False), "centred, rotated and flipped": JetImage()}
BATCH = 500


def main() -> None:
    """Average and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--jets", type=int, default=12_000, help="jets of both classes together, at most")
    parser.add_argument("--out", type=Path, required=True, help="folder for the picture")
    options = parser.parse_args()
    table = open_store(resolve_file("sample:top_tagging/train"))
    averages = average_images(table, min(options.jets, len(table)))
    figure, panels = plt.subplots(2, 2, figsize=(9.5, 8.5), sharey=True, layout="constrained")
    half_width = 32 * 0.025
    for row, (name, images) in zip(panels, averages.items(), strict=True):
        for panel, label, image in zip(row, CLASSES, images, strict=True):
            drawn = panel.imshow(
                image.numpy(),
                origin="lower",
                extent=(-half_width, half_width, -half_width, half_width),
                norm=LogNorm(vmin=1e-6, vmax=1e-1, clip=True),
                cmap="magma",
            )
            panel.set_title(f"{label}, {name}")
    for above, below in panels.T:
        above.set_xlabel(r"$\Delta\eta$")
        below.set_xlabel("distance to the right of the principal axis")
    panels[0, 0].set_ylabel(r"$\Delta\phi$")
    panels[1, 0].set_ylabel("distance along the principal axis")
    figure.colorbar(drawn, ax=panels, label=r"mean part of the jet's $p_T$ in a pixel", shrink=0.8)
    options.out.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out / "jet_images.png", dpi=80)


def average_images(table, num_jets: int) -> dict[str, torch.Tensor]:
    """Name of the steps -> mean images (class, pixel, pixel)."""
    sums = {name: torch.zeros(len(CLASSES), 64, 64, dtype=torch.float64) for name in STEPS}
    counts = torch.zeros(len(CLASSES), dtype=torch.float64)
    for first in range(0, num_jets, BATCH):
        jets = collate(gather(table, np.arange(first, min(first + BATCH, num_jets))), feature_table("kin"))
        counts += jets.label.bincount(minlength=len(CLASSES))
        for name, image in STEPS.items():
            sums[name].index_add_(0, jets.label, image(jets.four_momenta, jets.mask)[:, 0])
    return {name: total / counts[:, None, None] for name, total in sums.items()}


if __name__ == "__main__":
    main()
