"""Tagging metrics from exact counts, each with its error; definitions and rules are in ``docs/metrics.md``.

Pure functions, which take numpy arrays or torch tensors, come first; a thin torchmetrics class for the training loop
comes last. One sort turns scores into a :class:`RocCurve` of counts, and every metric is read off that curve.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.special import betaincinv
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

__all__ = [
    "SIGNAL_EFFICIENCIES",
    "BackgroundRejection",
    "Estimate",
    "MissingClassError",
    "RocCurve",
    "SignificanceImprovement",
    "TaggingMetrics",
    "accuracy",
    "auc",
    "background_class",
    "background_rejection",
    "clopper_pearson",
    "efficiency_variance",
    "log_probability",
    "macro_auc",
    "pair_score",
    "roc_curve",
    "significance_improvement",
    "tagging_metrics",
]

Counts = TypeVar("Counts", float, np.ndarray)

#: The working points of the published tables of jet tagging.
SIGNAL_EFFICIENCIES = (0.3, 0.5)
#: Probability content of one standard deviation of a Gaussian.
ONE_SIGMA = math.erf(math.sqrt(0.5))
#: Background jets that must pass a cut for the relative error of eB, 1/sqrt(n), to be at most 20 %.
MINIMUM_PASS = 25
#: Fourth powers of weights between this and its inverse are far from the limits of float64.
_SMALLEST_WEIGHT = 2.0**-160

_logger = logging.getLogger(__name__)


class MissingClassError(ValueError):
    """A metric needs jets of a class that has none, or whose weights do not sum to more than 0."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its error of one standard deviation, and the (effective) number of jets behind it."""

    value: float
    error: float
    n_jets: float


@dataclass(frozen=True)
class BackgroundRejection:
    """R = 1/eB at one signal efficiency, with its Clopper-Pearson interval of 68.3 % coverage.

    If no background jet passes (``is_bound``), ``value`` and ``lower`` are the lower bound, ``upper`` is infinite and
    ``error`` is NaN. With weights, ``n_pass`` and ``n_background`` are effective counts. With negative weights the
    interval is one Gaussian standard deviation of eB, and a sum of 0 or less after the cut gives a bound too.
    """

    value: float
    lower: float
    upper: float
    error: float
    n_pass: float
    n_background: float
    threshold: float
    is_bound: bool


@dataclass(frozen=True)
class SignificanceImprovement:
    """The largest SIC = eS / sqrt(eB) among the cuts that enough background passes, and the cut."""

    value: float
    error: float
    signal_efficiency: float
    n_pass: float


