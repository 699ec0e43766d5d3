"""Baselines for event models: a fully connected and a convolutional network on sorted objects."""

from zoo.baselines.cnn import ObjectCNN, cnn_for_events
from zoo.baselines.fully_connected import FullyConnected, fully_connected_for_events
from zoo.baselines.hardest import MAX_OBJECTS, hardest_objects

__all__ = [
    "MAX_OBJECTS",
    "FullyConnected",
    "ObjectCNN",
    "cnn_for_events",
    "fully_connected_for_events",
    "hardest_objects",
]
