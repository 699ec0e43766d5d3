"""Pretraining without labels: masked particles, contrastive, and the backbone that a fine-tuning starts from."""

from zoo.pretraining.backbone import read_backbone
from zoo.pretraining.contrastive import Contrastive
from zoo.pretraining.masked import MaskedParticles

__all__ = ["Contrastive", "MaskedParticles", "read_backbone"]
