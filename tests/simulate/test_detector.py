"""The detector against hand-made particles whose fate can be worked out on paper."""

import math
from dataclasses import replace

import numpy as np
import pytest

from zoo.simulate.detector import (
    DetectorCard,
    Particles,
    charge,
    detect,
    ecal_fraction,
    find_towers,
    log_normal,
    propagate,
    reconstruct_tracks,
)

CARD = DetectorCard()
PERFECT = replace(
    CARD,
    smear=False,
    track_pt_min=0.0,
    hadron_efficiency=((2.5, 1.0, 1.0, 1.0),),
    electron_efficiency=((2.5, 1.0, 1.0, 1.0),),
    muon_efficiency=((2.5, 1.0, 1.0, 1.0),),
)
PION_MASS, KAON_MASS = 0.13957, 0.49761


def particles(*rows, mass=0.0):
    """Rows of (pdg id, pT, eta, phi) in event 0, born at the origin."""
    pdg_id, pt, eta, phi = np.array(rows, dtype=np.float64).T
    px, py, pz = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + mass**2)
    four_momenta = np.stack([energy, px, py, pz], axis=1)
    count = len(pdg_id)
    return Particles(np.zeros(count, dtype=np.int64), pdg_id.astype(np.int64), four_momenta, np.zeros((count, 3)))


def test_charges():
    codes = np.array([211, -211, 11, -11, 13, 2212, -2212, 22, 130, 2112, 12, 3112, 3222])
    assert charge(codes).tolist() == [1, -1, -1, 1, -1, 1, -1, 0, 0, 0, 0, -1, 1]


def test_neutral_particles_fly_straight():
    eta, phi = propagate(particles((22, 5.0, 0.7, 1.1), (130, 0.2, -1.9, -3.0)), CARD)
    np.testing.assert_allclose(eta, [0.7, -1.9], atol=1e-4)
    np.testing.assert_allclose(phi, [1.1, -3.0], atol=1e-4)


def test_charged_particles_bend_by_the_chord_formula():
    # A circle of radius rho through the origin meets the cylinder R at the angle asin(R / (2 rho)).
    pt = np.array([0.5, 1.0, 10.0])
    _, phi = propagate(particles(*((211, p, 0.0, 0.4) for p in pt)), CARD)
    rho = pt / (0.299792458 * 2.0)
    np.testing.assert_allclose(phi, 0.4 - np.arcsin(1.15 / (2 * rho)), atol=1e-9)
    _, mirrored = propagate(particles(*((-211, p, 0.0, 0.4) for p in pt)), CARD)
    np.testing.assert_allclose(mirrored - 0.4, 0.4 - phi, atol=1e-9)


@pytest.mark.parametrize("pt", [0.2, 0.6, 3.0])
@pytest.mark.parametrize("code", [211, -211, 22])
def test_displaced_tracks_follow_the_lorentz_force(code, pt):
    one = particles((code, pt, 0.9, 2.0))._replace(vertices=np.array([[0.3, -0.2, 0.5]]))
    eta, phi = propagate(one, CARD)
    # Small steps of dp/ds = q v x B until the wall is reached.
    position, direction = one.vertices[0].copy(), one.four_momenta[0, 1:] / np.linalg.norm(one.four_momenta[0, 1:])
    turn = -{211: 1, -211: -1, 22: 0}[code] * 0.299792458 * 2.0 / np.linalg.norm(one.four_momenta[0, 1:])
    step = 1e-4
    while math.hypot(position[0], position[1]) < 1.15 and abs(position[2]) < 3.51:
        position = position + step * direction / 2
        cosine, sine = math.cos(turn * step), math.sin(turn * step)
        direction = np.array(
            [cosine * direction[0] - sine * direction[1], sine * direction[0] + cosine * direction[1], direction[2]]
        )
        position = position + step * direction / 2
    assert math.asinh(position[2] / math.hypot(position[0], position[1])) == pytest.approx(eta[0], abs=1e-3)
    assert math.atan2(position[1], position[0]) == pytest.approx(phi[0], abs=1e-3)


