"""Fits on two processes and writes which jets each of them saw; a script, as each spawned process imports it."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch

from zoo.data import JetDataModule
from zoo.data.datamodule import Split


class Normalised(pl.LightningModule):
    """Has buffers, which processes share at every step, so unequal numbers of steps would hang."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.head = torch.nn.Sequential(torch.nn.BatchNorm1d(7), torch.nn.Linear(7, 2))
        self.seen: dict[str, list[list[int]]] = {"train": [], "val": []}

    def loss(self, name, batch):
        self.seen[name].append(batch.index.tolist())
        return torch.nn.functional.cross_entropy(self.head(batch.features.sum(dim=1)), batch.label)

    def training_step(self, batch, batch_idx):
        return self.loss("train", batch)

    def validation_step(self, batch, batch_idx):
        self.loss("val", batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3)

    def on_fit_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.seen))


def main(file: str, folder: str) -> None:
    torch.set_num_threads(1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", devices=2, strategy="ddp_spawn", max_epochs=1, num_sanity_val_steps=0, **options
    )
    splits = {"train": Split([file], rows=(0, 83)), "val": Split([file], rows=(83, 100))}
    trainer.fit(Normalised(folder), JetDataModule(**splits, batch_size=8, eval_batch_size=4))


if __name__ == "__main__":
    main(*sys.argv[1:])
