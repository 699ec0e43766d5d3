"""The linear probe: its own jets to fit and to judge, and the areas of scikit-learn's ridge regression."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from zoo.tasks.pretraining.probe import RIDGE, LinearProbe, linear_probe, probe_rows


def jets(number: int, separation: float) -> tuple[torch.Tensor, torch.Tensor]:
    label = torch.arange(number) % 2
    return torch.randn(number, 5) + separation * label[:, None] * torch.tensor([1.0, 0, 0, -1, 0]), label


def test_rows_for_fit_and_judgement_are_apart_and_even():
    """Also where labels alternate from row to row."""
    for index in (torch.arange(60550, 66550), torch.arange(0, 12000, 2)):
        fitted, judged = probe_rows(index, 0.5)
        assert not (fitted & judged).any()
        assert fitted.float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert judged.float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert (index[fitted] % 4 == 0).float().mean().item() == pytest.approx(
            (index % 4 == 0).float().mean().item(), abs=0.02
        )
    assert not any(rows.any() for rows in probe_rows(torch.arange(100), 0.0))


def test_scores_are_those_of_ridge_regression():
    x, label = jets(200, 0.7)
    rows = torch.arange(80)
    scores = linear_probe(x, label, rows)
    standardised = ((x - x[rows].mean(0)) / x[rows].std(0)).double().numpy()
    witness = Ridge(alpha=RIDGE * 80).fit(standardised[:80], np.eye(2)[label[:80]])
    np.testing.assert_allclose(scores, witness.predict(standardised), atol=1e-6)


def test_area_is_that_of_the_jets_left_out():
    x, label = jets(400, 0.7)
    is_fitted = torch.arange(400) < 150
    probe = LinearProbe()
    for part in (slice(0, 100), slice(100, 400)):
        probe.update(x[part], label[part], is_fitted[part])
    figures = probe.compute()
    scores = linear_probe(x, label, torch.arange(150))
    assert figures["probe_auc"].item() == pytest.approx(roc_auc_score(label[150:], scores[150:, 1]), abs=1e-6)
    assert 0.5 < figures["probe_auc"] < 1
    assert figures["probe_auc_error"] > 0


def test_there_is_no_area_without_both_classes():
    probe = LinearProbe()
    assert probe.compute() == {}
    x, label = jets(40, 1.0)
    for is_fitted in (label == 0, label >= 0):
        probe.reset()
        probe.update(x, label, is_fitted)
        assert probe.compute() == {}
