"""Model inputs of a particle: name -> formula, centre, scale and clip, computed on the fly."""

import ast
import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from zoo.data.datasets import JET_COLUMNS
from zoo.data.expressions import Expression, Language, parse
from zoo.physics import kinematics
from zoo.physics.quantities import OF_FORMULAS

#: The columns of jets that have nothing but their particles' momenta.
NO_COLUMNS: Mapping[str, Any] = MappingProxyType({})

#: Keeps logarithms finite for particles along the beam, in GeV.
SMALLEST_MOMENTUM = 1e-8


@dataclasses.dataclass(frozen=True)
class ParticleInputs:
    """The quantities that the formulas of the features use, each float64 (particle,), and further columns by name.

    The momentum of the jet is that in the file, if it is given, else the sum of the jet's particles. ``deta`` is
    positive away from the centre of the detector, that is, multiplied by the sign of the jet's pseudorapidity.
    ``four_momenta`` are (particle, 4) as (E, px, py, pz) in GeV.
    """

    four_momenta: Tensor
    log_pt: Tensor
    log_energy: Tensor
    log_jet_pt: Tensor
    log_jet_energy: Tensor
    jet_eta: Tensor
    jet_phi: Tensor
    eta: Tensor
    phi: Tensor
    deta: Tensor
    dphi: Tensor
    columns: Mapping[str, Tensor]


