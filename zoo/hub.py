"""Pretrained folders: a model with all it takes to use it rightly, checked before it is trusted.

A folder holds ``config.json``, ``model.safetensors``, ``golden.safetensors`` (inputs and the logits they gave), a card
``README.md``, and ``SHA256SUMS`` over the others. Nothing in it is ever unpickled.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.features import NO_COLUMNS, FeatureTable
from zoo.files import sync, sync_folder
from zoo.registry import create_model

#: Folder of the models that ship with the package.
PACKAGED = Path(__file__).parent / "pretrained"

FORMAT_VERSION = 1
#: Largest change of a golden logit, relative to the largest of them, that another processor may cause.
GOLDEN_TOLERANCE = 1e-4

_CONFIG, _WEIGHTS, _GOLDEN, _CARD, _SUMS = (
    "config.json",
    "model.safetensors",
    "golden.safetensors",
    "README.md",
    "SHA256SUMS",
)
_CHECKED = (_CONFIG, _WEIGHTS, _GOLDEN, _CARD)
_GOLDEN_TENSORS = {"features", "four_momenta", "mask", "logits"}
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


class PretrainedError(ValueError):
    """A pretrained folder cannot be trusted; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """What ``config.json`` says.

    Args:
        model: registered name, see `zoo.list_models`.
        classes: class names; the order is that of the logits.
        features: the feature table, with every centre and scale.
        dataset: what it was trained on.
        units: of energies and momenta.
        metrics: measured figures with their errors.
        licence: of the weights.
        paper: of the architecture.
        format_version: of the folder.
        context: the table of context features, with every centre and scale; None: the model takes no context.
    """

    model: str
    classes: list[str]
    features: dict[str, Any]
    dataset: str
    units: str
    metrics: dict[str, Any]
    licence: str
    paper: str
    format_version: int = FORMAT_VERSION
    context: dict | None = None


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model ready for use.

    Args:
        model: in evaluation mode.
        feature_table: of the inputs it was trained on.
        config: all that is known of it.
        context_table: of the inputs of an event as a whole; often none.

    Example:
        >>> tagger = load_pretrained("lorentznet.top_tagging")
        >>> four_momenta = torch.tensor([[[500.0, 300, 400, 0], [100, 60, 80, 0]]])
        >>> tagger(four_momenta, torch.tensor([[True, True]])).shape
        torch.Size([1, 2])
    """

    model: nn.Module
    feature_table: FeatureTable
    config: PretrainedConfig
    context_table: ContextTable = NO_CONTEXT

    @torch.no_grad()
    def __call__(self, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> Tensor:
        """Logits (batch, class) of jets.

        Args:
            four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
            mask: (batch, particle), True for a real particle.
            columns: what the features need beside the momenta, ``feature_table.columns``, (batch, particle) each, such
                as ``part_charge``; the momenta of the jets where they are known, see `FeatureTable.padded`; and what
                the context needs, ``context_table.fields``, (batch,) each, such as ``met``.

        Raises:
            ValueError: if a column or a field that a feature needs is missing.
        """
        of_events = {name: columns[name] for name in self.context_table.fields if name in columns}
        of_particles = {name: values for name, values in columns.items() if name not in of_events}
        inputs = (self.feature_table.padded(four_momenta, mask, of_particles), four_momenta, mask)
        if not self.context_table.context_dim:
            return self.model(*inputs)
        return self.model(*inputs, self.context_table.standardise(len(mask), of_events))


def list_pretrained() -> list[str]:
    """Names of the models that ship with the package, for `load_pretrained`.

    Example:
        >>> "lorentznet.top_tagging" in list_pretrained()
        True
    """
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{_CONFIG}"))


def save_pretrained(
    folder: str | Path,
    model: nn.Module,
    config: PretrainedConfig,
    four_momenta: Tensor,
    mask: Tensor,
    card: str,
    *,
    features: Tensor | None = None,
    context: Tensor | None = None,
) -> None:
    """Write a pretrained folder, all or nothing.

    Args:
        folder: where; must not exist yet.
        model: built by ``config.model``.
        config: what to know of it.
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV: some jets whose logits are stored with it.
        mask: (batch, particle), True for a real particle.
        card: text of the model card in Markdown.
        features: (batch, particle, feature) of these jets; None computes them of the momenta, if those are enough.
        context: (batch, context_feature) of these jets, for a model that takes it.

    Raises:
        FileExistsError: if ``folder`` exists.
        ValueError: if ``features`` are not given and the momenta are not enough, or have another shape.
        PretrainedError: if what was written does not load again, such as weights of another architecture.
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in _contents(model, config, four_momenta, mask, card, features, context).items():
            with (draft / name).open("wb") as file:
                file.write(content)
                sync(file)
        load_pretrained(draft)
        draft.chmod(0o755)
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_folder(folder.parent)


def load_pretrained(name: str | Path) -> Pretrained:
    """A pretrained model, after its checksums and its golden outputs were verified.

    Args:
        name: one of `list_pretrained`, or a folder.

    Raises:
        FileNotFoundError: if there is no such model; the message suggests the closest names.
        PretrainedError: if a file is missing, altered, a pickle, or of another model, a key of the config is
            missing, unknown or of the wrong type, or the model gives other logits than stored.
    """
    folder = _find(name)
    contents = _read_checked(folder)
    config = _parse_config(folder / _CONFIG, contents[_CONFIG])
    try:
        table = FeatureTable.from_dict(config.features)
        context_table = NO_CONTEXT if config.context is None else ContextTable.from_dict(config.context)
        model = create_model(config.model, input_dim=table.input_dim, num_classes=len(config.classes))
    except (KeyError, ValueError) as error:
        raise PretrainedError(f"{folder / _CONFIG}: {error.args[0]}; get a newer zoo, or the folder anew") from error
    if getattr(model, "context_dim", 0) != context_table.context_dim:
        raise PretrainedError(
            f"{folder / _CONFIG}: {config.model} takes {getattr(model, 'context_dim', 0)} context features, 'context' "
            f"has {context_table.context_dim}; get the folder anew"
        )
    weights = _parse_tensors(folder / _WEIGHTS, contents[_WEIGHTS])
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise PretrainedError(f"{folder / _WEIGHTS}: are not the weights of {config.model}: {error}") from error
    model.eval()
    _verify_golden(folder / _GOLDEN, model, _parse_tensors(folder / _GOLDEN, contents[_GOLDEN]))
    return Pretrained(model, table, config, context_table)


