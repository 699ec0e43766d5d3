"""What is learnt about a jet beside its class: fields of the files, and quantities computed from its momenta."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.data.features import OF_JETS
from zoo.data.hints import did_you_mean
from zoo.data.packed import PackedJets
from zoo.data.store import JetTable


def require_targets(names: Sequence[str], table: JetTable, path: Path) -> None:
    """Refuse targets that jets do not have.

    Raises:
        ValueError: naming the file and the targets that it has.
    """
    for name in names:
        if name not in table.fields and name not in OF_JETS:
            known = list(dict.fromkeys([*table.fields, *OF_JETS]))
            raise ValueError(
                f"{path}: data.targets: has no field {name!r}; {did_you_mean(name, known)}; a layout names further "
                "fields"
            )


def fields_among(names: Sequence[str], tables: Sequence[JetTable]) -> tuple[str, ...]:
    """The targets that the files themselves give.

    Raises:
        ValueError: if some of the files give a target and others do not, so that its meaning would differ.
    """
    for name in names:
        if len({name in table.fields for table in tables}) > 1:
            raise ValueError(f"data.targets: {name!r} is a field of some files and not of others; choose files alike")
    return tuple(name for name in names if tables and name in tables[0].fields)


def targets_of(names: Sequence[str], jets: PackedJets) -> dict[str, Tensor]:
    """The targets of packed jets, float32 (jet,) each, or int64 where the files hold whole numbers."""
    if not names:
        return {}
    found = {name: torch.from_numpy(jets.fields[name]) for name in names if name in jets.fields}
    if len(found) < len(names):
        sums = _sums(jets)
        found |= {name: OF_JETS[name](sums) for name in names if name not in found}
    return {name: found[name].float() if found[name].is_floating_point() else found[name].long() for name in names}


def _sums(jets: PackedJets) -> Tensor:
    """Sum of the momenta of each jet, float64 (jet, 4)."""
    jet = np.repeat(np.arange(len(jets.counts)), jets.counts)
    columns = [np.bincount(jet, component, minlength=len(jets.counts)) for component in jets.four_momenta.T]
    return torch.from_numpy(np.stack(columns, axis=1))
