"""LorentzNet, the Lorentz group equivariant graph network of arXiv:2201.08187, and its Euclidean counterpart EGNN."""

from zoo.lorentznet.egnn import EGNN, egnn
from zoo.lorentznet.lorentznet import (
    LorentzNet,
    lorentznet,
    lorentznet_for_events,
    lorentznet_qg,
    lorentznet_qg_release,
    lorentznet_release,
)

__all__ = [
    "EGNN",
    "LorentzNet",
    "egnn",
    "lorentznet",
    "lorentznet_for_events",
    "lorentznet_qg",
    "lorentznet_qg_release",
    "lorentznet_release",
]