@dataclass(frozen=True, eq=False)
class RocCurve:
    """What passes ``score >= threshold`` at every distinct score, from the tightest cut to none.

    Counts are exact integers; with weights they are sums of weights, and the ``_squares`` hold the sums of squared
    weights that the errors need. If the largest weight of a class lies outside 1e-48 ... 1e48, float64 does not hold
    its fourth power, and the weights of that class are scaled by a power of two; no metric depends on that.

    Shapes:
        every array: (threshold,), thresholds falling.
    """

    threshold: np.ndarray
    signal_pass: np.ndarray
    background_pass: np.ndarray
    signal_squares: np.ndarray
    background_squares: np.ndarray
    is_signed: bool = False  #: whether a weight is negative, so that counts may fall from a cut to a looser one

    @property
    def n_signal(self) -> float:
        """Number of signal jets, or the sum of their weights."""
        return self.signal_pass[-1].item()

    @property
    def n_background(self) -> float:
        """Number of background jets, or the sum of their weights."""
        return self.background_pass[-1].item()

    @property
    def signal_efficiency(self) -> np.ndarray:
        """Signal efficiency eS at each threshold."""
        return self.signal_pass / self.n_signal

    @property
    def background_efficiency(self) -> np.ndarray:
        """Background efficiency eB at each threshold."""
        return self.background_pass / self.n_background

    def auc(self) -> Estimate:
        r"""Area under the ROC curve: the Mann-Whitney statistic, with the error of DeLong et al.

        .. math:: A = \frac{1}{n_s n_b} \sum_{i j} [s_i > b_j] + \tfrac{1}{2} [s_i = b_j]

        The variance is that of the placements: the fraction of background below each signal jet, and the fraction of
        signal above each background jet. If it vanishes or has no degree of freedom, the error is half the
        Clopper-Pearson interval of min(n_s, n_b) independent pairs.

        References:
            E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837.
        """
        n_signal, n_background = self.n_signal, self.n_background
        signal = np.diff(self.signal_pass, prepend=0)
        background = np.diff(self.background_pass, prepend=0)
        twice_below = 2 * (n_background - self.background_pass) + background
        value = (signal * twice_below).sum().item() / (2 * n_signal * n_background)
        below = twice_below / (2 * n_background)
        above = (2 * self.signal_pass - signal) / (2 * n_signal)
        signal_squares = np.diff(self.signal_squares, prepend=0)
        background_squares = np.diff(self.background_squares, prepend=0)
        variance = _variance_of_mean(below, value, signal_squares, n_signal)
        variance += _variance_of_mean(above, value, background_squares, n_background)
        counts = (n_signal**2 / signal_squares.sum(), n_background**2 / background_squares.sum())
        return Estimate(value, _auc_error(value, variance, min(counts)), float(sum(counts)))

    def background_rejection(self, signal_efficiency: float) -> BackgroundRejection:
        """Background rejection at a signal efficiency; see :func:`background_rejection`."""
        cut = self._cut(signal_efficiency)
        if self.is_signed:
            return self._signed_rejection(cut)
        passed, total = self.background_pass[cut].item(), self.n_background
        n_background = self._effective_background(cut)
        n_pass = n_background * passed / total
        if not self._weighted:
            n_pass, n_background = passed, total
        efficiency_lower, efficiency_upper = (edge.item() for edge in clopper_pearson(n_pass, n_background))
        threshold, lower = self.threshold[cut].item(), 1 / efficiency_upper
        if passed == 0:
            return BackgroundRejection(lower, lower, math.inf, math.nan, n_pass, n_background, threshold, True)
        upper = 1 / efficiency_lower
        error = (upper - lower) / 2
        return BackgroundRejection(total / passed, lower, upper, error, n_pass, n_background, threshold, False)

    def _signed_rejection(self, cut: int) -> BackgroundRejection:
        """The same with negative weights, where no count is binomial: one Gaussian standard deviation of eB."""
        passed, total = self.background_pass[cut].item(), self.n_background
        pass_squares, squares = self.background_squares[cut].item(), self.background_squares[-1].item()
        n_background = total**2 / squares
        efficiency, error = passed / total, math.sqrt(efficiency_variance(passed, total, pass_squares, squares))
        threshold = self.threshold[cut].item()
        n_pass = passed**2 / pass_squares if passed > 0 else 0.0
        if passed <= 0:
            # without any jet the error is that of a count of 0
            highest = max(efficiency, 0) + error if error else float(clopper_pearson(0, n_background)[1])
            return BackgroundRejection(
                1 / highest, 1 / highest, math.inf, math.nan, n_pass, n_background, threshold, True
            )
        upper = 1 / (efficiency - error) if efficiency > error else math.inf
        lower = 1 / (efficiency + error)
        return BackgroundRejection(
            1 / efficiency, lower, upper, error / efficiency**2, n_pass, n_background, threshold, False
        )

    @property
    def _weighted(self) -> bool:
        return self.background_pass.dtype.kind == "f"

    def _cut(self, signal_efficiency: float) -> int:
        """Index of the tightest threshold that keeps at least this fraction of the signal."""
        if not 0 < signal_efficiency <= 1:
            raise ValueError(f"signal_efficiency must lie in (0, 1], got {signal_efficiency}")
        # The decimal as written: 0.07 * 100 is 7.000000000000001 in binary and would ask for an eighth jet.
        exact = Fraction(str(signal_efficiency)) * Fraction(self.n_signal)
        # A running sum of weights may miss the total by rounding.
        needed = float(exact) * (1 - 1e-12) if self._weighted else math.ceil(exact)
        return (
            int(np.argmax(self.signal_pass >= needed))
            if self.is_signed
            else int(np.searchsorted(self.signal_pass, needed))
        )

    def _effective_background(self, cut: int) -> float:
        """Number of equally weighted jets whose efficiency would vary as much as that of these weighted ones."""
        passed, total = self.background_pass[cut].item(), self.n_background
        pass_squares, squares = self.background_squares[cut].item(), self.background_squares[-1].item()
        variance = efficiency_variance(passed, total, pass_squares, squares)
        if passed == 0 or variance <= 0:
            return total**2 / squares
        return passed * (total - passed) / total**2 / variance


def pair_score(logits: ArrayLike | Tensor, signal: int = 1, background: int = 0) -> np.ndarray:
    r"""Log-odds of a signal class against a background class.

    .. math:: \ln \frac{p_s}{p_b} = z_s - z_b

    This is :math:`p_s / (p_s + p_b)` as log-odds for any number of classes. No sigmoid is taken: in float32 it would
    merge distinct scores near 1.

    Args:
        logits: outputs of the model, (batch, class).
        signal: class that should score high.
        background: class that should score low.

    Returns:
        Scores (batch,), float32 for float32 logits.

    Raises:
        ValueError: if the shape or a class does not fit.

    >>> pair_score([[0.0, 2.0], [1.0, -1.0]]).tolist()
    [2.0, -2.0]
    """
    logits = _logits(logits)
    for name, number in (("signal", signal), ("background", background)):
        if not 0 <= number < logits.shape[1]:
            raise ValueError(f"{name} class {number} does not exist: logits have {logits.shape[1]} classes")
    if signal == background:
        raise ValueError(f"signal and background are the same class {signal}; a score needs two")
    with np.errstate(invalid="ignore"):  # inf - inf becomes the NaN that every metric refuses
        return logits[:, signal] - logits[:, background]


