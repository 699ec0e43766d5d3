"""Metrics against hand counts, brute force, scikit-learn and toys; two real processes against one."""

import decimal
import json
import logging
import math
import os
import subprocess
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import sklearn.metrics
import torch
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from zoo.metrics import (
    MissingClassError,
    TaggingMetrics,
    accuracy,
    auc,
    background_rejection,
    clopper_pearson,
    confusion_matrix,
    macro_auc,
    pair_score,
    roc_curve,
    significance_improvement,
    tagging_metrics,
)


def toy_scores(jets: int, seed: int = 3, decimals: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian scores of signal and background, rounded to make ties where asked."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, jets)
    score = random.normal(size=jets) + 1.5 * label
    return (score if decimals is None else score.round(decimals)).astype(np.float32), label


def brute_force_auc(score: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float:
    """Every signal jet against every background jet, by the definition."""
    wins = total = 0.0
    for s, ws in zip(score[label == 1], weight[label == 1], strict=True):
        for b, wb in zip(score[label == 0], weight[label == 0], strict=True):
            wins += ws * wb * (1.0 if s > b else 0.5 if s == b else 0.0)
            total += ws * wb
    return wins / total


class TestAuc:
    def test_counts_by_hand(self):
        # Pairs: 0.9 beats both, 0.4 ties one and beats the other: (1 + 1 + 1/2 + 1) / 4.
        assert auc([0.9, 0.4, 0.4, 0.1], [1, 1, 0, 0]).value == 3.5 / 4

    @pytest.mark.parametrize("decimals", [None, 1, 0])
    def test_agrees_with_sklearn_and_brute_force_with_ties(self, decimals):
        score, label = toy_scores(400, decimals=decimals)
        value = auc(score, label).value
        assert value == pytest.approx(roc_auc_score(label, score), abs=1e-14)
        assert value == pytest.approx(brute_force_auc(score, label, np.ones(400)), abs=1e-13)

    def test_weighted_agrees_with_brute_force(self):
        score, label = toy_scores(300, decimals=1)
        weight = np.random.default_rng(5).gamma(2.0, size=300)
        assert auc(score, label, weight).value == pytest.approx(brute_force_auc(score, label, weight), abs=1e-13)

    def test_large_logits_keep_their_order(self):
        # In float32 all of these sigmoids are exactly 1.
        score = np.array([40, 41, 42, 43], np.float32)
        assert auc(score, [0, 1, 0, 1]).value == 0.75
        assert auc(torch.sigmoid(torch.tensor(score)), [0, 1, 0, 1]).value == 0.5

    def test_error_agrees_with_bootstrap(self):
        score, label = toy_scores(1500)
        random = np.random.default_rng(1)
        draws = (random.integers(0, 1500, 1500) for _ in range(400))
        spread = np.std([roc_auc_score(label[draw], score[draw]) for draw in draws])
        assert auc(score, label).error == pytest.approx(spread, rel=0.12)

    def test_weighted_error_agrees_with_bootstrap(self):
        score, label = toy_scores(1500)
        random = np.random.default_rng(2)
        weight = random.exponential(size=1500)
        draws = [random.integers(0, 1500, 1500) for _ in range(400)]
        spread = np.std([roc_auc_score(label[d], score[d], sample_weight=weight[d]) for d in draws])
        assert auc(score, label, weight).error == pytest.approx(spread, rel=0.12)

    def test_complete_separation_keeps_an_error(self):
        estimate = auc([3.0, 4.0, 1.0, 2.0], [1, 1, 0, 0])
        assert estimate.value == 1
        assert 0.2 < estimate.error < 0.5

    def test_complement_and_unchanged_by_monotone_map(self):
        score, label = toy_scores(500, decimals=1)
        assert auc(score, label).value + auc(-score, label).value == pytest.approx(1, abs=1e-15)
        assert auc(np.exp(score.astype(np.float64)), label) == auc(score, label)


class TestRocCurve:
    def test_counts_by_hand(self):
        curve = roc_curve([5.0, 4.0, 4.0, 4.0, 2.0, 1.0], [1, 1, 0, 0, 1, 0])
        assert curve.threshold.tolist() == [5, 4, 2, 1]
        assert curve.signal_pass.tolist() == [1, 2, 3, 3]
        assert curve.background_pass.tolist() == [0, 2, 2, 3]
        assert curve.signal_pass.dtype == np.int64

    def test_neighbouring_float32_scores_stay_apart_and_both_zeros_are_one(self):
        one = np.float32(1.0)
        score = np.array([one, np.nextafter(one, np.float32(2)), 0.0, -0.0, -1e-45, np.inf, -np.inf], np.float32)
        curve = roc_curve(score, [0, 1, 0, 1, 1, 1, 0])
        assert len(curve.threshold) == 6
        assert curve.threshold[0] == np.inf
        assert curve.background_pass.tolist() == [0, 0, 1, 2, 2, 3]

    def test_numpy_and_torch_of_any_precision_agree(self):
        score, label = toy_scores(200, decimals=1)
        expected = roc_curve(score, label)
        half = roc_curve(torch.tensor(score).bfloat16(), torch.tensor(label))
        again = roc_curve(torch.tensor(score, requires_grad=True), torch.tensor(label).bool())
        assert np.array_equal(expected.background_pass, again.background_pass)
        assert half.threshold.dtype == np.float32


class TestBackgroundRejection:
    def test_counts_by_hand_with_ties_in_favour_of_the_background(self):
        score = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 7, 6.5, 3, 0]
        label = [1] * 10 + [0] * 4
        rejection = background_rejection(score, label, 0.3)  # third signal score is 7, and one background ties it
        assert (rejection.threshold, rejection.n_pass, rejection.n_background) == (7, 1, 4)
        assert rejection.value == 4
        assert not rejection.is_bound

    def test_efficiency_is_read_as_the_decimal_written(self):
        score = np.concatenate([np.arange(100, 0, -1), [93.5]])
        label = [1] * 100 + [0]
        assert 0.07 * 100 > 7
        assert background_rejection(score, label, 0.07).threshold == 94

    @pytest.mark.parametrize("efficiency", [0.01, 0.3, 0.5, 0.999, 1.0])
    def test_agrees_with_sorting_by_definition(self, efficiency):
        score, label = toy_scores(2000, decimals=2)
        signal = sorted(score[label == 1].tolist(), reverse=True)
        threshold = signal[math.ceil(round(efficiency * len(signal), 9)) - 1]
        passed = sum(b >= threshold for b in score[label == 0].tolist())
        rejection = background_rejection(score, label, efficiency)
        assert (rejection.threshold, rejection.n_pass) == (pytest.approx(threshold), passed)

    def test_interval_at_the_published_floor(self):
        # 92 of 202,000 background jets: about 10 %.
        score = np.concatenate([[1.0], np.full(92, 2.0), np.zeros(201_908)])
        label = np.concatenate([[1], np.zeros(202_000, int)])
        rejection = background_rejection(score, label, 1.0)
        assert rejection.value == 202_000 / 92
        assert rejection.error / rejection.value == pytest.approx(1 / math.sqrt(92), rel=0.1)
        # The edges are where the observed count becomes improbable, by the binomial law itself.
        tail = (1 - 0.682689492) / 2
        assert binom.cdf(92, 202_000, 1 / rejection.lower) == pytest.approx(tail, rel=1e-5)
        assert binom.sf(91, 202_000, 1 / rejection.upper) == pytest.approx(tail, rel=1e-5)

    def test_no_background_passing_is_a_flagged_bound(self):
        rejection = background_rejection([3.0, 2.0] + [0.0] * 100, [1, 1] + [0] * 100, 0.5)
        assert rejection.is_bound
        assert rejection.n_pass == 0
        assert rejection.value == rejection.lower == pytest.approx(1 / (1 - 0.158655254 ** (1 / 100)))
        assert rejection.upper == math.inf
        assert math.isnan(rejection.error)

    def test_equal_weights_are_no_weights(self):
        score, label = toy_scores(500, decimals=1)
        expected = background_rejection(score, label, 0.3)
        assert background_rejection(score, label, 0.3, np.full(500, 0.25)) == expected
        split = np.where(label == 1, 0.5, 4.0)  # a weight a class changes no efficiency and no effective count
        weighted = background_rejection(score, label, 0.3, split)
        assert weighted.value == pytest.approx(expected.value)
        assert weighted.n_pass == pytest.approx(expected.n_pass)
        assert (weighted.lower, weighted.upper) == pytest.approx((expected.lower, expected.upper))

    def test_whole_number_weights_repeat_jets(self):
        score, label = toy_scores(300, decimals=1)
        weight = np.random.default_rng(0).integers(0, 4, 300)
        repeated = background_rejection(score.repeat(weight), label.repeat(weight), 0.5)
        weighted = background_rejection(score, label, 0.5, weight)
        assert weighted.value == pytest.approx(repeated.value)
        assert weighted.threshold == repeated.threshold
        assert weighted.n_background < repeated.n_background  # copies are not independent jets

    def test_weighted_error_agrees_with_toys(self):
        # Passing background carries three times the weight; the naive total count would misjudge the error.
        random = np.random.default_rng(8)
        values, errors = [], []
        for _ in range(300):
            passes = random.random(2000) < 0.1
            weight = np.where(passes, 3.0, 1.0) * random.uniform(0.5, 1.5, 2000)
            rejection = background_rejection(
                np.append(np.where(passes, 2.0, 0.0), 1.0), np.append(np.zeros(2000), 1), 1.0, np.append(weight, 1)
            )
            values.append(rejection.value)
            errors.append(rejection.error)
        assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)

    @pytest.mark.parametrize("efficiency", [0.0, -0.1, 1.01, math.nan])
    def test_refuses_impossible_efficiency(self, efficiency):
        with pytest.raises(ValueError, match="signal_efficiency must lie in"):
            background_rejection([1.0, 0.0], [1, 0], efficiency)


