"""Training that starts from the weights of another: what is loaded, new or frozen, and how fast it learns.

A model names its stages, from the input to the head (``model.stages()``); every setting here refers to stages.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import rich.box
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.optim import Optimizer

from zoo.data.datamodule import Interface, interface_of
from zoo.data.features import Feature, agree
from zoo.hub import load_pretrained, untrained
from zoo.kernels.building import current_names
from zoo.limits import parse_yaml
from zoo.model import lacking
from zoo.old_configs import renew_settings
from zoo.training.checkpoints import BACKBONE, CheckpointError, read_checkpoint, read_model_weights
from zoo.training.run_folder import checkpoint_path

#: The last stage of every model.
HEAD = "head"


@dataclasses.dataclass
class FineTuning:
    r"""How to continue from a backbone.

    The learning rate of a stage that lies d stages before the head is, at every step,

    .. math:: \eta_d = f^d \, \eta, \qquad \eta_\mathrm{new} = \eta_\mathrm{head} = h \, \eta

    with f = ``layer_decay`` and h = ``head_factor``, which applies to all stages that start from random weights.

    References:
        BEiT (2021), arXiv:2106.08254: the decay from layer to layer.
        Particle Transformer for Jet Tagging (2022), arXiv:2202.03772: the factor of the head, 50 there.

    Args:
        backbone: weights to start from: a name or folder for `zoo.load_pretrained`, a run folder, whose best checkpoint
            is taken, or a checkpoint.
        new: stages that start from random weights. All others must load completely, or the training does not start.
        freeze: stages that do not train: a number of stages counted from the input, their names, or ``backbone`` for
            all that is loaded but the head (a linear probe). Their normalisations keep their statistics and their
            dropout is off.
        unfreeze_at_epoch: epoch, counted from 0, from which they train too; None: never.
        layer_decay: factor on the learning rate from one stage to the one before it.
        head_factor: factor on the learning rate of the head and of every new stage.

    Raises:
        ValueError: if a setting lies outside its range.
    """

    backbone: str
    new: list[str] = dataclasses.field(default_factory=lambda: [HEAD])
    freeze: int | list[str] | Literal["backbone"] = 0
    unfreeze_at_epoch: int | None = None
    layer_decay: float = 1.0
    head_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.unfreeze_at_epoch is not None and (self.unfreeze_at_epoch < 1 or not self.freeze):
            raise ValueError(
                f"fine_tuning.unfreeze_at_epoch: must be 1 or more, and needs 'freeze', not {self.unfreeze_at_epoch}"
            )
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"fine_tuning.layer_decay: must be above 0 and at most 1, not {self.layer_decay}")
        if not 0 < self.head_factor < math.inf:
            raise ValueError(f"fine_tuning.head_factor: must be positive, not {self.head_factor}")

    def stages(self, model: nn.Module) -> list["Stage"]:
        """The stages of a model, from the input to the head, and how each is treated.

        Raises:
            ValueError: if the model names no stages, a stage does not exist, is both new and frozen, or none trains.
        """
        parts = stages_of_model(model)
        frozen = self._frozen(list(parts))
        for key, names in (("new", self.new), ("freeze", frozen)):
            unknown = [name for name in names if name not in parts]
            if unknown:
                known = ", ".join(parts)
                raise ValueError(f"fine_tuning.{key}: {type(model).__name__} has no stage {unknown[0]!r}, but {known}")
        both = [name for name in frozen if name in self.new]
        if both:
            raise ValueError(f"fine_tuning: {both[0]!r} would be new and frozen; take it from one of the two")
        if len(frozen) == len(parts):
            raise ValueError("fine_tuning.freeze: leaves nothing to train; freeze fewer stages")
        stages = []
        for depth, name in zip(reversed(range(len(parts))), parts, strict=True):
            factor = self.head_factor if depth == 0 or name in self.new else self.layer_decay**depth
            stages.append(Stage(name, tuple(parts[name]), name in self.new, name in frozen, factor))
        return stages

    def _frozen(self, names: list[str]) -> list[str]:
        if self.freeze == "backbone":
            return [name for name in names[:-1] if name not in self.new]
        if not isinstance(self.freeze, int):
            return list(self.freeze)
        if not 0 <= self.freeze < len(names):
            raise ValueError(f"fine_tuning.freeze: must be 0 to {len(names) - 1} stages, not {self.freeze}")
        return names[: self.freeze]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a model during fine-tuning.

    Args:
        name: name of the stage.
        parts: names of its modules and parameters.
        is_new: whether it starts from random weights.
        is_frozen: whether it does not train, or not from the beginning.
        factor: factor on its learning rate.
    """

    name: str
    parts: tuple[str, ...]
    is_new: bool
    is_frozen: bool
    factor: float

    def owns(self, weight: str) -> bool:
        """Whether a name of the model's ``state_dict`` belongs to it."""
        return any(weight == part or weight.startswith(f"{part}.") for part in self.parts)

    def parameters(self, model: nn.Module) -> list[nn.Parameter]:
        """Its parameters, in the model's order."""
        return [parameter for name, parameter in model.named_parameters() if self.owns(name)]

    def modules(self, model: nn.Module) -> list[nn.Module]:
        """Its modules, without the modules inside them."""
        found = dict(model.named_modules())
        return [found[part] for part in self.parts if part in found]


