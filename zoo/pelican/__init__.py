"""Networks of all pairs, by their Minkowski products alone."""

from zoo.pelican.pelican import Pelican, pelican, pelican_3k, pelican_11k, pelican_48k

__all__ = ["Pelican", "pelican", "pelican_3k", "pelican_11k", "pelican_48k"]