class TestClopperPearson:
    @pytest.mark.parametrize("efficiency", [0.002, 0.03, 0.4])
    @pytest.mark.parametrize("coverage", [0.682689492, 0.95])
    def test_toys_are_covered_at_least_as_often_as_promised(self, efficiency, coverage):
        passed = np.random.default_rng(4).binomial(1000, efficiency, 20_000)
        lower, upper = clopper_pearson(passed, 1000, coverage)
        covered = np.mean((lower <= efficiency) & (efficiency <= upper))
        assert coverage - 0.01 < covered < coverage + 0.15

    def test_edges_at_nothing_and_everything(self):
        lower, upper = clopper_pearson([0, 10], [10, 10])
        assert (lower[0], upper[1]) == (0, 1)
        assert upper[0] == pytest.approx(1 - lower[1])


class TestSignificanceImprovement:
    def test_maximum_by_hand_skips_cuts_of_few_background_jets(self):
        # 100 signal and 1000 background jets: a cut with 0 background, one with 40, the rest.
        score = np.concatenate([np.full(30, 3), np.full(50, 2), np.full(20, 0), np.full(40, 2), np.full(960, 0)])
        label = np.concatenate([np.ones(100), np.zeros(1000)])
        best = significance_improvement(roc_curve(score, label))
        assert best.value == pytest.approx(0.8 / math.sqrt(0.04))
        assert (best.signal_efficiency, best.n_pass) == (0.8, 40)
        expected = math.sqrt(0.96 / 40 / 4 + 0.2 / 80)
        assert best.error / best.value == pytest.approx(expected)

    def test_too_little_background_is_refused(self):
        with pytest.raises(ValueError, match="25 background jets"):
            significance_improvement(roc_curve([2.0, 1.0], [1, 0]))


