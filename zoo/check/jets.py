"""Jets to check models on, and what is done to them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.batch import gather
from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.datasets import resolve_file
from zoo.data.features import NO_COLUMNS, FeatureTable
from zoo.data.formats.known import Description
from zoo.data.readers import read_jets
from zoo.data.turning import ColumnChanges, Turning, kind_of_name
from zoo.physics.lorentz import boost_matrix, rotation_matrix

#: Azimuth in radians by which jets are turned about the beam.
TURN = 1.0


class Jets(NamedTuple):
    """Jets without padding, one after the other."""

    momenta: Tensor  #: (particle, 4) as (E, px, py, pz) in GeV, float64
    counts: Tensor  #: (jet,)
    columns: Mapping[str, Tensor] = NO_COLUMNS  #: (particle,), charge, type and the like
    fields: Mapping[str, Tensor] = NO_COLUMNS  #: (jet,), missing transverse momentum and the like
    context_table: ContextTable = NO_CONTEXT  #: of what the model is given of the fields

    def inputs(self, table: FeatureTable, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Features, four-momenta, mask and, if there is any, context of a batch in ``dtype``."""
        momenta = self.momenta.to(dtype)
        mask = torch.arange(int(self.counts.max())) < self.counts[:, None]
        four_momenta = momenta.new_zeros(*mask.shape, 4)
        four_momenta[mask] = momenta
        features = momenta.new_zeros(*mask.shape, table.input_dim)
        features[mask] = table.packed(momenta, self.counts, self.columns).to(dtype)
        if not self.context_table.context_dim:
            return features, four_momenta, mask
        return features, four_momenta, mask, self.context_table.standardise(len(mask), self.fields).to(dtype)


def read_some(
    path: str | Path,
    num_jets: int,
    columns: Sequence[str] = (),
    *,
    context_table: ContextTable = NO_CONTEXT,
    layout: Description | None = None,
) -> Jets:
    """The first jets of a file, massless in float64 where float32 cannot tell.

    Args:
        path: file of jets or converted folder. The momenta of the jets are taken to be the sums of the particles, which
            can be transformed.
        num_jets: how many of them.
        columns: particle columns to take along, as far as the file has them.
        context_table: of what a model is given beside the particles.
        layout: which columns of the file hold what, if it does not tell itself.

    Raises:
        ValueError: if there are fewer than two jets with particles, or a field of the context is missing.
    """
    table = read_jets(resolve_file(path), (0, num_jets), layout)
    context_table.check_fields(table.fields)
    packed = gather(table, np.arange(len(table)), columns, context_table.fields)
    counts = torch.from_numpy(packed.counts)
    if (counts > 0).sum() < 2:
        raise ValueError(f"{path}: holds {int((counts > 0).sum())} jets with particles among the first {num_jets}")
    momenta = torch.from_numpy(packed.four_momenta).double()
    energy, momentum = momenta[:, 0], momenta[:, 1:].norm(dim=1)
    is_massless = (energy - momentum).abs() < 1e-6 * energy
    momenta[:, 0] = torch.where(is_massless, momentum, energy)
    further = {name: torch.from_numpy(packed.columns[name]) for name in columns if name in packed.columns}
    fields = {name: torch.from_numpy(packed.fields[name]) for name in context_table.fields}
    return Jets(momenta, counts, further, fields, context_table)


def transformations() -> dict[str, Tensor]:
    """Lorentz matrices (4, 4) by the name of what they do."""

    def vector(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def boost(gamma: float) -> Tensor:
        direction = vector(2.0, -1.0, 2.0) / 3
        return boost_matrix((1 - gamma**-2) ** 0.5 * direction)

    return {
        "beam rotation": rotation_matrix(vector(0.0, 0.0, 1.0), vector(TURN)[0]),
        "beam boost": boost_matrix(vector(0.0, 0.0, 0.3)),
        "rotation": rotation_matrix(vector(1.0, 2.0, 2.0), vector(1.0)[0]),
        **{f"boost, gamma {gamma}": boost(gamma) for gamma in (2, 10, 100)},
    }


def transform(jets: Jets, name: str, matrix: Tensor) -> Jets:
    """Jets after one of the `transformations`; columns and fields turn along where it is known how, about the beam."""
    moved = jets._replace(momenta=jets.momenta @ matrix.mT)
    if name != "beam rotation":
        return moved
    return moved._replace(columns=_turned(jets.columns), fields=_turned(jets.fields))


def _turned(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    arrays = {name: column.numpy() for name, column in values.items()}
    pairless = ColumnChanges(unchanged=[name for name in arrays if kind_of_name(name) in (None, "vectors")])
    try:
        turning = Turning.of(arrays, [arrays], ColumnChanges())
    except ValueError:  # of what nobody knows, or half of a vector
        turning = Turning.of(arrays, [arrays], pairless)
    rows = len(next(iter(arrays.values()), ()))
    turned = turning.turn(arrays, np.ones(rows), np.full(rows, TURN))
    return {name: torch.from_numpy(column) for name, column in turned.items()}


def _hardest(jets: Jets) -> Tensor:
    """Index (jet,) of the particle of the largest energy in each jet with particles."""
    groups = torch.split(jets.momenta[:, 0], jets.counts.tolist())
    starts = nn.functional.pad(jets.counts.cumsum(0), (1, 0)).tolist()
    return torch.tensor(
        [start + int(group.argmax()) for start, group in zip(starts, groups, strict=False) if len(group)]
    )


def _split(jets: Jets) -> Jets:
    """The hardest particle of each jet becomes two parallel ones."""
    hardest = _hardest(jets)
    momenta = jets.momenta.clone()
    momenta[hardest] *= 0.7
    return _insert(jets._replace(momenta=momenta), hardest, 0.3 * jets.momenta[hardest])


def _radiate(jets: Jets) -> Jets:
    """A massless particle of a billionth of the jet's energy appears beside the hardest one."""
    hardest = _hardest(jets)
    tilt = rotation_matrix(torch.tensor([1.0, -1.0, 0.5]).double(), torch.tensor(0.1).double())
    direction = jets.momenta[hardest] @ tilt.mT
    direction[:, 0] = direction[:, 1:].norm(dim=1)
    energy = torch.stack([group.sum() for group in torch.split(jets.momenta[:, 0], jets.counts.tolist()) if len(group)])
    return _insert(jets, hardest, 1e-9 * (energy / direction[:, 0])[:, None] * direction)


def _insert(jets: Jets, position: Tensor, momenta: Tensor) -> Jets:
    """One more particle in each jet with particles, after ``position`` and like the one there in all but momentum."""
    order = torch.cat([torch.arange(len(jets.momenta)), position + 0.5]).argsort()
    columns = {name: torch.cat([values, values[position]])[order] for name, values in jets.columns.items()}
    momenta = torch.cat([jets.momenta, momenta])[order]
    return jets._replace(momenta=momenta, counts=jets.counts + (jets.counts > 0), columns=columns)


#: What a shower adds that safe observables do not see.
EMISSIONS: dict[str, Callable[[Jets], Jets]] = {"collinear splitting": _split, "soft emission": _radiate}
