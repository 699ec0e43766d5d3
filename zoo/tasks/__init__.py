"""What a training learns, and how it is judged, plotted and stored: one task per file."""

from zoo.tasks.classification import Classification
from zoo.tasks.pretraining import Contrastive, MaskedParticles, Substructure
from zoo.tasks.regression import Regression
from zoo.tasks.task import Task

__all__ = ["Classification", "Contrastive", "MaskedParticles", "Regression", "Substructure", "Task"]