class TestAccuracyAndScore:
    def test_accuracy_and_binomial_error(self):
        logits = np.zeros((1000, 3))
        logits[:900, 2] = 1
        estimate = accuracy(logits, np.full(1000, 2))
        assert estimate.value == 0.9
        assert estimate.error == pytest.approx(math.sqrt(0.9 * 0.1 / 1000), rel=0.1)

    def test_confusion_matrix_agrees_with_sklearn(self):
        random = np.random.default_rng(4)
        logits, truth, weight = random.normal(size=(500, 4)), random.integers(0, 4, 500), random.exponential(size=500)
        expected = sklearn.metrics.confusion_matrix(truth, logits.argmax(1), sample_weight=weight, normalize="true")
        np.testing.assert_allclose(confusion_matrix(logits, truth, weight, 4), expected)
        assert np.isnan(confusion_matrix(logits, truth, weight, 5)[4]).all()

    def test_weighted_accuracy_error_agrees_with_toys(self):
        random = np.random.default_rng(6)
        logits = np.array([[0.0, 1.0]]).repeat(500, axis=0)
        estimates = [accuracy(logits, random.random(500) < 0.8, random.exponential(size=500)) for _ in range(400)]
        spread = np.std([estimate.value for estimate in estimates])
        assert np.mean([estimate.error for estimate in estimates]) == pytest.approx(spread, rel=0.12)

    def test_score_is_the_log_odds_of_the_pair(self):
        logits = torch.randn(50, 4, dtype=torch.float64)
        probability = logits.softmax(dim=1)
        share = probability[:, 3] / (probability[:, 3] + probability[:, 1])
        assert pair_score(logits, 3, 1) == pytest.approx(torch.logit(share).numpy())
        assert pair_score(logits.float()).dtype == np.float32