def log_probability(logits: ArrayLike | Tensor) -> np.ndarray:
    r"""Logarithm of the probability of each class, where equal probabilities are equal bits.

    .. math:: \ln p_a = (z_a - z_m) - \ln \Big(1 + \sum_{k \ne m} e^{z_k - z_m}\Big), \quad z_m = \max_k z_k

    By the Lindemann-Weierstrass theorem, two jets have the same p_a only if their differences :math:`z_k - z_a` are
    the same numbers in any order. The differences of float32 logits are exact in float64, and the terms are summed
    in order of size, so that such jets get the same bits and probabilities near 1 do not merge.

    Args:
        logits: outputs of the model, (batch, class).

    Returns:
        float64 (batch, class); NaN for an infinite logit that is the largest.

    >>> one, other = log_probability([[0.25, 1.0, 2.5], [1.25, 3.5, 2.0]])[:, 0]
    >>> bool(one == other)
    True
    """
    differences = _logits(logits).astype(np.float64)
    highest = differences.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # inf - inf becomes the NaN that every metric refuses
        differences = differences - highest
    others = np.sort(differences, axis=1)[:, :-1]
    return differences - np.log1p(np.exp(others).sum(axis=1, keepdims=True))


def efficiency_variance(passed: Counts, total: float, pass_squares: Counts, squares: float) -> Counts:
    r"""Variance of the efficiency of weighted jets, whatever the signs of the weights.

    .. math:: \frac{F^2 \sum_{\mathrm{pass}} w^2 + P^2 \sum_{\mathrm{fail}} w^2}{(P + F)^4}

    Args:
        passed: P, sum of the weights that pass; a number for one cut, or (cut,).
        total: P + F, sum of all weights.
        pass_squares: sum of the squared weights that pass, shaped like ``passed``.
        squares: sum of all squared weights.
    """
    return ((total - passed) ** 2 * pass_squares + passed**2 * (squares - pass_squares)) / total**4


def clopper_pearson(
    n_pass: ArrayLike, n_total: ArrayLike, coverage: float = ONE_SIGMA
) -> tuple[np.ndarray, np.ndarray]:
    """Central confidence interval of a binomial efficiency.

    Effective counts of weighted jets need not be whole numbers.

    References:
        C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404.

    Args:
        n_pass: jets that pass.
        n_total: jets tried.
        coverage: probability content; by default one standard deviation.

    Returns:
        Lower and upper edge, of the counts' common shape.

    >>> lower, upper = clopper_pearson(0, 100, coverage=0.9)
    >>> float(lower), round(float(upper), 4)
    (0.0, 0.0295)
    """
    n_pass, n_total = np.broadcast_arrays(np.asarray(n_pass, np.float64), np.asarray(n_total, np.float64))
    n_fail = np.maximum(n_total - n_pass, 0)
    tail = (1 - coverage) / 2
    lower = np.where(n_pass > 0, betaincinv(np.where(n_pass > 0, n_pass, 1), n_fail + 1, tail), 0.0)
    upper = np.where(n_fail > 0, betaincinv(n_pass + 1, np.where(n_fail > 0, n_fail, 1), 1 - tail), 1.0)
    return lower, upper


def accuracy(
    logits: ArrayLike | Tensor, label: ArrayLike | Tensor, weight: ArrayLike | Tensor | None = None
) -> Estimate:
    """Fraction of jets whose largest logit is that of their class; the error is half the Clopper-Pearson interval.

    Args:
        logits: outputs of the model, (batch, class); among equal largest logits the first class is taken.
        label: class numbers, (batch,).
        weight: weights of the jets, (batch,).

    Raises:
        ValueError: on NaN, shapes that differ, a label that is not a class, or no jets.
        MissingClassError: if the weights do not sum to more than 0.

    >>> accuracy([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [0.0, 2.0]], [1, 0, 1, 1]).value
    0.75
    """
    logits, label, weight = _checked_jets(logits, label, weight)
    correct = logits.argmax(axis=1) == label
    if weight is None:
        return _binomial(int(correct.sum()), len(label))
    weight = _in_range(weight)
    right, squares_right = _sum_and_squares(weight[correct])
    total, squares = _sum_and_squares(weight)
    if total <= 0:
        raise MissingClassError(f"the weights of the {len(label)} jets sum to {total:.3g}: no share of them is defined")
    variance = efficiency_variance(right, total, squares_right, squares)
    if (weight < 0).any():
        return Estimate(right / total, math.sqrt(variance), total**2 / squares)
    n_jets = right * (total - right) / total**2 / variance if 0 < right < total else total**2 / squares
    return replace(_binomial(n_jets * right / total, n_jets), value=right / total)


