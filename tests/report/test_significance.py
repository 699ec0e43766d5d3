"""Expected significance against profiled likelihoods, exact Poisson tails and resampled events."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import norm, poisson

from zoo.cli import main
from zoo.metrics import roc_curve
from zoo.report import Predictions
from zoo.report.significance import Yields, expected_significance, scan_significance, signal_curve


def profiled(s: float, b: float, uncertainty: float) -> float:
    """Likelihood ratio of a counting experiment with a control region, for data as expected, by a minimiser."""
    tau = 1 / (uncertainty**2 * b)
    n, m = s + b, tau * b

    def minus_log_likelihood(signal: float, background: float) -> float:
        return signal + background - n * math.log(signal + background) + tau * background - m * math.log(background)

    bounds = (b * 1e-3, (s + b) * 3)
    without = minimize_scalar(
        lambda background: minus_log_likelihood(0, background), bounds=bounds, method="bounded", options={"xatol": 1e-9}
    )
    return math.sqrt(2 * (without.fun - minus_log_likelihood(s, b)))


@pytest.mark.parametrize("s", [0.5, 5.0, 40.0])
@pytest.mark.parametrize("b", [2.0, 30.0, 1000.0])
@pytest.mark.parametrize("uncertainty", [0.02, 0.1, 0.5])
def test_equals_a_profiled_likelihood(s, b, uncertainty):
    found = expected_significance(s, b, uncertainty).item()
    assert found == pytest.approx(profiled(s, b, uncertainty), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(("s", "b"), [(20, 50), (30, 200), (60, 100)])
def test_is_near_the_exact_poisson_tail(s, b):
    """The p-value of as many events as expected, half of the probability of exactly that many."""
    p = poisson.sf(s + b, b) + poisson.pmf(s + b, b) / 2
    assert expected_significance(s, b).item() == pytest.approx(norm.isf(p), abs=0.05)


def test_limits():
    background = np.array([1e4, 1e6, 1e8])
    np.testing.assert_allclose(expected_significance(10.0, background), 10 / np.sqrt(background), rtol=1e-3)
    with_error = expected_significance(0.01 * background**0.5, background, 0.01)
    expected = 0.01 * background**0.5 / np.sqrt(background + (0.01 * background) ** 2)
    np.testing.assert_allclose(with_error, expected, rtol=1e-3)
    assert expected_significance(0.0, 5.0) == expected_significance(0.0, 5.0, 0.3) == 0
    assert expected_significance(9.0, 5.0, 1e-6) == pytest.approx(expected_significance(9.0, 5.0), rel=1e-6)


def test_uncertainty_lowers_it_and_signal_raises_it():
    by_uncertainty = [expected_significance(20.0, 50.0, error).item() for error in (0, 0.05, 0.2, 1.0)]
    assert by_uncertainty == sorted(by_uncertainty, reverse=True)
    assert (np.diff(expected_significance(np.arange(1.0, 50), 10.0, 0.1)) > 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 5.0), "signal must be 0 or more"),
        ((1.0, 0.0), "background must be more than 0"),
        ((1.0, math.nan), "background must be more than 0"),
        ((1.0, 5.0, -0.1), "background_uncertainty must be a relative error of 0 or more, got -0.1"),
    ],
)
def test_impossible_numbers_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        expected_significance(*arguments)
    with pytest.raises(ValueError, match="signal_yield must be more than 0 events, got 0"):
        Yields(0, 10)


def gaussians(events: int, separation: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of two Gaussian classes of equal size."""
    label = np.arange(events) % 2
    return np.random.default_rng(seed).normal(size=events) + separation * label, label


