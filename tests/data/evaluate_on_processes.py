"""Validates and fits on some processes and prints the metrics; a script, as each spawned process imports it."""

import json
import sys

import lightning.pytorch as pl
import torch

import zoo
from zoo.data import JetDataModule
from zoo.data.datamodule import Split
from zoo.tasks.classification import Classification


def main(file: str, processes: int) -> None:
    torch.set_num_threads(1)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    strategy = "ddp_spawn" if processes > 1 else "auto"
    trainer = pl.Trainer(
        accelerator="cpu", devices=processes, strategy=strategy, max_epochs=1, num_sanity_val_steps=0, **options
    )
    # the same batches are validated, whatever the number of processes
    splits = {"train": Split([file], rows=(0, 128)), "val": Split([file], rows=(128, 208))}
    datamodule = JetDataModule(**splits, batch_size=32 // processes, eval_batch_size=10)

    def tagger() -> Classification:
        torch.manual_seed(1)
        # without batch statistics, which each process has of its own jets
        return Classification(zoo.create_model("pfn_energyflow", input_dim=datamodule.input_dim, num_classes=2))

    (figures,) = trainer.validate(tagger(), datamodule, verbose=False)
    trained = tagger()
    trainer.fit(trained, datamodule)
    figures["train_loss_step"] = trainer.callback_metrics["train_loss_step"].item()
    figures["train_loss"] = trainer.callback_metrics["train_loss"].item()
    figures["trained_val_loss"] = trainer.callback_metrics["val_loss"].item()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
