"""How well a linear map of frozen representations separates the classes: a look at a pretraining, not part of it."""

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo.metrics import MissingClassError, macro_auc

#: Strength of the ridge penalty, per jet, on standardised representations.
RIDGE = 1e-2

#: Multiples of the golden ratio fill the unit interval evenly, whatever pattern the labels of a file have.
_GOLDEN = (5**0.5 - 1) / 2


def probe_rows(index: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Choose the jets a probe is fitted to and those it is judged on, from their row numbers alone.

    Args:
        index: int64 (batch,), rows of the jets.
        fraction: fraction of all jets that take part, half of them in the fit.

    Returns:
        Two bool tensors (batch,), never both True.
    """
    place = torch.remainder(index.double() * _GOLDEN, 1.0)
    return place < fraction / 2, (place >= fraction / 2) & (place < fraction)


def linear_probe(representation: Tensor, label: Tensor, rows: Tensor) -> Tensor:
    r"""Scores of the classes by ridge regression, whose closed form gives the same answer every time.

    .. math:: W = (X^T X + \lambda n)^{-1} X^T Y

    Args:
        representation: X after standardisation, (jet, feature).
        label: int64 (jet,) from 0; Y after one-hot coding.
        rows: int64 (n,), the jets of the fit.

    Returns:
        Scores (jet, class) in float64.
    """
    x = representation.double()
    fitted = x[rows]
    mean, scale = fitted.mean(0), fitted.std(0).clamp(min=1e-6)
    x = (x - mean) / scale
    y = torch.nn.functional.one_hot(label).double()
    centre = y[rows].mean(0)
    gram = x[rows].T @ x[rows] + RIDGE * len(rows) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    return x @ torch.linalg.solve(gram, x[rows].T @ (y[rows] - centre)) + centre


class LinearProbe(Metric):
    """Area under the ROC curve of `linear_probe` on jets that it was not fitted to, averaged over pairs of classes."""

    full_state_update = False
    representation: list[Tensor]
    label: list[Tensor]
    is_fitted: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("representation", "label", "is_fitted"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, representation: Tensor, label: Tensor, is_fitted: Tensor) -> None:
        """Add jets: (batch, feature), int64 (batch,), and whether each is for the fit, bool (batch,)."""
        self.representation.append(representation.float())
        self.label.append(label)
        self.is_fitted.append(is_fitted)

    def compute(self) -> dict[str, Tensor]:
        """``probe_auc`` and its error; nothing if a class is missing among the fitted or the judged jets."""
        if not len(self.label):
            return {}
        representation, label, is_fitted = map(_joined, (self.representation, self.label, self.is_fitted))
        classes = label[is_fitted].unique()
        if len(classes) < 2:
            return {}
        known = torch.isin(label, classes)
        label, is_fitted = torch.searchsorted(classes, label[known]), is_fitted[known]
        scores = linear_probe(representation[known], label, is_fitted.nonzero().squeeze(1))
        try:
            area = macro_auc(scores[~is_fitted], label[~is_fitted])
        except MissingClassError:
            return {}
        return {"probe_auc": torch.tensor(area.value), "probe_auc_error": torch.tensor(area.error)}


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    """A state of a metric, on the CPU; across processes it has already been joined."""
    return (torch.cat(state) if isinstance(state, list) else state).cpu()
