"""An ensemble of pretrained taggers becomes a pretrained folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.card import write_card
from zoo.data.datasets import JET_COLUMNS
from zoo.data.ranges import OF_MOMENTA
from zoo.hub import PretrainedConfig, find_pretrained, load_contents, read_checked, save_parts
from zoo.hub.contents import GOLDEN, MEMBERS
from zoo.hub.ensemble import require_alike, side_by_side
from zoo.hub.golden import columns_of
from zoo.hub.hf import SCHEME, parse_address
from zoo.hub.kinds import Parts, parse_tensors


def make_ensemble(names: Sequence[str], out: Path) -> None:
    """Write a folder of several pretrained taggers whose answer is the mean of their log-odds.

    Args:
        names: of the members, as `zoo.load_pretrained` takes them; each is verified as it is for use, and lies in the
            folder as a whole.
        out: folder to write; must not exist.

    Raises:
        FileNotFoundError: if there is no such member.
        FileExistsError: if ``out`` exists.
        ValueError: if there are fewer than two members, two of one name, or one is damaged, is no tagger, or has other
            classes, units or another data set than the first.
    """
    if len(names) < 2:
        raise ValueError("an ensemble has two members at least; name more pretrained models")
    files: dict[str, bytes] = {}
    members = {}
    for name in names:
        called = _called(name)
        if called in members:
            raise ValueError(f"{name}: there is a member {called!r} already; give its folder another name")
        folder = find_pretrained(name)
        contents = read_checked(folder)
        members[called] = load_contents(folder, contents)
        files |= {f"{MEMBERS}/{called}/{file}": content for file, content in contents.items()}
    configs = {called: member.config for called, member in members.items()}
    config = _config(configs, out.name, _ranges(configs.values()))
    for called, member in configs.items():
        require_alike(Path(called), member, config)
    parts = side_by_side([member.parts for member in members.values()], files)
    stored = {called: parse_tensors(Path(called), files[f"{MEMBERS}/{called}/{GOLDEN}"]) for called in members}
    jets, columns = _golden_jets(parts, stored.values())
    save_parts(out, parts, config, jets["four_momenta"], jets["mask"], write_card(out.name, config), columns)


def _called(name: str) -> str:
    return parse_address(name).repository.replace("/", ".") if name.startswith(SCHEME) else Path(name).resolve().name


def _ranges(members: Iterable[PretrainedConfig]) -> dict[str, Any] | None:
    """Those of the first member that has any, of momenta alone: a feature may be another one in another member."""
    known = next((config.inputs for config in members if config.inputs is not None), None)
    if known is None:
        return None
    return known | {"ranges": {name: of for name, of in known["ranges"].items() if name in OF_MOMENTA}}


def _config(members: Mapping[str, PretrainedConfig], name: str, ranges: dict[str, Any] | None) -> PretrainedConfig:
    first = next(iter(members.values()))
    papers = (paper for config in members.values() for paper in config.paper.split(", "))
    return PretrainedConfig(
        model="ensemble",
        classes=first.classes,
        features={},
        dataset=first.dataset,
        units=first.units,
        metrics={},
        licence=" AND ".join(dict.fromkeys(config.licence for config in members.values())),
        paper=", ".join(dict.fromkeys(papers)),
        training={"command": f"zoo ensemble {' '.join(members)} --out {name}"},
        kind="ensemble",
        inputs=ranges,
        members=list(members),
    )


def _golden_jets(
    parts: Parts, stored: Iterable[Mapping[str, Tensor]]
) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
    """Jets of the member that keeps most of the columns that all need; the others are 0, which no physics needs."""
    jets = max(stored, key=lambda golden: len(columns_of(golden).keys() & set(parts.columns)))
    columns, mask = columns_of(jets), jets["mask"]
    for name in parts.columns:
        shape = mask.shape[:1] if name in (*JET_COLUMNS, *parts.context_table.fields) else mask.shape
        columns.setdefault(name, torch.zeros(shape))
    return jets, columns
