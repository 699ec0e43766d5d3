"""Jets to check models on, and the changes that are made to them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import collate, gather
from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.datasets import resolve_file
from zoo.data.features import FeatureTable
from zoo.data.formats.known import Description
from zoo.data.packed import PackedJets
from zoo.data.readers import read_jets
from zoo.data.turning import ColumnChanges, Turning
from zoo.physics.lorentz import boost_matrix, rotation_matrix
from zoo.physics.quantities import QUANTITIES, change_of

#: Angle in radians by which jets are rotated about the beam, and velocity of their boost along it.
TURN, VELOCITY = 1.0, 0.3


def inputs(
    jets: PackedJets, table: FeatureTable, dtype: torch.dtype, context_table: ContextTable = NO_CONTEXT
) -> tuple[Tensor, ...]:
    """Features, four-momenta, mask and, if there is any, context of a batch of jets in ``dtype``."""
    momenta = torch.from_numpy(jets.four_momenta).to(dtype).numpy()
    batch = collate(jets._replace(four_momenta=momenta), table, context_table)
    return tuple(values if values.dtype == torch.bool else values.to(dtype) for values in batch.inputs)


def read_some(
    path: str | Path,
    num_jets: int,
    columns: Sequence[str] = (),
    *,
    context_table: ContextTable = NO_CONTEXT,
    layout: Description | None = None,
) -> PackedJets:
    """The first jets of a file in float64, with particles that are massless within float32 made exactly massless.

    Args:
        path: file of jets or converted folder. The momenta of the jets are taken as the sums of the particles, which
            can be transformed.
        num_jets: number of jets.
        columns: particle columns to include, as far as the file has them.
        context_table: of the context features of the model.
        layout: which columns of the file hold what, if the file itself does not say it.

    Raises:
        ValueError: if there are fewer than two jets with particles, or a field of the context is missing.
    """
    table = read_jets(resolve_file(path), (0, num_jets), layout)
    context_table.check_fields(table.fields)
    packed = gather(table, np.arange(len(table)), columns, context_table.fields)
    filled = int((packed.counts > 0).sum())
    if filled < 2:
        raise ValueError(f"{path}: holds {filled} jets with particles among the first {num_jets}")
    momenta = packed.four_momenta.astype(np.float64)
    energy, momentum = momenta[:, 0], np.linalg.norm(momenta[:, 1:], axis=1)
    momenta[:, 0] = np.where(np.abs(energy - momentum) < 1e-6 * energy, momentum, energy)
    of_particles = {name: packed.columns[name] for name in columns if name in packed.columns}
    return packed._replace(four_momenta=momenta, columns=of_particles)


def transformations() -> dict[str, Tensor]:
    """Lorentz matrices (4, 4) by the names of the transformations."""

    def vector(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def boost(gamma: float) -> Tensor:
        direction = vector(2.0, -1.0, 2.0) / 3
        return boost_matrix((1 - gamma**-2) ** 0.5 * direction)

    return {
        "beam rotation": rotation_matrix(vector(0.0, 0.0, 1.0), vector(TURN)[0]),
        "beam boost": boost_matrix(vector(0.0, 0.0, VELOCITY)),
        "rotation": rotation_matrix(vector(1.0, 2.0, 2.0), vector(1.0)[0]),
        **{f"boost, gamma {gamma}": boost(gamma) for gamma in (2, 10, 100)},
    }


def transform(jets: PackedJets, name: str, matrix: Tensor) -> PackedJets:
    """Jets after one of the `transformations`; about and along the beam, known columns and fields change too."""
    moved = jets._replace(four_momenta=jets.four_momenta @ matrix.numpy().T)
    along = {"beam rotation": _turned, "beam boost": _boosted}.get(name)
    return moved if along is None else moved._replace(columns=along(jets.columns), fields=along(jets.fields))


def _boosted(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    shifted = {name for name in values if name in QUANTITIES and QUANTITIES[name].boost == "shifted"}
    return {name: column + math.atanh(VELOCITY) if name in shifted else column for name, column in values.items()}


def _turned(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    pairless = ColumnChanges(unchanged=[name for name in values if change_of(name) in (None, "vectors")])
    try:
        turning = Turning.of(values, [values], ColumnChanges())
    except ValueError:  # for unknown columns, or half of a vector
        turning = Turning.of(values, [values], pairless)
    rows = len(next(iter(values.values()), ()))
    return turning.turn(values, np.ones(rows), np.full(rows, TURN))


def _of_jets(jets: PackedJets, values: np.ndarray) -> list[np.ndarray]:
    """The values (particle,) of each jet."""
    return np.split(values, np.cumsum(jets.counts)[:-1])


def _hardest(jets: PackedJets) -> np.ndarray:
    """Index (jet,) of the particle of the largest energy in each jet with particles."""
    starts, groups = np.cumsum(jets.counts) - jets.counts, _of_jets(jets, jets.four_momenta[:, 0])
    return np.array([start + group.argmax() for start, group in zip(starts, groups, strict=True) if len(group)])


def _split(jets: PackedJets) -> PackedJets:
    """The hardest particle of each jet becomes two parallel ones."""
    hardest = _hardest(jets)
    momenta = jets.four_momenta.copy()
    momenta[hardest] *= 0.7
    return _insert(jets._replace(four_momenta=momenta), hardest, 0.3 * jets.four_momenta[hardest])


def _radiate(jets: PackedJets) -> PackedJets:
    """A massless particle of a billionth of the jet's energy appears beside the hardest one."""
    hardest = _hardest(jets)
    tilt = rotation_matrix(torch.tensor([1.0, -1.0, 0.5]).double(), torch.tensor(0.1).double()).numpy()
    direction = jets.four_momenta[hardest] @ tilt.T
    direction[:, 0] = np.linalg.norm(direction[:, 1:], axis=1)
    energy = np.array([group.sum() for group in _of_jets(jets, jets.four_momenta[:, 0]) if len(group)])
    return _insert(jets, hardest, 1e-9 * (energy / direction[:, 0])[:, None] * direction)


def _insert(jets: PackedJets, position: np.ndarray, momenta: np.ndarray) -> PackedJets:
    """One more particle in each jet with particles, after ``position`` and like the one there in all but momentum."""
    order = np.argsort(np.concatenate([np.arange(len(jets.four_momenta)), position + 0.5]))
    columns = {name: np.concatenate([values, values[position]])[order] for name, values in jets.columns.items()}
    momenta = np.concatenate([jets.four_momenta, momenta])[order]
    return jets._replace(four_momenta=momenta, counts=jets.counts + (jets.counts > 0), columns=columns)


#: Emissions of a shower that safe observables do not see.
EMISSIONS: dict[str, Callable[[PackedJets], PackedJets]] = {"collinear splitting": _split, "soft emission": _radiate}
