"""The promises of a model, and how well it keeps them."""

import copy
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from zoo.check.jets import EMISSIONS, inputs, read_some, transform, transformations
from zoo.check.models import checkable, find_model, find_pretrained_model
from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.description import read_description
from zoo.data.features import FeatureTable
from zoo.data.features_yaml import named_context, named_features
from zoo.data.packed import PackedJets
from zoo.model import declared, lacking

#: Largest change of a logit that counts as none, in units of the spread of the logits over jets. Features are float32.
UNCHANGED = 1e-5
#: The promises of every model of the zoo.
ALWAYS = frozenset({"order of particles", "padding", "other jets of the batch"})
#: Jets for half precision, which CPUs emulate.
HALF_JETS = 8
#: Suffix for a transformation of the momenta only, if the model uses features that change with them.
SAME_FEATURES = ", same features"


class Change(NamedTuple):
    """The effect of an alteration of the jets on the logits."""

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


def check_requirements(
    model: nn.Module, table: FeatureTable, jets: PackedJets, context_table: ContextTable = NO_CONTEXT
) -> list[Requirement]:
    """Whether a model gives finite and reproducible answers and gradients in every case."""
    model = copy.deepcopy(model).eval()
    features, four_momenta, mask, *context = given = inputs(jets, table, torch.float32, context_table)
    dead = _without_gradient(model, given)
    few = torch.arange(mask.shape[1]) < torch.arange(len(mask))[:, None] % 4
    with torch.no_grad():
        # with gradients the network may compute in another way, so these two are without
        logits, again = (model(*given) for _ in range(2))
        tiny = _finite("finite for jets of 0 to 3 particles", model, (features, four_momenta, mask & few, *context))
        no_particles = (features, four_momenta, torch.zeros_like(mask), *context)
        empty = _finite("finite for a batch of empty jets", model, no_particles)
        none = _finite("no error for a batch of no jets", model, [values[:0] for values in given])
        halves = []
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype=dtype):
                few_jets = [values[:HALF_JETS] for values in given]
                halves.append(_finite(f"finite in {str(dtype).removeprefix('torch.')}", model, few_jets))
    return [
        Requirement("finite logits", logits.isfinite().all().item()),
        Requirement("the same logits twice", torch.equal(logits, again)),
        tiny,
        empty,
        none,
        *halves,
        Requirement(f"every parameter has a gradient{': not ' + ', '.join(dead[:3]) if dead else ''}", not dead),
    ]


