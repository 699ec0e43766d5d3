"""Fine-tunes on two processes and writes what each has after each epoch; a script, as each process imports it."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer

from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.lorentznet import LorentzNet
from zoo.tasks.classification import Classification
from zoo.training.fine_tuning import FineTuning


class Epochs(Callback):
    """Keeps the parameters after each epoch."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.weights: dict[str, list[torch.Tensor]] = {}

    def on_train_epoch_end(self, trainer, pl_module):
        for name, value in pl_module.model.named_parameters():
            self.weights.setdefault(name, []).append(value.detach().clone())

    def on_fit_end(self, trainer, pl_module):
        torch.save(self.weights, self.folder / f"{trainer.global_rank}.pt")


def main(backbone: str, folder: str) -> None:
    torch.set_num_threads(1)
    settings = FineTuning(backbone, freeze="backbone", unfreeze_at_epoch=1)
    model = LorentzNet(num_classes=2, embed_dim=8, num_layers=2)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        max_epochs=2,
        num_sanity_val_steps=0,
        callbacks=[Epochs(folder)],
        **options,
    )
    data = JetDataModule(train=Split(["sample:top_tagging/train"], rows=(0, 48)), batch_size=8)
    trainer.fit(Classification(model, learning_rate=0.01, fine_tuning=settings), data)


if __name__ == "__main__":
    main(*sys.argv[1:])
