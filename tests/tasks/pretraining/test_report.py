"""Errors of metrics over particles, of which those of one jet go together."""

import numpy as np
import pytest

from zoo.tasks.pretraining.report import error_of_mean


def test_error_of_independent_items_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(size=500)
    assert error_of_mean(values, np.arange(500)) == pytest.approx(values.std(ddof=1) / 500**0.5)


def test_items_of_a_jet_count_once():
    """The same values ten times over are no better known; control: as jets of their own they would be."""
    values = np.random.default_rng(1).normal(size=500)
    repeated, jet = values.repeat(10), np.arange(500).repeat(10)
    assert error_of_mean(repeated, jet) == pytest.approx(error_of_mean(values, np.arange(500)))
    assert error_of_mean(repeated, np.arange(5000)) < 0.4 * error_of_mean(repeated, jet)


def test_one_jet_has_no_error():
    assert error_of_mean(np.ones(5), np.zeros(5, dtype=np.int64)) is None
    assert error_of_mean(np.ones(0), np.zeros(0, dtype=np.int64)) is None