def test_curlers_leave_far_forward_and_are_lost():
    # Below 0.2998 B R / 2 = 0.345 GeV a track never reaches the cylinder; at 0.15 GeV it ends beyond |eta| = 2.5.
    tracks = particles(*((211, 0.15, 0.3, phi) for phi in np.linspace(-3, 3, 200)))
    eta, phi = propagate(tracks, CARD)
    assert (eta > 2.5).all()
    assert len(reconstruct_tracks(tracks, eta, phi, CARD, np.random.default_rng(1)).event) == 0


def test_particles_born_behind_the_tracker_leave_nothing():
    late = particles((22, 50.0, 0.0, 0.0))._replace(vertices=np.array([[1.2, 0.0, 0.0]]))
    assert len(detect(late, CARD, np.random.default_rng(1)).energy) == 0


@pytest.mark.parametrize(
    ("code", "pt", "eta", "expected"),
    [(211, 5.0, 0.5, 0.95), (211, 0.8, 0.5, 0.70), (-13, 5.0, 2.0, 0.98), (11, 5.0, 2.7, 0.0)],
)
def test_track_efficiency(code, pt, eta, expected):
    many = particles(*((code, pt, eta, phi) for phi in np.linspace(-3, 3, 4000)))
    found = len(reconstruct_tracks(many, *propagate(many, CARD), CARD, np.random.default_rng(2)).event) / 4000
    assert found == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / 4000) + 1e-12)


def test_track_resolution():
    many = particles(*((211, 20.0, 0.2, phi) for phi in np.linspace(-3, 3, 8000)), mass=PION_MASS)
    tracks = reconstruct_tracks(many, *propagate(many, CARD), CARD, np.random.default_rng(3))
    pt = tracks.energy / np.cosh(tracks.eta)
    assert pt.mean() == pytest.approx(20.0, rel=0.005)
    assert pt.std() / 20.0 == pytest.approx(math.hypot(0.06, 0.0013 * 20), rel=0.05)


def test_log_normal_has_the_asked_moments():
    values = log_normal(np.full(200_000, 3.0), np.full(200_000, 1.5), np.random.default_rng(4))
    assert values.min() > 0
    assert values.mean() == pytest.approx(3.0, rel=0.01)
    assert values.std() == pytest.approx(1.5, rel=0.03)
    assert log_normal(np.zeros(2), np.ones(2), np.random.default_rng(4)).tolist() == [0.0, 0.0]


def test_energy_is_conserved_without_resolution():
    rng = np.random.default_rng(5)
    codes = rng.choice([211, -211, 22, 130, 2112, 11, 310], 500)
    mixed = particles(
        *zip(codes, rng.exponential(4.0, 500) + 0.5, rng.uniform(-2, 2, 500), rng.uniform(-3, 3, 500), strict=True),
        mass=KAON_MASS,
    )
    seen = detect(mixed, PERFECT, rng)
    assert seen.energy.sum() == pytest.approx(mixed.four_momenta[:, 0].sum(), rel=1e-9)


def test_one_photon_is_one_object_in_its_tower():
    seen = detect(particles((22, 40.0, 0.33, 0.5)), PERFECT, np.random.default_rng(6))
    assert seen.energy == pytest.approx([40.0 * math.cosh(0.33)])
    assert 0.3 <= seen.eta[0] <= 0.4
    assert math.floor(seen.phi[0] * 18 / math.pi) == math.floor(0.5 * 18 / math.pi)


def test_tracks_keep_their_own_direction():
    seen = detect(particles((211, 2.0, 0.33, 0.5)), PERFECT, np.random.default_rng(7))
    assert (seen.eta, seen.phi) == (pytest.approx([0.33]), pytest.approx([0.5]))


