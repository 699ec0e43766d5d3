"""Commands for pretrained folders, here and on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

from zoo.cli.signatures import Option


def list_pretrained() -> None:
    """The models that ship with the package or were fetched."""
    from zoo.hub.sharing import show_pretrained

    show_pretrained()


def verify(name: str) -> None:
    """Compare files with their checksums, and outputs with the stored ones.

    Args:
        name: a pretrained model, its folder, or hf://owner/repo@commit.
    """
    from zoo.hub import load_pretrained

    found = load_pretrained(name)
    purpose = f"for {', '.join(found.names)}" if found.names else "without a read-out, a backbone"
    print(f"{name}: checksums and golden outputs are right: {found.config.model} {purpose}")


def push(
    folder: Annotated[Path, Option("DIR")], repository: Annotated[str, Option("OWNER/REPO")], *, create: bool = False
) -> None:
    """Verify a folder and upload it to the Hugging Face Hub (extra 'hub').

    Args:
        folder: pretrained folder.
        repository: repository to upload to.
        create: create the repository, public, if it does not exist.
    """
    from zoo.hub.sharing import push

    print(push(folder, repository, create=create))


def pull(
    address: str,
    *,
    out: Annotated[Path | None, Option("DIR")] = None,
    force: Annotated[bool, Option(before=("--anew",))] = False,
) -> None:
    """Fetch a folder and verify it; later uses need no network (extra 'hub').

    Args:
        address: hf://owner/repo@commit.
        out: folder to write (default: only the cache).
        force: fetch again what is already in the cache, such as after damage.
    """
    from zoo.hub.sharing import pull

    print(pull(address, out, force=force))


def card(folder: Annotated[Path, Option("DIR")]) -> None:
    """Rewrite the card of a folder.

    Args:
        folder: pretrained folder.
    """
    from zoo.card import renew_card

    renew_card(folder)
