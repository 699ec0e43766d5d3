"""Which columns of a file hold what: from a layout or weaver's data file, as the options of each command give it."""

from collections.abc import Sequence
from pathlib import Path

from zoo.data.formats.known import Description
from zoo.data.formats.layout_yaml import read_layout
from zoo.data.weaver.data_config import Split, read_weaver_yaml


def read_description(
    layout: str | Path | None,
    weaver_yaml: str | Path | None = None,
    classes: Sequence[str] | None = None,
    *,
    split: Split = "test",
    labelled: bool = True,
) -> Description | None:
    """The description of files; None if there is none, and the files themselves say what they hold.

    Args:
        layout: YAML file, see `zoo.data.formats.layout_yaml.read_layout`.
        weaver_yaml: data file of weaver, see `zoo.data.weaver.data_config.read_weaver_yaml`.
        classes: names of the classes if the labels of that file are custom ones.
        split: what the jets are used for, which decides what weaver's data file selects.
        labelled: whether jets must have a class.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the arguments contradict each other, or a file is wrong.
    """
    if layout is not None and weaver_yaml is not None:
        raise ValueError("layout and weaver_yaml are two ways to say the same; give one of them")
    if weaver_yaml is not None:
        return read_weaver_yaml(weaver_yaml, None if classes is None else tuple(classes), split, labelled=labelled)
    if classes is not None:
        raise ValueError("classes: belong to a 'weaver_yaml' with custom labels; leave them out")
    return None if layout is None else read_layout(layout, labelled=labelled)
