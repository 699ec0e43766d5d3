"""What is said of each quantity, beside what it does when momenta and vertices are transformed."""

import math

import numpy as np
import pytest
import torch

from zoo.data.context import CONTEXT_TABLES
from zoo.data.datasets import JET_COLUMNS, resolve_file
from zoo.data.features import FEATURE_TABLES, FORMULAS, Feature, particle_inputs
from zoo.data.formats import dark_machines, hls4ml, jetclass, jetnet, quark_gluon
from zoo.data.readers import read_jets
from zoo.data.turning import ColumnChanges, Turning
from zoo.physics import quantities
from zoo.physics.quantities import QUANTITIES, change_of

ANGLE, RAPIDITY = 2.0, 0.3
#: What an event has: four jets of five particles.
COUNTS = torch.full((4,), 5)

MIRROR = torch.diag(torch.tensor([1.0, 1, -1, 1], dtype=torch.float64))
TURN = torch.eye(4, dtype=torch.float64)
TURN[1, 1] = TURN[2, 2] = math.cos(ANGLE)
TURN[2, 1], TURN[1, 2] = math.sin(ANGLE), -math.sin(ANGLE)
BOOST = torch.eye(4, dtype=torch.float64)
BOOST[0, 0] = BOOST[3, 3] = math.cosh(RAPIDITY)
BOOST[0, 3] = BOOST[3, 0] = math.sinh(RAPIDITY)


def event() -> tuple[torch.Tensor, torch.Tensor]:
    """Massless momenta in GeV, around the axes of jets, and where and when the particles are made, in mm."""
    random = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, 3, generator=random, dtype=torch.float64)

    three = 50 * normal(4, 1) + 5 * normal(4, 5)
    momenta = torch.cat([three.norm(dim=-1, keepdim=True), three], dim=-1).flatten(0, 1)
    place = torch.nn.functional.pad(0.3 * normal(20), (1, 0))
    return momenta, place


def worked_out(momenta: torch.Tensor, place: torch.Tensor) -> dict[str, np.ndarray]:
    """Every quantity that follows from momenta, vertices and types, (particle,), by its name."""
    px, py, pz = momenta[:, 1:].T
    _, x, y, z = place.T
    pt = torch.hypot(px, py)
    columns = {
        "part_d0val": (x * py - y * px) / pt,
        "part_dzval": z - (x * px + y * py) * pz / pt**2,
        "part_charge": (torch.arange(20) % 3 - 1).double(),
        "part_pdg_id": (torch.arange(20) % 5).double(),
        "part_mass": torch.linspace(0, 1, 20, dtype=torch.float64),
        **{name: (torch.arange(20) % 4 == 0).double() for name in QUANTITIES if name.startswith("part_is")},
    }
    columns |= {
        "part_d0err": 0.1 * columns["part_d0val"].abs(),
        "part_dzerr": 0.1 * columns["part_dzval"].abs(),
    }
    particles = particle_inputs(momenta, COUNTS, columns)
    alike = {name: Feature(name, of.same_as) for name, of in QUANTITIES.items() if of.same_as}
    found = columns | {name: formula(particles) for name, formula in FORMULAS.items()}
    found |= {name: FORMULAS[feature.formula](particles) for name, feature in alike.items() if name != "part_pt"}
    return {name: values.numpy() for name, values in (found | {"part_pt": pt}).items()}


def is_same(name: str, one: np.ndarray, other: np.ndarray) -> bool:
    difference = one - other
    if QUANTITIES[name].change == "azimuths":
        difference = np.remainder(difference + math.pi, 2 * math.pi) - math.pi
    return bool(np.abs(difference).max() < 1e-9 * max(1, np.abs(other).max()))


def test_every_input_of_a_model_and_every_column_of_a_format_has_an_entry():
    tables = [resolve_file(f"sample:{name}") for name in ("top_tagging/train", "four_tops/train")]
    named = {
        *(
            name
            for table in FEATURE_TABLES.values()
            for one in table.features
            for name in (*one.quantities, *one.columns)
        ),
        *(name for table in CONTEXT_TABLES.values() for name in table.fields),
        *(name for path in tables for table in [read_jets(path, (0, 3))] for name in table.particles | table.fields),
        *jetclass.PARTICLE_COLUMNS,
        *JET_COLUMNS,
        *quark_gluon.LAYOUT.particles,
        *dark_machines.LAYOUT.particles,
        *dark_machines.LAYOUT.fields,
        *hls4ml.LAYOUT.fields,
        *jetnet.LAYOUT.fields,
    }
    assert named - QUANTITIES.keys() == set()


