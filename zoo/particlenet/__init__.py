"""ParticleNet, edge convolutions between nearest neighbours, arXiv:1902.08570."""

from zoo.particlenet.particlenet import (
    ParticleNet,
    particlenet,
    particlenet_for_events,
    particlenet_lite,
    particlenet_weaver,
)

__all__ = ["ParticleNet", "particlenet", "particlenet_for_events", "particlenet_lite", "particlenet_weaver"]
