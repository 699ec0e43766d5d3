"""Labelled jets from scratch: Pythia 8, a parametric detector, FastJet (extra ``sim``)."""

from zoo.simulate.run import simulate

__all__ = ["simulate"]
