"""Pretrained folders: a model with all it takes to use it rightly, checked before it is trusted.

A folder holds ``config.json``, ``model.safetensors``, ``golden.safetensors`` (inputs and what they gave), a card
``README.md``, and ``SHA256SUMS`` over the others. It is of a tagger, which gives logits, or of a backbone, which was
trained without labels and gives a representation of each particle. Nothing in it is ever unpickled.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.features import NO_COLUMNS, FeatureTable
from zoo.files import atomic_write, sync, sync_folder
from zoo.hf import SCHEME, fetch, parse_address
from zoo.registry import create_model, is_readout

#: Folder of the models that ship with the package.
PACKAGED = Path(__file__).parent / "pretrained"

FORMAT_VERSION = 2
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
#: All that a folder holds.
FILES = (_SUMS, *_CHECKED)
_GOLDEN_INPUTS = {"features", "four_momenta", "mask"}
#: What a folder may be of, and what the golden outputs are called.
_OUTPUT = {"tagger": "logits", "backbone": "representation"}
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


class PretrainedError(ValueError):
    """A pretrained folder cannot be trusted; the message names the file and the remedy."""


@dataclasses.dataclass(frozen=True)
class PretrainedConfig:
    """What ``config.json`` says.

    Args:
        model: registered name, see `zoo.list_models`.
        classes: class names; the order is that of the logits; none for a backbone.
        features: the feature table, with every centre and scale.
        dataset: what it was trained on.
        units: of energies and momenta.
        metrics: measured figures with their errors.
        licence: of the weights.
        paper: of the architecture.
        training: how it came about, as far as it is known, see `zoo.card`.
        kind: ``tagger``, or ``backbone``: the model up to its ``encode``, without its ``readout``.
        format_version: of the folder; folders of version 1 have no ``training``, ``kind`` and ``context``.
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
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "tagger"
    format_version: int = FORMAT_VERSION
    context: dict | None = None


