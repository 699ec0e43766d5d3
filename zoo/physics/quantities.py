"""What is known about each quantity of particles, jets and events: stated once here, and used wherever it is needed.

A quantity has the name of a column of a file, such as ``part_d0val`` or ``met_phi``, or its name in features, such as
``log_pt`` or ``tanh_d0``. Features take formulas and columns from here; augmentation, how it changes; masking, whether
it is relative to the jet or gives a type; `zoo data info`, its unit; plots, its label; weaver's data files, the columns
that follow from momenta. A test computes each one on transformed particles and compares it with these statements.
"""

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any, Literal

#: How a quantity changes when an event is mirrored, py -> -py, and rotated about the beam: not at all; it changes sign
#: under the reflection; it is an angle about the beam; it is one of the two components of a transverse vector.
Change = Literal["unchanged", "mirrored", "azimuths", "vectors"]
#: How it changes in a boost along the beam: not at all; the rapidity of the boost is added, for a massless particle;
#: in any other way.
Boost = Literal["unchanged", "shifted", "changed"]


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One quantity.

    Args:
        of: what it belongs to.
        change: how it changes when an event is mirrored or rotated about the beam.
        boost: how it changes when the event is boosted along the beam.
        unit: GeV, rad, mm, or empty.
        label: label of an axis.
        formula: its value (particle,) from `zoo.data.features.ParticleInputs`; None: it is only a column.
        column: the column of particles that its formula needs beside the momenta.
        is_relative: whether it is relative to the jet, so that it changes when another particle leaves the jet.
        is_type: whether it is 1 for particles of one type and 0 for others.
        same_as: for a column, the formula of momenta that it equals.
    """

    of: Literal["particle", "jet", "event"]
    change: Change = "unchanged"
    boost: Boost = "unchanged"
    unit: str = ""
    label: str = ""
    formula: Callable[[Any], Any] | None = None
    column: str | None = None
    is_relative: bool = False
    is_type: bool = False
    same_as: str | None = None


_of_particle = functools.partial(Quantity, "particle")

#: Types of particles: their names in features and in columns.
_TYPES = {
    "is_charged_hadron": "part_isChargedHadron",
    "is_neutral_hadron": "part_isNeutralHadron",
    "is_photon": "part_isPhoton",
    "is_electron": "part_isElectron",
    "is_muon": "part_isMuon",
    "is_jet": "part_isJet",
    "is_b_jet": "part_isBJet",
}


def _type(column: str) -> Quantity:
    label = column.removeprefix("part_is")
    return _of_particle(formula=lambda of: of.columns[column], column=column, label=label, is_type=True)


#: Name -> quantity, for those that formulas of features may name.
OF_FORMULAS = {
    "log_pt": _of_particle(formula=lambda of: of.log_pt, label=r"$\ln\,p_T / \mathrm{GeV}$"),
    "log_energy": _of_particle(formula=lambda of: of.log_energy, label=r"$\ln\,E / \mathrm{GeV}$", boost="changed"),
    "log_pt_fraction": _of_particle(
        formula=lambda of: of.log_pt - of.log_jet_pt, label=r"$\ln\,p_T / p_T^{\mathrm{jet}}$", is_relative=True
    ),
    "log_energy_fraction": _of_particle(
        formula=lambda of: of.log_energy - of.log_jet_energy,
        label=r"$\ln\,E / E^{\mathrm{jet}}$",
        is_relative=True,
        boost="changed",
    ),
    "eta": _of_particle(formula=lambda of: of.eta, label=r"$\eta$", boost="shifted"),
    "phi": _of_particle(formula=lambda of: of.phi, label=r"$\phi$", change="azimuths", unit="rad"),
    # the pseudorapidity of a jet, which has a mass, shifts by a different amount than those of its particles
    "delta_r": _of_particle(
        formula=lambda of: of.deta.hypot(of.dphi), label=r"$\Delta R$", is_relative=True, boost="changed"
    ),
    "deta": _of_particle(formula=lambda of: of.deta, label=r"$\Delta\eta$", is_relative=True, boost="changed"),
    "dphi": _of_particle(
        formula=lambda of: of.dphi, label=r"$\Delta\phi$", is_relative=True, change="mirrored", unit="rad"
    ),
    "part_energy": _of_particle(
        formula=lambda of: of.four_momenta[:, 0], label=r"$E$ [GeV]", unit="GeV", boost="changed"
    ),
    "part_px": _of_particle(
        formula=lambda of: of.four_momenta[:, 1], label=r"$p_x$ [GeV]", unit="GeV", change="vectors"
    ),
    "part_py": _of_particle(
        formula=lambda of: of.four_momenta[:, 2], label=r"$p_y$ [GeV]", unit="GeV", change="vectors"
    ),
    "part_pz": _of_particle(
        formula=lambda of: of.four_momenta[:, 3], label=r"$p_z$ [GeV]", unit="GeV", boost="changed"
    ),
    "jet_pt": Quantity("jet", unit="GeV", label=r"Jet $p_T$ [GeV]", formula=lambda of: of.log_jet_pt.exp()),
    "jet_energy": Quantity(
        "jet", boost="changed", unit="GeV", label=r"Jet $E$ [GeV]", formula=lambda of: of.log_jet_energy.exp()
    ),
    "jet_eta": Quantity("jet", boost="changed", label=r"Jet $\eta$", formula=lambda of: of.jet_eta),
    "jet_phi": Quantity("jet", "azimuths", unit="rad", label=r"Jet $\phi$", formula=lambda of: of.jet_phi),
    **{name: _type(column) for name, column in _TYPES.items()},
    "charge": _of_particle(column="part_charge", formula=lambda of: of.columns["part_charge"], label="Charge"),
    # A particle's transverse impact parameter has the sign of its angular momentum about the beam.
    "tanh_d0": _of_particle(
        column="part_d0val",
        formula=lambda of: of.columns["part_d0val"].tanh(),
        label=r"$\tanh\,d_0 / \mathrm{mm}$",
        change="mirrored",
    ),
    "d0_error": _of_particle(
        column="part_d0err", formula=lambda of: of.columns["part_d0err"].clamp(0, 1), label=r"$\sigma(d_0)$ [mm]"
    ),
    "tanh_dz": _of_particle(
        column="part_dzval",
        formula=lambda of: of.columns["part_dzval"].tanh(),
        label=r"$\tanh\,d_z / \mathrm{mm}$",
        boost="changed",
    ),
    "dz_error": _of_particle(
        column="part_dzerr",
        formula=lambda of: of.columns["part_dzerr"].clamp(0, 1),
        label=r"$\sigma(d_z)$ [mm]",
        boost="changed",
    ),
}

#: Name -> quantity, for those that are only columns of files.
_OF_FILES = {
    **{column: Quantity("particle", label=OF_FORMULAS[name].label, is_type=True) for name, column in _TYPES.items()},
    "part_charge": Quantity("particle", label="Charge"),
    "part_d0val": Quantity("particle", "mirrored", unit="mm", label=r"$d_0$ [mm]"),
    "part_d0err": Quantity("particle", unit="mm", label=r"$\sigma(d_0)$ [mm]"),
    "part_dzval": Quantity("particle", boost="changed", unit="mm", label=r"$d_z$ [mm]"),
    "part_dzerr": Quantity("particle", boost="changed", unit="mm", label=r"$\sigma(d_z)$ [mm]"),
    "part_pdg_id": Quantity("particle", label="PDG number"),
    "part_mass": Quantity("particle", unit="GeV", label=r"$m$ [GeV]"),
    "part_pt": Quantity("particle", unit="GeV", label=r"$p_T$ [GeV]", same_as="hypot(part_px, part_py)"),
    "part_eta": Quantity("particle", boost="shifted", label=r"$\eta$", same_as="eta"),
    "part_phi": Quantity("particle", "azimuths", unit="rad", label=r"$\phi$", same_as="phi"),
    "part_deta": Quantity("particle", boost="changed", label=r"$\Delta\eta$", is_relative=True, same_as="deta"),
    "part_dphi": Quantity("particle", "mirrored", unit="rad", label=r"$\Delta\phi$", is_relative=True, same_as="dphi"),
    "jet_mass": Quantity("jet", unit="GeV", label=r"Jet $m$ [GeV]"),
    "j_pt": Quantity("jet", unit="GeV", label=r"Jet $p_T$ [GeV]"),
    "j_eta": Quantity("jet", boost="changed", label=r"Jet $\eta$"),
    "j_mass": Quantity("jet", unit="GeV", label=r"Jet $m$ [GeV]"),
    "met": Quantity("event", unit="GeV", label=r"$p_T^{\mathrm{miss}}$ [GeV]"),
    "met_phi": Quantity("event", "azimuths", unit="rad", label=r"$\phi^{\mathrm{miss}}$"),
    "weight": Quantity("event", label="Weight"),
}

QUANTITIES = OF_FORMULAS | _OF_FILES

#: Labels of some logarithms of `zoo.physics.substructure`, by their names there.
SUBSTRUCTURE_LABELS = {
    "mass": r"$\ln\,m / \mathrm{GeV}$",
    "tau3_1.0": r"$\ln\,\tau_3$",
    "e3_1.0": r"$\ln\,e_3$",
    "smallest_pair_mass": r"$\ln\,m_{\min}^{\mathrm{subjets}} / \mathrm{GeV}$",
}


def unit_of(name: str) -> str:
    """Unit of a quantity; empty if it has none or is not known.

    Example:
        >>> unit_of("met"), unit_of("part_charge"), unit_of("part_foo")
        ('GeV', '', '')
    """
    return QUANTITIES[name].unit if name in QUANTITIES else ""


def label_of(name: str) -> str:
    """Label of a quantity on an axis; its name if it has no label.

    Example:
        >>> label_of("jet_mass"), label_of("my_score")
        ('Jet $m$ [GeV]', 'my_score')
    """
    return QUANTITIES[name].label if name in QUANTITIES else name


def change_of(name: str) -> Change | None:
    """How a quantity changes when an event is mirrored and rotated: from `QUANTITIES`, else from its name.

    Files use many names for the same quantity, such as ``MET_phi`` or ``trk_dxy``, which follow rules; None: this name
    follows none.

    Example:
        >>> [change_of(name) for name in ("MissingET_Phi", "met_x", "part_d0sig", "part_d0err", "part_foo")]
        ['azimuths', 'vectors', 'mirrored', 'unchanged', None]
    """
    return QUANTITIES[name].change if name in QUANTITIES else _change_by_words(_words(name))


_ERRORS = re.compile(r"abs.*|\w*err|errors?|unc|uncertainty|resolution|log.*")
_AZIMUTH = re.compile(r"(?P<before>\w*)phi(?P<after>rel|sin|cos|corr|\d*)|azimuth|azimuthal")
_RELATIVE = {"d", "delta", "rel", "relative"}
_MIRRORED = re.compile(r"(d0|dxy)(val|sig|significance)?")
#: Such impact parameters may be signed relative to the jet, and then do not change under reflections.
_SIGNED_BY_JET = {"signed", "lifetime", "ip2d", "ip3d", "sip2d", "sip3d"}
_COMPONENT = re.compile(r"(p|e|v|m|me|met|mht|miss|missing|recoil)?[xy]")
_UNCHANGED = re.compile(
    r"pt|p|et|e|energy|mass|m|msd|pz|vz|z|z0|dz\w*|(d|delta|rel|)(eta|rapidity)(rel)?|(d|delta|)r|theta|width|"
    r"charge|q|is\w*|pid|pdg\w*|id|type|class|label|weight|puppi\w*|score|prob\w*|btag\w*|tau\d+|ht|met|mht|"
    r"(pt|e|energy|mass|z)(rel|frac|fraction|ratio)|frac|fraction|chi2|ndf|hits|time|"
    r"n(jets?|bjets?|particles?|constituents?|tracks?|leptons?|muons?|electrons?|photons?|pv|vertices)"
)


def _change_by_words(words: list[str]) -> Change | None:
    if any(_ERRORS.fullmatch(word) for word in words):
        return "unchanged"
    for word in words:
        if found := _AZIMUTH.fullmatch(word):
            around = {found["before"], found["after"]} - {None, ""}
            if around & {"sin", "cos"} or {"sin", "cos"} & set(words):
                return "vectors"
            return "mirrored" if around & _RELATIVE or _RELATIVE & set(words) else "azimuths"
    if any(_MIRRORED.fullmatch(word) for word in words):
        return None if _SIGNED_BY_JET & set(words) else "mirrored"
    if _COMPONENT.fullmatch(words[-1]):
        return "vectors"
    return "unchanged" if _UNCHANGED.fullmatch(words[-1]) or "is" in words else None


def _words(name: str) -> list[str]:
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return [word for word in re.split(r"[^a-z0-9]+", parts.lower()) if word] or [""]


def other_component(name: str) -> tuple[str, bool]:
    """Name of the other component of a transverse vector, and whether this one is the x component.

    Example:
        >>> other_component("MET_px"), other_component("phi_sin")
        (('MET_py', True), ('phi_cos', False))
    """
    for one, other in (("cos", "sin"), ("Cos", "Sin"), ("COS", "SIN")) if "phi" in name.lower() else ():
        if one in name or other in name:
            return (name.replace(one, other), True) if one in name else (name.replace(other, one), False)
    swapped = {"x": "y", "y": "x", "X": "Y", "Y": "X"}[name[-1]]
    return name[:-1] + swapped, name[-1] in "xX"
