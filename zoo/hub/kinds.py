"""The kinds of pretrained folders: how a model is built from files and written to them, and what it answers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, cast

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from zoo.baselines.trees import TITLES, BoostedTrees, ForestError
from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.features import FeatureTable
from zoo.hub.config import PretrainedConfig, PretrainedError
from zoo.hub.contents import CONFIG, TREES, WEIGHTS
from zoo.model import JetModel, declared, has_encode, is_readout
from zoo.plugins import offered_by
from zoo.registry import create_model


class Parts(NamedTuple):
    """A model in evaluation mode, and the tables that make its inputs."""

    model: nn.Module
    feature_table: FeatureTable
    context_table: ContextTable

    @property
    def columns(self) -> tuple[str, ...]:
        """What the inputs need besides the momenta: columns of particles, then fields of events."""
        return (*self.feature_table.columns, *self.context_table.fields)

    def inputs(self, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Arguments of a model call: ``features``, ``four_momenta``, ``mask``, and ``context`` if it takes one.

        Args:
            four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
            mask: (batch, particle), True for a real particle.
            columns: columns by name, of particles (batch, particle), of jets (`JET_COLUMNS`) and of events (batch,).

        Raises:
            ValueError: if a required column or field is missing.
        """
        of_events = {name: columns[name] for name in self.context_table.fields if name in columns}
        of_particles = {name: values for name, values in columns.items() if name not in of_events}
        features = self.feature_table.padded(four_momenta, mask, of_particles)
        inputs = {"features": features, "four_momenta": four_momenta, "mask": mask}
        if self.context_table.context_dim:
            inputs["context"] = self.context_table.standardise(len(mask), of_events)
        return inputs


#: Folder and its files -> the model in them, verified.
Load = Callable[[Path, Mapping[str, bytes]], tuple[PretrainedConfig, Parts]]


