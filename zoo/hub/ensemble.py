"""Several pretrained taggers that act as one: the mean of their log-odds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from zoo.data.context import ContextTable
from zoo.data.features import FeatureTable
from zoo.hub.config import PretrainedConfig, PretrainedError
from zoo.hub.contents import CONFIG, MEMBERS, SUMS, check, of_member
from zoo.hub.kinds import Load, Parts, Tagger
from zoo.model import declared


class Ensemble(nn.Module):
    r"""The mean of the log-odds of several taggers: that of their log-probabilities, up to a constant for each jet.

    .. math:: z_c = \frac{1}{M} \sum_m \ln p_{mc}

    Args:
        members: the taggers, each with its own features and context.
        files: files of the members' folders, by their names in the folder of the ensemble.
    """

    def __init__(self, members: Sequence[Parts], files: Mapping[str, bytes]) -> None:
        super().__init__()
        self.members = nn.ModuleList(member.model for member in members)
        self.input_dims = [member.feature_table.input_dim for member in members]
        self.context_dims = [member.context_table.context_dim for member in members]
        self.context_dim = sum(self.context_dims)
        self.jumps = any(declared(model).jumps for model in self.members)
        self.files = files

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits (batch, class); features and context are those of the members side by side."""
        if context is None:
            context = features.new_zeros(len(mask), 0)
        of_members = zip(
            self.members, features.split(self.input_dims, -1), context.split(self.context_dims, -1), strict=True
        )
        found = []
        for model, of_particles, of_events in of_members:
            inputs = (of_particles, four_momenta, mask, *([of_events] if of_events.shape[1] else []))
            found.append(model(*inputs).log_softmax(dim=1))
        return torch.stack(found).mean(dim=0)


def side_by_side(members: Sequence[Parts], files: Mapping[str, bytes]) -> Parts:
    """The ensemble of some members, and all their features and context features."""
    features = tuple(feature for member in members for feature in member.feature_table.features)
    context = tuple(feature for member in members for feature in member.context_table.features)
    return Parts(Ensemble(members, files).eval(), FeatureTable(features), ContextTable(context))


class Members(Tagger):
    """An ensemble, which holds its members as complete folders."""

    files: tuple[str, ...] = ()

    def build(self, folder: Path, config: PretrainedConfig, contents: Mapping[str, bytes], load: Load) -> Parts:
        """The members, each verified as if it were loaded alone; see `zoo.hub.kinds.Kind`."""
        members = []
        for name in config.members or []:
            path, files = folder / MEMBERS / name, of_member(contents, name)
            if SUMS not in files:
                raise PretrainedError(f"{path / SUMS}: missing; get the folder again")
            check(path, files)
            of_this, parts = load(path, files)
            require_alike(path / CONFIG, of_this, config)
            members.append(parts)
        return side_by_side(members, {name: content for name, content in contents.items() if "/" in name})

    def dump(self, model: nn.Module) -> dict[str, bytes]:
        """The files of the members; see `zoo.hub.kinds.Kind`."""
        return dict(cast(Ensemble, model).files)


def require_alike(path: Path, member: PretrainedConfig, ensemble: PretrainedConfig) -> None:
    """Refuse a member that answers a different question.

    Raises:
        PretrainedError: if it is not a tagger, or its classes, units or data set differ.
    """
    if member.kind not in ("tagger", "trees"):
        raise PretrainedError(f"{path}: is of the kind {member.kind!r}; an ensemble has taggers and trees as members")
    for key in ("classes", "units", "dataset"):
        if getattr(member, key) != getattr(ensemble, key):
            raise PretrainedError(
                f"{path}: {key!r} is {getattr(member, key)!r}, not {getattr(ensemble, key)!r} as of the ensemble"
            )
