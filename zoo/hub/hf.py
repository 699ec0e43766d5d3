"""The Hugging Face Hub: named files of one commit, fetched once into its cache, and a new commit of them.

An address is ``hf://owner/repo@commit`` with all 40 digits of the commit, which fixes every byte that is fetched; a
branch or a tag may hold something else tomorrow. Needs the extra ``hub``.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

SCHEME = "hf://"

_REPOSITORY = r"[\w.-]+/[\w.-]+"
_ADDRESS = re.compile(rf"{SCHEME}(?P<repository>{_REPOSITORY})(?:@(?P<revision>\S+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

#: Name of the folder of a repository in the cache.
_CACHED_REPOSITORY = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")


@dataclasses.dataclass(frozen=True)
class Address:
    """One commit of a model repository.

    Example:
        >>> address = Address("owner/tagger", "0123456789" * 4)
        >>> str(address)
        'hf://owner/tagger@0123456789012345678901234567890123456789'
        >>> parse_address(str(address)) == address
        True
    """

    repository: str
    commit: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}@{self.commit}"


def parse_address(text: str) -> Address:
    """The address that ``text`` spells out.

    Raises:
        ValueError: if it is not an address, or names no commit; the message says which commit to name if the Hub can be
            reached.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text}: an address on the Hub is {SCHEME}owner/repo@commit")
    repository, revision = match["repository"], match["revision"]
    if revision is None or not _COMMIT.fullmatch(revision):
        found = f"{revision!r} is none" if revision else "it names none"
        raise ValueError(
            f"{text}: must name a commit by its 40 hexadecimal digits, {found}; {_advice(repository, revision)}"
        )
    return Address(repository, revision)


def fetch(address: Address, names: Sequence[str], *, force: bool = False) -> Path:
    """Folder in the cache that holds some files of a commit; only missing files are fetched.

    An interrupted transfer is resumed. Files in the cache need no network.

    Args:
        address: the commit.
        names: names of the files.
        force: fetch the files even if they are in the cache, such as after damage.

    Raises:
        ModuleNotFoundError: if the extra ``hub`` is not installed.
        FileNotFoundError: if the commit does not hold one of the files; the message says what it holds.
        OSError: if the Hub cannot be reached, does not know the commit, or breaks off; or if a file lies outside the
            folder of its repository in the cache.
    """
    hub = _import_hub()
    for name in names:
        with _told(f"{address}: {name}", "run this again; files that are whole are not fetched twice"):
            try:
                path = hub.hf_hub_download(
                    address.repository, name, revision=address.commit, force_download=force, library_name="zoo"
                )
            except hub.errors.RemoteEntryNotFoundError as error:
                held = hub.HfApi().list_repo_files(address.repository, revision=address.commit)
                raise FileNotFoundError(
                    f"{address}: {name} is missing, the repository holds {', '.join(held[:12])}; a pretrained folder "
                    f"has {', '.join(names)}; nothing else is fetched, least of all a pickle, which can run any code"
                ) from error
        folder = Path(path).parents[name.count("/")]
        _require_inside(Path(path), folder.parents[1], f"{address}: {name}")
    if folder.name != address.commit:
        raise OSError(f"{address}: the server sent the commit {folder.name} instead; check HF_ENDPOINT")
    return folder


def _require_inside(path: Path, repository: Path, what: str) -> None:
    """The client names a file after the ``ETag`` of the server; a hostile server can write any path there."""
    repository = repository.resolve()  # path is REPOSITORY/snapshots/COMMIT/NAME
    if not path.resolve().is_relative_to(repository):
        raise OSError(
            f"{what}: the server had it written to {path.resolve()}, outside {repository}; look at that file, delete "
            "it, and use another server (HF_ENDPOINT)"
        )


def upload(contents: Mapping[str, bytes], repository: str, *, create: bool = False) -> Address:
    """Commit files to a repository; its other files stay.

    Args:
        contents: name -> content of each file.
        repository: ``owner/repo``.
        create: create the repository, public, if it does not exist.

    Returns:
        The address of the commit.

    Raises:
        ModuleNotFoundError: if the extra ``hub`` is not installed.
        ValueError: if ``repository`` is not such a name.
        OSError: if the Hub cannot be reached or refuses; the message says why.
    """
    if not re.fullmatch(_REPOSITORY, repository):
        raise ValueError(f"{repository}: a repository on the Hub is owner/repo, and is pushed to without a commit")
    hub = _import_hub()
    api = hub.HfApi(library_name="zoo")
    with _told(f"{SCHEME}{repository}", "log in with 'hf auth login', or give --create if it does not exist yet"):
        if create:
            api.create_repo(repository, exist_ok=True)
        files = [hub.CommitOperationAdd(name, content) for name, content in contents.items()]
        commit = api.create_commit(repository, files, commit_message="Pretrained folder of the zoo")
    return Address(repository, commit.oid)


def cached(names: Sequence[str]) -> dict[Address, Path]:
    """Commits in the cache that hold all the files ``names``, and their folders; none without the extra ``hub``."""
    try:
        hub = _import_hub()
    except ModuleNotFoundError:
        return {}
    found = {}
    for folder in sorted(Path(hub.constants.HF_HUB_CACHE).glob("models--*/snapshots/*")):
        repository = _CACHED_REPOSITORY.fullmatch(folder.parents[1].name)
        if repository and all((folder / name).is_file() for name in names):
            found[Address(f"{repository['owner']}/{repository['name']}", folder.name)] = folder
    return found


def _advice(repository: str, revision: str | None) -> str:
    try:
        commit = _import_hub().HfApi().model_info(repository, revision=revision).sha
    except Exception:  # whatever the reason, there is no commit to suggest
        return f"its page on the Hub lists the commits, {SCHEME}{repository}@..."
    return f"{revision or 'the newest'} is now {Address(repository, commit)}"


def _import_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{SCHEME} addresses need huggingface_hub; install the extra 'hub': pip install 'hepzoo[hub]'"
        ) from error
    return huggingface_hub


@contextlib.contextmanager
def _told(what: str, remedy: str) -> Iterator[None]:
    """Turns errors of the Hub's client, which have many types and several lines, into one that says what to do."""
    hub = _import_hub()
    reasons = {
        hub.errors.RepositoryNotFoundError: "there is no such repository, or it is not open to you",
        hub.errors.RevisionNotFoundError: "the repository has no such commit",
        hub.errors.LocalEntryNotFoundError: "is not in the cache, and the Hub cannot be reached",
    }
    try:
        yield
    except Exception as error:
        if type(error) is FileNotFoundError:  # our own
            raise
        known = next((text for kind, text in reasons.items() if isinstance(error, kind)), None)
        reason = known or (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise OSError(f"{what}: {reason}; {remedy}") from error