def stages_of_model(model: nn.Module) -> dict[str, list[str]]:
    """The stages that a model declares.

    Raises:
        ValueError: if it declares none, the last one is not the head, or a weight is in no stage or in several.
    """
    kind = type(model).__name__
    if "stages" in lacking(model):
        raise ValueError(f"fine_tuning: {kind} has no method stages(); write one as in zoo.lorentznet.LorentzNet")
    parts = model.stages()
    if list(parts)[-1:] != [HEAD]:
        raise ValueError(f"fine_tuning: the last of {kind}.stages() must be {HEAD!r}, not {list(parts)[-1:]}")
    stages = [Stage(name, tuple(of), False, False, 1.0) for name, of in parts.items()]
    for weight in model.state_dict():
        owners = [stage.name for stage in stages if stage.owns(weight)]
        if len(owners) != 1:
            raise ValueError(f"fine_tuning: {kind}.stages() must put {weight} in one stage, not in {owners}")
    return parts


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Weights to start from, and what is known about them.

    Args:
        source: where they were found.
        weights: tensors by their names in the model.
        interface: interface that they were trained with; None if unknown.
    """

    source: str
    weights: dict[str, Tensor]
    interface: Interface | None


def find_backbone(name: str) -> Backbone:
    """Weights of a pretrained model, a run or a checkpoint.

    Args:
        name: ``backbone`` of `FineTuning`.

    Raises:
        FileNotFoundError: if nothing has this name.
        ValueError: if a file is damaged; nothing is ever unpickled.
    """
    path = Path(name)
    if path.is_file():
        return _backbone_of_run(path, path.parent.parent)
    if (path / "checkpoints").is_dir() or (path / "config.yaml").is_file():
        return _backbone_of_run(checkpoint_path(path, "best"), path)
    try:
        found = load_pretrained(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"fine_tuning.backbone: {error} Nor is it a run folder or a checkpoint; if it shall be one, train it first"
        ) from None
    if found.network is None:
        raise ValueError(f"fine_tuning.backbone: {name} is of the kind {found.config.kind!r}; give a single network")
    random = untrained(found.network, found.config.kind)
    weights = {weight: value for weight, value in found.network.state_dict().items() if weight not in random}
    source = f"{name} ({found.config.model}, {found.config.dataset})"
    return Backbone(source, weights, Interface(found.feature_table, found.context_table, tuple(found.config.classes)))


def _backbone_of_run(checkpoint: Path, run: Path) -> Backbone:
    weights = read_model_weights(checkpoint)
    # A pretraining lists what it trained: the rest of its model is still random.
    weights = {name: weights[name] for name in read_checkpoint(checkpoint).get(BACKBONE, weights)}
    config = run / "config.yaml"
    if not config.is_file():
        return Backbone(f"{checkpoint} (no {config}, so its features are not known)", weights, None)
    try:
        data = renew_settings(parse_yaml(config.read_text()))["data"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config}: is damaged ({error!r}); restore it, or give the checkpoint elsewhere") from error
    return Backbone(str(checkpoint), weights, interface_of(data))


def load_backbone(model: nn.Module, backbone: Backbone, stages: Sequence[Stage], data: Interface) -> None:
    """Load the weights of a backbone into all stages of a model that are not new.

    Args:
        model: model to load them into.
        backbone: the weights.
        stages: stages of the model.
        data: interface of the data. Its features must be those of the backbone unless the first stage is new; its
            classes, unless the head is new; its context, unless both are new, if both sides have one.

    Raises:
        ValueError: if a weight is missing, unknown or of another shape, or the data differ from those of the backbone;
            the message names what differs and the stage.
    """
    _require_same_interface(backbone, stages, data)
    wanted = model.state_dict()
    backbone = dataclasses.replace(backbone, weights=current_names(model, backbone.weights))
    for name in dict.fromkeys([*wanted, *backbone.weights]):
        owner = next((stage for stage in stages if stage.owns(name)), None)
        if owner is None or not owner.is_new:
            _require_same_shape(name, wanted.get(name), backbone, owner)
    new = [stage for stage in stages if stage.is_new]
    loaded = {name: value for name, value in backbone.weights.items() if not any(stage.owns(name) for stage in new)}
    model.load_state_dict(wanted | loaded)


def _require_same_shape(name: str, wanted: Tensor | None, backbone: Backbone, stage: Stage | None) -> None:
    given = backbone.weights.get(name)
    if given is not None and wanted is not None and given.shape == wanted.shape:
        return
    shapes = ["none" if value is None else str(tuple(value.shape)) for value in (given, wanted)]
    remedy = "give model.model the same architecture"
    if stage is not None:
        remedy += f", or add {stage.name!r} to fine_tuning.new"
    raise ValueError(
        f"fine_tuning.backbone: {backbone.source} does not fit: {name} has shape {shapes[0]} there and {shapes[1]} "
        f"in the model; {remedy}"
    )


def _require_same_interface(backbone: Backbone, stages: Sequence[Stage], data: Interface) -> None:
    theirs = backbone.interface
    if theirs is None:
        return
    first, head = stages[0], stages[-1]
    if not first.is_new:
        # A folder of an older zoo holds the columns of weaver's data file, not their formulas.
        tables = (theirs.features, data.features)
        if tables[0] != tables[1] or theirs.formulas is not None:
            tables = tuple(side.formulas or side.features for side in (theirs, data))
        _require_same_table(backbone, [first], "features", *(table.features for table in tables))
    # Models differ in whether the context enters the first stage or the head. If only one side has a context, the
    # shapes show it.
    entered = [stage for stage in (first, head) if not stage.is_new]
    if entered and theirs.context.features and data.context.features:
        _require_same_table(backbone, entered, "context", theirs.context.features, data.context.features)
    # Pretraining without labels has no classes.
    if not head.is_new and theirs.classes not in ((), data.classes):
        raise ValueError(
            f"fine_tuning.backbone: {backbone.source} has the classes {', '.join(theirs.classes)}, the data "
            f"{', '.join(data.classes)}; add {head.name!r} to fine_tuning.new"
        )


def _require_same_table(
    backbone: Backbone, stages: Sequence[Stage], key: str, theirs: Sequence[Any], ours: Sequence[Any]
) -> None:
    names = " and ".join(repr(stage.name) for stage in stages)
    for number, (one, other) in enumerate(itertools.zip_longest(theirs, ours)):
        if one != other and not (isinstance(one, Feature) and isinstance(other, Feature) and agree(one, other)):
            there, here = (each or "missing" for each in (one, other))
            raise ValueError(
                f"fine_tuning.backbone: {backbone.source} was trained with other {key}: {(other or one).name}, number "
                f"{number}, is {there} there and {here} in the data; give data.{key} the backbone's, or add "
                f"{names} to fine_tuning.new"
            )


class FineTuner(Callback):
    """Loads the backbone when a training starts, freezes stages, and unfreezes them in their epoch.

    A resumed training takes its weights from the checkpoint and does not load the backbone again.

    Args:
        settings: settings of the fine-tuning.

    Attributes:
        summary: what was loaded, what is new and what is frozen, for a report; empty before the training starts.
    """

    def __init__(self, settings: FineTuning) -> None:
        self.settings = settings
        self.summary: dict[str, str] = {}
        self._frozen: list[nn.Parameter] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freeze what never trains, before the optimiser and other processes get the parameters."""
        if stage == "fit" and self.settings.unfreeze_at_epoch is None:
            for parameter in _frozen_parameters(pl_module.model, self.settings.stages(pl_module.model)):
                parameter.requires_grad_(False)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load the backbone, unless a checkpoint was loaded.

        Raises:
            FileNotFoundError: if there is no such backbone.
            ValueError: as for `load_backbone`.
        """
        if self.summary:
            return
        model, data = pl_module.model, trainer.datamodule
        stages, backbone = self.settings.stages(model), find_backbone(self.settings.backbone)
        load_backbone(model, backbone, stages, data.interface)
        until = self.settings.unfreeze_at_epoch
        self.summary = _summary(model, backbone, stages, until)
        if trainer.is_global_zero:
            _print_stages(model, backbone, stages, pl_module.learning_rate, until)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze, also when a resumed training starts within an epoch."""
        self._freeze(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze until the epoch of unfreezing."""
        self._freeze(trainer, pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Drop the gradients of frozen parameters, if they have any."""
        for parameter in self._frozen:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The settings and the summary."""
        return {"settings": dataclasses.asdict(self.settings), "summary": self.summary}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the summary."""
        self.summary = state_dict["summary"]

    def _freeze(self, trainer: Trainer, pl_module: LightningModule) -> None:
        until, model = self.settings.unfreeze_at_epoch, pl_module.model
        frozen = [stage for stage in self.settings.stages(model) if stage.is_frozen]
        is_over = until is not None and trainer.current_epoch >= until
        for module in [module for stage in frozen for module in stage.modules(model)]:
            module.train(is_over)
        parameters = _frozen_parameters(model, frozen)
        self._frozen = [] if is_over else parameters
        # Several processes share gradients only of parameters that required one when the training started.
        if until is not None and trainer.world_size == 1:
            for parameter in parameters:
                parameter.requires_grad_(is_over)


def require_same_fine_tuning(settings: FineTuning | None, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Refuse to resume a checkpoint with other settings of the fine-tuning, since these set up its optimiser.

    Args:
        settings: settings of the training to resume; None: it is not a fine-tuning.
        checkpoint: as `zoo.training.checkpoints.read_checkpoint` gave it.
        path: its file, for the message.

    Raises:
        CheckpointError: if the checkpoint was made with other settings.
    """
    made_with = checkpoint["callbacks"].get(FineTuner.__name__, {}).get("settings")
    given = None if settings is None else dataclasses.asdict(settings)
    if made_with != given:
        raise CheckpointError(
            f"checkpoint {path}: was made with model.fine_tuning {made_with}, not {given}; give the same to continue "
            "it, or begin a new run"
        )


def _frozen_parameters(model: nn.Module, stages: Sequence[Stage]) -> list[nn.Parameter]:
    return [parameter for stage in stages if stage.is_frozen for parameter in stage.parameters(model)]


def _count(model: nn.Module, stage: Stage) -> int:
    return sum(parameter.numel() for parameter in stage.parameters(model))


def _summary(
    model: nn.Module, backbone: Backbone, stages: Sequence[Stage], unfreeze_at_epoch: int | None
) -> dict[str, str]:
    """What happened to each parameter, in words."""

    def told(belongs: Callable[[Stage], bool], until: str = "") -> str:
        chosen = [stage for stage in stages if belongs(stage)]
        total = sum(_count(model, stage) for stage in chosen)
        return f"{', '.join(stage.name for stage in chosen)} ({total:,} parameters){until}" if chosen else "nothing"

    return {
        "backbone": backbone.source,
        "loaded": told(lambda stage: not stage.is_new),
        "new": told(lambda stage: stage.is_new),
        "frozen": told(
            lambda stage: stage.is_frozen, "" if unfreeze_at_epoch is None else f" until epoch {unfreeze_at_epoch}"
        ),
    }


def _print_stages(
    model: nn.Module, backbone: Backbone, stages: Sequence[Stage], learning_rate: float, unfreeze_at_epoch: int | None
) -> None:
    console = Console()
    title = f"Fine-tuning of {backbone.source}"
    table = Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, show_edge=False)
    table.add_column("stage")
    table.add_column("parameters", justify="right")
    table.add_column("weights")
    table.add_column("learning rate", justify="right")
    for stage in stages:
        rate = f"{learning_rate * stage.factor:.2g}"
        if stage.is_frozen:
            rate = "frozen" if unfreeze_at_epoch is None else f"frozen, {rate} from epoch {unfreeze_at_epoch}"
        table.add_row(stage.name, f"{_count(model, stage):,}", "new" if stage.is_new else "loaded", rate)
    console.print(table)
