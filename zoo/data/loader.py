"""Loaders of whole batches, in an order that is a pure function of seed and epoch."""

import contextlib
import functools
import math
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from zoo.data.augment import Augmentation
from zoo.data.batch import JetBatch, collate, gather, has_jet_columns
from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.datasets import JET_COLUMNS
from zoo.data.features import FeatureTable
from zoo.data.packed import PackedJets, concatenate
from zoo.data.store import JetTable
from zoo.data.targets import fields_among, targets_of

#: Seconds in which loader processes must deliver a batch; the first one includes the reading of files.
WORKER_TIMEOUT = 600.0


class Rows(Protocol):
    """The rows of an epoch in their order: an array, or an object that makes one piece of it at a time."""

    def __getitem__(self, positions: slice) -> np.ndarray:
        """The rows at some positions, int64 (jet,)."""


#: Epoch -> its rows.
Order = Callable[[int], Rows]

#: Converted folders of more jets than this are shuffled in windows; a permutation of this many takes 8 MB.
WINDOW_SHUFFLE_JETS = 2**20

#: Jets that lie together and share a window, and jets of a window: 50 particles of 4 columns take 52 MB.
BLOCK_JETS = 4096
WINDOW_JETS = 16 * BLOCK_JETS

#: Number of jets that are sorted by length together.
SORTED_JETS = 2**20