def _without_gradient(model: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Names of the parameters that require a gradient and get none."""
    answer = model(*inputs)
    if answer.requires_grad:  # trees have none
        answer.square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return [name for name, gradient in gradients.items() if gradient is None or not gradient.abs().max() > 0]


def _finite(what: str, model: nn.Module, inputs: Sequence[Tensor]) -> Requirement:
    """Whether a model gives finite answers to some inputs; an error of a user's model counts as no answer."""
    try:
        return Requirement(what, model(*inputs).isfinite().all().item())
    except (RuntimeError, ValueError, IndexError, ArithmeticError) as error:
        return Requirement(f"{what}: {type(error).__name__}: {str(error).partition(chr(10))[0]}", False)


@torch.no_grad()
def check_changes(
    model: nn.Module, table: FeatureTable, jets: PackedJets, context_table: ContextTable = NO_CONTEXT
) -> Iterator[Change]:
    """The effect of each alteration of the jets on the logits of a model in evaluation mode.

    Symmetries are promised for the momenta. If a model uses features that change with them, as pt does in a boost, its
    symmetry shows only with the `SAME_FEATURES` as before.

    Args:
        model: its promises are what it has `declared`: its ``symmetries``, with boosts up to its ``largest_gamma``; its
            ``beams`` are transformed too.
        table: of its features, which are recomputed from the altered momenta.
        jets: the jets to alter.
        context_table: of its context features.

    Yields:
        One `Change` for each alteration.
    """
    promised, largest_gamma = ALWAYS | declared(model).symmetries, declared(model).largest_gamma
    results: dict[str, dict[torch.dtype, float]] = {}
    for dtype in (torch.float64, torch.float32):
        altered = copy.deepcopy(model).to(dtype).eval()
        for name, logits, expected in _altered(altered, table, jets, context_table, dtype):
            spread = expected.std(0).mean().clamp(min=1e-12)
            results.setdefault(name, {})[dtype] = ((logits - expected).abs().max() / spread).item()
    for name, change in results.items():
        family, _, gamma = name.removesuffix(SAME_FEATURES).partition(", gamma ")
        is_promised = family in promised and float(gamma or 1) <= largest_gamma
        is_judged = name.endswith(SAME_FEATURES) or name + SAME_FEATURES not in results
        yield Change(name, is_promised and is_judged, change[torch.float64], change.get(torch.float32, math.nan))


def _altered(
    model: nn.Module, table: FeatureTable, jets: PackedJets, context_table: ContextTable, dtype: torch.dtype
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name of each alteration, the logits with it, and those without it."""

    def seen(altered: PackedJets) -> tuple[Tensor, ...]:
        return inputs(altered, table, dtype, context_table)

    features, four_momenta, mask, *context = seen(jets)
    expected = model(features, four_momenta, mask, *context)
    order = torch.randperm(mask.shape[1], generator=torch.Generator().manual_seed(1))
    yield "order of particles", model(features[:, order], four_momenta[:, order], mask[:, order], *context), expected
    rubbish = [nn.functional.pad(value, (0, 0, 0, 40), value=math.nan) for value in (features, four_momenta)]
    yield "padding", model(*rubbish, nn.functional.pad(mask, (0, 40)), *context), expected
    alone = []
    for jet, count in enumerate(jets.counts[:8].tolist()):
        of_jet = [values[jet : jet + 1, :count] for values in (features, four_momenta, mask)]
        alone.append(model(*of_jet, *(values[jet : jet + 1] for values in context)))
    yield "other jets of the batch", torch.cat(alone), expected[: len(alone)]
    for name, matrix in transformations().items():
        moved = seen(transform(jets, name, matrix))
        with _TransformedBeams(model, matrix):
            logits, same_features = model(*moved), model(features, *moved[1:])
        yield name, logits, expected
        if (
            features.numel()
            and (moved[0] - features).abs().max() > UNCHANGED
            and not torch.equal(logits, same_features)
        ):
            yield name + SAME_FEATURES, same_features, expected
    for name, alter in EMISSIONS.items():
        yield name, model(*seen(alter(jets))), expected


class _TransformedBeams:
    """Transforms the beams of a model, if it has any, together with the jets."""

    def __init__(self, model: nn.Module, matrix: Tensor) -> None:
        self.model, self.matrix = model, matrix
        self.beams = declared(model).beams

    def __enter__(self) -> None:
        if self.beams is not None:
            self.model.beams = self.beams.double() @ self.matrix.mT

    def __exit__(self, *_: object) -> None:
        if self.beams is not None:
            self.model.beams = self.beams


def settle(
    model: nn.Module, table: FeatureTable, jets: PackedJets, context_table: ContextTable = NO_CONTEXT
) -> nn.Module:
    """The model in evaluation mode, with running statistics from some jets."""
    with torch.no_grad():
        for _ in range(5):
            model.train()(*inputs(jets, table, torch.float32, context_table))
    return model.eval()


def check_model(
    name: str,
    *,
    data: str | Path,
    num_jets: int,
    features: str,
    num_classes: int,
    context: str | None = None,
    layout: str | Path | None = None,
    console: Console | None = None,
) -> bool:
    """Print what a model promises and whether it keeps it on real jets.

    Args:
        name: name of a model; name, folder or address of a pretrained model; or the import path of your own model, see
            `find_model`.
        data: file of jets or converted folder.
        num_jets: number of jets.
        features: name of the feature table, or a YAML file of features; a pretrained model has its own.
        num_classes: number of logits.
        context: name of the table of context features, or a YAML file of them; a pretrained model has its own.
        layout: YAML file that says which columns of ``data`` hold what.
        console: where to print.

    Returns:
        Whether all promises are kept.

    Raises:
        KeyError: if there is no such model.
        ValueError: if an import path leads nowhere, the feature table is unknown, or the file holds too few jets or
            lacks something that the features need.
        OSError: if a file or folder cannot be read.
    """
    console = console or Console()
    pretrained = find_pretrained_model(name)
    if pretrained is None:
        table, context_table = named_features(features), named_context(context)
    else:
        table = pretrained.feature_table
        context_table = pretrained.context_table if pretrained.names else NO_CONTEXT  # a backbone takes none
    described = read_description(layout, labelled=False)
    jets = read_some(data, num_jets, table.columns, context_table=context_table, layout=described)
    if pretrained is not None:
        model = checkable(pretrained)
    else:
        torch.manual_seed(1)
        model = find_model(name, input_dim=table.input_dim, num_classes=num_classes)
        if context_table.context_dim not in (0, taken := declared(model).context_dim):
            raise ValueError(f"context: {context} has {context_table.context_dim} numbers, {name} takes {taken}")
        model = settle(model, table, jets, context_table)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    console.print(
        f"[bold]{name}[/bold], {parameters:,} parameters, on {len(jets.counts)} jets of {data}\n"
        "Change: the largest of a logit, in units of the spread of the logits over jets."
    )
    changes = list(check_changes(model, table, jets, context_table))
    rows = Table("altered", "change in float64", "in float32", "promised", "kept")
    for change in changes:
        promise = ("yes", _mark(change.is_kept)) if change.is_promised else ("", "")
        rows.add_row(change.alteration, f"{change.float64:.1e}", f"{change.float32:.1e}", *promise)
    console.print(rows)
    requirements = check_requirements(model, table, jets, context_table)
    for requirement in requirements:
        console.print(f"{_mark(requirement.is_met)}  {requirement.what}")
    if missing := {} if pretrained is not None else lacking(model):
        uses = "; ".join(f"without {method}() {use}" for method, use in missing.items())
        console.print(f"{type(model).__name__} is a plain torch module: {uses}. See zoo.model.JetModel.")
    return all(change.is_kept for change in changes) and all(requirement.is_met for requirement in requirements)


def _mark(is_good: bool) -> str:
    return "[green]yes[/green]" if is_good else "[bold red]NO[/bold red]"
