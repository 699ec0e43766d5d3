"""Sharing pretrained folders: which there are, and how to push and pull one."""

from pathlib import Path

from zoo.hub import (
    PACKAGED,
    PretrainedConfig,
    PretrainedError,
    find_pretrained,
    list_pretrained,
    load_contents,
    load_pretrained,
    parse_config,
    read_checked,
    write_folder,
)
from zoo.hub.contents import CONFIG, SUMS
from zoo.hub.hf import Address, cached, upload


def push(folder: Path, repository: str, *, create: bool = False) -> Address:
    """Upload a folder to the Hugging Face Hub, after verifying it as for loading.

    Args:
        folder: pretrained folder.
        repository: ``owner/repo``.
        create: create the repository, public, if it does not exist.

    Returns:
        The address to load it from.

    Raises:
        PretrainedError: if the folder does not load; nothing is uploaded.
        ValueError: if ``repository`` is not the name of a repository.
        OSError: if the Hub cannot be reached or refuses.
    """
    contents = read_checked(find_pretrained(folder))
    load_contents(folder, contents)
    return upload(contents, repository, create=create)


def pull(address: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Fetch a pretrained folder, so that it needs no network later, and verify it.

    Args:
        address: ``hf://owner/repo@commit``.
        out: folder to write; None leaves it in the cache.
        force: fetch again what is already in the cache, such as after damage.

    Returns:
        The folder.

    Raises:
        FileExistsError: if ``out`` exists.
        PretrainedError: if the folder does not load.
        ValueError: if the address names no commit.
        OSError: if the Hub cannot be reached.
    """
    folder = find_pretrained(address, force=force)
    load_pretrained(address)
    if out is None:
        return folder
    write_folder(out, read_checked(folder))
    return out


def show_pretrained() -> None:
    """Print the models that ship with the package and those in the cache, without verifying them."""
    folders = {name: PACKAGED / name for name in list_pretrained()}
    folders |= {str(address): folder for address, folder in cached((SUMS, CONFIG)).items()}
    rows = [("name", "model", "data", "AUC", "size")]
    for name, folder in folders.items():
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        rows.append((name, *_facts(folder), f"{size / 1e6:.1f} MB"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:  # a rich table would wrap an address, which is there to be copied
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _facts(folder: Path) -> tuple[str, str, str]:
    try:
        config = parse_config(folder / "config.json", (folder / "config.json").read_bytes())
    except PretrainedError:
        return "damaged", "", ""
    return config.model, config.dataset, _auc(config)


def _auc(config: PretrainedConfig) -> str:
    figure = config.metrics.get("auc")
    return f"{figure['value']:.5f} ± {figure['error']:.5f}" if isinstance(figure, dict) else ""
