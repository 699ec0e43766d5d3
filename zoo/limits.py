"""Limits on what files may claim, in one place: beyond them there is an error within seconds, not a full memory.

The limits on checkpoints are where they are read (`zoo.torch_files`), those on golden jets in `zoo.hub.golden`.
"""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

#: Depth of nested lists and mappings in a YAML file; for JSON, Python's own limit applies.
MAX_DEPTH = 100

#: Number of values in a YAML file, including those that its aliases stand for.
MAX_YAML_VALUES = 1_000_000

#: Number of particles in a jet or event; a central lead-lead collision has some ten thousand.
MAX_PARTICLES = 100_000

#: Bytes of one row of an array in HDF5 or of a branch of a ROOT tree.
MAX_ROW_BYTES = 2**27

#: Numbers of one column in a row group of parquet.
MAX_GROUP_VALUES = 2**28

#: An HDF5 array that claims more bytes than this may exceed its stored size at most by this factor.
LARGE_BYTES = 2**30
MAX_EXPANSION = 10_000

#: Time limit for the regular expressions of a file, which can be made to take years.
PATTERN_SECONDS = 2.0


def parse_json(content: str | bytes) -> Any:
    """The values in JSON.

    Raises:
        ValueError: if it is not JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("its lists and objects are nested too deeply") from None


def parse_yaml(content: str | bytes, loader: type | None = None) -> Any:
    """The plain values in YAML.

    Args:
        content: text.
        loader: class of `yaml` that builds the values; None: the safe one.

    Raises:
        ValueError: if it is not YAML (the message names the line), is nested too deeply, or its aliases stand for too
            much.
    """
    import yaml

    try:
        _check_yaml(yaml.parse(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        return yaml.load(content, loader or yaml.SafeLoader)
    except yaml.YAMLError as error:
        # the caller names the file; yaml only knows that it was given a string
        told = re.sub(r'\bin "<(?:byte|unicode) string>", ', "at ", str(error))
        raise ValueError(f"is no YAML: {' '.join(told.split())}") from error


def _check_yaml(events: Any) -> None:
    """Count the values of YAML, repeating those of aliases, before anything is built."""
    import yaml

    sizes: dict[str | None, int] = {}
    open_ones: list[tuple[str | None, int]] = [(None, 0)]  # anchor and number of values so far
    for event in events:
        size = 0
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            sizes[event.anchor] = size
        elif isinstance(event, yaml.CollectionStartEvent):
            open_ones.append((event.anchor, 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_ones.pop()
            sizes[anchor] = size
        anchor, before = open_ones[-1]
        open_ones[-1] = (anchor, before + size)
        if len(open_ones) > MAX_DEPTH:
            raise ValueError(f"its lists and mappings are nested more than {MAX_DEPTH} deep; write them flat")
        if open_ones[-1][1] > MAX_YAML_VALUES:
            raise ValueError(f"it holds more than {MAX_YAML_VALUES} values, with those that its aliases stand for")


@functools.lru_cache(maxsize=4096)
def first_match(patterns: Sequence[str], text: str) -> str | None:
    """The first of some regular expressions that is found in a text, None if none is.

    Raises:
        ValueError: if that takes longer than `PATTERN_SECONDS`.
    """
    if all(map(_is_quick, patterns)) and len(text) < 512:
        return next((pattern for pattern in patterns if re.search(pattern, text)), None)
    code = "import json, re, sys; *patterns, text = json.load(sys.stdin); print(json.dumps("
    code += "next((p for p in patterns if re.search(p, text)), None)))"
    command = [sys.executable, "-I", "-S", "-c", code]
    content = json.dumps([*patterns, text])
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, text=True, timeout=PATTERN_SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"the regular expressions {', '.join(patterns)} take more than {PATTERN_SECONDS:g} s; write them without "
            "repetitions inside each other"
        ) from None
    return json.loads(done.stdout)


def _is_quick(pattern: str) -> bool:
    """Whether a pattern has too few repetitions to take long; others run in a process that can be ended."""
    return "(" not in pattern and sum(map(pattern.count, "*+?{")) <= 2
