"""Frozen facts of the data sets: classes in order, units, where they come from, and the packaged samples."""

import dataclasses
import difflib
import importlib.resources
from pathlib import Path

SAMPLE_PREFIX = "sample:"


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Facts of one data set.

    Args:
        name: name in configurations and file metadata.
        classes: class names; a jet's label is an index into them.
        units: unit of momenta and energies.
        max_particles: most constituents that a jet has in the source files.
        jets: number of jets of each source file.
        source: where the files are.
        citation: paper.
        licence: licence of the files.
    """

    name: str
    classes: tuple[str, ...]
    units: str
    max_particles: int
    jets: tuple[tuple[str, int], ...]
    source: str
    citation: str
    licence: str


DATASETS = {
    "top_tagging": Dataset(
        name="top_tagging",
        classes=("qcd", "top"),
        units="GeV",
        max_particles=200,
        jets=(("train.h5", 1_211_000), ("val.h5", 403_000), ("test.h5", 404_000)),
        source="https://zenodo.org/records/2603256",
        citation="Kasieczka et al., The Machine Learning Landscape of Top Taggers (2019), arXiv:1902.09914",
        licence="CC-BY-4.0",
    )
}


def describe_dataset(name: str) -> Dataset:
    """The facts of the data set called ``name``.

    Raises:
        ValueError: if there is none; the message suggests the closest ones.

    Example:
        >>> describe_dataset("top_tagging").classes
        ('qcd', 'top')
    """
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1) or list(DATASETS)
        raise ValueError(f"dataset: no data set is called {name!r}; did you mean {', '.join(close)}?")
    return DATASETS[name]


def resolve_file(name: str | Path) -> Path:
    """Path of a file; ``sample:top_tagging/train`` names a sample inside the package.

    Raises:
        FileNotFoundError: if there is no such file or sample; the message says what to do.
    """
    if not str(name).startswith(SAMPLE_PREFIX):
        path = Path(name).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"files: {path} is not a file; give a path that exists or a name like {_EXAMPLE}")
        return path
    sample = str(name).removeprefix(SAMPLE_PREFIX)
    folder = importlib.resources.files("zoo.data") / "samples"
    path = Path(str(folder / f"{sample.replace('/', '_')}.arrow"))
    if not path.is_file():
        there = ", ".join(_sample_names(path.parent)) or "none; make jets with 'zoo simulate'"
        raise FileNotFoundError(f"files: this installation has no sample {name!r}; it has: {there}")
    return path


_EXAMPLE = f"{SAMPLE_PREFIX}top_tagging/train"


def _sample_names(folder: Path) -> list[str]:
    stems = (path.stem.rsplit("_", 1) for path in sorted(folder.glob("*_*.arrow")))
    return [f"{SAMPLE_PREFIX}{dataset}/{split}" for dataset, split in stems]