#: Keys of ``config.json`` that may be left out, which folders of version 1 do.
_OPTIONAL = {"training", "kind", "context"}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model ready for use.

    Args:
        model: in evaluation mode; what comes after ``encode`` is random if it is a backbone.
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
            ValueError: if a column or a field that a feature needs is missing, or the model is a backbone.
        """
        if self.config.kind == "backbone":
            raise ValueError(f"{self.config.model}: a backbone gives no logits; use its 'encode', or fine-tune it")
        of_events = {name: columns[name] for name in self.context_table.fields if name in columns}
        of_particles = {name: values for name, values in columns.items() if name not in of_events}
        inputs = (self.feature_table.padded(four_momenta, mask, of_particles), four_momenta, mask)
        if not self.context_table.context_dim:
            return self.model(*inputs)
        return self.model(*inputs, self.context_table.standardise(len(mask), of_events))

    @torch.no_grad()
    def encode(self, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> Tensor:
        """Representation (node, embed_dim) of the real particles of all jets, in the order of ``mask``.

        The arguments are those of a call.

        Raises:
            ValueError: if a column that a feature needs is missing.
            AttributeError: if the model has no ``encode``.
        """
        return self.model.encode(self.feature_table.padded(four_momenta, mask, columns), four_momenta, mask)


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
    _require_free(folder)
    write_folder(folder, _contents(model, config, four_momenta, mask, card, features, context))


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a pretrained folder, all or nothing.

    Raises:
        FileExistsError: if ``folder`` exists.
        PretrainedError: if what was written does not load again.
    """
    _require_free(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name, content in contents.items():
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
        name: one of `list_pretrained`; or a folder; or ``hf://owner/repo@commit`` on the Hugging Face Hub, with all 40
            digits of the commit, which is fetched once and needs no network afterwards.

    Raises:
        FileNotFoundError: if there is no such model; the message suggests the closest names.
        PretrainedError: if a file is missing, altered, a pickle, or of another model, a key of the config is
            missing, unknown or of the wrong type, or the model gives other logits than stored.
        ValueError: if an address on the Hub names no commit; the message says which one to name.
        ModuleNotFoundError: if the extra ``hub`` is needed and not installed.
        OSError: if the Hub cannot be reached.
    """
    with _advised(name):
        folder = find_pretrained(name)
        return load_contents(folder, read_checked(folder))


def load_contents(folder: Path, contents: Mapping[str, bytes]) -> Pretrained:
    """The pretrained model in the files of a folder, once its golden outputs were verified; see `load_pretrained`."""
    config = parse_config(folder / _CONFIG, contents[_CONFIG])
    try:
        table = FeatureTable.from_dict(config.features)
        context_table = NO_CONTEXT if config.context is None else ContextTable.from_dict(config.context)
        model = create_model(config.model, input_dim=table.input_dim, num_classes=len(config.classes) or 1)
    except (KeyError, ValueError) as error:
        raise PretrainedError(f"{folder / _CONFIG}: {error.args[0]}; get a newer zoo, or the folder anew") from error
    if (taken := _context_dim(model, config.kind)) != context_table.context_dim:
        raise PretrainedError(
            f"{folder / _CONFIG}: {config.model} takes {taken} context features, 'context' has "
            f"{context_table.context_dim}; get the folder anew"
        )
    weights = _parse_tensors(folder / _WEIGHTS, contents[_WEIGHTS])
    _require_encode(model, config)
    random = untrained(model, config.kind)
    if random.keys() & weights.keys():
        raise PretrainedError(
            f"{folder / _WEIGHTS}: holds {min(random.keys() & weights.keys())}, which no backbone has"
        )
    try:
        model.load_state_dict({**random, **weights})
    except RuntimeError as error:
        raise PretrainedError(f"{folder / _WEIGHTS}: are not the weights of {config.model}: {error}") from error
    model.eval()
    golden = _parse_tensors(folder / _GOLDEN, contents[_GOLDEN])
    _verify_golden(folder / _GOLDEN, model, config.kind, golden)
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
    _require_encode(model, config)
    golden = {"features": features, "four_momenta": four_momenta, "mask": mask}
    if config.context is not None:
        golden["context"] = context
    golden[_OUTPUT[config.kind]] = _answer(model, config.kind, golden)
    left_out = untrained(model, config.kind)
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if name not in left_out}
    values = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    contents = {
        _CONFIG: (json.dumps(values, indent=2) + "\n").encode(),
        _WEIGHTS: save_tensors(weights),
        _GOLDEN: save_tensors({name: value.contiguous() for name, value in golden.items()}),
        _CARD: card.encode(),
    }
    return {**contents, _SUMS: _sums(contents)}


def _require_encode(model: nn.Module, config: PretrainedConfig) -> None:
    if config.kind == "backbone" and not hasattr(model, "encode"):
        raise PretrainedError(f"{config.model}: has no 'encode', so it is no backbone; choose another model or kind")


def untrained(model: nn.Module, kind: str) -> dict[str, Tensor]:
    """The weights that a folder of this kind does not hold: those of the read-out of a backbone."""
    if kind == "tagger":
        return {}
    return {name: value for name, value in model.state_dict().items() if is_readout(name, model)}


def _context_dim(model: nn.Module, kind: str) -> int:
    """Context features that the output of such a folder depends on; a representation of particles has none."""
    return getattr(model, "context_dim", 0) if kind == "tagger" else 0


@torch.no_grad()
def _answer(model: nn.Module, kind: str, inputs: Mapping[str, Tensor]) -> Tensor:
    return model(**inputs) if kind == "tagger" else model.encode(**inputs)


def replace_card(folder: Path, write: Callable[[PretrainedConfig], str]) -> None:
    """Write another card into a folder; every other file is compared with its checksum and stays.

    Args:
        folder: pretrained folder; a damaged card in it is no error.
        write: gives the text of the card.

    Raises:
        PretrainedError: if another file than the card is missing or altered, or the config is wrong.
    """
    contents = read_checked(folder, besides=_CARD)
    contents[_CARD] = write(parse_config(folder / _CONFIG, contents[_CONFIG])).encode()
    for name, content in ((_CARD, contents[_CARD]), (_SUMS, _sums({key: contents[key] for key in _CHECKED}))):
        with atomic_write(folder / name) as file:
            file.write(content)


def _sums(contents: Mapping[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in contents.items()).encode()


def _require_free(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or choose another folder")


@contextlib.contextmanager
def _advised(name: str | Path) -> Iterator[None]:
    """Says with each error of a folder in the cache how it is replaced."""
    try:
        yield
    except PretrainedError as error:
        if str(name).startswith(SCHEME):
            raise PretrainedError(f"{error} (fetch it anew: zoo hub pull --anew {name})") from error
        raise


def find_pretrained(name: str | Path, *, anew: bool = False) -> Path:
    """The folder of a pretrained model, fetched if need be and not yet verified; see `load_pretrained`.

    Args:
        name: as of `load_pretrained`.
        anew: whether to fetch what is in the cache already.
    """
    if str(name).startswith(SCHEME):
        return fetch(parse_address(str(name)), FILES, anew=anew)
    if "://" in str(name):
        raise PretrainedError(
            f"{name}: only folders and {SCHEME}owner/repo@commit are loaded; download the folder first"
        )
    for folder in (Path(name), PACKAGED / str(name)):
        if folder.is_dir():
            return folder
    known = list_pretrained()
    hint = difflib.get_close_matches(str(name), known, n=3) or known
    raise FileNotFoundError(f"no pretrained model or folder {str(name)!r}; did you mean {', '.join(hint)}?")


def read_checked(folder: Path, *, besides: str | None = None) -> dict[str, bytes]:
    """The files of a folder, compared with their checksums except for one.

    Raises:
        PretrainedError: if a file is missing or altered.
    """
    contents = {name: _read(folder / name) for name in FILES if name != besides}
    sums = {}
    for line in contents[_SUMS].decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        sums[name] = digest
    if sums.keys() != set(_CHECKED):
        raise PretrainedError(f"{folder / _SUMS}: must list {sorted(_CHECKED)}, lists {sorted(sums)}")
    for name, content in contents.items():
        if name != _SUMS and hashlib.sha256(content).hexdigest() != sums[name]:
            raise PretrainedError(f"{folder / name}: differs from its checksum in {_SUMS}; get the folder anew")
    return contents


def _read(path: Path) -> bytes:
    if path.is_file():
        return path.read_bytes()
    pickles = [other.name for other in path.parent.iterdir() if other.suffix in _PICKLES]
    hint = f"; {', '.join(pickles)} is not read, since a pickle can run any code" if pickles else ""
    raise PretrainedError(f"{path}: missing{hint}; get the folder anew, or write it with zoo.hub.save_pretrained")


def parse_config(path: Path, content: bytes) -> PretrainedConfig:
    """What the content of ``config.json`` says; ``path`` is for the messages.

    Raises:
        PretrainedError: if a key is missing, unknown or of the wrong type, or the version is unknown.
    """
    try:
        values = json.loads(content)
    except ValueError as error:
        raise PretrainedError(f"{path}: is not JSON ({error})") from error
    version = values.get("format_version") if isinstance(values, dict) else None
    if isinstance(version, int) and not 1 <= version <= FORMAT_VERSION:
        raise PretrainedError(f"{path}: format_version {version} is not 1 to {FORMAT_VERSION}; update zoo")
    fields = {field.name: field.type for field in dataclasses.fields(PretrainedConfig)}
    odd = values if not isinstance(values, dict) else sorted((fields.keys() - _OPTIONAL ^ values.keys()) - _OPTIONAL)
    if odd or not isinstance(values, dict):
        raise PretrainedError(f"{path}: keys must be exactly {sorted(fields)}; missing or unknown: {odd}")
    for name in values:
        kind = getattr(fields[name], "__origin__", fields[name])
        if not isinstance(values[name], kind):
            raise PretrainedError(f"{path}: {name!r} must be {getattr(kind, '__name__', kind)}, is {values[name]!r}")
    config = PretrainedConfig(**values)
    if config.kind not in _OUTPUT:
        raise PretrainedError(f"{path}: 'kind' must be one of {', '.join(_OUTPUT)}, is {config.kind!r}; update zoo")
    is_tagger = config.kind == "tagger"
    if bool(config.classes) != is_tagger or not all(isinstance(name, str) for name in config.classes):
        expected = "a list of names" if is_tagger else "empty for a backbone"
        raise PretrainedError(f"{path}: 'classes' must be {expected}, is {config.classes!r}")
    return config


def _parse_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load_tensors(content)
    except SafetensorError as error:
        raise PretrainedError(f"{path}: is not a safetensors file ({error}); a pickle is never read") from error


def _verify_golden(path: Path, model: nn.Module, kind: str, golden: dict[str, Tensor]) -> None:
    output = _OUTPUT[kind]
    wanted = _GOLDEN_INPUTS | {output} | ({"context"} if _context_dim(model, kind) else set())
    if golden.keys() != wanted:
        raise PretrainedError(f"{path}: must hold {sorted(wanted)}, holds {sorted(golden)}")
    expected = golden.pop(output)
    found = _answer(model, kind, golden)
    if found.shape != expected.shape:
        raise PretrainedError(f"{path}: {output} of shape {tuple(expected.shape)}, the model's {tuple(found.shape)}")
    deviation = ((found - expected).abs().max() / expected.abs().max().clamp(min=1)).item()
    if not deviation < GOLDEN_TOLERANCE:
        raise PretrainedError(
            f"{path}: the model's {output} differ from the stored ones by {deviation:.1e} of the largest, more than "
            f"{GOLDEN_TOLERANCE:.0e}; weights and code do not belong together, use the zoo version of the card"
        )