def confusion_matrix(logits: np.ndarray, truth: np.ndarray, weight: np.ndarray, num_rows: int) -> np.ndarray:
    """Fractions of the jets of each row by the class of their largest logit.

    Args:
        logits: outputs of the model, (batch, class); among equal largest logits the first class is taken.
        truth: row of each jet, (batch,): its class, or its original class before classes were merged.
        weight: weights of the jets, (batch,).
        num_rows: number of rows.

    Returns:
        (row, class); each row sums to 1, or is NaN if it has no weight.

    >>> confusion_matrix(np.eye(2)[[0, 1, 1]], np.array([0, 0, 1]), np.ones(3), 2).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    shape = (num_rows, logits.shape[1])
    cells = np.ravel_multi_index((truth, logits.argmax(axis=1)), shape)
    weights = np.bincount(cells, weight, minlength=math.prod(shape)).reshape(shape)
    with np.errstate(invalid="ignore"):
        return weights / weights.sum(axis=1, keepdims=True)


def roc_curve(
    score: ArrayLike | Tensor, label: ArrayLike | Tensor, weight: ArrayLike | Tensor | None = None
) -> RocCurve:
    """Exact counts of signal and background at every distinct score.

    Args:
        score: larger is more signal-like, (batch,); infinite scores are ordered like any other.
        label: 1 or True for signal, 0 or False for background, (batch,).
        weight: weights of the jets, (batch,), some of which may be negative; equal weights count as none.

    Raises:
        ValueError: on NaN, shapes that differ, or labels other than 0 and 1.
        MissingClassError: if signal or background has no jet, or weights that do not sum to more than 0.

    >>> curve = roc_curve([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0])
    >>> curve.signal_pass.tolist(), curve.background_pass.tolist()
    ([1, 2, 2], [0, 1, 2])
    """
    score, is_signal, weight = _checked_scores(score, label, weight)
    threshold, group = np.unique(score, return_inverse=True)
    members = [np.flatnonzero(is_signal), np.flatnonzero(~is_signal)]
    weights = [None if weight is None else _in_range(weight[jets]) for jets in members]
    counts, squares = (
        [
            _running_sum(group[jets], len(threshold), None if of is None else of**power)
            for jets, of in zip(members, weights, strict=True)
        ]
        for power in (1, 2)
    )
    for name, jets, column in zip(("signal", "background"), members, counts, strict=True):
        if not len(jets):
            raise MissingClassError(f"no {name} among {len(score)} jets: the metric needs jets of both classes")
        if not column[-1] > 0:
            raise MissingClassError(
                f"the weights of the {len(jets)} {name} jets sum to {column[-1]:.3g}: efficiencies need a sum above 0"
            )
    is_signed = weight is not None and bool((weight < 0).any())
    return RocCurve(threshold[::-1], counts[0], counts[1], squares[0], squares[1], is_signed)


def auc(score: ArrayLike | Tensor, label: ArrayLike | Tensor, weight: ArrayLike | Tensor | None = None) -> Estimate:
    """Area under the ROC curve (Mann-Whitney, ties one half) with DeLong's error; see :meth:`RocCurve.auc`.

    Args:
        score: larger is more signal-like, (batch,).
        label: 1 for signal, 0 for background, (batch,).
        weight: weights of the jets, (batch,).

    Raises:
        ValueError: as for :func:`roc_curve`.

    >>> auc([3.0, 2.0, 2.0, 1.0], [1, 1, 0, 0]).value
    0.875
    """
    return roc_curve(score, label, weight).auc()


def background_rejection(
    score: ArrayLike | Tensor,
    label: ArrayLike | Tensor,
    signal_efficiency: float,
    weight: ArrayLike | Tensor | None = None,
) -> BackgroundRejection:
    r"""Inverse background efficiency at a signal efficiency, with its Clopper-Pearson interval.

    .. math:: R = n_b / \#\{b_j \ge t\}, \quad t = \text{the} \lceil e_S n_s \rceil \text{-th largest signal score}

    Background that ties with the threshold passes. If none passes, the result is flagged as a lower bound.

    Args:
        score: larger is more signal-like, (batch,).
        label: 1 for signal, 0 for background, (batch,).
        signal_efficiency: eS in (0, 1].
        weight: weights of the jets, (batch,); counts become sums of weights, and the interval uses effective counts.

    Raises:
        ValueError: as for :func:`roc_curve`, or if eS lies outside (0, 1].

    >>> rejection = background_rejection([4.0, 3.0, 2.0, 2.5, 1.0, 0.0], [1, 1, 1, 0, 0, 0], 1.0)
    >>> rejection.value, rejection.n_pass, rejection.threshold
    (3.0, 1, 2.0)
    """
    return roc_curve(score, label, weight).background_rejection(signal_efficiency)


def significance_improvement(curve: RocCurve, minimum_pass: float = MINIMUM_PASS) -> SignificanceImprovement:
    r"""Largest significance improvement over all cuts with a statistical error of eB of at most 20 %.

    .. math:: \mathrm{SIC} = e_S / \sqrt{e_B}, \quad n_{pass} \ge 25

    The error is the binomial one of eB and eS at that cut. As a maximum, the value is biased upwards by part of it.

    Args:
        curve: counts of :func:`roc_curve`.
        minimum_pass: (effective) number of background jets that must pass; 25 makes 1/sqrt(n) = 20 %.

    Raises:
        ValueError: if not even the loosest cut passes that many.
    """
    passed = curve.background_pass
    effective = np.divide(
        np.square(passed, dtype=np.float64), curve.background_squares, where=passed > 0, out=np.zeros(len(passed))
    )
    allowed = np.flatnonzero(effective >= minimum_pass)
    if not len(allowed):
        raise ValueError(f"SIC needs a cut that {minimum_pass} background jets pass; there are {effective[-1]:.0f}")
    signal_efficiency, background_efficiency = curve.signal_efficiency, curve.background_efficiency
    improvement = signal_efficiency[allowed] / np.sqrt(background_efficiency[allowed])
    best = improvement.argmax()
    cut = allowed[best]
    n_pass, chosen, value = effective[cut].item(), signal_efficiency[cut].item(), improvement[best].item()
    if curve.is_signed:
        return SignificanceImprovement(value, _signed_improvement_error(curve, cut), chosen, n_pass)
    n_signal = curve.n_signal**2 / curve.signal_squares[-1].item()
    relative = (1 - background_efficiency[cut].item()) / (4 * n_pass) + (1 - chosen) / max(chosen * n_signal, 1)
    return SignificanceImprovement(value, value * math.sqrt(relative), chosen, n_pass)


def _signed_improvement_error(curve: RocCurve, cut: int) -> float:
    """Error of eS / sqrt(eB) after a cut, from the variances of both."""
    signal, background = (
        (
            passed[cut].item() / passed[-1].item(),
            efficiency_variance(passed[cut], passed[-1], squares[cut], squares[-1]),
        )
        for passed, squares in (
            (curve.signal_pass, curve.signal_squares),
            (curve.background_pass, curve.background_squares),
        )
    )
    by_background = signal[0] ** 2 * background[1] / (4 * background[0] ** 3)
    return math.sqrt(signal[1] / background[0] + by_background)


def macro_auc(
    logits: ArrayLike | Tensor, label: ArrayLike | Tensor, weight: ArrayLike | Tensor | None = None
) -> Estimate:
    r"""Mean area under the ROC curves of all ordered pairs of classes, as published for JetClass.

    .. math:: A = \frac{1}{K (K - 1)} \sum_{a \ne b} A(p_a \mid a \text{ against } b)

    Two classes give the plain area. Jets take part in many pairs, so DeLong's variance is that of each jet's mean
    placement over its pairs. Jets with the same p_a tie exactly, see `log_probability`.

    References:
        D. J. Hand, R. J. Till, Machine Learning 45 (2001) 171.

    Args:
        logits: outputs of the model, (batch, class).
        label: class numbers, (batch,).
        weight: weights of the jets, (batch,).

    Raises:
        ValueError: on NaN, shapes that differ, or a label that is not a class.
        MissingClassError: if a class has no jet.
    """
    logits, label, weight = _checked_jets(logits, label, weight)
    num_classes = logits.shape[1]
    members = [np.flatnonzero(label == number) for number in range(num_classes)]
    score = log_probability(logits)
    placement = np.zeros(len(label))
    values, pairs = [], num_classes * (num_classes - 1)
    for one in range(num_classes):
        for other in range(num_classes):
            if one == other:
                continue
            jets = np.concatenate([members[one], members[other]])
            is_signal = np.arange(len(jets)) < len(members[one])
            try:
                curve = roc_curve(score[jets, one], is_signal, None if weight is None else weight[jets])
            except MissingClassError as error:
                raise MissingClassError(f"class {one} (signal) against class {other} (background): {error}") from None
            values.append(curve.auc().value)
            placement[jets] += _placement(curve, score[jets, one], is_signal) / pairs
    return _macro_estimate(values, placement, members, weight)


def tagging_metrics(
    logits: ArrayLike | Tensor,
    label: ArrayLike | Tensor,
    weight: ArrayLike | Tensor | None = None,
    *,
    signal: int = 1,
    background: int | None = None,
    classes: Sequence[str] | None = None,
    signal_efficiencies: Sequence[float] = SIGNAL_EFFICIENCIES,
) -> dict[str, Estimate | BackgroundRejection]:
    """Every metric of the results table from logits.

    Two classes: ``accuracy``, ``auc``, ``background_rejection_0.3``, ``background_rejection_0.5``. More: ``auc`` is
    :func:`macro_auc`, and each class but the background has its own rejections, named ``..._0.3_<class>``.

    Args:
        logits: outputs of the model, (batch, class).
        label: class numbers, (batch,).
        weight: weights of the jets, (batch,).
        signal: signal class, if there are two; of more, all but the background are signals.
        background: background class; by default the other one of two, or the first of more.
        classes: names of the classes, for the keys.
        signal_efficiencies: efficiencies at which the background rejection is quoted, each in (0, 1].

    Raises:
        ValueError: on NaN, shapes that differ, a label that is not a class, or a bad efficiency.
        MissingClassError: if a class has no jet, or weights that do not sum to more than 0.
    """
    logits, label, weight = _checked_jets(logits, label, weight)
    num_classes = logits.shape[1]
    if weight is not None or num_classes > 2:
        logits, label, weight = _canonical_order(logits, label, weight)
    background = background_class(num_classes, signal, background)
    figures: dict[str, Estimate | BackgroundRejection] = {"accuracy": accuracy(logits, label, weight)}
    if num_classes > 2:
        figures["auc"] = macro_auc(logits, label, weight)
    for one, suffix in _signals(num_classes, signal, background, classes):
        chosen = (label == one) | (label == background)
        score = pair_score(logits[chosen], one, background)
        curve = roc_curve(score, label[chosen] == one, None if weight is None else weight[chosen])
        if num_classes == 2:
            figures["auc"] = curve.auc()
        for efficiency in _checked_efficiencies(signal_efficiencies):
            figures[f"background_rejection_{efficiency}{suffix}"] = curve.background_rejection(efficiency)
    return figures


class TaggingMetrics(Metric):
    """The metrics of :func:`tagging_metrics` over all batches and processes, exact, for ``self.log_dict``.

    The state is the jets themselves (logits, label, weight; 16 bytes per jet with two classes), gathered over the
    processes: exact counts need every score. If a class has no jet (or weights that sum to 0 or less), as in a sanity
    check on two batches, its metrics are NaN and the log says why. NaN logits raise.

    Args:
        num_classes: number of classes.
        signal: signal class, if there are two.
        background: background class; by default the other one of two, or the first of more.
        classes: names of the classes, for the keys of more than two.
        signal_efficiencies: efficiencies at which the background rejection is quoted, each in (0, 1].

    Raises:
        ValueError: if an argument is out of range.
    """

    full_state_update = False
    is_differentiable = False
    jets: list[Tensor]

    def __init__(
        self,
        num_classes: int = 2,
        signal: int = 1,
        background: int | None = None,
        classes: Sequence[str] | None = None,
        signal_efficiencies: Sequence[float] = SIGNAL_EFFICIENCIES,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.signal_efficiencies = _checked_efficiencies(signal_efficiencies)
        self.num_classes = num_classes
        self.signal = signal
        self.background = background_class(num_classes, signal, background)
        self.classes = None if classes is None else tuple(classes)
        suffixes = [suffix for _, suffix in _signals(num_classes, signal, self.background, self.classes)]
        rejections = [f"background_rejection_{e}{suffix}" for suffix in suffixes for e in self.signal_efficiencies]
        self.names = ("accuracy", "auc", *rejections)
        # One flat float32 column: a process without jets can then still take part in the gathering, and labels stay
        # exact.
        self.add_state("jets", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            logits: outputs of the model, (batch, class).
            label: class numbers, (batch,).
            weight: weights of the jets, (batch,).

        Raises:
            ValueError: if the shapes do not fit.
        """
        if logits.ndim != 2 or logits.shape[1] != self.num_classes:
            raise ValueError(f"logits must be (batch, {self.num_classes}), got {tuple(logits.shape)}")
        if logits.is_complex():
            raise ValueError(f"logits must be real numbers, got {logits.dtype}")
        weight = torch.ones_like(label, dtype=torch.float32) if weight is None else weight
        for name, column in (("label", label), ("weight", weight)):
            if column.shape != logits.shape[:1]:
                raise ValueError(f"{name} must be ({len(logits)},) like logits, got {tuple(column.shape)}")
        rows = torch.column_stack([logits.detach().float(), label.float(), weight.float()])
        self.jets.append(rows.flatten())

    def compute(self) -> dict[str, Tensor]:
        """Each metric and, under ``<name>_error``, its error: float32 scalars on the device of the metric."""
        flat = dim_zero_cat(self.jets) if len(self.jets) else torch.zeros(0)
        rows = flat.reshape(-1, self.num_classes + 2).cpu().numpy()
        logits, label, weight = rows[:, : self.num_classes], rows[:, -2].astype(np.int64), rows[:, -1]
        values = dict.fromkeys(self.names, math.nan) | dict.fromkeys([f"{n}_error" for n in self.names], math.nan)
        for name, figure in self._figures(logits, label, weight).items():
            values[name], values[f"{name}_error"] = figure.value, figure.error
        return {name: torch.tensor(value, dtype=torch.float32, device=self.device) for name, value in values.items()}

    def _figures(
        self, logits: np.ndarray, label: np.ndarray, weight: np.ndarray
    ) -> dict[str, Estimate | BackgroundRejection]:
        try:
            return tagging_metrics(
                logits,
                label,
                weight,
                signal=self.signal,
                background=self.background,
                classes=self.classes,
                signal_efficiencies=self.signal_efficiencies,
            )
        except MissingClassError as error:
            _logger.warning("AUC and background rejection are logged as NaN: %s", error)
            try:
                return {"accuracy": accuracy(logits, label, weight)}
            except MissingClassError:
                return {}


