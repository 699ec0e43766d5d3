"""Pretraining without labels: masked particles, contrastive, substructure, and the backbone a fine-tuning takes."""

from zoo.pretraining.backbone import read_backbone
from zoo.pretraining.contrastive import Contrastive
from zoo.pretraining.masked import MaskedParticles
from zoo.pretraining.substructure import Substructure

__all__ = ["Contrastive", "MaskedParticles", "Substructure", "read_backbone"]
