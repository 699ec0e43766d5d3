"""Particle Transformer, attention with pair interactions, arXiv:2202.03772."""

from zoo.particle_transformer.particle_transformer import (
    CouplingPairs,
    KinematicPairs,
    PairInputs,
    ParticleTransformer,
    WeaverPairs,
    particle_transformer,
    particle_transformer_for_events,
    particle_transformer_for_events_plain,
    particle_transformer_for_events_sm,
    particle_transformer_for_events_sm_only,
    particle_transformer_plain,
    particle_transformer_weaver,
    particle_transformer_weaver_pre_activation,
)

__all__ = [
    "CouplingPairs",
    "KinematicPairs",
    "PairInputs",
    "ParticleTransformer",
    "WeaverPairs",
    "particle_transformer",
    "particle_transformer_for_events",
    "particle_transformer_for_events_plain",
    "particle_transformer_for_events_sm",
    "particle_transformer_for_events_sm_only",
    "particle_transformer_plain",
    "particle_transformer_weaver",
    "particle_transformer_weaver_pre_activation",
]