def _checked_efficiencies(efficiencies: Sequence[float]) -> tuple[float, ...]:
    efficiencies = tuple(efficiencies)
    if not all(0 < efficiency <= 1 for efficiency in efficiencies) or len(set(efficiencies)) < len(efficiencies):
        raise ValueError(f"signal_efficiencies must lie in (0, 1], none twice, got {list(efficiencies)}")
    return efficiencies


def _array(values: ArrayLike | Tensor) -> np.ndarray:
    """A numpy array; half precision becomes float32, which holds it exactly.

    Raises:
        ValueError: if it holds anything but real numbers.
    """
    if isinstance(values, Tensor):
        values = values.detach()
        values = (values.float() if values.dtype in (torch.float16, torch.bfloat16) else values).cpu().numpy()
    values = np.asarray(values)
    if values.dtype.kind not in "biuf":
        raise ValueError(f"scores, logits, labels and weights must be real numbers, got {values.dtype}")
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _logits(logits: ArrayLike | Tensor) -> np.ndarray:
    logits = _array(logits)
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ValueError(f"logits must be (batch, class) with two classes or more, got shape {logits.shape}")
    return logits if logits.dtype.kind == "f" else logits.astype(np.float64)


def _checked_jets(
    logits: ArrayLike | Tensor, label: ArrayLike | Tensor, weight: ArrayLike | Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Logits, labels and weights as arrays, or an error that says why they cannot be judged."""
    logits, label = _logits(logits), _array(label)
    _refuse_nan("logits", logits)
    if label.shape != logits.shape[:1]:
        raise ValueError(f"label must be ({len(logits)},) like logits, got shape {label.shape}")
    if not len(label):
        raise MissingClassError("no jets: a metric needs at least one jet of each class")
    if label.dtype.kind not in "iub" or label.min() < 0 or label.max() >= logits.shape[1]:
        raise ValueError(
            f"label must hold integers 0..{logits.shape[1] - 1}, got {np.unique(label)[:8]} ({label.dtype})"
        )
    return logits, label.astype(np.int64), _checked_weight(weight, len(label))


def _checked_scores(
    score: ArrayLike | Tensor, label: ArrayLike | Tensor, weight: ArrayLike | Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Scores, signal flags and weights as arrays, or an error that says why they cannot be judged."""
    score, label = _array(score), _array(label)
    if score.ndim != 1 or label.shape != score.shape:
        raise ValueError(f"score and label must be (batch,) alike, got shapes {score.shape} and {label.shape}")
    _refuse_nan("scores", score)
    if not len(score):
        raise MissingClassError("no jets: the metric needs jets of both classes")
    is_signal = label.astype(bool)
    if not np.array_equal(is_signal, label):
        raise ValueError(f"label must be 1 (signal) or 0 (background), got {np.unique(label)[:8]}")
    return score, is_signal, _checked_weight(weight, len(score))


def _checked_weight(weight: ArrayLike | Tensor | None, jets: int) -> np.ndarray | None:
    """Weights in float64, or None if all are equal, so that integer counts give the same."""
    if weight is None:
        return None
    weight = _array(weight).astype(np.float64)
    if weight.shape != (jets,):
        raise ValueError(f"weight must be ({jets},) like the jets, got shape {weight.shape}")
    bad = np.count_nonzero(~np.isfinite(weight))
    if bad:
        raise ValueError(f"{bad} of {jets} weights are NaN or infinite: leave those jets out or judge without weights")
    if not weight.any():
        raise ValueError(f"all {jets} weights are zero: nothing is left to count")
    if (weight == weight[0]).all() and weight[0] > 0:
        return None
    return weight


def _in_range(weight: np.ndarray) -> np.ndarray:
    """The weights, times a power of two if float64 cannot hold the fourth power of the largest."""
    largest = np.abs(weight).max(initial=0)
    if largest == 0 or _SMALLEST_WEIGHT <= largest <= 1 / _SMALLEST_WEIGHT:
        return weight
    return np.ldexp(weight, -np.frexp(largest)[1])


def _refuse_nan(name: str, values: np.ndarray) -> None:
    bad = int(np.isnan(values).sum())
    if bad:
        raise ValueError(
            f"{bad} of {values.size} {name} are NaN and cannot be ordered: look for NaN in the inputs or a diverged "
            "training (lower the learning rate, clip the gradients)"
        )


def _running_sum(group: np.ndarray, groups: int, values: np.ndarray | None) -> np.ndarray:
    """Count (or sum of values) of jets from the highest group down to each one."""
    sums = np.bincount(group, values, minlength=groups)
    return np.cumsum(sums[::-1])


def _variance_of_mean(values: np.ndarray, mean: float, squares: np.ndarray, total: float) -> float:
    """Variance of a weighted mean from the squared weights at each value; NaN without a degree of freedom."""
    effective = total**2 / squares.sum().item()
    if effective <= 1:
        return math.nan
    return (squares * (values - mean) ** 2).sum().item() / total**2 * effective / (effective - 1)


def _auc_error(value: float, variance: float, n_jets: float) -> float:
    if variance > 0:
        return math.sqrt(variance)
    return _binomial(min(max(value, 0.0), 1.0) * n_jets, n_jets).error


def _binomial(n_pass: float, n_total: float) -> Estimate:
    lower, upper = clopper_pearson(n_pass, n_total)
    return Estimate(n_pass / n_total, float(upper - lower) / 2, float(n_total))


def _sum_and_squares(weight: np.ndarray) -> tuple[float, float]:
    return math.fsum(weight), math.fsum(weight**2)


def _placement(curve: RocCurve, score: np.ndarray, is_signal: np.ndarray) -> np.ndarray:
    """Fraction of background below each signal jet, and of signal above each background jet; ties count one half."""
    index = len(curve.threshold) - 1 - np.searchsorted(curve.threshold[::-1], score)
    above = curve.signal_pass - np.diff(curve.signal_pass, prepend=0) / 2
    below = curve.n_background - curve.background_pass + np.diff(curve.background_pass, prepend=0) / 2
    return np.where(is_signal, (below / curve.n_background)[index], (above / curve.n_signal)[index])


def _macro_estimate(
    values: list[float], placement: np.ndarray, members: list[np.ndarray], weight: np.ndarray | None
) -> Estimate:
    """Mean of the areas of all pairs, with the variance of the mean placements of the jets."""
    variance, counts = 0.0, []
    for jets in members:
        weights = np.ones(len(jets)) if weight is None else _in_range(weight[jets])
        mean = np.average(placement[jets], weights=weights).item()
        variance += _variance_of_mean(placement[jets], mean, weights**2, weights.sum().item())
        counts.append(weights.sum() ** 2 / (weights**2).sum())
    value = math.fsum(values) / len(values)
    return Estimate(value, _auc_error(value, variance, float(min(counts))), float(sum(counts)))


def _canonical_order(
    logits: np.ndarray, label: np.ndarray, weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The jets sorted by content, so that sums of floats do not depend on how processes shared them."""
    keys = [*logits.T, label] if weight is None else [*logits.T, weight, label]
    order = np.lexsort(keys)
    return logits[order], label[order], None if weight is None else weight[order]


def background_class(num_classes: int, signal: int, background: int | None) -> int:
    """The background class: the given one, or else the other one of two, or the first of more."""
    if background is None:
        background = 1 - signal if num_classes == 2 else 0
    for name, number in (("signal", signal), ("background", background)):
        if not 0 <= number < num_classes:
            raise ValueError(f"{name} class {number} does not exist among {num_classes} classes")
    if num_classes == 2 and signal == background:
        raise ValueError(f"signal and background are the same class {signal}; a score needs two")
    return background


def _signals(num_classes: int, signal: int, background: int, classes: Sequence[str] | None) -> list[tuple[int, str]]:
    """Each signal class, with the suffix of the names of its metrics."""
    if classes is not None and len(classes) != num_classes:
        raise ValueError(f"classes names {len(classes)} classes, the logits have {num_classes}")
    if num_classes == 2:
        return [(signal, "")]
    names = [str(number) for number in range(num_classes)] if classes is None else classes
    return [(number, f"_{names[number]}") for number in range(num_classes) if number != background]
