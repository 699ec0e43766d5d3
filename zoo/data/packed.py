"""Jets without padding, one after the other, as loaders, checks, simulations and predictions pass them on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from zoo.data.store import MOMENTUM_COLUMNS, JetTable


class PackedJets(NamedTuple):
    """Jets without padding, one after the other: ``four_momenta`` (particle, 4) in GeV, the rest (jet,).

    The ``columns`` that features need are (particle,), those of `zoo.data.datasets.JET_COLUMNS` (jet,), the ``fields``
    that the context needs (jet,). A ``label`` of -1 means unknown; ``index`` is the row of the jet in its source.
    """

    four_momenta: np.ndarray
    counts: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray
    columns: Mapping[str, np.ndarray]
    fields: Mapping[str, np.ndarray]

    @classmethod
    def unlabelled(cls, four_momenta: np.ndarray, counts: np.ndarray, index: np.ndarray) -> "PackedJets":
        """Jets of weight 1 without label, columns or fields."""
        weight = np.ones(len(counts), dtype=np.float32)
        return cls(four_momenta, counts, np.full(len(counts), -1), weight, index, {}, {})

    def first(self, jets: int) -> "PackedJets":
        """The first jets, without columns and fields."""
        counts = self.counts[:jets]
        of_jets = (self.label[:jets], self.weight[:jets], self.index[:jets])
        return PackedJets(self.four_momenta[: counts.sum()], counts, *of_jets, {}, {})

    def to_table(self, metadata: dict[str, Any]) -> JetTable:
        """The momenta, labels and weights as a table."""
        return JetTable(
            particles=dict(zip(MOMENTUM_COLUMNS, self.four_momenta.T, strict=True)),
            offsets=np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64),
            fields={},
            label=self.label,
            weight=self.weight,
            metadata=metadata,
        )


def concatenate(parts: Sequence[PackedJets]) -> PackedJets:
    """Jets with the same columns, one after the other."""
    if len(parts) == 1:
        return parts[0]
    *arrays, columns, fields = zip(*parts, strict=True)
    joined = ({name: np.concatenate([part[name] for part in of]) for name in of[0]} for of in (columns, fields))
    return PackedJets(*map(np.concatenate, arrays), *joined)
