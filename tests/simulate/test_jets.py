"""Clustering, cuts and truth matching on hand-made objects."""

import numpy as np
import pytest

from zoo.simulate.detector import EnergyFlow
from zoo.simulate.generator import top_decays
from zoo.simulate.jets import Selection, leading_constituents, massless, matched, select_jets

SELECTION = Selection()


def momentum(pt, eta, phi):
    return [pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)]


def objects(*rows):
    """Rows of (event, pT, eta, phi)."""
    event, pt, eta, phi = np.array(rows).T
    return EnergyFlow(event.astype(np.int64), pt * np.cosh(eta), eta, phi)


def test_cuts_on_pt_and_eta():
    pytest.importorskip("fastjet")
    made = objects(
        (0, 600.0, 0.1, 0.5), (0, 540.0, 0.0, -2.6),  # too soft
        (1, 580.0, 1.9, 1.0), (1, 580.0, -2.1, -2.0),  # too far forward
        (3, 660.0, 0.0, 1.0), (3, 640.0, 0.0, -2.0),  # too hard
        (4, 400.0, 0.0, 3.1), (4, 200.0, 0.2, -3.1),  # one jet across phi = pi
    )  # fmt: skip
    jets = select_jets(made, None, None, SELECTION)
    assert jets.index.tolist() == [0, 1, 3, 4]
    assert jets.counts.tolist() == [1, 1, 1, 2]
    pt = np.hypot(jets.four_momenta[:, 1], jets.four_momenta[:, 2])
    np.testing.assert_allclose(pt, [600, 580, 640, 400, 200], rtol=1e-6)


def test_only_the_two_leading_jets_of_an_event_count():
    pytest.importorskip("fastjet")
    made = objects((0, 640.0, 0.0, 0.0), (0, 620.0, 0.0, 2.0), (0, 560.0, 0.0, -2.0))
    assert len(select_jets(made, None, None, SELECTION).counts) == 2


def test_an_event_without_jets_is_no_problem():
    pytest.importorskip("fastjet")
    assert len(select_jets(objects((0, 3.0, 0.0, 0.0)), None, None, SELECTION).counts) == 0


def test_a_top_jet_holds_the_top_and_its_three_quarks():
    jets = np.array(
        [momentum(600, 0.0, 3.1), momentum(600, 0.0, 0.0), momentum(600, 1.0, 0.0), momentum(600, 0.0, 0.0)]
    )
    inside = [momentum(600, 0.0, -3.1), momentum(300, 0.5, 3.0), momentum(200, -0.5, -3.1), momentum(100, 0.0, 2.5)]
    one_outside = [momentum(600, 0.0, 0.0), momentum(300, 0.1, 0.0), momentum(200, 0.0, 0.79), momentum(100, 0.0, 0.81)]
    top_outside = [momentum(600, 0.1, 0.0), momentum(300, 1.1, 0.0), momentum(200, 1.0, 0.3), momentum(100, 0.9, 0.0)]
    tops = np.array([inside, one_outside, top_outside])
    # The fourth jet has no top in its event.
    accepted = matched(jets, np.array([0, 1, 2, 3]), tops, np.array([0, 1, 2]), 0.8)
    assert accepted.tolist() == [True, False, False, False]
    # A jet does not match the top of another event, and quarks of two tops do not add up.
    assert not matched(jets[:1], np.array([7]), tops[:1], np.array([0]), 0.8).any()
    halves = np.array([[inside[0], inside[1], inside[2], momentum(9, 0, 0)], [momentum(9, 0, 0), *inside[1:]]])
    assert not matched(jets[:1], np.array([0]), halves, np.array([0, 0]), 0.8).any()


def test_constituents_are_massless_sorted_and_at_most_200():
    rng = np.random.default_rng(1)
    momenta = massless(rng.exponential(10.0, 500), rng.uniform(-1, 1, 500), rng.uniform(-3, 3, 500))
    owner = np.repeat([0, 1, 2], [240, 60, 200])
    jets = leading_constituents(momenta, owner, np.array([4, 5, 6]), np.array([True, False, True]), SELECTION)
    assert jets.counts.tolist() == [200, 200]
    assert jets.index.tolist() == [4, 6]
    assert jets.four_momenta.dtype == np.float32
    p = jets.four_momenta.astype(np.float64)
    assert np.abs(p[:, 0] ** 2 - (p[:, 1:] ** 2).sum(axis=1)).max() < 1e-6 * (p[:, 0] ** 2).max()
    pt = np.hypot(p[:200, 1], p[:200, 2])
    assert (np.diff(pt) <= 0).all()
    hardest = np.sort(np.hypot(momenta[:240, 1], momenta[:240, 2]))[::-1][:200]
    np.testing.assert_allclose(pt, hardest, rtol=1e-6)


def test_top_decays_in_an_event_record():
    # row:              0  1   2   3    4   5   6   7   8    9   10  11  12 13
    pdg_id = np.array([21, 6, -6, 24, 5, 24, 2, -1, -24, -5, 11, -12, 5, -5])
    status = np.array([21, 62, 62, 22, 23, 62, 23, 23, 22, 23, 23, 23, 51, 51])
    mother = np.array([0, 0, 0, 1, 1, 3, 5, 5, 2, 2, 8, 8, 0, 0])
    # The first top decays to b u dbar through a copied W; the second W is leptonic; the last b pair comes from a gluon.
    assert top_decays(pdg_id, status, mother).tolist() == [[1, 4, 6, 7]]
