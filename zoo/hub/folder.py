"""Pretrained folders on disk, and the models in them."""

import contextlib
import dataclasses
import difflib
import functools
import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from zoo.data.context import NO_CONTEXT, ContextTable
from zoo.data.features import NO_COLUMNS, FeatureTable
from zoo.data.odd_jets import OddJetsWarning
from zoo.data.ranges import InputRanges, RangeCheck, quantities, require_momenta
from zoo.files import atomic_folder, atomic_write, disk_errors_name, sync
from zoo.hub.config import PretrainedConfig, PretrainedError, parse_config
from zoo.hub.contents import CARD, CONFIG, GOLDEN, SUMS, checksums, listed, read_checked, require_files
from zoo.hub.ensemble import Members
from zoo.hub.golden import make_golden, verify_golden
from zoo.hub.hf import SCHEME, fetch, parse_address
from zoo.hub.kinds import Backbone, Kind, Network, Parts, Trees, parse_tensors, tables
from zoo.hub.tasks import TaskFolder
from zoo.model import JetModel

#: Folder of the models that ship with the package.
PACKAGED = Path(__file__).parents[1] / "pretrained"

#: ``kind`` of a config -> what it means.
KIND: dict[str, Kind] = {
    "tagger": Network(),
    "backbone": Backbone(),
    "trees": Trees(),
    "ensemble": Members(),
    "task": TaskFolder(),
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A model that is ready to use.

    Args:
        model: model in evaluation mode; for a backbone, what comes after ``encode`` is random.
        feature_table: table of the features that it was trained on.
        config: all that is known about it.
        context_table: table of the inputs that describe an event as a whole; often empty.

    Example:
        >>> tagger = load_pretrained("lorentznet.top_tagging")
        >>> phi = torch.linspace(-0.4, 0.4, 30)  # 30 particles of 20 GeV in a fan
        >>> four_momenta = 20 * torch.stack([torch.ones(30), phi.cos(), phi.sin(), torch.zeros(30)], dim=-1)
        >>> tagger(four_momenta[None], torch.ones(1, 30, dtype=torch.bool)).shape
        torch.Size([1, 2])
    """

    model: nn.Module
    feature_table: FeatureTable
    config: PretrainedConfig
    context_table: ContextTable = NO_CONTEXT

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(itertools.chain(self.model.parameters(), self.model.buffers())).device

    @property
    def parts(self) -> Parts:
        """The model with the tables that make its inputs."""
        return Parts(self.model, self.feature_table, self.context_table)

    @torch.no_grad()
    def __call__(self, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> Any:
        """Logits (batch, class) of jets; for a task without classes, its answers by name, (batch,) each.

        Args:
            four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
            mask: (batch, particle), True for a real particle.
            columns: what the features need besides the momenta, ``feature_table.columns``, (batch, particle) each, such
                as ``part_charge``; the momenta of the jets if they are known, see `FeatureTable.padded`; and what the
                context needs, ``context_table.fields``, (batch,) each, such as ``met``.

        Raises:
            ValueError: if a column or a field that a feature needs is missing, the momenta are in another order, the
                mask calls zeros real, or the model is a backbone.

        Warns:
            OddJetsWarning: once for each quantity that lies outside the range of the training data.
        """
        require_momenta(four_momenta, mask)
        inputs = self.parts.inputs(four_momenta, mask, columns)
        self._check_ranges(inputs)
        return KIND[self.config.kind].reply(self.model, inputs)

    @torch.no_grad()
    def encode(self, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> Tensor:
        """Representation (node, embed_dim) of the real particles of all jets, in the order of ``mask``.

        The arguments are those of a call.

        Raises:
            ValueError: if a column that a feature needs is missing, the momenta are in another order, or the mask calls
                zeros real.
            AttributeError: if the model has no ``encode``.
        """
        require_momenta(four_momenta, mask)
        features = self.feature_table.padded(four_momenta, mask, columns)
        inputs = {"features": features, "four_momenta": four_momenta, "mask": mask}
        self._check_ranges(inputs)
        return cast(JetModel, self.network or self.model).encode(**inputs)

    @property
    def network(self) -> nn.Module | None:
        """The only network in it; None: there is none, or there are several."""
        return KIND[self.config.kind].network(self.model)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of `answer`; none for a backbone."""
        return KIND[self.config.kind].names(self.config)

    @torch.no_grad()
    def answer(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The output for inputs made by `parts`, (batch, name)."""
        return KIND[self.config.kind].answer(self.model, inputs)

    @functools.cached_property
    def ranges(self) -> InputRanges | None:
        """Ranges of the training data; None: unknown."""
        return None if self.config.inputs is None else InputRanges.from_dict(self.config.inputs)

    @functools.cached_property
    def _told(self) -> set[str]:
        """Quantities for which a warning has been given."""
        return set()

    def _check_ranges(self, inputs: Mapping[str, Tensor]) -> None:
        if self.ranges is None:
            return
        check = RangeCheck(self.ranges)
        check.update(quantities(inputs, self.feature_table, self.context_table))
        new = {name: finding for name, finding in check.findings().items() if name not in self._told}
        if new:
            self._told.update(new)
            warnings.warn(OddJetsWarning(f"{self.config.model}: odd: {'; '.join(new.values())}"), stacklevel=4)


def list_pretrained() -> list[str]:
    """Names of the models that ship with the package, for `load_pretrained`.

    Example:
        >>> "lorentznet.top_tagging" in list_pretrained()
        True
    """
    return sorted(path.parent.name for path in PACKAGED.glob(f"*/{CONFIG}"))


def save_pretrained(
    folder: str | Path,
    model: nn.Module,
    config: PretrainedConfig,
    four_momenta: Tensor,
    mask: Tensor,
    card: str,
    *,
    columns: Mapping[str, Tensor] = NO_COLUMNS,
) -> None:
    """Write a pretrained folder, all or nothing.

    Args:
        folder: folder to write; must not exist yet.
        model: model of the kind ``config.kind``, such as built by ``config.model``.
        config: what is known about it.
        four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV: some jets that are stored with the model, together
            with their features and logits.
        mask: (batch, particle), True for a real particle.
        card: model card in Markdown.
        columns: what features and context need besides the momenta, as for a call of `Pretrained`.

    Raises:
        FileExistsError: if ``folder`` exists.
        ValueError: if a column is missing, or there are more or longer jets than a folder may hold.
        PretrainedError: if the written folder does not load, such as with weights of another architecture.
    """
    parts = Parts(model, *tables(Path(folder), config))
    save_parts(folder, parts, config, four_momenta, mask, card, columns)


def save_parts(
    folder: str | Path,
    parts: Parts,
    config: PretrainedConfig,
    four_momenta: Tensor,
    mask: Tensor,
    card: str,
    columns: Mapping[str, Tensor],
) -> None:
    """Write a pretrained folder for more than a network and its tables; see `save_pretrained`."""
    folder = Path(folder)
    _require_free(folder)
    parts.model.eval()
    golden = make_golden(parts, KIND[config.kind], four_momenta, mask, columns)
    values = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    contents = {
        CONFIG: (json.dumps(values, indent=2) + "\n").encode(),
        **KIND[config.kind].dump(parts.model),
        GOLDEN: save_tensors({name: value.contiguous() for name, value in golden.items()}),
        CARD: card.encode(),
    }
    write_folder(folder, {**contents, SUMS: checksums(contents)})


def write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write the files of a pretrained folder, all or nothing.

    Raises:
        FileExistsError: if ``folder`` exists.
        PretrainedError: if the written folder does not load.
    """
    _require_free(folder)
    with atomic_folder(folder) as draft:
        for name, content in contents.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            with disk_errors_name(folder / name), (draft / name).open("wb") as file:
                file.write(content)
                sync(file)
        load_pretrained(draft)


def load_pretrained(name: str | Path) -> Pretrained:
    """Load a pretrained model, after verifying its checksums and golden outputs.

    Args:
        name: one of `list_pretrained`; a folder; or ``hf://owner/repo@commit`` on the Hugging Face Hub, with all 40
            digits of the commit. It is fetched once and needs no network afterwards.

    Raises:
        FileNotFoundError: if there is no such model; the message suggests the closest names.
        PretrainedError: if a file is missing, altered, a pickle, or from another model; if a key of the config is
            missing, unknown or of the wrong type; or if the logits differ from the stored ones.
        ValueError: if an address on the Hub names no commit; the message says which one to name.
        ModuleNotFoundError: if the extra ``hub`` is needed but not installed.
        OSError: if the Hub cannot be reached.
    """
    with _advised(name):
        folder = find_pretrained(name)
        return load_contents(folder, read_checked(folder))


def load_contents(folder: Path, contents: Mapping[str, bytes]) -> Pretrained:
    """The pretrained model in the files of a folder, after verifying its golden outputs; see `load_pretrained`."""
    config, parts = _load(folder, contents)
    return Pretrained(parts.model, parts.feature_table, config, parts.context_table)


def _load(folder: Path, contents: Mapping[str, bytes]) -> tuple[PretrainedConfig, Parts]:
    config = parse_config(folder / CONFIG, contents[CONFIG])
    if config.inputs is not None:
        _check_ranges_of(folder / CONFIG, config.inputs)
    kind = KIND[config.kind]
    require_files(folder, contents, kind.files, config.members or [])
    parts = kind.build(folder, config, contents, _load)
    golden = parse_tensors(folder / GOLDEN, contents[GOLDEN])
    verify_golden(folder / GOLDEN, parts, kind, config.format_version, golden)
    return config, parts


def _check_ranges_of(path: Path, inputs: dict[str, Any]) -> None:
    try:
        InputRanges.from_dict(inputs)
    except ValueError as error:
        raise PretrainedError(f"{path}: {error}; get a newer zoo, or the folder again") from error


def replace_card(folder: Path, write: Callable[[PretrainedConfig], str]) -> None:
    """Replace the card of a folder; every other file is compared with its checksum and stays.

    Args:
        folder: pretrained folder; a damaged card in it is not an error.
        write: function that gives the text of the card.

    Raises:
        PretrainedError: if another file than the card is missing or altered, or the config is wrong.
    """
    contents = read_checked(folder, besides=CARD)
    contents[CARD] = write(parse_config(folder / CONFIG, contents[CONFIG])).encode()
    for name, content in ((CARD, contents[CARD]), (SUMS, checksums(contents))):
        with atomic_write(folder / name) as file:
            file.write(content)


def _require_free(folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it or choose another folder")


@contextlib.contextmanager
def _advised(name: str | Path) -> Iterator[None]:
    """Adds to each error about a folder in the cache how to replace that folder."""
    try:
        yield
    except PretrainedError as error:
        if str(name).startswith(SCHEME):
            raise PretrainedError(f"{error} (fetch it again: zoo hub pull --force {name})") from error
        raise


def find_pretrained(name: str | Path, *, force: bool = False) -> Path:
    """The folder of a pretrained model, fetched if necessary and not yet verified; see `load_pretrained`.

    Args:
        name: as for `load_pretrained`.
        force: whether to fetch again what is already in the cache.
    """
    if str(name).startswith(SCHEME):
        address = parse_address(str(name))
        folder = fetch(address, [SUMS], force=force)
        return fetch(address, list(listed(folder, (folder / SUMS).read_bytes())), force=force)
    if "://" in str(name):
        raise PretrainedError(
            f"{name}: only folders and {SCHEME}owner/repo@commit are loaded; download the folder first"
        )
    for folder in (Path(name), PACKAGED / str(name)):
        if (folder / "config.yaml").is_file() and not (folder / CONFIG).exists():
            raise PretrainedError(
                f"{folder}: is a run; make a pretrained folder of it, zoo publish {folder} --out NAME, or use it as it "
                f"is, zoo predict FILE --run-folder {folder}"
            )
        if folder.is_dir():
            return folder
    known = list_pretrained()
    hint = difflib.get_close_matches(str(name), known, n=3) or known
    raise FileNotFoundError(f"no pretrained model or folder {str(name)!r}; did you mean {', '.join(hint)}?")
