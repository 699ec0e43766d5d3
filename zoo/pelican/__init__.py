"""Networks on all pairs of particles, with only their Minkowski products as inputs."""

from zoo.pelican.pelican import Pelican, pelican, pelican_3k, pelican_11k, pelican_48k

__all__ = ["Pelican", "pelican", "pelican_3k", "pelican_11k", "pelican_48k"]