def test_calorimeters_share_towers_and_directions():
    # A photon and a K_L of one tower are two objects that point to one place, the K_S alone as well (0.3 and 0.7).
    seen = detect(particles((22, 30.0, 0.33, 0.5), (130, 30.0, 0.37, 0.52)), PERFECT, np.random.default_rng(8))
    assert len(seen.energy) == 2
    assert seen.eta[0] == seen.eta[1]
    assert seen.phi[0] == seen.phi[1]
    shared = detect(particles((310, 30.0, 0.33, 0.5)), PERFECT, np.random.default_rng(8))
    np.testing.assert_allclose(shared.energy / shared.energy.sum(), [0.3, 0.7])


def test_muons_are_tracks_only_and_neutrinos_nothing():
    seen = detect(particles((13, 30.0, 0.3, 0.5), (14, 30.0, 0.3, 0.5)), PERFECT, np.random.default_rng(9))
    np.testing.assert_allclose(seen.energy, [30.0 * math.cosh(0.3)])
    assert ecal_fraction(np.array([22, -11, 211, 3122]), CARD).tolist() == [1.0, 1.0, 0.0, 0.3]


def test_small_deposits_stay_below_threshold():
    # Electromagnetic: 0.2 GeV against 0.5 GeV. Hadronic: E > sigma(E) = 1.59 GeV and more needs at least 1.7 GeV.
    soft = particles(*((22, 0.2, 0.05, phi) for phi in np.arange(-3, 3, 0.3)))
    assert len(detect(soft, CARD, np.random.default_rng(10)).energy) == 0
    assert (detect(particles((130, 8.0, 0.0, 0.0)), CARD, np.random.default_rng(11)).energy > 1.7).all()


def test_poor_tracks_take_the_energy_of_the_calorimeter():
    # At 300 GeV and eta 2 a track is good to 96 %, the hadronic calorimeter to 5.1 %.
    energies = [
        detect(particles((211, 300 / math.cosh(2.0), 2.0, 0.3)), CARD, np.random.default_rng(seed)).energy.sum()
        for seed in range(300)
    ]
    seen = np.array([energy for energy in energies if energy > 0])
    assert seen.mean() == pytest.approx(300, rel=0.02)
    assert seen.std() / 300 == pytest.approx(math.hypot(0.05, 0.706 / math.sqrt(300)), rel=0.2)


def test_good_tracks_are_kept_and_explain_their_tower():
    # At 10 GeV a central track is good to 6 %, the hadronic calorimeter to 23 %: the track stays, a rest is rare.
    rng = np.random.default_rng(12)
    objects = [detect(particles((211, 10.0, 0.25, 0.3)), replace(CARD, smear=True), rng) for _ in range(400)]
    tracks = np.array([seen.energy[-1] for seen in objects if np.isclose(seen.eta[-1], 0.25) and len(seen.eta)])
    assert len(tracks) / 400 == pytest.approx(0.95, abs=0.05)
    assert tracks.std() / (10 * math.cosh(0.25)) == pytest.approx(0.062, rel=0.15)


def test_events_do_not_mix():
    two = particles((22, 10.0, 0.33, 0.5), (22, 20.0, 0.33, 0.5))._replace(event=np.array([0, 1]))
    seen = detect(two, PERFECT, np.random.default_rng(13))
    assert dict(zip(seen.event.tolist(), seen.energy / math.cosh(0.33), strict=True)) == pytest.approx(
        {0: 10.0, 1: 20.0}
    )


def test_towers_beyond_the_calorimeter_are_number_zero():
    far = particles((22, 1.0, 4.0, 0.0), (22, 1.0, 0.0, 0.0))
    eta, phi = propagate(far, CARD)
    tracks = reconstruct_tracks(far, eta, phi, CARD, np.random.default_rng(14))
    hits, _, towers = find_towers(far.event, eta, phi, tracks, CARD, np.random.default_rng(14))
    assert hits[0] == 0
    assert hits[1] > 0
    assert towers.centre[hits[1]] == pytest.approx(0.05)
