"""Classes of the files, and how a training merges several of them into one."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from zoo.data.hints import did_you_mean


@dataclasses.dataclass(frozen=True)
class MergedClasses:
    """How the classes of the files map to those of a training.

    Args:
        names: classes of the training; a label is an index into them.
        sources: classes of the files.
        of_source: for each class of the files, the class of the training.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    of_source: tuple[int, ...]

    @property
    def is_merged(self) -> bool:
        """Whether the classes differ from those of the files."""
        return self.names != self.sources

    def count(self, of_sources: np.ndarray) -> np.ndarray:
        """Number of jets of each class, int64 (class,), from the numbers for each class of the files."""
        counts = np.zeros(len(self.names), dtype=np.int64)
        np.add.at(counts, list(self.of_source), of_sources)
        return counts


def merge_classes(merge: Mapping[str, Sequence[str]] | None, sources: Sequence[str]) -> MergedClasses:
    """Merge classes of the files, or leave all as they are.

    Args:
        merge: for each new class in order, the classes that it is made of; each class of the files appears exactly
            once. None: no class changes.
        sources: classes of the files.

    Raises:
        ValueError: if a class is unknown, missing or given twice, a new one is made of none, or there is only one.

    Example:
        >>> merge_classes({"background": ["ttH", "ttZ"], "signal": ["tttt"]}, ["ttH", "ttZ", "tttt"]).of_source
        (0, 0, 1)
    """
    sources = tuple(sources)
    if merge is None:
        return MergedClasses(sources, sources, tuple(range(len(sources))))
    if len(merge) < 2:
        raise ValueError(f"merge: must give at least two classes, not {list(merge)}")
    for name, parts in merge.items():
        if not parts:
            raise ValueError(f"merge.{name}: is made of no class; name at least one of {', '.join(sources)}")
        for part in parts:
            if part not in sources:
                raise ValueError(f"merge.{name}: there is no class {part!r} in the data; {did_you_mean(part, sources)}")
    times = Counter(part for parts in merge.values() for part in parts)
    for source in sources:
        if times[source] != 1:
            found = "in no class; put it into one" if not times[source] else "in two places; leave it in one"
            raise ValueError(f"merge: {source!r} of the data is {found}")
    class_of = {part: label for label, parts in enumerate(merge.values()) for part in parts}
    return MergedClasses(tuple(merge), sources, tuple(class_of[source] for source in sources))