def particle_inputs(four_momenta: Tensor, counts: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> ParticleInputs:
    """Packed particles relative to their jets.

    Note:
        The jets of JetClass-II are not the sums of their particles: in the public example transverse momentum and
        azimuth agree to 1e-7, but pseudorapidity differs by up to 0.09 and energy by 4 %. Relative to the file's own
        ``jet_eta`` and ``jet_phi``, ``deta`` and ``dphi`` are the file's ``part_deta`` and ``part_dphi`` to 2e-7, its
        sign convention included, so those need not be stored.

    Args:
        four_momenta: (particle, 4) as (E, px, py, pz) in GeV, the jets one after the other.
        counts: int64 (jet,), number of particles of each jet.
        columns: further columns (particle,) by name, and, if the file has them, `JET_COLUMNS` (jet,).
    """
    momenta = four_momenta.T.contiguous().double().T  # column by column
    jet_of_particle = torch.repeat_interleave(counts, output_size=len(momenta))
    of_file = columns if all(name in columns for name in JET_COLUMNS) else None
    of_jet = of_file or jet_columns(momenta.new_zeros(len(counts), 4).index_add_(0, jet_of_particle, momenta))
    jet_pt, jet_eta, jet_phi, jet_energy = (of_jet[name].double() for name in JET_COLUMNS)
    of_jets = torch.stack([_log(jet_pt), _log(jet_energy), jet_eta, jet_phi])
    log_jet_pt, log_jet_energy, jet_eta, jet_phi = of_jets[:, jet_of_particle]
    sign = torch.where(jet_eta < 0, -1.0, 1.0)
    eta, phi = kinematics.finite_eta(momenta), kinematics.phi(momenta)
    deta, dphi = kinematics.from_axis(eta, phi, jet_eta, jet_phi)
    return ParticleInputs(
        four_momenta=momenta,
        log_pt=_log(kinematics.pt(momenta)),
        log_energy=_log(momenta[:, 0]),
        log_jet_pt=log_jet_pt,
        log_jet_energy=log_jet_energy,
        jet_eta=jet_eta,
        jet_phi=jet_phi,
        eta=eta,
        phi=phi,
        deta=deta * sign,
        dphi=dphi,
        columns={name: values.double() for name, values in columns.items() if name not in JET_COLUMNS},
    )


#: Quantities of a jet from its momentum (jet, 4) in GeV, (jet,) each.
OF_JETS: dict[str, Callable[[Tensor], Tensor]] = {
    "jet_pt": kinematics.pt,
    "jet_eta": kinematics.finite_eta,
    "jet_phi": kinematics.phi,
    "jet_energy": kinematics.energy,
    "jet_mass": kinematics.mass,
}


def jet_columns(jets: Tensor) -> dict[str, Tensor]:
    """Momenta (jet, 4) in GeV as `JET_COLUMNS`, (jet,) each."""
    return {name: OF_JETS[name](jets) for name in JET_COLUMNS}


def _log(momentum: Tensor) -> Tensor:
    return momentum.clamp(min=SMALLEST_MOMENTUM).log()


#: Formula name -> raw value (particle,), before centre, scale and clip.
FORMULAS: dict[str, Callable[[ParticleInputs], Tensor]] = {
    name: quantity.formula for name, quantity in OF_FORMULAS.items()
}


def _of_tensors(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function, which then accepts plain numbers too."""
    return lambda *values: function(*(torch.as_tensor(value, dtype=torch.float64) for value in values))


_TORCH = """
abs arcsinh arctan arctan2 cos cosh exp expm1 hypot log log10 log1p log2 maximum minimum sign sin sinh sqrt tan tanh
"""

#: Functions that users may call in formulas.
FUNCTIONS = {
    **{name: _of_tensors(getattr(torch, name)) for name in _TORCH.split()},
    "clip": _of_tensors(torch.clamp),
    "where": lambda condition, *values: torch.where(condition != 0, *(torch.as_tensor(v).double() for v in values)),
    "nan_to": lambda value, instead: torch.where(torch.isnan(value), torch.as_tensor(instead).double(), value),
}

#: A name at least this similar to that of a formula, from 0 to 1, counts as a typo; short names are similar by chance.
_SLIP = 0.85
_SHORTEST_SLIP = 4


@functools.lru_cache(maxsize=1024)
def parse_formula(formula: str) -> Expression:
    """A formula that a user wrote.

    Raises:
        ValueError: if it is not an allowed expression, or contains no name.
    """
    expression = parse(formula, Language(FUNCTIONS))
    if not expression.names:
        raise ValueError(f"in {formula!r}: there is no quantity and no column; name at least one")
    return expression


@functools.lru_cache(maxsize=1024)
def _expression(formula: str) -> Expression:
    """A user's formula of particles; raises as `parse_formula` does, and if a name looks like a typo."""
    expression = parse_formula(formula)
    known = [name for name in FORMULAS if len(name) >= _SHORTEST_SLIP]
    for name in expression.names:
        close = [] if name.startswith("part_") else difflib.get_close_matches(name, known, n=1, cutoff=_SLIP)
        if name not in FORMULAS and close:
            raise ValueError(f"no formula {name!r}; did you mean {close[0]}?")
    return expression


def _work_out(formula: str, particles: ParticleInputs) -> Tensor:
    """Raw value (particle,) of a formula."""
    if formula in FORMULAS:
        return FORMULAS[formula](particles)
    expression = _expression(formula)
    values = {
        name: FORMULAS[name](particles) if name in FORMULAS else particles.columns[name] for name in expression.names
    }
    return expression.evaluate(values).double()


#: Formulas that change when a particle is removed from or added to the jet.
RELATIVE_TO_JET = frozenset(name for name, of in OF_FORMULAS.items() if of.is_relative or of.of == "jet")

#: Formula name -> the column that it needs; the others need only the momenta.
COLUMN_OF_FORMULA = {name: of.column for name, of in OF_FORMULAS.items() if of.column is not None}


@dataclasses.dataclass(frozen=True)
class Input:
    """One number that a model sees: the value of a formula, minus ``centre``, times ``scale``, limited to ``clip``.

    Args:
        name: of the input.
        formula: of the raw value; see the classes of the different kinds of inputs.
        centre: subtracted from the raw value.
        scale: multiplies the difference.
        clip: largest absolute value, or the smallest and the largest value; None for no limit.

    Raises:
        ValueError: if the formula is unknown or not allowed, or a number is not finite.
    """

    #: Its name in error messages.
    kind: ClassVar[str] = "input"

    name: str
    formula: str
    centre: float = 0.0
    scale: float = 1.0
    clip: float | tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.clip, list):  # as JSON and YAML give it
            object.__setattr__(self, "clip", tuple(self.clip))
        for key in ("name", "formula"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"{self.kind} {self.name!r}: {key} must be a string, not {getattr(self, key)!r}")
        try:
            self.check_formula()
        except ValueError as error:
            raise ValueError(f"{self.kind} {self.name!r}: {error}") from None
        for key, values in (("centre", [self.centre]), ("scale", [self.scale]), ("clip", self._limits or ())):
            if not all(_is_number(value) and math.isfinite(value) for value in values):
                raise ValueError(
                    f"{self.kind} {self.name!r}: {key} must be a finite number, not {getattr(self, key)!r}"
                )
        if self._limits is not None and (len(self._limits) != 2 or self._limits[0] > self._limits[1]):
            raise ValueError(f"{self.kind} {self.name!r}: clip must be one limit or two rising ones, not {self.clip!r}")

    def check_formula(self) -> None:
        """Check that the formula can be evaluated.

        Raises:
            ValueError: if it cannot.
        """
        parse_formula(self.formula)

    @property
    def _limits(self) -> tuple[float, float] | None:
        if self.clip is None or isinstance(self.clip, tuple):
            return self.clip
        return (-self.clip, self.clip) if _is_number(self.clip) else (self.clip,)

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value."""
        return (-math.inf, math.inf) if self._limits is None else self._limits

    def standardise_raw(self, raw: Tensor) -> Tensor:
        """Values float32 that a model sees, from raw float64 ones."""
        values = (raw - self.centre) * self.scale
        return (values if self.clip is None else values.clamp(*self.limits)).float()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Feature(Input):
    """One input of a particle, named as in JetClass.

    Its formula is a key of `FORMULAS`; or an expression of those, of particle columns and of `FUNCTIONS`, such as
    ``tanh(part_d0val / part_d0err)``. Any name in it that is not a formula is a column.
    """

    kind = "feature"

    def check_formula(self) -> None:
        """Check that the formula can be evaluated; raises as that of an `Input`."""
        if self.formula not in FORMULAS:
            _expression(self.formula)

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names in the formula: keys of `FORMULAS` and particle columns."""
        return (self.formula,) if self.formula in FORMULAS else tuple(_expression(self.formula).names)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the particle columns that the formula needs beside the momenta."""
        return tuple(
            COLUMN_OF_FORMULA.get(name, name)
            for name in self.quantities
            if name not in FORMULAS.keys() - COLUMN_OF_FORMULA.keys()
        )

    @property
    def numbers(self) -> frozenset[float]:
        """Numbers in the formula."""
        nodes = ast.walk(ast.parse(self.formula.strip(), mode="eval"))
        return frozenset(float(node.value) for node in nodes if isinstance(node, ast.Constant))

    def standardise(self, particles: ParticleInputs) -> Tensor:
        """The values float32 (particle,) that a model sees."""
        return self.standardise_raw(_work_out(self.formula, particles))


def agree(one: Feature, other: Feature) -> bool:
    """Whether two features give a model the same numbers for any jet; their names may differ.

    They do if only their names differ, or if their values agree on made-up particles, whose columns also contain the
    numbers in the formulas.

    Example:
        >>> agree(Feature("a", "log_pt", 1.7, clip=5), Feature("b", "log(hypot(part_px, part_py))", 1.7, clip=(-5, 5)))
        True
        >>> agree(Feature("a", "part_charge"), Feature("b", "part_charge", 0.5))
        False
    """
    if dataclasses.replace(one, name=other.name) == other:
        return True
    if set(one.columns) != set(other.columns):
        return False
    particles = made_up_particles(tuple(sorted(one.columns)), one.numbers | other.numbers)
    first, second = one.standardise(particles), other.standardise(particles)
    there = first[first.isfinite()]
    # not by uninformative values, such as a comparison with a number that no particle has
    is_telling = len(there) > len(first) / 4 and bool((there != there[0]).any())
    return is_telling and torch.allclose(first, second, rtol=1e-5, atol=1e-6, equal_nan=True)


@functools.lru_cache(maxsize=64)
def made_up_particles(columns: tuple[str, ...], numbers: frozenset[float]) -> ParticleInputs:
    """512 particles with a wide range of momenta in 64 jets, the same every time."""
    random = torch.Generator().manual_seed(1)
    counts = torch.full((64,), 8)
    three = torch.randn(512, 3, generator=random) * 10 ** (6 * torch.rand(512, 1, generator=random) - 2)
    mass = torch.rand(512, 1, generator=random)
    momenta = torch.cat([(three.square().sum(dim=1, keepdim=True) + mass.square()).sqrt(), three], dim=1)
    values = {}
    for name in columns:
        values[name] = torch.randn(512, generator=random) * 10 ** (3 * torch.rand(512, generator=random) - 2)
        given = torch.tensor([factor * number for number in sorted(numbers) for factor in (1, -1, 2)] + [0.0, 1.0])
        values[name][::2] = given[torch.randint(len(given), (256,), generator=random)]
    return particle_inputs(momenta, counts, values)


@dataclasses.dataclass(frozen=True)
class FeatureTable:
    """The features of a model in their order, the same in training, in a pretrained folder and in use.

    Example:
        >>> table = feature_table("kin")
        >>> table.names[0], table.input_dim
        ('part_pt_log', 7)
        >>> FeatureTable.from_dict(table.to_dict()) == table
        True
    """

    features: tuple[Feature, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def input_dim(self) -> int:
        """Number of features."""
        return len(self.features)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the particle columns that the features need beside the momenta."""
        return tuple(dict.fromkeys(name for feature in self.features for name in feature.columns))

    @property
    def is_relative_to_jet(self) -> bool:
        """Whether any feature is relative to the jet; those of events, which have no axis, are not."""
        return any(RELATIVE_TO_JET.intersection(feature.quantities) for feature in self.features)

    def check_columns(self, names: Iterable[str]) -> None:
        """Check that jets with the columns ``names`` have all that the features need.

        Raises:
            ValueError: if they do not; the message names the column and the feature tables that are possible.
        """
        there = set(names)
        for name in self.columns:
            if name not in there:
                possible = [key for key, table in FEATURE_TABLES.items() if there.issuperset(table.columns)]
                raise ValueError(
                    f"particle column {name!r} is missing, which these features need; use the features "
                    f"{' or '.join(possible)}, or jets with that column"
                )

    def packed(self, four_momenta: Tensor, counts: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> Tensor:
        """Features float32 (particle, feature) of packed particles; see `particle_inputs` for the arguments.

        Raises:
            ValueError: if a column that a feature needs is missing.
        """
        self.check_columns(columns)
        particles = particle_inputs(four_momenta, counts, columns)
        columns = [feature.standardise(particles) for feature in self.features]
        return torch.stack(columns, dim=-1) if columns else torch.zeros(len(four_momenta), 0)

    def padded(self, four_momenta: Tensor, mask: Tensor, columns: Mapping[str, Tensor] = NO_COLUMNS) -> Tensor:
        """Features float32 (batch, particle, feature), zero where ``mask`` is False.

        Args:
            four_momenta: (batch, particle, 4) as (E, px, py, pz) in GeV.
            mask: bool (batch, particle), True for a real particle.
            columns: further columns (batch, particle) by name, see `columns`; and, if known, the momentum of each jet,
                `JET_COLUMNS` (batch,); if not, it is the sum of the particles.

        Raises:
            ValueError: if a column that a feature needs is missing.
        """
        packed = {name: values if name in JET_COLUMNS else values[mask] for name, values in columns.items()}
        features = torch.zeros(*mask.shape, self.input_dim, device=four_momenta.device)
        features[mask] = self.packed(four_momenta[mask], mask.sum(dim=1), packed)
        return features

    def to_dict(self) -> dict[str, Any]:
        """The table as plain JSON values."""
        return {"features": [dataclasses.asdict(feature) for feature in self.features]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FeatureTable":
        """The table that `to_dict` wrote.

        Raises:
            ValueError: if a key is missing or unknown, or a value has the wrong type.
        """
        require_keys("feature table", values, {"features"})
        return cls(inputs_from_dicts("feature table", "features", Feature, values["features"]))


AnyInput = TypeVar("AnyInput", bound=Input)


def inputs_from_dicts(table: str, key: str, kind: type[AnyInput], values: object) -> tuple[AnyInput, ...]:
    """The inputs that ``key`` of a table lists, each as its plain JSON values.

    Raises:
        ValueError: if it is not such a list, a key is missing or unknown, a value has the wrong type, or a name is
            given twice.
    """
    if not isinstance(values, list) or not values:
        raise ValueError(f"{table}: {key!r} must be a list with at least one {kind.kind}")
    for value in values:
        require_keys(kind.kind, value, {field.name for field in dataclasses.fields(kind)})
    inputs = tuple(kind(**value) for value in values)
    names = [one.name for one in inputs]
    if len(set(names)) != len(names):
        raise ValueError(f"{table}: a name is given twice in {', '.join(names)}")
    return inputs


def require_keys(what: str, values: object, keys: set[str]) -> None:
    """Refuse anything but a mapping with exactly these keys.

    Raises:
        ValueError: naming ``what`` and the keys.
    """
    if not isinstance(values, dict) or values.keys() != keys:
        found = sorted(values) if isinstance(values, dict) else values
        raise ValueError(f"{what}: expected exactly the keys {sorted(keys)}, found {found}")


#: Inputs of the JetClass study (arXiv:2202.03772), in its order and with its scaling.
_JETCLASS = (
    Feature("part_pt_log", "log_pt", 1.7, 0.7, 5.0),
    Feature("part_e_log", "log_energy", 2.0, 0.7, 5.0),
    Feature("part_logptrel", "log_pt_fraction", -4.7, 0.7, 5.0),
    Feature("part_logerel", "log_energy_fraction", -4.7, 0.7, 5.0),
    Feature("part_deltaR", "delta_r", 0.2, 4.0, 5.0),
    Feature("part_charge", "charge"),
    Feature("part_isChargedHadron", "is_charged_hadron"),
    Feature("part_isNeutralHadron", "is_neutral_hadron"),
    Feature("part_isPhoton", "is_photon"),
    Feature("part_isElectron", "is_electron"),
    Feature("part_isMuon", "is_muon"),
    Feature("part_d0", "tanh_d0"),
    Feature("part_d0err", "d0_error"),
    Feature("part_dz", "tanh_dz"),
    Feature("part_dzerr", "dz_error"),
    Feature("part_deta", "deta"),
    Feature("part_dphi", "dphi"),
)

#: Objects of an event, as in the four-top study (arXiv:2211.05143): momentum, one-hot type, charge. Centres and scales
#: are those of `zoo data fit-scaling` on the training rows of docs/four_tops.md; eta and phi are centred by symmetry.
_EVENTS = (
    Feature("part_pt_log", "log_pt", 4.25, 1.32, 5.0),
    Feature("part_e_log", "log_energy", 4.77, 1.19, 5.0),
    Feature("part_eta", "eta", 0.0, 0.80, 5.0),
    Feature("part_phi", "phi", 0.0, 0.467),
    Feature("part_isJet", "is_jet"),
    Feature("part_isBJet", "is_b_jet"),
    Feature("part_isElectronMinus", "where(charge < 0, is_electron, 0)"),
    Feature("part_isElectronPlus", "where(charge > 0, is_electron, 0)"),
    Feature("part_isMuonMinus", "where(charge < 0, is_muon, 0)"),
    Feature("part_isMuonPlus", "where(charge > 0, is_muon, 0)"),
    Feature("part_isPhoton", "is_photon"),
    Feature("part_charge", "charge"),
)

#: Types of particles that the LorentzNet study of quarks and gluons (arXiv:2201.08187) distinguishes, by the numbers of
#: the Monte Carlo scheme of the Particle Data Group, and the mass, which its four-momenta have.
_QUARK_GLUON_TYPES = (
    *(
        Feature(f"part_is{name}", f"where(abs(part_pdg_id) == {number}, 1, 0)")
        for name, number in {
            "Electron": 11,
            "Muon": 13,
            "Photon": 22,
            "LongKaon": 130,
            "ChargedPion": 211,
            "ChargedKaon": 321,
            "Neutron": 2112,
            "Proton": 2212,
        }.items()
    ),
    Feature("part_mass", "part_mass"),
)

#: Kinematics; the same with charge and type; the same with impact parameters. Objects of events; their types and charge
#: alone, which Lorentz transformations leave as they are. Types and masses of the particles of `quark_gluon`.
FEATURE_TABLES = {
    "kin": FeatureTable(_JETCLASS[:5] + _JETCLASS[-2:]),
    "kinpid": FeatureTable(_JETCLASS[:11] + _JETCLASS[-2:]),
    "full": FeatureTable(_JETCLASS),
    "events": FeatureTable(_EVENTS),
    "object_types": FeatureTable(_EVENTS[4:]),
    "quark_gluon_types": FeatureTable(_QUARK_GLUON_TYPES),
}


def feature_table(name: str) -> FeatureTable:
    """The feature table called ``name``; its formulas, centres and scales never change.

    Raises:
        ValueError: if there is none; the message names the known ones.
    """
    if name not in FEATURE_TABLES:
        raise ValueError(f"features: no feature table is called {name!r}; choose one of {', '.join(FEATURE_TABLES)}")
    return FEATURE_TABLES[name]
