"""Contrastive pretraining: two versions of a jet end up close together, different jets far apart.

References:
    Symmetries, safety, and self-supervision (JetCLR) (2021), arXiv:2108.04253.
    A Simple Framework for Contrastive Learning of Visual Representations (2020), arXiv:2002.05709: the loss.
    Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere (2020),
    arXiv:2005.10242.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.data.batch import JetBatch
from zoo.model import declared
from zoo.report import Drawings
from zoo.tasks.pretraining.augmentations import augment
from zoo.tasks.pretraining.objective import Pretraining, mean_representation
from zoo.tasks.pretraining.report import draw_similarities
from zoo.tasks.task import require


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    r"""Normalised temperature-scaled cross entropy of two versions of each jet, averaged over both.

    .. math::
        L_i = -\ln \frac{e^{s_{ii'} / \tau}}{\sum_{k \ne i} e^{s_{ik} / \tau}}

    where i' is the other version of i, k runs over both versions of all jets, and s is the cosine.

    Args:
        one: (batch, feature) of length one.
        other: the same for the other versions.
        temperature: :math:`\tau`.

    Returns:
        (batch,).
    """
    both = torch.cat([one, other])
    similarity = both @ both.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(both), dtype=torch.bool, device=both.device), -torch.inf)
    partner = torch.arange(len(both), device=both.device).roll(len(one))
    return F.cross_entropy(similarity, partner, reduction="none").unflatten(0, (2, -1)).mean(0)


def alignment(one: Tensor, other: Tensor) -> Tensor:
    r"""Squared distance between the two versions of each jet, (batch,); zero is best.

    .. math:: |z_i - z_{i'}|^2
    """
    return (one - other).square().sum(1)


def uniformity(points: Tensor) -> Tensor:
    r"""How evenly points (batch, feature) of length one fill the sphere; lower is better, and zero is a single point.

    .. math:: \ln \mathrm{mean}_{i < j} \, e^{-2 |z_i - z_j|^2}
    """
    return F.pdist(points).square().mul(-2).exp().mean().log()


class Contrastive(Pretraining):
    r"""Pulls two augmented versions of a jet together and pushes different jets apart, see `nt_xent`.

    A version is split, smeared, rotated and translated (`augment`), and its features are recomputed. Its point on
    the sphere is a projection of the mean of its particles' representations.

    Args:
        model: gives representations by ``model.encode(features, four_momenta, mask)``; a YAML file names its builder.
        feature_table: that of the data, set by the command line; its features must need momenta alone.
        temperature: temperature of the loss.
        projection_dim: dimension of the projection; its hidden layer is as wide as the representation.
        max_shift: largest shift of a version in pseudorapidity.
        smearing: scale in GeV of `smear`.
        split_fraction: probability that a particle is split.
        probe_fraction: fraction of the validation jets whose labels the linear probe reads, see `Pretraining`.
        learning_rate: the highest of the schedule, see `Task`.
        weight_decay: of AdamW, for parameters with two or more axes.
        warmup: fraction of all steps over which the learning rate rises.
        final_learning_rate: at the last step, as a fraction of ``learning_rate``.

    Raises:
        ValueError: if a setting lies outside its range, or the features need more than momenta.
    """

    purpose = "contrastive"

    def __init__(
        self,
        model: nn.Module,
        feature_table: Any,  # a FeatureTable, which a parser would take for keys of the configuration
        temperature: float = 0.1,
        projection_dim: int = 64,
        max_shift: float = 0.5,
        smearing: float = 0.1,
        split_fraction: float = 0.2,
        probe_fraction: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        warmup: float = 0.1,
        final_learning_rate: float = 0.01,
    ) -> None:
        super().__init__(model, learning_rate, weight_decay, warmup, final_learning_rate, probe_fraction)
        require("temperature", temperature, temperature > 0, "positive")
        require("max_shift", max_shift, max_shift >= 0, "0 or more")
        require("smearing", smearing, smearing >= 0, "0 or more")
        require("split_fraction", split_fraction, 0 <= split_fraction <= 1, "in [0, 1]")
        if feature_table.columns:
            raise ValueError(
                f"data.features: need {', '.join(feature_table.columns)}, but an augmented jet has momenta alone; use "
                "features of momenta, such as kin"
            )
        self.feature_table = feature_table
        self.temperature = temperature
        self.augmentation = {"max_shift": max_shift, "smearing": smearing, "split_fraction": split_fraction}
        width = declared(model).embed_dim
        self.projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, projection_dim))

    def project(self, four_momenta: Tensor, mask: Tensor) -> Tensor:
        """Points (batch, projection_dim) of length one of jets (batch, particle, 4) in GeV."""
        features = self.feature_table.padded(four_momenta, mask)
        return F.normalize(self.projection(mean_representation(self.model, features, four_momenta, mask)).float())

    def objective(
        self, batch: JetBatch, generator: torch.Generator | None
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Loss of each jet, alignment and uniformity, and its cosines: between its versions, and with another jet."""
        one, other = (
            self.project(*augment(batch.four_momenta, batch.mask, **self.augmentation, generator=generator))
            for _ in range(2)
        )
        losses = nt_xent(one, other, self.temperature)
        is_finite = (one * other).isfinite().all(1)
        if not is_finite.all():  # such a jet is compared with all others, so name the jet at fault
            losses = torch.where(is_finite, 0, losses)
        figures = {"alignment": alignment(one, other)}
        if len(one) > 1:
            figures["uniformity"] = uniformity(one).expand(len(one))
        shown = {"jet": batch.index}
        if not self.training:
            shown |= {"same": (one * other).sum(1), "other": (one * other.roll(1, 0)).sum(1)}
        return losses, figures, shown

    def shown_drawings(self, shown: dict[str, np.ndarray]) -> Drawings:
        """How close versions of the same jet are, and different jets."""
        caption = "Cosine of two versions of the same jet, and of two jets of similar length."
        return {"similarities": (caption, draw_similarities(shown["same"], shown["other"]))}
