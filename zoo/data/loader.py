"""Loaders whose unit of work is a whole batch, with an order that is a pure function of seed and epoch."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from zoo.data.batch import JetBatch, PackedJets, collate, concatenate, gather, has_jet_columns
from zoo.data.datasets import JET_COLUMNS
from zoo.data.features import FeatureTable
from zoo.data.store import JetTable


class JetDataset(Dataset):
    """The jets of some tables, one after the other; an item is the batch of an array of rows.

    Args:
        tables: jets, for instance one table a file.
        first_index: for each table, what is added to its ``source_rows`` to give `JetBatch.index`.
        features: table of the model's inputs.
        class_weights: float32 (class,), multiplies the weights; None: the weights stay.

    Raises:
        ValueError: if some of the tables give the jets' own momenta, to which features are relative, and others do not.
    """

    def __init__(
        self,
        tables: Sequence[JetTable],
        first_index: Sequence[int],
        features: FeatureTable,
        class_weights: np.ndarray | None = None,
    ) -> None:
        if len({has_jet_columns(table) for table in tables}) > 1:
            raise ValueError(
                f"some files give {', '.join(JET_COLUMNS)} and others do not, so that their features would differ; "
                "choose files of one kind"
            )
        self.tables = list(tables)
        self.first_index = list(first_index)
        self.features = features
        self.class_weights = class_weights
        self._ends = np.cumsum([len(table) for table in tables])

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def counts(self) -> np.ndarray:
        """Number of particles of each jet, int64 (jet,)."""
        return np.concatenate([table.counts for table in self.tables])

    @property
    def label(self) -> np.ndarray:
        """Label of each jet, int64 (jet,)."""
        return np.concatenate([table.label for table in self.tables])

    def __getitem__(self, rows: np.ndarray) -> JetBatch:
        jets = self._gather(rows)
        if self.class_weights is not None:
            jets = jets._replace(weight=jets.weight * self.class_weights[jets.label])
        return collate(jets, self.features)

    def _gather(self, rows: np.ndarray) -> PackedJets:
        """The jets ``rows``, those of one table together."""
        table_of_row = np.searchsorted(self._ends, rows, side="right")
        parts = []
        for i in np.unique(table_of_row):
            table = self.tables[i]
            jets = gather(table, rows[table_of_row == i] - (self._ends[i] - len(table)), self.features.columns)
            parts.append(jets._replace(index=jets.index + self.first_index[i]))
        return concatenate(parts)


class BatchRows(DistributedSampler):
    """Arrays of rows, one a batch: each jet once an epoch, and every process takes the same number of steps.

    The order of the epoch is cut into equal pieces whose sizes differ by one at most, so no batch is a small remainder;
    of every ``num_replicas`` pieces each process takes one. Nothing is dropped or repeated. Lightning leaves a
    `DistributedSampler` alone and would share out any other sampler a second time.

    Args:
        order: epoch -> all rows, int64 (jet,), in the order of that epoch.
        jets: number of rows.
        batch_size: largest number of jets in a batch.
        num_replicas: number of processes.
        rank: which of them this is.
        completed: number of batches of the epoch that are done already, asked when an iterator is made.

    Raises:
        ValueError: if there are fewer jets than processes.
    """

    def __init__(
        self,
        order: Callable[[int], np.ndarray],
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
        pieces = np.array_split(self.order(self.epoch), self.steps * self.num_replicas)
        return iter(pieces[self.rank :: self.num_replicas][self.completed() :])


def shuffled(jets: int, seed: int) -> Callable[[int], np.ndarray]:
    """The global shuffle of each epoch, a pure function of (seed, epoch)."""
    return lambda epoch: np.random.default_rng((seed, epoch)).permutation(jets)


def by_length(counts: np.ndarray) -> Callable[[int], np.ndarray]:
    """The same order in every epoch, from the shortest jet to the longest, so that no jet pays for padding."""
    rows = np.argsort(counts, kind="stable")
    return lambda epoch: rows


class JetLoader(DataLoader):
    """A loader that starts working when the first batch is asked for.

    Lightning makes an iterator before it restores a checkpoint, and one that reads ahead would then serve the wrong
    batches. Only `BatchRows` knows where in the epoch the trainer stands, and it is asked with the first batch.
    """

    def __iter__(self) -> Iterator[JetBatch]:
        return self._batches()

    def _batches(self) -> Iterator[JetBatch]:
        yield from super().__iter__()

    def state_dict(self) -> dict:
        """Nothing: the trainer's own progress tells the position. Lightning warns of loaders without this method."""
        return {}

    def load_state_dict(self, state_dict: dict) -> None:
        """Nothing to restore, see `state_dict`."""


def make_loader(dataset: JetDataset, rows: BatchRows, num_workers: int) -> JetLoader:
    """Loader of whole batches that leaves torch's global random state as it is."""
    return JetLoader(
        dataset,
        sampler=rows,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        # a loader draws a seed for its workers; from the global state it would shift a model's dropout after a resume
        generator=torch.Generator(),
    )