def test_scan_counts_what_passes():
    score, label = gaussians(2000, 1.5, seed=3)
    scan = scan_significance(roc_curve(score, label), Yields(50, 1000, 0.1))
    for position in (0, scan.best, len(scan.value) - 1):
        passes = score >= scan.threshold[position]
        assert scan.signal[position] == pytest.approx(50 * passes[label == 1].mean())
        assert scan.background[position] == pytest.approx(1000 * passes[label == 0].mean())
        expected = expected_significance(scan.signal[position], scan.background[position], 0.1)
        assert scan.value[position] == pytest.approx(expected.item())
        assert scan.n_pass[position] == passes[label == 0].sum() >= 25
    assert scan.n_pass[0] == 25
    assert scan.value[scan.best] > scan.value[-1]
    assert scan.error[-1] == 0, "without a cut nothing depends on the judged events"


@pytest.mark.parametrize("weighted", [False, True])
def test_error_is_that_of_resampled_events(weighted):
    score, label = gaussians(2000, 1.5, seed=4)
    random = np.random.default_rng(5)
    weight = random.exponential(size=2000) if weighted else np.ones(2000)
    yields, threshold = Yields(50, 1000, 0.1), 1.5
    scan = scan_significance(roc_curve(score, label, weight), yields)
    values = []
    for _ in range(300):
        chosen = random.integers(2000, size=2000)
        again = scan_significance(roc_curve(score[chosen], label[chosen], weight[chosen]), yields)
        values.append(again.value[again.passed_by(threshold)])
    assert scan.error[scan.passed_by(threshold)] == pytest.approx(np.std(values), rel=0.2)


def test_a_cut_chosen_on_the_same_events_leans_upwards():
    """Where no score helps: the value of a cut chosen on other events is right in the mean."""
    yields, excess = Yields(50, 100), {"same": [], "other": []}
    for seed in range(60):
        scan, others = (
            scan_significance(roc_curve(*gaussians(400, 0.0, seed=number)), yields, minimum)
            for number, minimum in ((seed, 10), (seed + 1000, 25))
        )
        for name, position in (("same", scan.best), ("other", scan.passed_by(others.threshold[others.best]))):
            passes = norm.sf(scan.threshold[position])
            excess[name].append(scan.value[position] - expected_significance(50 * passes, 100 * passes))
    mean, error = ({name: f(values) for name, values in excess.items()} for f in (np.mean, np.std))
    assert mean["same"] > 5 * error["same"] / math.sqrt(60)
    assert abs(mean["other"]) < 3 * error["other"] / math.sqrt(60)


def predictions(seed: int, classes: tuple[str, ...] = ("background", "signal"), events: int = 1200) -> Predictions:
    random = np.random.default_rng(seed)
    label = np.arange(events) % len(classes)
    logits = random.normal(size=(events, len(classes)))
    logits[np.arange(events), label] += 1.5
    return Predictions(logits, label, np.ones(events), np.arange(events), classes)


@pytest.fixture
def run(tmp_path) -> Path:
    (tmp_path / "run" / "report").mkdir(parents=True)
    predictions(1).save(tmp_path / "run" / "report" / "predictions.arrow")
    (tmp_path / "run" / "report" / "metrics.json").write_text('{"background": "background"}')
    return tmp_path / "run"


def test_signal_against_all_others_by_probability():
    """The order of the events is that of the softmax."""
    of_five = predictions(2, tuple("abcde"))
    curve = signal_curve(of_five, 4)
    probability = np.exp(of_five.logits.astype(float))
    probability /= probability.sum(1, keepdims=True)
    by_probability = roc_curve(probability[:, 4], of_five.label == 4)
    assert curve.auc().value == pytest.approx(by_probability.auc().value, abs=1e-6)


