"""Batches: jets gathered from a table by their offsets, padded to the longest jet of the batch only."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.datasets import JET_COLUMNS
from zoo.data.features import FeatureTable
from zoo.data.packed import PackedJets
from zoo.data.ranges import quantities
from zoo.data.store import MOMENTUM_COLUMNS, JetTable


class JetBatch(NamedTuple):
    """A batch of jets as a model and its loss see it; padded entries are exactly 0.

    Shapes:
        features: float32 (batch, particle, feature), standardised.
        four_momenta: float32 (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: bool (batch, particle), True for a real particle.
        label: int64 (batch,), -1 where the file does not give the class.
        weight: float32 (batch,).
        index: int64 (batch,), row of the jet in its source.
        context: float32 (batch, context_feature), standardised inputs of the jet or event as a whole; often none.
        source: int64 (batch,), class of the jet in its file, which differs from ``label`` where classes are merged.
        targets: further numbers per jet that a task learns, by name, float32 or int64 (batch,) each, see
            `zoo.data.targets`. A task may learn one of them instead of the label; the label is then the truth that only
            its test uses.
    """

    features: Tensor
    four_momenta: Tensor
    mask: Tensor
    label: Tensor
    weight: Tensor
    index: Tensor
    context: Tensor
    source: Tensor
    targets: dict[str, Tensor]

    def take(self, rows: slice | Tensor) -> "JetBatch":
        """Some of the jets, by a slice, their numbers, or a mask (batch,)."""
        *columns, targets = self
        return JetBatch(*(column[rows] for column in columns), {name: values[rows] for name, values in targets.items()})

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs of a model: features, four-momenta, mask and, if there is any, context."""
        return (self.features, self.four_momenta, self.mask, *([self.context] if self.context.shape[1] else []))


def has_jet_columns(table: JetTable) -> bool:
    """Whether a table gives the momentum of each jet, beside those of its particles."""
    return all(name in table.fields for name in JET_COLUMNS)


def gather(table: JetTable, rows: np.ndarray, columns: Sequence[str] = (), fields: Sequence[str] = ()) -> PackedJets:
    """The jets ``rows`` of a table, in that order, without a loop over jets.

    Args:
        table: jets.
        rows: int64 (jet,).
        columns: particle columns to include if the table has them, such as `FeatureTable.columns`; the momenta of the
            jets themselves, `JET_COLUMNS`, are always included.
        fields: fields of the jets to include if the table has them, such as `ContextTable.fields`.
    """
    particle, counts = table.particles_of(rows)
    four_momenta = np.empty((len(MOMENTUM_COLUMNS), len(particle)), dtype=np.float32)
    for i, name in enumerate(MOMENTUM_COLUMNS):
        _take(table.particles[name], particle, four_momenta[i])
    further = {name: table.particles[name][particle] for name in columns if name in table.particles}
    if has_jet_columns(table):
        further |= {name: table.fields[name][rows] for name in JET_COLUMNS}
    of_jets = {name: table.fields[name][rows] for name in fields if name in table.fields}
    index = table.rows_in_source(rows)
    return PackedJets(four_momenta.T, counts, table.label[rows], table.weight[rows], index, further, of_jets)


def _take(column: np.ndarray, particle: np.ndarray, out: np.ndarray) -> None:
    # twice as fast as with a check of the positions, which are right by construction
    column.take(particle, out=out, mode="clip")


def collate(jets: PackedJets, features: FeatureTable, context: ContextTable = NO_CONTEXT) -> JetBatch:
    """Pad packed jets to the longest of them and add their features and their context.

    Raises:
        ValueError: if a column or a field that a feature needs was not gathered.
    """
    four_momenta, counts = torch.from_numpy(jets.four_momenta), torch.from_numpy(jets.counts)
    columns, fields = (
        {name: torch.from_numpy(values) for name, values in of.items()} for of in (jets.columns, jets.fields)
    )
    longest = int(jets.counts.max()) if len(counts) else 0
    mask = torch.arange(longest) < counts[:, None]
    label = torch.from_numpy(jets.label)
    return JetBatch(
        features=_pad(features.packed(four_momenta, counts, columns), mask),
        four_momenta=_pad(four_momenta, mask),
        mask=mask,
        label=label,
        weight=torch.from_numpy(jets.weight),
        index=torch.from_numpy(jets.index),
        context=context.standardise(len(counts), fields),
        source=label,
        targets={},
    )


def padded_columns(jets: PackedJets, mask: Tensor) -> dict[str, Tensor]:
    """Columns and fields of packed jets by name, as a pretrained model takes them.

    Args:
        jets: packed.
        mask: bool (batch, particle), of the batch that `collate` makes from them.

    Returns:
        Particle columns (batch, particle), zero in padding, and fields of jets (batch,).
    """
    columns = {name: torch.from_numpy(values) for name, values in (*jets.columns.items(), *jets.fields.items())}
    for name in jets.columns.keys() - set(JET_COLUMNS):
        columns[name] = columns[name].new_zeros(mask.shape).masked_scatter_(mask, columns[name])
    return columns


def batch_quantities(
    batch: JetBatch, feature_table: FeatureTable, context_table: ContextTable
) -> Iterator[tuple[str, Tensor]]:
    """The quantities of a batch that have a range, see `zoo.data.ranges.quantities`."""
    return quantities(batch._asdict(), feature_table, context_table)


def _pad(packed: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The particles (particle, feature) in their places (batch, particle, feature), and zeros elsewhere."""
    rows = np.ascontiguousarray(packed.numpy())
    if not rows.shape[1]:
        return torch.zeros(*mask.shape, 0)
    padded = np.zeros((mask.numel(), rows.shape[1]), dtype=rows.dtype)
    particle = np.dtype((np.void, rows.shape[1] * rows.itemsize))  # moved whole, which is twice as fast
    padded.view(particle)[np.flatnonzero(mask.numpy())] = rows.view(particle)
    return torch.from_numpy(padded).view(*mask.shape, -1)
