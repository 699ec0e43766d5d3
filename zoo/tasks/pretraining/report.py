"""What a pretraining leaves behind: its figures, and pictures of what it predicts."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from zoo.data.batch import JetBatch
from zoo.report import write_training_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: By name, a caption and what draws it.
Drawings = dict[str, tuple[str, Callable[["Figure"], None]]]

_TRUE_COLOUR, _PREDICTED_COLOUR = "#717581", "#bd1f01"


class WritePretrainingReport(Callback):
    """Turns a validation outside a training into ``report/`` of the run folder.

    Args:
        run_folder: the run; its ``metrics.csv`` and ``config.yaml`` enter the report where they exist.
        title: name of the model.

    Attributes:
        facts: how the weights came to be, for the page; whoever loads them says.
        metrics: what `write_training_report` returned; None before the end of a validation.
    """

    def __init__(self, run_folder: Path, title: str) -> None:
        self.run_folder = run_folder
        self.title = title
        self.facts: dict[str, Any] = {}
        self.metrics: dict[str, Any] | None = None
        self._batches: list[dict[str, Tensor]] = []
        self._jets = 0

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: dict[str, Tensor],
        batch: JetBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep what a batch shows."""
        if trainer.state.fn == "validate":
            self._batches.append(outputs)
            self._jets += len(batch.mask)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the report."""
        if trainer.state.fn != "validate":
            return
        shown = {name: torch.cat([batch[name] for batch in self._batches]).numpy() for name in self._batches[0]}
        history, config = self.run_folder / "metrics.csv", self.run_folder / "config.yaml"
        self.metrics = write_training_report(
            self.run_folder / "report",
            title=self.title,
            jets=self._jets,
            rows=trainer.datamodule.description.rows,
            figures=_figures(trainer, shown.pop("loss"), shown.pop("jet")),
            drawings=pl_module.drawings(shown),
            history=history if history.exists() else None,
            config=config if config.exists() else None,
            facts=self.facts | {"parameters": sum(p.numel() for p in pl_module.parameters() if p.requires_grad)},
        )
        self._batches, self._jets = [], 0


def _figures(trainer: Trainer, loss: np.ndarray, jet: np.ndarray) -> dict[str, dict[str, Any]]:
    """What the validation logged, each with its error where there is one."""
    logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
    errors = {name: logged.get(f"{name}_error") for name in logged} | {"val_loss": error_of_mean(loss, jet)}
    return {
        name: {"value": value, "error": errors[name]} for name, value in logged.items() if not name.endswith("_error")
    }


def error_of_mean(values: np.ndarray, jet: np.ndarray) -> float | None:
    """Standard error of the mean of values (item,) that are independent between jets only; None for fewer than two.

    Args:
        values: of the items.
        jet: int64 (item,), to which each item belongs.
    """
    _, number = np.unique(jet, return_inverse=True)
    if number.max(initial=0) < 1:
        return None
    of_jets = np.bincount(number, values - values.mean())
    return float(np.sqrt(np.square(of_jets).sum() * len(of_jets) / (len(of_jets) - 1)) / len(values))


def draw_momenta(names: tuple[str, ...], true: np.ndarray, predicted: np.ndarray) -> Callable[["Figure"], None]:
    """Distributions of true and predicted numbers (item, name), a panel each."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(names))
        figure.set_size_inches(7 * len(names), 7)
        for axes, name, one, other in zip(panels, names, true.T, predicted.T, strict=False):
            low, high = np.quantile(one, (0.002, 0.998))
            edges = np.linspace(low, high if high > low else low + 1, 26)  # as coarse as the codes
            for values, colour, label, filled in (
                (one, _TRUE_COLOUR, "true", True),
                (other, _PREDICTED_COLOUR, "predicted", False),
            ):
                counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
                axes.stairs(counts / len(values), edges, fill=filled, color=colour, alpha=0.5 if filled else 1, lw=2.5)
                axes.plot([], [], color=colour, lw=4, alpha=0.5 if filled else 1, label=label)
            axes.set_xlabel(name)
            axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # with room for the legend
        panels[0].set_ylabel("Hidden particles per bin, normalised")
        panels[0].set_title(f"{len(true):,} hidden particles", loc="left", fontsize="small")
        panels[-1].legend(loc="upper right", fontsize="small")

    return draw


def draw_scatter(names: tuple[str, ...], true: np.ndarray, expected: np.ndarray) -> Callable[["Figure"], None]:
    """Expected against true numbers (item, name), a panel each."""

    def draw(figure: "Figure") -> None:
        panels = figure.subplots(1, len(names))
        figure.set_size_inches(7 * len(names), 7)
        for axes, name, one, other in zip(panels, names, true.T, expected.T, strict=False):
            low, high = np.quantile(one, (0.002, 0.998))
            edges = np.linspace(low, high if high > low else low + 1, 61)
            counts, _, _ = np.histogram2d(one, other, (edges, edges))
            shown = np.where(counts > 0, np.log10(np.maximum(counts, 1)), np.nan)
            axes.pcolormesh(edges, edges, shown.T, cmap="viridis", rasterized=True)
            axes.plot(edges[[0, -1]], edges[[0, -1]], color=_PREDICTED_COLOUR, lw=1.5, ls="--")
            correlation = np.corrcoef(one, other)[0, 1] if other.std() > 0 else 0.0
            axes.set_title(f"correlation {correlation:.2f}", loc="left", fontsize="small")
            axes.set_xlabel(f"{name}, true")
            axes.set_ylabel("expected")

    return draw


def draw_codes(true: np.ndarray, drawn: np.ndarray, num_codes: int) -> Callable[["Figure"], None]:
    """How often each code is there and is predicted, the most frequent first."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        one, other = (np.bincount(codes, minlength=num_codes) for codes in (true, drawn))
        order = np.argsort(-one, kind="stable")
        edges = np.arange(num_codes + 1) - 0.5
        axes.stairs(one[order] / len(true), edges, fill=True, color=_TRUE_COLOUR, alpha=0.5, label="true")
        axes.stairs(other[order] / len(drawn), edges, color=_PREDICTED_COLOUR, lw=2, label="predicted")
        axes.set_xlabel("Code, the most frequent first")
        axes.set_ylabel("Part of the hidden particles")
        axes.set_xlim(edges[0], edges[-1])
        axes.set_title(f"{len(true):,} hidden particles", loc="left", fontsize="small")
        axes.legend(loc="upper right")

    return draw


def draw_similarities(same: np.ndarray, other: np.ndarray) -> Callable[["Figure"], None]:
    """Distributions of the cosines (jet,) of versions of the same jet and of other jets."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        edges = np.linspace(-1, 1, 51)
        for cosines, colour, label in ((same, _PREDICTED_COLOUR, "same jet"), (other, _TRUE_COLOUR, "other jet")):
            counts, _ = np.histogram(cosines.clip(-1, 1), edges)
            axes.stairs(counts / len(cosines), edges, color=colour, lw=2.5, label=label)
        axes.set_xlabel("Cosine of the projections of two versions")
        axes.set_ylabel("Pairs per bin, normalised")
        axes.set_xlim(-1, 1)
        axes.set_title(f"{len(same):,} validation jets", loc="left", fontsize="small")
        axes.legend(loc="upper left")

    return draw
