"""Pretraining without labels: masked particles, contrastive, substructure, and the backbone for fine-tuning."""

from zoo.tasks.pretraining.backbone import read_backbone
from zoo.tasks.pretraining.contrastive import Contrastive
from zoo.tasks.pretraining.masked import MaskedParticles
from zoo.tasks.pretraining.objective import Pretraining, mean_representation
from zoo.tasks.pretraining.substructure import Substructure

__all__ = [
    "Contrastive",
    "MaskedParticles",
    "Pretraining",
    "Substructure",
    "mean_representation",
    "read_backbone",
]
