"""Commands for tested runs: tables, plots, significances, and the baseline that networks have to beat."""

from pathlib import Path
from typing import Annotated, Literal

from zoo.cli.data import Force
from zoo.cli.signatures import Option


def report(runs: Annotated[list[Path], Option("RUN")], *, out: Path = Path("comparison"), force: Force = False) -> None:
    """Put several runs or seeds in one table and one plot.

    Args:
        runs: folders of tested runs.
        out: folder to write.
    """
    from zoo.report import compare_runs

    compare_runs(runs, out, force=force)


def baseline(
    kind: Literal["lightgbm"],
    *,
    config: Path,
    run_folder: Annotated[Path, Option("DIR")],
    inputs: Literal["objects", "pairs", "substructure", "subjets"] = "objects",
    seed: int | None = None,
    train_jets: Annotated[int | None, Option("N")] = None,
) -> None:
    """Train boosted trees, which networks have to beat, on the data of a config.

    Args:
        kind: boosted decision trees (extra 'trees').
        config: a config of zoo fit, such as those of configs/data/; its data, seed and signal are used.
        run_folder: folder of this run.
        inputs: hardest objects, these and their pairs, jet substructure, or substructure and the shapes of subjets.
        seed: seed of the trees (default: seed_everything of the config).
        train_jets: train on N rows of the split, the first of each file (default: as in the config).
    """
    from zoo.boosted_trees import train_boosted_trees
    from zoo.training.packaged import find_config

    train_boosted_trees(Path(find_config(str(config))), run_folder, inputs=inputs, seed=seed, train_jets=train_jets)


def significance(
    run_folder: Annotated[Path, Option("RUN")],
    *,
    signal_yield: float,
    background_yield: float,
    background_uncertainty: float = 0.0,
    signal: Annotated[str | None, Option("CLASS")] = None,
    validation: Annotated[Path | None, Option("FILE")] = None,
    out: Path | None = None,
    force: Force = False,
) -> None:
    """Expected significance of a search that cuts on the score of a tested run.

    Args:
        run_folder: folder of a tested run.
        signal_yield: signal events before the cut.
        background_yield: background events before the cut.
        background_uncertainty: relative uncertainty of the background, after any cut.
        signal: signal class (default: of two, the one that is not the background of the report).
        validation: predictions for other events, on which the cut is chosen.
        out: folder to write (default: RUN/significance).
    """
    from zoo.report.significance import Yields, show_significance

    yields = Yields(signal_yield, background_yield, background_uncertainty)
    show_significance(run_folder, yields, signal=signal, validation=validation, out=out, force=force)
