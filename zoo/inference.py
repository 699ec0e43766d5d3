"""A pretrained model on a file of jets: one score per row, in the order of the file."""

import dataclasses
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from zoo.data.batch import JetBatch, batch_quantities, collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.description import read_description
from zoo.data.features import FeatureTable
from zoo.data.formats.known import Description
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.odd_jets import OddJetsWarning
from zoo.data.oddities import find_oddities_of_files
from zoo.data.ranges import RangeCheck
from zoo.data.read_report import MendedWarning, ReadReport, RejectedJetsWarning, warn_of
from zoo.data.source import check_rows, open_source
from zoo.data.store import JetTable
from zoo.data.weaver.data_config import WeaverYaml
from zoo.data.weaver.formulas import reading_table
from zoo.files import require_output
from zoo.hub import Pretrained, load_pretrained
from zoo.progress import progress_bar
from zoo.score_files import join_columns, missing_values, require_kind, score_columns, write_csv, write_scores

#: Number of jets of similar length that go through the model together.
BATCH_JETS = 512

#: Minimum number of jets checked for oddities, which stay in memory; the ranges are checked for all.
LOOKED_AT_JETS = 20_000


class _Rows:
    """What all answers for the rows of a file have in common; see `JetScores`.

    All members are read-only, so that a subclass can make each one a field or a property.
    """

    values: np.ndarray
    label: np.ndarray
    index: np.ndarray
    rejected: dict[str, int]
    mended: dict[str, int]
    fields: dict[str, np.ndarray]
    of_model: dict[str, np.ndarray]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def is_scored(self) -> np.ndarray:
        """Whether a row has an answer, bool (row,)."""
        return ~np.isnan(self.values[:, 0])

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The columns of a file: ``index``, ``label`` if any is known, the answers of the model, and the fields."""
        label = {"label": self.label} if (self.label >= 0).any() else {}
        return join_columns({"index": self.index, **label, **self.of_model}, self.fields)

    def save(self, path: str | Path, *, rntuple: bool = False, force: bool = False) -> None:
        """Write `columns` as ``.arrow``, ``.parquet``, ``.csv``, ``.h5`` or ``.root``; see `write_scores`.

        Args:
            path: file to write.
            rntuple: whether a ROOT file holds an RNTuple instead of a ``TTree``.
            force: whether an older file is replaced.

        Raises:
            ValueError: if the file name has another ending, or a field has the name of a column.
            FileExistsError: if the file exists and ``force`` was not given.
        """
        require_output(path, force=force)
        write_scores(path, self.columns, rntuple=rntuple)

    def __str__(self) -> str:
        scored = int(self.is_scored.sum())
        reasons = [f"{count} {reason}" for reason, count in self.rejected.items() if count]
        left = len(self) - scored - sum(self.rejected.values())
        reasons += [f"{left} not selected"] if left else []
        left_out = f", left out (NaN): {', '.join(reasons)}" if reasons else ""
        mended = "".join(f"; {count} {what}" for what, count in self.mended.items() if count)
        return f"{scored:,} of {len(self):,} rows scored for {', '.join(self.names)}{left_out}{mended}"


@dataclasses.dataclass(frozen=True, eq=False)
class JetScores(_Rows):
    """The scores of a model for the rows of a file, one entry per row in the order of the file.

    Args:
        logits: float32 (row, class), NaN for a row that was left out.
        label: int64 (row,), the class in the file; -1 where it is unknown, or the file's classes are not the model's.
        index: int64 (row,), number of the row in the file.
        classes: names of the classes.
        rejected: number of jets that were left out, by the reasons of `zoo.data.store.bad_jets`.
        mended: number of particles or values that were dropped or changed while the file was read, by what was done.
        fields: further numbers per jet that were requested, (row,) each; NaN, or -1 for integers, for a row that was
            left out.
        oddities: what is odd about the jets, one line each; see `zoo.data.oddities` and `zoo.data.ranges`.
    """

    logits: np.ndarray
    label: np.ndarray
    index: np.ndarray
    classes: tuple[str, ...]
    rejected: dict[str, int]
    mended: dict[str, int] = dataclasses.field(default_factory=dict)
    fields: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    oddities: tuple[str, ...] = ()

    @property
    def values(self) -> np.ndarray:  # type: ignore[override]
        """The logits."""
        return self.logits

    @property
    def names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The classes."""
        return self.classes

    @property
    def of_model(self) -> dict[str, np.ndarray]:  # type: ignore[override]
        """The score of each class as ``score_<class>``."""
        return score_columns(self.logits, self.classes)

    @property
    def score(self) -> np.ndarray:
        """Score of each class, float64 (row, class), NaN for a row that was left out; see `score_columns`."""
        return np.stack(list(self.of_model.values()), axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class JetAnswers(_Rows):
    """The answers of a task without classes, such as a regression, for the rows of a file.

    Args:
        values: float32 (row, name), NaN for a row that was left out.
        label: int64 (row,), -1: the task does not use the classes of the file.
        index: int64 (row,), number of the row in the file.
        names: names of its answers.
        rejected: as in `JetScores`, and so are the following.
        mended: likewise.
        fields: likewise.
        oddities: likewise.
    """

    values: np.ndarray
    label: np.ndarray
    index: np.ndarray
    names: tuple[str, ...]
    rejected: dict[str, int]
    mended: dict[str, int] = dataclasses.field(default_factory=dict)
    fields: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    oddities: tuple[str, ...] = ()

    @property
    def of_model(self) -> dict[str, np.ndarray]:  # type: ignore[override]
        """Its answers by name, (row,) each."""
        return dict(zip(self.names, self.values.T, strict=True))


def predict(
    model: str | Path | Pretrained,
    file: str | Path,
    *,
    rows: tuple[int, int] | None = None,
    layout: str | Path | Description | None = None,
    fields: Sequence[str] | None = None,
) -> JetScores | JetAnswers:
    """Scores of the jets in a file, with the features that travel with the weights.

    A file larger than the memory is read in pieces. Jets that no model may see, such as those with momenta that are not
    finite, keep their row and get the score NaN, with a `zoo.data.read_report.RejectedJetsWarning`. What was mended
    while the file was read is counted in a `zoo.data.read_report.MendedWarning`. An `zoo.data.odd_jets.OddJetsWarning`
    says what `zoo data info` finds odd, and what lies outside the ranges of the training data.

    Args:
        model: what `zoo.load_pretrained` takes, which then runs on a GPU if there is one; or what it returned.
        file: file in any format that the zoo reads, converted folder, or packaged sample such as
            ``sample:top_tagging/test``.
        rows: first row, and the row after the last; None takes all.
        layout: the layout of the columns of the file, or a YAML file with it, with or without ``classes`` and
            ``label``; see `zoo.data.readers.read_jets`.
        fields: further numbers per jet to include, by their names in the layout; None: the observers of a data file of
            weaver, as far as the file has them.

    Raises:
        FileNotFoundError: if there is no such model or file.
        ValueError: if the model or the file is damaged, or the file lacks what the model needs; the message names it.

    Example:
        >>> result = predict("lorentznet.top_tagging", "sample:top_tagging/test", rows=(0, 4))
        >>> result.classes, result.score.shape, result.index.tolist()
        (('qcd', 'top'), (4, 2), [0, 1, 2, 3])
    """
    path = resolve_file(file)
    description = read_layout(layout, labelled=False) if isinstance(layout, str | Path) else layout
    tagger = model if isinstance(model, Pretrained) else _load(model)
    features = tagger.feature_table
    if isinstance(description, WeaverYaml):
        description = dataclasses.replace(description, is_labelled=False)
        features = reading_table(description, features)
    classes, names = tuple(tagger.config.classes), tagger.names
    if not names:
        raise ValueError(f"{tagger.config.model}: a backbone gives no scores; fine-tune it, or choose a tagger")
    source = open_source(path, description, labelled=False)
    is_empty = not len(source) and rows is None
    start, stop = (0, 0) if is_empty else check_rows(path, rows, len(source))  # an empty file has no scores
    values = np.full((stop - start, len(names)), np.nan, dtype=np.float32)
    label = np.full(len(values), -1, dtype=np.int64)
    report, oddities = ReadReport(path, 0, {}), _Oddities(tagger, features)
    observers = description.kept_fields if isinstance(description, WeaverYaml) and fields is None else ()
    kept: dict[str, np.ndarray] = {}
    with source, progress_bar("jets") as progress:
        task = progress.add_task(path.name, total=len(values))
        for table, of_rows in source.chunks((start, stop)) if stop else ():
            report += of_rows
            progress.update(task, advance=of_rows.left_out)
            _check(tagger, features, table, path)
            for name in (*(fields or ()), *(name for name in observers if name in table.fields)):
                field = _field(table, name, path)
                column = kept.setdefault(name, missing_values(len(values), field.dtype))
                column[table.rows_in_source(np.arange(len(table))) - start] = field
            oddities.add_table(path, table)
            is_known = bool(classes) and tuple(table.metadata.get("classes", ())) == classes
            for jets in _by_length(table.counts):
                row = table.rows_in_source(jets) - start
                batch = _batch(tagger, features, table, jets)
                oddities.add_batch(batch)
                values[row] = _answers(tagger, batch, path)
                label[row] = table.label[jets] if is_known else -1
                progress.update(task, advance=len(jets))
    warn_of(dataclasses.replace(report, rows=len(values)), stacklevel=2)
    kept = {name: kept[name] if name in kept else missing_values(len(values), np.float64) for name in fields or kept}
    counts, odd = (dict(report.rejected), dict(report.mended)), tuple(oddities.find())
    if odd:
        warnings.warn(OddJetsWarning(f"{path}: odd: {'; '.join(odd)}"), stacklevel=2)
    said = JetScores if classes else JetAnswers
    return said(values, label, np.arange(start, stop), names, *counts, kept, odd)


def predict_file(
    model: str,
    file: str,
    *,
    out: Path | None,
    rows: tuple[int, int] | None,
    layout: Path | None,
    weaver_yaml: Path | None,
    classes: Sequence[str] | None = None,
    fields: Sequence[str] | None = None,
    rntuple: bool = False,
    force: bool = False,
) -> None:
    """Write the scores of a file to ``out``, or as CSV to standard output; see `predict`.

    Args:
        weaver_yaml: data file of weaver, instead of ``layout``.
        classes: names of the classes of its custom labels; None: such labels are not read.
        rntuple: whether a ROOT file holds an RNTuple instead of a ``TTree``.
        force: whether to replace ``out`` if it exists.
    """
    if out is not None:  # report its mistakes at once
        require_kind(out, rntuple=rntuple)
        require_output(out, (resolve_file(file), layout, weaver_yaml, model), force=force)
    description = read_description(layout, weaver_yaml, classes, labelled=False)
    with warnings.catch_warnings():
        for category in (RejectedJetsWarning, MendedWarning, OddJetsWarning):  # printed in the last lines instead
            warnings.simplefilter("ignore", category)
        scores = predict(model, file, rows=rows, layout=description, fields=fields)
    if out is None:
        write_csv(sys.stdout.buffer, scores.columns)
    else:
        scores.save(out, rntuple=rntuple, force=force)
    for oddity in scores.oddities:
        print(f"odd: {oddity}", file=sys.stderr)
    print(f"{file}: {scores}" + (f": {out}" if out else ""), file=sys.stderr)


class _Oddities:
    """Collects what is odd about the jets that a model scores."""

    def __init__(self, tagger: Pretrained, features: FeatureTable) -> None:
        self.tagger = tagger
        self.features = features
        self.columns = {*features.columns, *tagger.context_table.fields}
        self.check = None if tagger.ranges is None else RangeCheck(tagger.ranges)
        self.tables: list[tuple[Path, JetTable]] = []

    def add_table(self, path: Path, table: JetTable) -> None:
        """Check some of the jets, until there are enough."""
        if len(table) and sum(len(known) for _, known in self.tables) < LOOKED_AT_JETS:
            self.tables.append((path, table))

    def add_batch(self, batch: JetBatch) -> None:
        """Compare jets with what the model was trained on."""
        if self.check is not None:
            self.check.update(batch_quantities(batch, self.features, self.tagger.context_table))

    def find(self) -> Iterator[str]:
        """What was found, one line each."""
        if self.check is not None:
            yield from self.check.findings().values()
        if self.tables:
            yield from find_oddities_of_files(self.tables, self.columns)


def _load(model: str | Path) -> Pretrained:
    tagger = load_pretrained(model)
    tagger.model.to("cuda" if torch.cuda.is_available() else "cpu")
    return tagger


def _check(tagger: Pretrained, features: FeatureTable, table: JetTable, path: Path) -> None:
    if table.metadata.get("units") != tagger.config.units:
        raise ValueError(f"{path}: its units are {table.metadata.get('units')}, the model takes {tagger.config.units}")
    try:
        features.check_columns(table.particles)
        tagger.context_table.check_fields(table.fields)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _field(table: JetTable, name: str, path: Path) -> np.ndarray:
    try:
        return table.field(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _by_length(counts: np.ndarray) -> Iterator[np.ndarray]:
    """The jets from the shortest to the longest, `BATCH_JETS` at a time, so that there is little padding."""
    order = np.argsort(counts, kind="stable")
    return (order[first : first + BATCH_JETS] for first in range(0, len(order), BATCH_JETS))


def _batch(tagger: Pretrained, features: FeatureTable, table: JetTable, jets: np.ndarray) -> JetBatch:
    context = tagger.context_table
    return collate(gather(table, jets, features.columns, context.fields), features, context)


@torch.inference_mode()
def _answers(tagger: Pretrained, batch: JetBatch, path: Path) -> np.ndarray:
    named = zip(("features", "four_momenta", "mask", "context"), batch.inputs, strict=False)
    answers = tagger.answer({name: tensor.to(tagger.device) for name, tensor in named}).cpu()
    finite = answers.isfinite().all(dim=1)
    if not finite.all():
        row = int(batch.index[~finite][0])
        raise ValueError(f"{path}: the model's answer to row {row} is not finite; look at its columns")
    return answers.numpy()