def _contents(
    model: nn.Module,
    config: PretrainedConfig,
    four_momenta: Tensor,
    mask: Tensor,
    card: str,
    features: Tensor | None,
    context: Tensor | None,
) -> dict[str, bytes]:
    model.eval()
    table = FeatureTable.from_dict(config.features)
    if features is None:
        features = table.padded(four_momenta, mask)
    if features.shape != (*mask.shape, table.input_dim):
        raise ValueError(f"features: must be {(*mask.shape, table.input_dim)} like the jets, not {(*features.shape,)}")
    golden = {"features": features, "four_momenta": four_momenta, "mask": mask}
    if config.context is not None:
        golden["context"] = context
    with torch.no_grad():
        golden["logits"] = model(**golden)
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    values = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    contents = {
        _CONFIG: (json.dumps(values, indent=2) + "\n").encode(),
        _WEIGHTS: save_tensors(weights),
        _GOLDEN: save_tensors({name: value.contiguous() for name, value in golden.items()}),
        _CARD: card.encode(),
    }
    sums = (f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items())
    return {**contents, _SUMS: "".join(sums).encode()}


def _find(name: str | Path) -> Path:
    if "://" in str(name):
        raise PretrainedError(f"{name}: only local folders are loaded; download the folder first")
    for folder in (Path(name), PACKAGED / str(name)):
        if folder.is_dir():
            return folder
    known = list_pretrained()
    hint = difflib.get_close_matches(str(name), known, n=3) or known
    raise FileNotFoundError(f"no pretrained model or folder {str(name)!r}; did you mean {', '.join(hint)}?")


def _read_checked(folder: Path) -> dict[str, bytes]:
    contents = {name: _read(folder / name) for name in (_SUMS, *_CHECKED)}
    sums = {}
    for line in contents.pop(_SUMS).decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    if sums.keys() != contents.keys():
        raise PretrainedError(f"{folder / _SUMS}: must list {sorted(contents)}, lists {sorted(sums)}")
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != sums[name]:
            raise PretrainedError(f"{folder / name}: differs from its checksum in {_SUMS}; get the folder anew")
    return contents


def _read(path: Path) -> bytes:
    if path.is_file():
        return path.read_bytes()
    pickles = [other.name for other in path.parent.iterdir() if other.suffix in _PICKLES]
    hint = f"; {', '.join(pickles)} is not read, since a pickle can run any code" if pickles else ""
    raise PretrainedError(f"{path}: missing{hint}; get the folder anew, or write it with zoo.hub.save_pretrained")


def _parse_config(path: Path, content: bytes) -> PretrainedConfig:
    try:
        values = json.loads(content)
    except ValueError as error:
        raise PretrainedError(f"{path}: is not JSON ({error})") from error
    fields = {field.name: field.type for field in dataclasses.fields(PretrainedConfig)}
    if isinstance(values, dict):
        values = {"context": None} | values  # left out where a model takes none
    if not isinstance(values, dict) or values.keys() != fields.keys():
        odd = sorted(values.keys() ^ fields.keys()) if isinstance(values, dict) else values
        raise PretrainedError(f"{path}: keys must be exactly {sorted(fields)}; missing or unknown: {odd}")
    for name, expected in fields.items():
        kind = getattr(expected, "__origin__", expected)
        if not isinstance(values[name], kind):
            raise PretrainedError(f"{path}: {name!r} must be {getattr(kind, '__name__', kind)}, is {values[name]!r}")
    config = PretrainedConfig(**values)
    if config.format_version != FORMAT_VERSION:
        raise PretrainedError(f"{path}: format_version {config.format_version} is not {FORMAT_VERSION}; update zoo")
    if not config.classes or not all(isinstance(name, str) for name in config.classes):
        raise PretrainedError(f"{path}: 'classes' must be a list of names, is {config.classes!r}")
    return config


def _parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise PretrainedError(f"{path}: is not a safetensors file ({error}); a pickle is never read") from error


def _verify_golden(path: Path, model: nn.Module, golden: dict[str, Tensor]) -> None:
    wanted = _GOLDEN_TENSORS | ({"context"} if getattr(model, "context_dim", 0) else set())
    if golden.keys() != wanted:
        raise PretrainedError(f"{path}: must hold {sorted(wanted)}, holds {sorted(golden)}")
    expected = golden.pop("logits")
    with torch.no_grad():
        logits = model(**golden)
    if logits.shape != expected.shape:
        raise PretrainedError(f"{path}: logits of shape {tuple(expected.shape)}, the model's {tuple(logits.shape)}")
    deviation = ((logits - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
    if not deviation < GOLDEN_TOLERANCE:
        raise PretrainedError(
            f"{path}: the model's logits differ from the stored ones by {deviation:.1e} of the largest, more than "
            f"{GOLDEN_TOLERANCE:.0e}; weights and code do not belong together, use the zoo version of the card"
        )