class TestManyClasses:
    def logits(self) -> tuple[np.ndarray, np.ndarray]:
        random = np.random.default_rng(7)
        label = random.integers(0, 4, 1200)
        logits = random.normal(size=(1200, 4))
        logits[np.arange(1200), label] += 1.0
        return logits, label

    def test_macro_auc_agrees_with_sklearn_and_is_the_plain_area_of_two_classes(self):
        logits, label = self.logits()
        probability = torch.tensor(logits).softmax(dim=1).numpy()
        expected = roc_auc_score(label, probability, multi_class="ovo")
        assert macro_auc(logits, label).value == pytest.approx(expected, abs=1e-12)
        two = logits[label < 2][:, :2]
        plain = auc(pair_score(two), label[label < 2])
        both = macro_auc(two, label[label < 2])
        assert (both.value, both.error) == pytest.approx((plain.value, plain.error), abs=1e-12)

    def test_equal_probabilities_tie_exactly(self):
        random = np.random.default_rng(3)
        for _ in range(40):  # whole numbers plus what all logits of a jet share, of either precision
            label = np.arange(12) % 3
            logits = (random.integers(0, 3, (12, 3)) + random.integers(0, 3, (12, 1)) / 4).astype(np.float32)
            with decimal.localcontext(prec=60):
                terms = [[[(decimal.Decimal(float(z - a))).exp() for z in jet] for a in jet] for jet in logits]
                score = np.array([[round(1 / sum(of_class), 50) for of_class in jet] for jet in terms])
            pairs = [(a, b) for a in range(3) for b in range(3) if a != b]
            areas = [
                np.mean(
                    [(s > b) + 0.5 * (s == b) for s in score[label == one, one] for b in score[label == other, one]]
                )
                for one, other in pairs
            ]
            assert macro_auc(logits, label).value == pytest.approx(np.mean(areas), abs=1e-14)

    def test_macro_error_agrees_with_bootstrap(self):
        logits, label = self.logits()
        probability = torch.tensor(logits).softmax(dim=1).numpy()
        random = np.random.default_rng(0)
        draws = [random.integers(0, 1200, 1200) for _ in range(150)]
        spread = np.std([roc_auc_score(label[d], probability[d], multi_class="ovo") for d in draws])
        assert macro_auc(logits, label).error == pytest.approx(spread, rel=0.2)

    def test_each_signal_has_its_rejection_against_the_background(self):
        logits, label = self.logits()
        figures = tagging_metrics(logits, label, background=1, classes=["Hbb", "QCD", "Hcc", "Tbqq"])
        expected = {f"background_rejection_{e}_{name}" for e in (0.3, 0.5) for name in ("Hbb", "Hcc", "Tbqq")}
        assert set(figures) == {"accuracy", "auc"} | expected
        pair = (label == 2) | (label == 1)
        score = np.log(np.exp(logits[pair, 2]) / np.exp(logits[pair, 1]))
        by_hand = background_rejection(score, label[pair] == 2, 0.5)
        assert figures["background_rejection_0.5_Hcc"].n_pass == by_hand.n_pass