class Kind(Protocol):
    """What all kinds of folders have in common."""

    #: Files in addition to those of every folder.
    files: tuple[str, ...]
    #: Name of its golden outputs.
    output: str

    def build(self, folder: Path, config: PretrainedConfig, contents: Mapping[str, bytes], load: Load) -> Parts:
        """The model in the files of a folder; its answers are not compared with the golden ones yet.

        Args:
            folder: path for the messages.
            config: config of the folder.
            contents: files of the folder.
            load: function that builds and verifies the model of a folder inside it.

        Raises:
            PretrainedError: if files and config do not match.
        """

    def dump(self, model: nn.Module) -> dict[str, bytes]:
        """The files from which `build` builds the model."""

    def answer(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Output of the model for ``features``, ``four_momenta``, ``mask`` and, if it takes one, ``context``."""

    def reply(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Return value of a call of `zoo.hub.Pretrained`.

        Raises:
            ValueError: if the kind cannot be called.
        """

    def names(self, config: PretrainedConfig) -> tuple[str, ...]:
        """Names of the columns of `answer`, which `zoo.predict` writes; none for a backbone."""

    def network(self, model: nn.Module) -> nn.Module | None:
        """The only network in it, whose weights a training can start from; None: there is none, or several."""


class Tagger:
    """What all kinds that give logits of classes have in common."""

    output = "logits"

    def answer(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (batch, class); see `Kind`."""
        return model(**inputs)

    def reply(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor | dict[str, Tensor]:
        """Logits (batch, class); see `Kind`."""
        return self.answer(model, inputs)

    def names(self, config: PretrainedConfig) -> tuple[str, ...]:
        """The classes; see `Kind`."""
        return tuple(config.classes)

    def network(self, model: nn.Module) -> nn.Module | None:
        """None; see `Kind`."""
        return None


class Network(Tagger):
    """A registered model with its weights, which gives logits (batch, class)."""

    files: tuple[str, ...] = (WEIGHTS,)

    def build(self, folder: Path, config: PretrainedConfig, contents: Mapping[str, bytes], load: Load) -> Parts:
        """The model and its tables; see `Kind`."""
        table, context_table = tables(folder, config)
        try:
            model = create_model(config.model, input_dim=table.input_dim, num_classes=len(config.classes) or 1)
        except KeyError as error:
            raise PretrainedError(f"{folder / CONFIG}: {error.args[0]}; {remedy_of(config)}") from error
        if (taken := self._context_dim(model)) != context_table.context_dim:
            raise PretrainedError(
                f"{folder / CONFIG}: {config.model} takes {taken} context features, 'context' has "
                f"{context_table.context_dim}; get the folder again"
            )
        self._load(folder / WEIGHTS, model, config, parse_tensors(folder / WEIGHTS, contents[WEIGHTS]))
        return Parts(model.eval(), table, context_table)

    def dump(self, model: nn.Module) -> dict[str, bytes]:
        """The weights; see `Kind`."""
        return {WEIGHTS: save_tensors({name: value.contiguous() for name, value in model.state_dict().items()})}

    def network(self, model: nn.Module) -> nn.Module:
        """The model itself; see `Kind`."""
        return model

    def _context_dim(self, model: nn.Module) -> int:
        return declared(model).context_dim

    def _load(self, path: Path, model: nn.Module, config: PretrainedConfig, weights: dict[str, Tensor]) -> None:
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise PretrainedError(f"{path}: are not the weights of {config.model}: {error}") from error


def remedy_of(config: PretrainedConfig) -> str:
    """How to get a model whose name is not in the registry."""
    if config.package is None:
        return "get a newer zoo, or the folder again"
    name, version = config.package["name"], config.package["version"]
    theirs = config.model if config.task is None or "." in config.model else config.task["name"]
    installed = offered_by(theirs.partition(".")[0])
    if installed is None:
        return f"it is a model of {name} {version}, which is not installed: if you trust it, pip install {name}"
    return f"it was written with {name} {version}, and {' '.join(installed)} is installed"


class Backbone(Network):
    """A registered model up to its ``encode``, which gives a representation (node, embed_dim) of real particles.

    The representation of particles does not depend on the context.
    """

    output = "representation"

    def dump(self, model: nn.Module) -> dict[str, bytes]:
        """The weights without those of the read-out; see `Kind`."""
        left_out = untrained(model, "backbone")
        weights = {name: value for name, value in model.state_dict().items() if name not in left_out}
        return {WEIGHTS: save_tensors({name: value.contiguous() for name, value in weights.items()})}

    def answer(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Representation (node, embed_dim); see `Kind`."""
        if not has_encode(model):
            raise PretrainedError(
                f"{type(model).__name__}: has no 'encode', so it is no backbone; choose another model or kind"
            )
        return cast(JetModel, model).encode(**inputs)

    def reply(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
        """Always an error; see `Kind`."""
        raise ValueError(f"{type(model).__name__}: a backbone gives no logits; use its 'encode', or fine-tune it")

    def _context_dim(self, model: nn.Module) -> int:
        return 0

    def _load(self, path: Path, model: nn.Module, config: PretrainedConfig, weights: dict[str, Tensor]) -> None:
        if not has_encode(model):
            raise PretrainedError(
                f"{config.model}: has no 'encode', so it is no backbone; choose another model or kind"
            )
        random = untrained(model, "backbone")
        if held := random.keys() & weights.keys():
            raise PretrainedError(f"{path}: holds {min(held)}, which no backbone has")
        super()._load(path, model, config, random | weights)


class Trees(Tagger):
    """Boosted decision trees in LightGBM's text format, which take inputs by name and give logits (batch, class)."""

    files: tuple[str, ...] = (TREES,)

    def build(self, folder: Path, config: PretrainedConfig, contents: Mapping[str, bytes], load: Load) -> Parts:
        """The trees and their tables; see `Kind`."""
        table, context_table = tables(folder, config)
        inputs = next((inputs for inputs, title in TITLES.items() if title == config.model), None)
        if inputs is None:
            raise PretrainedError(f"{folder / CONFIG}: no trees are called {config.model!r}; get a newer zoo")
        try:
            model = BoostedTrees(contents[TREES].decode(), inputs, table.names, context_table.names)
        except (ForestError, UnicodeDecodeError) as error:
            raise PretrainedError(f"{folder / TREES}: {error}; get the folder again") from error
        if list(model.forest.names) != config.observables:
            raise PretrainedError(f"{folder / TREES}: sees other 'observables' than config.json says")
        if model.num_classes != len(config.classes):
            raise PretrainedError(f"{folder / TREES}: has {model.num_classes} classes, not {', '.join(config.classes)}")
        return Parts(model.eval(), table, context_table)

    def dump(self, model: nn.Module) -> dict[str, bytes]:
        """The text of the trees; see `Kind`."""
        return {TREES: cast(BoostedTrees, model).text.encode()}


def untrained(model: nn.Module, kind: str) -> dict[str, Tensor]:
    """The weights that a folder of this kind does not hold: the read-out of a backbone."""
    if kind != "backbone":
        return {}
    return {name: value for name, value in model.state_dict().items() if is_readout(name, model)}


def tables(folder: Path, config: PretrainedConfig) -> tuple[FeatureTable, ContextTable]:
    """The tables that make the inputs of a model.

    Raises:
        PretrainedError: if they are wrong in the config.
    """
    try:
        has_none = config.kind == "trees" and config.features == {"features": []}  # substructure needs momenta only
        table = FeatureTable(()) if has_none else FeatureTable.from_dict(config.features)
        return table, NO_CONTEXT if config.context is None else ContextTable.from_dict(config.context)
    except (ValueError, RecursionError, MemoryError) as error:
        raise PretrainedError(f"{folder / CONFIG}: {error}; get a newer zoo, or the folder again") from error


def parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors in a safetensors file.

    Raises:
        PretrainedError: if it is not such a file.
    """
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise PretrainedError(f"{path}: is not a safetensors file ({error}); a pickle is never read") from error