def test_command_quotes_the_cut_of_the_validation_on_the_test(run, capsys):
    others = run / "validation.arrow"
    predictions(7).save(others)
    options = [str(run), "--signal_yield", "50", "--background_yield", "1000", "--background_uncertainty", "0.1"]
    main(["significance", *options, "--validation", str(others)])
    shown = capsys.readouterr().out
    assert "chosen on other events" in shown
    folder = run / "significance"
    assert {path.name for path in folder.iterdir()} == {f"significance.{kind}" for kind in ("json", "png", "pdf")}
    document = json.loads((folder / "significance.json").read_text())
    assert document["cut_chosen_on"] == str(others)
    cut, loose = document["with_cut"], document["without_cut"]
    scan = scan_significance(signal_curve(Predictions.load(others), 1), Yields(50, 1000, 0.1))
    assert cut["threshold"] >= scan.threshold[scan.best]
    test = Predictions.load(run / "report" / "predictions.arrow")
    passes = test.logits[:, 1] - test.logits[:, 0] >= cut["threshold"]
    assert cut["signal_efficiency"] == pytest.approx(passes[test.label == 1].mean())
    assert loose["value"] == pytest.approx(expected_significance(50, 1000, 0.1).item())
    assert cut["value"] > loose["value"]


def test_signal_is_what_the_report_has_not_as_background(run):
    """A run with ``model.signal: 0`` calls its second class background."""
    (run / "report" / "metrics.json").write_text('{"background": "signal"}')
    main(["significance", str(run), "--signal_yield", "50", "--background_yield", "1000"])
    document = json.loads((run / "significance" / "significance.json").read_text())
    assert document["signal_class"] == "background"
    test = Predictions.load(run / "report" / "predictions.arrow")
    passes = test.logits[:, 0] - test.logits[:, 1] >= document["with_cut"]["threshold"]
    assert document["with_cut"]["signal_efficiency"] == pytest.approx(passes[test.label == 0].mean())
    (run / "report" / "metrics.json").unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["significance", str(run), "--signal_yield", "50", "--background_yield", "1000"])


def test_negative_weights_count_in_the_yields():
    random = np.random.default_rng(4)
    score, label = gaussians(1500, 1.0, seed=4)
    weight = np.where(random.random(len(label)) < 0.2, -1.0, 1.0)
    scan = scan_significance(roc_curve(score, label, weight), Yields(50, 1000))
    passes = score >= scan.threshold[scan.best]
    expected = weight[passes & (label == 0)].sum() / weight[label == 0].sum() * 1000
    assert scan.background[scan.best] == pytest.approx(expected)
    assert (scan.signal >= 0).all()


def test_command_says_where_the_cut_was_chosen_on_the_test(run, capsys):
    main(["significance", str(run), "--signal_yield", "50", "--background_yield", "1000"])
    assert "leans upwards" in " ".join(capsys.readouterr().out.split())
    assert json.loads((run / "significance" / "significance.json").read_text())["cut_chosen_on"] == "test"
    with pytest.raises(SystemExit, match="2"):
        main(["significance", str(run), "--signal_yield", "60", "--background_yield", "1000"])
    assert "add --force" in capsys.readouterr().err
    main(["significance", str(run), "--signal_yield", "60", "--background_yield", "1000", "--force"])
    assert json.loads((run / "significance" / "significance.json").read_text())["yields"]["signal"] == 60


@pytest.mark.parametrize(
    ("others", "further", "message"),
    [
        (predictions(1), [], "holds the events of the test"),
        (predictions(3, ("background", "top")), [], "has the classes background, top, the test background, signal"),
        (None, ["--signal", "tttt"], "signal: give one of the classes background, signal, not 'tttt'"),
        (None, ["--signal_yield", "-1"], "signal_yield must be more than 0 events"),
    ],
)
def test_command_refuses_what_does_not_fit(run, capsys, others, further, message):
    options = ["--signal_yield", "50", "--background_yield", "1000", *further]
    if others is not None:
        others.save(run / "others.arrow")
        options += ["--validation", str(run / "others.arrow")]
    with pytest.raises(SystemExit, match="2"):
        main(["significance", str(run), *options])
    assert message in capsys.readouterr().err
    assert not (run / "significance").exists()


def test_too_few_events_are_refused():
    score, label = gaussians(40, 1.0, seed=1)
    with pytest.raises(ValueError, match="a cut must leave 25 background events; there are 20 in all"):
        scan_significance(roc_curve(score, label), Yields(1, 1))