class JetDataset(Dataset):
    """The jets of some tables, one after the other; an item is the batch of an array of rows.

    With an augmentation rows go on beyond the last jet: row ``e * len + r`` is row ``r`` as it is seen in epoch ``e``.

    Args:
        tables: jets, for instance one table per file.
        first_index: for each table, the number added to its ``source_rows`` to give `JetBatch.index`.
        features: table of the model's inputs.
        context: table of its inputs of the event as a whole.
        class_of_source: int64 (class of the tables,), the label of a jet of each; None: it is that of the tables. A jet
            without a label, -1, has none.
        class_weights: float64 (class,), multiplies the weights; None: the weights stay.
        augmentation: random changes of the jets, drawn again in every epoch; None: no changes.
        targets: names of what is learnt beside the class, see `zoo.data.targets`.

    Raises:
        ValueError: if some of the tables give the jets' own momenta, to which features are relative, or a target, and
            others do not; or if it is not known how a column changes under the augmentation.
    """

    def __init__(
        self,
        tables: Sequence[JetTable],
        first_index: Sequence[int],
        features: FeatureTable,
        context: ContextTable = NO_CONTEXT,
        class_of_source: np.ndarray | None = None,
        class_weights: np.ndarray | None = None,
        augmentation: Augmentation | None = None,
        targets: Sequence[str] = (),
    ) -> None:
        if len({has_jet_columns(table) for table in tables}) > 1:
            raise ValueError(
                f"some files give {', '.join(JET_COLUMNS)} and others do not, so that their features would differ; "
                "choose files of one kind"
            )
        self.tables = list(tables)
        self.first_index = list(first_index)
        self.features = features
        self.context = context
        # an unknown class, -1, is the last of the list and stays what it is
        self.class_of_source = None if class_of_source is None else np.append(class_of_source, -1).astype(np.int64)
        self.class_weights = class_weights
        self._ends = np.cumsum([len(table) for table in tables])
        self.targets = tuple(targets)
        self._of_jets = tuple(dict.fromkeys([*context.fields, *fields_among(self.targets, self.tables)]))
        self._columns, self._fields = features.columns, self._of_jets
        self.augmentation = None
        if augmentation is not None:
            self.augment(augmentation)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def augment(self, augmentation: Augmentation) -> None:
        """Augment the jets from now on; raises as the class does."""
        self.augmentation = augmentation.of(self.tables, self.features.columns, self._of_jets)
        self._columns = (*self.features.columns, *self.augmentation.particles.names)
        self._fields = (*self._of_jets, *self.augmentation.events.names)

    def class_counts(self, num_classes: int) -> np.ndarray:
        """Number of jets of each class of the tables, int64 (class,); those without a label are not counted."""
        labels = (table.label[table.label >= 0] for table in self.tables)
        return np.sum([np.bincount(label, minlength=num_classes) for label in labels], axis=0)

    def fields_of(self, names: Sequence[str], index: np.ndarray) -> dict[str, np.ndarray]:
        """Fields of some jets by their names, (jet,) each.

        Args:
            names: of the fields.
            index: `JetBatch.index` of the jets, int64 (jet,).

        Raises:
            ValueError: if there is no such field.
        """
        rows = [table.rows_in_source(np.arange(len(table))) for table in self.tables]
        known = np.concatenate([first + of_table for first, of_table in zip(self.first_index, rows, strict=True)])
        order = np.argsort(known, kind="stable")
        jets = order[np.searchsorted(known[order], index)]
        return {name: np.concatenate([table.field(name) for table in self.tables])[jets] for name in names}

    def weight_sums(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Sums of the weights in the files and of their absolute values, float64 (class,), of the jets with a label."""
        sums = np.zeros((2, num_classes))
        for table in self.tables:
            has_label = table.label >= 0
            label, weight = table.label[has_label], table.weight[has_label].astype(np.float64)
            label = label if self.class_of_source is None else self.class_of_source[label]
            sums += [np.bincount(label, values, minlength=num_classes) for values in (weight, np.abs(weight))]
        return sums[0], sums[1]

    def shuffled(self, seed: int) -> Order:
        """The jets in another order in every epoch; see `shuffled` and, for large converted folders, `in_windows`."""
        is_mixed = all(table.metadata.get("shuffled") for table in self.tables)
        order = (
            in_windows(len(self), seed) if is_mixed and len(self) > WINDOW_SHUFFLE_JETS else shuffled(len(self), seed)
        )
        return order if self.augmentation is None else lambda epoch: RowsOfEpoch(order(epoch), epoch * len(self))

    def by_length(self) -> Order:
        """The order `by_length` of the jets."""
        return by_length(np.concatenate([table.counts.astype(np.uint32) for table in self.tables]))

    def __getitem__(self, rows: np.ndarray) -> JetBatch:
        epoch = int(rows[0]) // len(self)
        jets = self._gather(rows - epoch * len(self))
        if self.augmentation is not None:
            jets = self.augmentation.transform(jets, epoch)
        label = jets.label if self.class_of_source is None else self.class_of_source[jets.label]
        if self.class_weights is not None:
            weight = jets.weight * self.class_weights[label]
            jets = jets._replace(weight=weight.astype(np.float32))
        batch = collate(jets, self.features, self.context)
        return batch._replace(label=torch.from_numpy(label), targets=targets_of(self.targets, jets))

    def _gather(self, rows: np.ndarray) -> PackedJets:
        """The jets ``rows``, those of one table together."""
        table_of_row = np.searchsorted(self._ends, rows, side="right")
        parts = []
        for i in np.unique(table_of_row):
            table = self.tables[i]
            rows_of_table = rows[table_of_row == i] - (self._ends[i] - len(table))
            jets = gather(table, rows_of_table, self._columns, self._fields)
            parts.append(jets._replace(index=jets.index + self.first_index[i]))
        return concatenate(parts)


class BatchRows(DistributedSampler):
    """Arrays of rows, one per batch: each jet once per epoch, and every process takes the same number of steps.

    The order of the epoch is cut into pieces whose sizes differ by one at most, so no batch is a small remainder. Each
    process takes one of every ``num_replicas`` pieces. Nothing is dropped or repeated. Lightning leaves a
    `DistributedSampler` alone; it would distribute any other sampler a second time.

    Args:
        order: epoch -> its rows.
        jets: number of rows.
        batch_size: largest number of jets in a batch.
        num_replicas: number of processes.
        rank: which of them this is.
        completed: gives the number of batches of the epoch that are already done; called when an iterator is made.

    Raises:
        ValueError: if there are fewer jets than processes.
    """

    def __init__(
        self,
        order: Order,
        jets: int,
        batch_size: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
        completed: Callable[[], int] = lambda: 0,
    ) -> None:
        if jets < num_replicas:
            raise ValueError(f"{jets} jets cannot be shared by {num_replicas} processes; use fewer devices")
        super().__init__(range(jets), num_replicas=num_replicas, rank=rank)
        self.order = order
        self.completed = completed
        self.steps = min(math.ceil(jets / (batch_size * num_replicas)), jets // num_replicas)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[np.ndarray]:
        rows = self.order(self.epoch)
        return (rows[self._piece(step)] for step in range(self.completed(), self.steps))

    def _piece(self, step: int) -> slice:
        jets, longer = divmod(len(self.dataset), self.steps * self.num_replicas)
        number = step * self.num_replicas + self.rank
        start = number * jets + min(number, longer)
        return slice(start, start + jets + (number < longer))


def shuffled(jets: int, seed: int) -> Order:
    """The global shuffle of each epoch, a pure function of (seed, epoch)."""
    return lambda epoch: np.random.default_rng((seed, epoch)).permutation(jets)


def in_windows(jets: int, seed: int) -> Order:
    """A shuffle of jets that lie in random order already, a pure function of (seed, epoch).

    `BLOCK_JETS` neighbouring jets stay near each other: every epoch draws where blocks begin, shuffles the blocks, and
    then the jets within each window of `WINDOW_JETS`. A batch thus touches few places of a data set that is larger than
    the memory, and the order of 100 million jets takes 1 MB instead of 800.
    """

    def order(epoch: int) -> Rows:
        random = np.random.default_rng((seed, epoch))
        shift = random.integers(jets)
        blocks = np.append(random.permutation(jets // BLOCK_JETS), jets // BLOCK_JETS)  # the last one is short

        def window(number: int) -> np.ndarray:
            per_window = WINDOW_JETS // BLOCK_JETS
            mine = blocks[number * per_window : (number + 1) * per_window]
            rows = (mine[:, None] * BLOCK_JETS + np.arange(BLOCK_JETS)).ravel()
            # numpy's seeds (1, 2) and (1, 2, 0) are the same, so windows count from 1
            rows = np.random.default_rng((seed, epoch, 1 + number)).permutation(rows[rows < jets])
            return (rows + shift) % jets

        return Windows(WINDOW_JETS, window)

    return order


def by_length(counts: np.ndarray) -> Order:
    """The same order in every epoch, from the shortest jet to the longest, so that there is little padding.

    More than `SORTED_JETS` jets are sorted that many at a time.
    """

    def window(number: int) -> np.ndarray:
        first = number * SORTED_JETS
        return first + np.argsort(counts[first : first + SORTED_JETS], kind="stable")

    rows = Windows(SORTED_JETS, window)
    return lambda epoch: rows


class Windows:
    """Rows in an order that is made ``size`` rows at a time, on demand.

    Args:
        size: number of rows of a window; the last one may have fewer.
        window: number of a window -> its rows, int64 (jet,).
    """

    def __init__(self, size: int, window: Callable[[int], np.ndarray]) -> None:
        self.size = size
        self._window = functools.lru_cache(maxsize=2)(window)

    def __getitem__(self, positions: slice) -> np.ndarray:
        numbers = range(positions.start // self.size, (positions.stop - 1) // self.size + 1)
        pieces = [
            self._window(number)[max(positions.start - number * self.size, 0) : positions.stop - number * self.size]
            for number in numbers
        ]
        return np.concatenate(pieces)


class RowsOfEpoch:
    """Rows of a data set that augments its jets, numbered on from those of earlier epochs.

    Args:
        rows: of the epoch, from 0.
        first: number of its first row.
    """

    def __init__(self, rows: Rows, first: int) -> None:
        self.rows = rows
        self.first = first

    def __getitem__(self, positions: slice) -> np.ndarray:
        return self.rows[positions] + self.first


class JetLoader(DataLoader):
    """A loader that starts working when the first batch is requested.

    Lightning makes an iterator before it restores a checkpoint, and one that reads ahead would then serve the wrong
    batches. Only `BatchRows` knows the trainer's position in the epoch, and it is asked with the first batch.

    Attributes:
        worker_timeout: seconds after which loader processes that deliver no batch are killed.
    """

    worker_timeout = WORKER_TIMEOUT

    def __iter__(self) -> Iterator[JetBatch]:
        return self._batches()

    def _batches(self) -> Iterator[JetBatch]:
        before = multiprocessing.active_children()
        batches = super().__iter__()
        workers = [process for process in multiprocessing.active_children() if process not in before]
        while True:
            # torch's own limit holds while a message is awaited, not while its tensors are fetched from a worker
            guard = _Guard(workers, self.worker_timeout)
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError) as error:
                guard.explain(error)
                raise
            finally:
                guard.cancel()
            yield batch

    def state_dict(self) -> dict:
        """Nothing: the trainer's own progress shows the position. Lightning warns of loaders without this method."""
        return {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Nothing to restore, see `state_dict`."""


class _Guard:
    """Kills loader processes after some seconds, unless it is cancelled first."""

    def __init__(self, workers: Sequence[BaseProcess], seconds: float) -> None:
        self._workers = workers
        self._seconds = seconds
        self._has_killed = False
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        if workers:
            self._timer.start()

    def cancel(self) -> None:
        """Leave the processes alone."""
        self._timer.cancel()

    def explain(self, error: Exception) -> None:
        """If an error of torch comes from the end of a loader process, end the others too and raise the cause."""
        statuses: list[int] = []
        for _ in range(2):  # torch's handler of the end of a process may interrupt this, once
            with contextlib.suppress(RuntimeError):
                ended = wait([worker.sentinel for worker in self._workers], timeout=1)
                for worker in self._workers:
                    worker.join(timeout=1 if worker.sentinel in ended else 0)  # its pipes have ended before it
                statuses = statuses or [worker.exitcode for worker in self._workers if worker.exitcode]
                for worker in self._workers if statuses else ():
                    worker.kill()
                    worker.join(timeout=1)
                break
        if self._has_killed:
            raise TimeoutError(
                f"data.num_workers: the loader processes gave no batch for {self._seconds:g} s and were killed; look "
                "at the disk that the files lie on, or give data.worker_timeout more seconds"
            ) from error
        if statuses:
            raise ChildProcessError(
                f"data.num_workers: a loader process died with status {statuses[0]}; if it was killed (-9), the memory "
                "may not suffice: give fewer processes or a smaller batch"
            ) from error

    def _kill(self) -> None:
        self._has_killed = True
        for worker in self._workers:
            worker.kill()


def make_loader(
    dataset: JetDataset, rows: BatchRows, num_workers: int, worker_timeout: float = WORKER_TIMEOUT
) -> JetLoader:
    """Loader of whole batches that leaves torch's global random state as it is."""
    loader = JetLoader(
        dataset,
        sampler=rows,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        # a loader draws a seed for its workers; from the global state it would shift a model's dropout after a resume
        generator=torch.Generator(),
    )
    loader.worker_timeout = worker_timeout
    return loader