def test_the_test_sees_all_that_particles_and_their_jets_have():
    of_particles = {name for name, of in QUANTITIES.items() if of.of == "particle" or of.formula}
    assert worked_out(*event()).keys() == of_particles


@pytest.mark.parametrize(("sign", "angle"), [(-1, 0.0), (1, ANGLE), (-1, ANGLE)])
def test_what_is_mirrored_and_turned_becomes_what_is_said(sign, angle):
    """Control: each would not if it were said to stay as it is, and what is said to stay does."""
    momenta, place = event()
    matrix = (TURN if angle else torch.eye(4).double()) @ (MIRROR if sign < 0 else torch.eye(4).double())
    before, after = worked_out(momenta, place), worked_out(momenta @ matrix.T, place @ matrix.T)
    turning = Turning.of(before, [before], ColumnChanges())
    said = turning.turn(before, np.full(20, float(sign)), np.full(20, angle))
    moving = {"azimuths", "vectors"} | ({"mirrored"} if sign < 0 else set())
    for name, values in after.items():
        assert is_same(name, said[name], values), name
        moves = QUANTITIES[name].change in moving and name != ("part_px" if not angle else None)
        assert is_same(name, before[name], values) != moves, name


def test_what_is_boosted_along_the_beam_becomes_what_is_said():
    momenta, place = event()
    before, after = worked_out(momenta, place), worked_out(momenta @ BOOST.T, place @ BOOST.T)
    for name, values in after.items():
        stays, is_shifted = is_same(name, before[name], values), is_same(name, before[name] + RAPIDITY, values)
        assert QUANTITIES[name].boost == ("unchanged" if stays else "shifted" if is_shifted else "changed"), name


def test_units_are_those_of_the_numbers():
    """In MeV, what is said to be in GeV is a thousand times as much and its logarithm more by that; all else stays."""
    momenta, place = event()
    before, in_mev = worked_out(momenta, place), worked_out(1000 * momenta, place)
    for name in before.keys() - {"part_mass"}:  # which is made up
        is_logarithm = name in ("log_pt", "log_energy")
        expected = before[name] * (1000 if QUANTITIES[name].unit == "GeV" else 1) + is_logarithm * math.log(1000)
        assert is_same(name, expected, in_mev[name]), name
        assert ("[GeV]" in QUANTITIES[name].label) == (QUANTITIES[name].unit == "GeV"), name
        assert ("/ \\mathrm{GeV}" in QUANTITIES[name].label) == is_logarithm, name


def test_columns_that_follow_from_momenta_do():
    momenta, place = event()
    particles, found = particle_inputs(momenta, COUNTS), worked_out(momenta, place)
    alike = {name: Feature(name, of.same_as) for name, of in QUANTITIES.items() if of.same_as}
    assert alike.keys() == {"part_pt", "part_eta", "part_phi", "part_deta", "part_dphi"}
    for name, feature in alike.items():
        np.testing.assert_allclose(feature.standardise(particles), found[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        ("met_phi MissingET_Phi metPhi phi jet_phi sv_azimuth MET_T1_phi", "azimuths"),
        ("met_x MET_py part_vx part_px sv_y cos_phi phi_sin", "vectors"),
        ("part_dphi part_phirel deltaPhi phi_rel part_d0val trk_d0 trk_dxySig d0_significance", "mirrored"),
        (
            "met part_d0err trk_d0_err abs_dphi part_charge part_isMuon part_deta part_dzval z0SinTheta njets",
            "unchanged",
        ),
        ("part_ip3d signed_d0_significance part_foo morphism idx part_quality", None),
    ],
)
def test_what_names_tell(names, kind):
    assert {name: change_of(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_names_do_not_contradict_the_table(monkeypatch):
    """What the name of a quantity tells, if anything, is what the table says."""
    said = {name: of.change for name, of in QUANTITIES.items()}
    monkeypatch.setattr(quantities, "QUANTITIES", {})
    told = {name: change_of(name) for name in said}
    assert {name for name, change in told.items() if change not in (None, said[name])} == set()
    assert sum(change is not None for change in told.values()) > len(told) / 2


def test_what_a_user_says_goes_before_the_table():
    """Of impact parameters that have the sign of the side of the jet, no mirror changes any."""
    columns = {"part_d0val": np.array([-1.0, 2.0])}
    by_jet = Turning.of(columns, [columns], ColumnChanges(unchanged=["part_d0val"]))
    about_beam = Turning.of(columns, [columns], ColumnChanges())
    mirrored = [
        turning.turn(columns, -np.ones(2), np.zeros(2))["part_d0val"].tolist() for turning in (by_jet, about_beam)
    ]
    assert mirrored == [[-1, 2], [1, -2]]
