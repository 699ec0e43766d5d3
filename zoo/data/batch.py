"""Batches: jets gathered from a table by their offsets, padded to the longest jet of the batch only."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.features import FeatureTable
from zoo.data.store import MOMENTUM_COLUMNS, JetTable


class JetBatch(NamedTuple):
    """What a model and its loss see of some jets; padded entries are exactly 0.

    Shapes:
        features: float32 (batch, particle, feature), standardised.
        four_momenta: float32 (batch, particle, 4) as (E, px, py, pz) in GeV.
        mask: bool (batch, particle), True for a real particle.
        label: int64 (batch,).
        weight: float32 (batch,).
        index: int64 (batch,), row of the jet in its source.
    """

    features: Tensor
    four_momenta: Tensor
    mask: Tensor
    label: Tensor
    weight: Tensor
    index: Tensor


class PackedJets(NamedTuple):
    """Some jets without padding, one after the other: ``four_momenta`` (particle, 4) in GeV, the rest (jet,)."""

    four_momenta: np.ndarray
    counts: np.ndarray
    label: np.ndarray
    weight: np.ndarray
    index: np.ndarray


def gather(table: JetTable, rows: np.ndarray) -> PackedJets:
    """The jets ``rows`` of a table, in that order; no loop over jets."""
    starts = table.offsets[rows]
    counts = table.offsets[rows + 1] - starts
    ends = np.cumsum(counts)
    particle = np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)
    four_momenta = np.empty((len(particle), len(MOMENTUM_COLUMNS)), dtype=np.float32)
    for i, name in enumerate(MOMENTUM_COLUMNS):
        four_momenta[:, i] = table.particles[name][particle]
    return PackedJets(four_momenta, counts, table.label[rows], table.weight[rows], table.source_rows[rows])


def collate(jets: PackedJets, features: FeatureTable) -> JetBatch:
    """Pad packed jets to the longest of them and add their features."""
    four_momenta, counts = torch.from_numpy(jets.four_momenta), torch.from_numpy(jets.counts)
    longest = int(counts.max()) if len(counts) else 0
    mask = torch.arange(longest) < counts[:, None]
    padded = torch.zeros(len(counts), longest, features.input_dim + 4)
    padded[mask] = torch.cat([features.packed(four_momenta, counts), four_momenta], dim=1)
    return JetBatch(
        features=padded[..., : features.input_dim].contiguous(),
        four_momenta=padded[..., features.input_dim :].contiguous(),
        mask=mask,
        label=torch.from_numpy(jets.label),
        weight=torch.from_numpy(jets.weight),
        index=torch.from_numpy(jets.index),
    )
