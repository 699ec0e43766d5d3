"""Particle Transformer, attention with pair interactions, arXiv:2202.03772."""

from zoo.particle_transformer.particle_transformer import (
    KinematicPairs,
    PairInputs,
    ParticleTransformer,
    particle_transformer,
    particle_transformer_for_events,
    particle_transformer_plain,
)

__all__ = [
    "KinematicPairs",
    "PairInputs",
    "ParticleTransformer",
    "particle_transformer",
    "particle_transformer_for_events",
    "particle_transformer_plain",
]
