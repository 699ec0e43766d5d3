"""Pretraining without labels: masked particles, and the backbone that a fine-tuning starts from."""

from zoo.pretraining.backbone import read_backbone
from zoo.pretraining.masked import MaskedParticles

__all__ = ["MaskedParticles", "read_backbone"]
