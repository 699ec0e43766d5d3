"""How far a model's answers move under what should not move them, and under what its paper says does not."""

import copy
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from zoo.data.batch import gather
from zoo.data.datasets import resolve_file
from zoo.data.features import NO_COLUMNS, FeatureTable, feature_table
from zoo.data.readers import read_jets
from zoo.hub import list_pretrained, load_pretrained
from zoo.physics.lorentz import boost_matrix, rotation_matrix
from zoo.registry import create_model

#: Largest change of a logit that counts as none, in units of the spread of the logits over jets. Features are float32.
UNCHANGED = 1e-5
#: What every model of the zoo promises.
ALWAYS = frozenset({"order of particles", "padding", "other jets of the batch"})


class Jets(NamedTuple):
    """Jets without padding, one after the other."""

    momenta: Tensor  #: (particle, 4) as (E, px, py, pz) in GeV, float64
    counts: Tensor  #: (jet,)
    columns: Mapping[str, Tensor] = NO_COLUMNS  #: (particle,), charge, type and the like, which no alteration changes


class Change(NamedTuple):
    """What an alteration of the jets does to the logits."""

    alteration: str
    is_promised: bool
    float64: float  #: largest change of a logit, over the spread of the logits; NaN if one is not finite
    float32: float  #: the same for momenta, weights and arithmetic in float32

    @property
    def is_kept(self) -> bool:
        """Whether nothing was promised, or it was kept (in float64)."""
        return not self.is_promised or self.float64 < UNCHANGED


class Requirement(NamedTuple):
    """Something a model does or does not do."""

    what: str
    is_met: bool


def find_model(name: str, *, input_dim: int, num_classes: int) -> nn.Module:
    """A registered model, or one of a user's own.

    Args:
        name: of `zoo.list_models`, or the import path of a class or function that takes ``input_dim`` and
            ``num_classes``, such as ``my_package.MyModel``.
        input_dim: number of features of a particle.
        num_classes: number of logits.

    Raises:
        KeyError: if no model is registered under a name without dots.
        ValueError: if an import path leads nowhere or to something else.
    """
    if "." not in name:
        return create_model(name, input_dim=input_dim, num_classes=num_classes)
    module, _, attribute = name.rpartition(".")
    try:
        builder = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{name}: cannot be imported ({error}); is its folder on PYTHONPATH?") from error
    model = builder(input_dim=input_dim, num_classes=num_classes)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name}: gives {type(model).__name__}, not a torch module")
    return model


def read_some(path: str | Path, num_jets: int, columns: Sequence[str] = ()) -> Jets:
    """The first jets of a file, massless in float64 where float32 cannot tell.

    Args:
        path: file of jets, whose own momenta are taken to be the sums of the particles, which can be transformed.
        num_jets: how many of them.
        columns: particle columns to take along, as far as the file has them.

    Raises:
        ValueError: if there are fewer than two jets with particles.
    """
    table = read_jets(resolve_file(path), rows=(0, num_jets))
    packed = gather(table, np.arange(len(table)), columns)
    counts = torch.from_numpy(packed.counts)
    if (counts > 0).sum() < 2:
        raise ValueError(f"{path}: holds {int((counts > 0).sum())} jets with particles among the first {num_jets}")
    momenta = torch.from_numpy(packed.four_momenta).double()
    energy, momentum = momenta[:, 0], momenta[:, 1:].norm(dim=1)
    is_massless = (energy - momentum).abs() < 1e-6 * energy
    momenta[:, 0] = torch.where(is_massless, momentum, energy)
    further = {name: torch.from_numpy(packed.columns[name]) for name in columns if name in packed.columns}
    return Jets(momenta, counts, further)


def check_requirements(model: nn.Module, table: FeatureTable, jets: Jets) -> list[Requirement]:
    """Whether a model gives finite answers and gradients in every case, the same ones twice."""
    model = copy.deepcopy(model).eval()
    features, four_momenta, mask = _inputs(jets, table, torch.float32)
    logits = model(features, four_momenta, mask)
    few = torch.arange(mask.shape[1]) < torch.arange(len(mask))[:, None] % 4
    logits.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    dead = [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().max() > 0]
    with torch.no_grad():
        again = model(features, four_momenta, mask)
        tiny = model(features, four_momenta, mask & few)
        none = model(features, four_momenta, torch.zeros_like(mask))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(features, four_momenta, mask)
    return [
        Requirement("finite logits", logits.isfinite().all().item()),
        Requirement("the same logits twice", torch.equal(logits, again)),
        Requirement("finite for jets of 0 to 3 particles", tiny.isfinite().all().item()),
        Requirement("finite for a batch of empty jets", none.isfinite().all().item()),
        Requirement("finite in bfloat16", half.isfinite().all().item()),
        Requirement(f"every parameter has a gradient{': not ' + ', '.join(dead[:3]) if dead else ''}", not dead),
    ]


@torch.no_grad()
def check_changes(model: nn.Module, table: FeatureTable, jets: Jets) -> Iterator[Change]:
    """What each alteration of the jets does to the logits of a model in evaluation mode.

    Args:
        model: its attribute ``symmetries``, if it has one, says what is promised; its ``beams`` are transformed along.
        table: of its features, which are computed anew from the altered momenta.
        jets: some.

    Yields:
        One `Change` for each alteration.
    """
    promised = ALWAYS | getattr(model, "symmetries", frozenset())
    results: dict[str, dict[torch.dtype, float]] = {}
    for dtype in (torch.float64, torch.float32):
        for name, logits, expected in _altered(copy.deepcopy(model).to(dtype).eval(), table, jets, dtype):
            spread = expected.std(0).mean().clamp(min=1e-12)
            results.setdefault(name, {})[dtype] = ((logits - expected).abs().max() / spread).item()
    for name, change in results.items():
        family = name.partition(",")[0]
        yield Change(name, family in promised, change[torch.float64], change[torch.float32])