class TestBadInput:
    def test_nan_is_refused_with_its_count_and_a_remedy(self):
        with pytest.raises(ValueError, match=r"1 of 3 scores are NaN.*learning rate"):
            auc([1.0, math.nan, 0.0], [1, 0, 0])
        with pytest.raises(ValueError, match="2 of 4 logits are NaN"):
            tagging_metrics([[math.nan, 1.0], [math.nan, 0.0]], [0, 1])

    def test_infinite_logits_that_cancel_are_refused(self):
        with pytest.raises(ValueError, match="scores are NaN"):
            tagging_metrics([[math.inf, math.inf], [0.0, 1.0]], [0, 1])

    def test_one_class_is_refused(self):
        with pytest.raises(MissingClassError, match="no background among 2 jets"):
            auc([1.0, 2.0], [1, 1])
        with pytest.raises(MissingClassError, match="no signal among 2 jets"):
            background_rejection([1.0, 2.0], [0, 0], 0.5)
        with pytest.raises(
            MissingClassError, match=r"class 0 \(signal\) against class 2 \(background\): no background"
        ):
            macro_auc(np.eye(3)[:2], [0, 1])
        with pytest.raises(MissingClassError, match="no jets"):
            tagging_metrics(np.zeros((0, 2)), np.zeros(0, int))

    def test_labels_and_weights_that_make_no_sense_are_refused(self):
        with pytest.raises(ValueError, match="label must be 1"):
            auc([1.0, 2.0, 3.0], [0, 1, 2])
        with pytest.raises(ValueError, match=r"label must hold integers 0..1, got \[0 2\]"):
            accuracy(np.zeros((2, 2)), [0, 2])
        with pytest.raises(MissingClassError, match="weights of the 1 signal jets sum to -1"):
            auc([1.0, 2.0], [0, 1], [1.0, -1.0])
        with pytest.raises(MissingClassError, match="weights of the 2 jets sum to -1"):
            accuracy(np.zeros((2, 2)), [0, 1], [1.0, -2.0])
        with pytest.raises(ValueError, match="1 of 2 weights are NaN or infinite"):
            auc([1.0, 2.0], [0, 1], [1.0, math.inf])
        with pytest.raises(ValueError, match="all 2 weights are zero"):
            accuracy(np.zeros((2, 2)), [0, 1], [0.0, 0.0])
        with pytest.raises(ValueError, match="alike"):
            auc([1.0, 2.0], [0, 1, 1])

    @pytest.mark.parametrize("values", [np.array([1j, 2.0]), np.array(["1", "2"]), np.array([1, None])])
    def test_what_is_no_real_number_is_refused(self, values):
        with pytest.raises(ValueError, match="must be real numbers"):
            auc(values, [0, 1])
        with pytest.raises(ValueError, match="must be real numbers"):
            auc([0.0, 1.0], [0, 1], values)
        with pytest.raises(ValueError, match="must be real numbers"):
            accuracy(np.stack([values, values], axis=1), [0, 1])
        with pytest.raises(ValueError, match="must be real numbers"):
            TaggingMetrics().update(torch.ones(2, 2, dtype=torch.complex64), torch.tensor([0, 1]))


