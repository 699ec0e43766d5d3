"""Particle and energy flow networks, the deep sets of arXiv:1810.05165."""

from zoo.deepsets.deepsets import EFN, PFN, efn, pfn, pfn_energyflow, pfn_for_events

__all__ = ["EFN", "PFN", "efn", "pfn", "pfn_energyflow", "pfn_for_events"]
