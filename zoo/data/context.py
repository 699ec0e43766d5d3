"""Model inputs of an event as a whole, such as its missing transverse momentum: name -> formula of its fields."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from zoo.data.features import NO_COLUMNS, Input, inputs_from_dicts, parse_formula, require_keys
from zoo.data.hints import did_you_mean


class ContextFeature(Input):
    """One input of an event.

    Its formula is an expression of the event's fields and of `zoo.data.features.FUNCTIONS`, such as ``log1p(met)``.
    Momenta are in GeV, angles in radians.
    """

    kind = "context feature"

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that the formula needs."""
        return parse_formula(self.formula).names

    def standardise(self, fields: Mapping[str, Tensor]) -> Tensor:
        """The values float32 (batch,) that a model sees, of fields (batch,)."""
        values = {name: fields[name].double() for name in self.fields}
        return self.standardise_raw(parse_formula(self.formula).evaluate(values).double())


@dataclasses.dataclass(frozen=True)
class ContextTable:
    """The context features of a model in their order; none for a model that sees particles only.

    Example:
        >>> table = context_table("met")
        >>> table.names, table.fields
        (('met_log', 'met_phi'), ('met', 'met_phi'))
        >>> ContextTable.from_dict(table.to_dict()) == table
        True
    """

    features: tuple[ContextFeature, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the context features in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def context_dim(self) -> int:
        """Number of context features."""
        return len(self.features)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields of an event that the context features need."""
        return tuple(dict.fromkeys(name for feature in self.features for name in feature.fields))

    def check_fields(self, names: Iterable[str]) -> None:
        """Check that events with the fields ``names`` have all that the context features need.

        Raises:
            ValueError: if they do not; the message names the field.
        """
        there = sorted(names)
        for name in self.fields:
            if name not in there:
                raise ValueError(
                    f"field {name!r} is missing, which the context needs; {did_you_mean(name, there)} Choose another "
                    "context, or name the column in 'fields' of a layout"
                )

    def standardise(self, num_events: int, fields: Mapping[str, Tensor] = NO_COLUMNS) -> Tensor:
        """What a model is given as ``context``, float32 (batch, context_feature).

        Args:
            num_events: size of the batch.
            fields: at least those that the context features need, (batch,) each.

        Raises:
            ValueError: if a field that a context feature needs is missing.
        """
        self.check_fields(fields)
        columns = [feature.standardise(fields) for feature in self.features]
        return torch.stack(columns, dim=-1) if columns else torch.zeros(num_events, 0)

    def to_dict(self) -> dict[str, Any]:
        """The table as plain JSON values."""
        return {"context": [dataclasses.asdict(feature) for feature in self.features]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ContextTable":
        """The table that `to_dict` wrote.

        Raises:
            ValueError: if a key is missing or unknown, or a value has the wrong type.
        """
        require_keys("context table", values, {"context"})
        return cls(inputs_from_dicts("context table", "context", ContextFeature, values["context"]))


NO_CONTEXT = ContextTable()

#: Magnitude and azimuth of the missing transverse momentum, as in the four-top study (arXiv:2211.05143). Centres and
#: scales are those of `zoo data fit-scaling` on the training rows of docs/four_tops.md; the azimuth is centred by
#: symmetry.
CONTEXT_TABLES = {
    "met": ContextTable(
        (
            ContextFeature("met_log", "log1p(met)", 4.38, 1.21, 5.0),
            ContextFeature("met_phi", "met_phi", 0.0, 0.467),
        )
    )
}


def context_table(name: str) -> ContextTable:
    """The context table called ``name``; its formulas, centres and scales never change.

    Raises:
        ValueError: if there is none; the message names the known ones.
    """
    if name not in CONTEXT_TABLES:
        raise ValueError(f"context: no context table is called {name!r}; choose one of {', '.join(CONTEXT_TABLES)}")
    return CONTEXT_TABLES[name]