class TestSignedWeights:
    """Weights as of generators beyond leading order: a fifth of the jets count -1 times."""

    def toys(self, number: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        random = np.random.default_rng(12)
        draws = []
        for _ in range(number):
            score, label = toy_scores(1200, seed=int(random.integers(2**31)))
            draws.append(
                (score, label, np.where(random.random(1200) < 0.2, -1.0, 1.0) * random.uniform(0.5, 1.5, 1200))
            )
        return draws

    def test_area_is_that_of_the_definition(self):
        score, label = toy_scores(300, decimals=1)
        weight = np.random.default_rng(5).normal(1.0, 1.0, 300)
        assert auc(score, label, weight).value == pytest.approx(brute_force_auc(score, label, weight), abs=1e-12)

    def test_efficiencies_are_sums_of_signed_weights(self):
        # signal passes at 3: 2 of 3; then -1 takes the sum back, and the next cut has 1 of 3
        curve = roc_curve([3, 2, 1, 3, 2, 1], [1, 1, 1, 0, 0, 0], [2.0, -1.0, 2.0, 1.0, -0.5, 1.5])
        assert curve.signal_efficiency.tolist() == pytest.approx([2 / 3, 1 / 3, 1])
        half = curve.background_rejection(0.5)
        assert (half.threshold, half.value) == (3.0, pytest.approx(2 / 1))
        assert half.error == pytest.approx(4 * math.sqrt((1**2 * 1 + 1**2 * 2.5) / 2**4))

    def test_a_sum_of_nothing_behind_the_cut_is_a_bound(self):
        bound = background_rejection([3, 1, 3, 2, 0], [1, 1, 0, 0, 0], 0.3, [1.0, 2.0, -1.0, 4.0, 5.0])
        assert bound.is_bound
        error = math.sqrt((9**2 * 1 + 1**2 * 41) / 8**4)
        assert bound.value == pytest.approx(1 / error)

    def test_errors_agree_with_toys(self):
        figures = []
        for score, label, weight in self.toys(300):
            logits = np.stack([np.zeros_like(score), score - 0.75], axis=1)
            cut = roc_curve(score > 0.75, label, weight)  # at one place, as the threshold has no error
            judged = tagging_metrics(logits, label, weight) | {
                "rejection": cut.background_rejection(0.5),
                "sic": significance_improvement(cut),
            }
            figures.append({name: (figure.value, figure.error) for name, figure in judged.items()})
        for name in ("accuracy", "auc", "rejection", "sic"):
            values, errors = np.array([figure[name] for figure in figures]).T
            low, high = np.quantile(values, [0.1587, 0.8413])
            assert np.median(errors) == pytest.approx((high - low) / 2, rel=0.15), name

    def test_the_loop_logs_nan_where_a_class_sums_to_nothing(self, caplog):
        metric = TaggingMetrics()
        metric.update(torch.randn(3, 2), torch.tensor([0, 1, 1]), torch.tensor([1.0, 1.0, -1.0]))
        assert math.isnan(metric.compute()["auc"])
        assert "weights of the 2 signal jets sum to 0" in caplog.text


@pytest.mark.parametrize("scale", [1e-250, 1e-310, 1e250])
def test_the_scale_of_weights_changes_no_figure(scale):
    score, label = toy_scores(200)
    logits = np.random.default_rng(1).normal(size=(200, 3))
    weight = np.random.default_rng(2).integers(1, 5, 200).astype(float)
    of_background = np.where(label == 0, scale, 1.0)  # of one class only, too
    expected = roc_curve(score, label, weight)
    for scaled in (weight * scale, weight * of_background):
        curve = roc_curve(score, label, scaled)
        assert curve.auc().error == pytest.approx(expected.auc().error, rel=1e-9)
        assert curve.background_rejection(0.5).error == pytest.approx(
            expected.background_rejection(0.5).error, rel=1e-9
        )
    assert accuracy(logits[:, :2], label, weight * scale).error == pytest.approx(
        accuracy(logits[:, :2], label, weight).error, rel=1e-9
    )
    truth = np.arange(200) % 3
    assert macro_auc(logits, truth, weight * scale).error == pytest.approx(
        macro_auc(logits, truth, weight).error, rel=1e-9
    )


class Judge(pl.LightningModule):
    """The smallest module that logs the metrics as the trainer does."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.metrics = TaggingMetrics()

    def training_step(self, batch):
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch):
        self.metrics.update(self.layer(batch[0]), batch[1])

    def on_validation_epoch_end(self):
        self.log_dict({f"val_{name}": value for name, value in self.metrics.compute().items()})
        self.metrics.reset()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


WORKER = """
import json, sys
import torch
from zoo.metrics import TaggingMetrics
rank, store, source = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
bits = []
for jets, shares in torch.load(source, weights_only=True):
    metric = TaggingMetrics(num_classes=jets["logits"].shape[1])
    first = sum(shares[:rank])
    for part in torch.arange(first, first + shares[rank]).split(100):
        if len(part):
            metric.update(jets["logits"][part], jets["label"][part], jets["weight"][part])
    bits.append({name: value.view(torch.int32).item() for name, value in metric.compute().items()})
print(json.dumps(bits))
torch.distributed.destroy_process_group()
"""


def example_jets(classes: int, weighted: bool) -> dict[str, torch.Tensor]:
    """A thousand jets whose scores tie within and across processes."""
    return {
        "logits": torch.randn(1000, classes).mul(8).round() / 4,
        "label": torch.arange(1000) % classes,
        "weight": torch.rand(1000) if weighted else torch.ones(1000),
    }


class TestTaggingMetrics:
    def test_batches_give_the_figures_of_all_jets_and_reset_forgets_them(self):
        logits, label = torch.randn(1000, 2) * 3, torch.arange(1000) % 2
        metric = TaggingMetrics()
        metric.update(torch.randn(50, 2), torch.arange(50) % 2)
        metric.reset()
        for part in torch.arange(1000).split(64):
            metric.update(logits[part], label[part])
        values = metric.compute()
        assert set(values) == {
            name + suffix
            for name in ("accuracy", "auc", "background_rejection_0.3", "background_rejection_0.5")
            for suffix in ("", "_error")
        }
        expected = roc_auc_score(label, (logits[:, 1] - logits[:, 0]).numpy())
        assert values["auc"].item() == pytest.approx(expected, abs=1e-7)
        assert values["accuracy"].item() == pytest.approx((logits.argmax(1) == label).float().mean().item())

    def test_rejection_is_quoted_where_asked(self):
        logits, label = torch.randn(1000, 2), torch.arange(1000) % 2
        metric = TaggingMetrics(signal_efficiencies=(0.7, 0.95))
        metric.update(logits, label)
        for efficiency in (0.7, 0.95):
            score = logits[label == 1].diff()[:, 0].sort(descending=True).values
            threshold = score[round(500 * efficiency) - 1]
            passed = (logits[label == 0].diff()[:, 0] >= threshold).sum().item()
            assert metric.compute()[f"background_rejection_{efficiency}"].item() == pytest.approx(500 / passed)
        assert not {"background_rejection_0.3", "background_rejection_0.5"} & set(metric.compute())

    @pytest.mark.parametrize("efficiencies", [(0.0,), (0.3, 1.1), (0.5, 0.5)])
    def test_efficiencies_out_of_range_or_twice_are_refused(self, efficiencies):
        with pytest.raises(ValueError, match="signal_efficiencies"):
            TaggingMetrics(signal_efficiencies=efficiencies)

    def test_logs_from_a_lightning_module_with_its_sanity_check(self, tmp_path):
        features = torch.randn(256, 3)
        label = (features[:, 0] + torch.randn(256) > 0).long()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(features, label), batch_size=32)
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            default_root_dir=tmp_path,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        judge = Judge()
        trainer.fit(judge, loader, loader)
        with torch.no_grad():
            logits = judge.layer(features)
        expected = roc_auc_score(label, (logits[:, 1] - logits[:, 0]).numpy())
        assert trainer.callback_metrics["val_auc"].item() == pytest.approx(expected, abs=1e-6)

    def test_one_class_logs_nan_with_the_reason_and_the_true_accuracy(self, caplog):
        metric = TaggingMetrics()
        metric.update(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 1]))
        with caplog.at_level(logging.WARNING, "zoo.metrics"):
            values = metric.compute()
        assert values["auc"].isnan()
        assert values["background_rejection_0.3"].isnan()
        assert values["accuracy"] == 0.5
        assert "no background among 2 jets" in caplog.text

    def test_refuses_shapes_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"logits must be \(batch, 2\), got \(4, 3\)"):
            TaggingMetrics().update(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"label must be \(4,\)"):
            TaggingMetrics().update(torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64))

    def test_two_processes_agree_with_one_bit_by_bit(self, tmp_path):
        cases = [
            (example_jets(2, weighted=False), [700, 300]),
            (example_jets(2, weighted=True), [500, 500]),
            (example_jets(3, weighted=True), [450, 550]),
            (example_jets(2, weighted=False), [1000, 0]),
        ]
        torch.save(cases, tmp_path / "jets.pt")
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(rank), tmp_path / "store", tmp_path / "jets.pt"],
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )
            for rank in range(2)
        ]
        first, second = (json.loads(process.communicate(timeout=300)[0]) for process in processes)
        assert [process.returncode for process in processes] == [0, 0]
        alone = []
        for jets, _ in cases:
            metric = TaggingMetrics(num_classes=jets["logits"].shape[1])
            metric.update(jets["logits"], jets["label"], jets["weight"])
            alone.append({name: value.view(torch.int32).item() for name, value in metric.compute().items()})
        assert first == second == alone
        assert [len(bits) for bits in alone] == [8, 8, 12, 8]


def test_import_needs_no_lightning():
    code = "import sys, zoo; assert 'zoo.metrics' not in sys.modules; import zoo.metrics; "
    code += "print('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"False\n"