def _altered(
    model: nn.Module, table: FeatureTable, jets: Jets, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name of each alteration, the logits it gives, and those without it."""
    features, four_momenta, mask = _inputs(jets, table, dtype)
    expected = model(features, four_momenta, mask)
    order = torch.randperm(mask.shape[1], generator=torch.Generator().manual_seed(1))
    yield "order of particles", model(features[:, order], four_momenta[:, order], mask[:, order]), expected
    rubbish = [nn.functional.pad(value, (0, 0, 0, 40), value=math.nan) for value in (features, four_momenta)]
    yield "padding", model(*rubbish, nn.functional.pad(mask, (0, 40))), expected
    alone = []
    for jet, count in enumerate(jets.counts[:8].tolist()):
        alone.append(model(*(values[jet : jet + 1, :count] for values in (features, four_momenta, mask))))
    yield "other jets of the batch", torch.cat(alone), expected[: len(alone)]
    for name, matrix in _transformations().items():
        with _TransformedBeams(model, matrix):
            yield name, model(*_inputs(jets._replace(momenta=jets.momenta @ matrix.mT), table, dtype)), expected
    for name, alter in _EMISSIONS.items():
        yield name, model(*_inputs(alter(jets), table, dtype)), expected


class _TransformedBeams:
    """The beams of a model, if it has any, transformed together with the jets."""

    def __init__(self, model: nn.Module, matrix: Tensor) -> None:
        self.model, self.matrix = model, matrix
        self.beams = getattr(model, "beams", None)

    def __enter__(self) -> None:
        if self.beams is not None:
            self.model.beams = self.beams.double() @ self.matrix.mT

    def __exit__(self, *_: object) -> None:
        if self.beams is not None:
            self.model.beams = self.beams


def _transformations() -> dict[str, Tensor]:
    def vector(*values: float) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    def boost(gamma: float) -> Tensor:
        direction = vector(2.0, -1.0, 2.0) / 3
        return boost_matrix((1 - gamma**-2) ** 0.5 * direction)

    return {
        "beam rotation": rotation_matrix(vector(0.0, 0.0, 1.0), vector(1.0)[0]),
        "beam boost": boost_matrix(vector(0.0, 0.0, 0.3)),
        "rotation": rotation_matrix(vector(1.0, 2.0, 2.0), vector(1.0)[0]),
        **{f"boost, gamma {gamma}": boost(gamma) for gamma in (2, 10, 100)},
    }


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
    return Jets(torch.cat([jets.momenta, momenta])[order], jets.counts + (jets.counts > 0), columns)


_EMISSIONS: dict[str, Callable[[Jets], Jets]] = {"collinear splitting": _split, "soft emission": _radiate}


def _inputs(jets: Jets, table: FeatureTable, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Features, four-momenta and mask of a batch in ``dtype``."""
    momenta = jets.momenta.to(dtype)
    mask = torch.arange(int(jets.counts.max())) < jets.counts[:, None]
    four_momenta = momenta.new_zeros(*mask.shape, 4)
    four_momenta[mask] = momenta
    features = momenta.new_zeros(*mask.shape, table.input_dim)
    features[mask] = table.packed(momenta, jets.counts, jets.columns).to(dtype)
    return features, four_momenta, mask


def settle(model: nn.Module, table: FeatureTable, jets: Jets) -> nn.Module:
    """The model with the running statistics of some jets, in evaluation mode."""
    with torch.no_grad():
        for _ in range(5):
            model.train()(*_inputs(jets, table, torch.float32))
    return model.eval()


def check_model(
    name: str, *, data: str | Path, num_jets: int, features: str, num_classes: int, console: Console | None = None
) -> bool:
    """Print what a model promises and keeps on real jets.

    Args:
        name: of a model, of a pretrained model, or the import path of one's own; see `find_model`.
        data: file of jets.
        num_jets: how many of them.
        features: name of the feature table; that of a pretrained model is its own.
        num_classes: number of logits.
        console: where to print.

    Returns:
        Whether all that is promised is kept.

    Raises:
        KeyError: if there is no such model.
        ValueError: if an import path leads nowhere, the feature table is unknown, or the file holds too few jets or not
            what the features need.
        OSError: if the file cannot be read.
    """
    console = console or Console()
    pretrained = load_pretrained(name) if name in list_pretrained() else None
    table = feature_table(features) if pretrained is None else pretrained.feature_table
    jets = read_some(data, num_jets, table.columns)
    if pretrained is not None:
        model = pretrained.model
    else:
        torch.manual_seed(1)
        model = settle(find_model(name, input_dim=table.input_dim, num_classes=num_classes), table, jets)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(
        f"[bold]{name}[/bold], {parameters:,} parameters, on {len(jets.counts)} jets of {data}\n"
        "Change: the largest of a logit, in units of the spread of the logits over jets."
    )
    changes = list(check_changes(model, table, jets))
    rows = Table("altered", "change in float64", "in float32", "promised", "kept")
    for change in changes:
        promise = ("yes", _mark(change.is_kept)) if change.is_promised else ("", "")
        rows.add_row(change.alteration, f"{change.float64:.1e}", f"{change.float32:.1e}", *promise)
    console.print(rows)
    requirements = check_requirements(model, table, jets)
    for requirement in requirements:
        console.print(f"{_mark(requirement.is_met)}  {requirement.what}")
    return all(change.is_kept for change in changes) and all(requirement.is_met for requirement in requirements)


def _mark(is_good: bool) -> str:
    return "[green]yes[/green]" if is_good else "[bold red]NO[/bold red]"
