"""Weights of jets as weaver-core makes them: the same distribution of two variables in every class."""

from collections.abc import Mapping

import numpy as np

from zoo.data.weaver.data_config import Reweighting

#: The largest weight, so that weaver draws even the rarest jets at random.
LARGEST = 0.9

#: Bins with less than this part of the median content do not set the scale of a flat distribution.
_NEGLIGIBLE = 0.01


def weigh(
    reweighting: Reweighting,
    histograms: Mapping[str, np.ndarray],
    variables: Mapping[str, np.ndarray],
    base_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Weight float32 (jet,) of each jet; 0 for jets of no class, and for those outside the bins if so configured.

    Args:
        reweighting: its settings.
        histograms: weight of each bin of each class, (bin, bin).
        variables: the two variables and the flags of the classes, (jet,).
        base_weight: (jet,), multiplies the weights.
    """
    inside = np.ones(len(next(iter(variables.values()))), dtype=bool)
    places = []
    for name, edges in reweighting.bins.items():
        values = variables[name]
        if reweighting.discard_outside:
            inside &= (values >= edges[0]) & (values <= edges[-1])
        places.append(np.clip(np.digitize(values, edges) - 1, 0, len(edges) - 2))
    weight = np.zeros(len(inside), dtype=np.float32)
    for name, histogram in histograms.items():
        of_class = inside & (variables[name] == 1)
        weight[of_class] = histogram[places[0][of_class], places[1][of_class]]
    return weight if base_weight is None else weight * base_weight.astype(np.float32)


def make_histograms(
    reweighting: Reweighting, variables: Mapping[str, np.ndarray], base_weight: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Weight of each bin of each class, (bin, bin), by name, from the training jets.

    With ``flat``, all bins of a class have the same sum of weights, limited by those with the fewest jets; with
    ``ref``, the shape of all classes is that of the first. The sums of the classes are then proportional to the class
    weights.

    Args:
        reweighting: its settings.
        variables: the two variables and the flags of the classes, (jet,).
        base_weight: (jet,), weights that the jets have already.

    Raises:
        ValueError: if no jet of a class lies in the bins.
    """
    if not reweighting.discard_outside:
        variables = dict(variables)
        for name, edges in reweighting.bins.items():
            variables[name] = np.clip(variables[name], edges[0], edges[-1])
    contents = {name: _count(reweighting, name, variables, base_weight) for name in reweighting.classes}
    reference = contents[reweighting.classes[0]]
    histograms, sums = {}, {}
    for name, class_weight in zip(reweighting.classes, reweighting.class_weights, strict=True):
        content = contents[name]
        flatten = reweighting.method == "flat"
        histograms[name] = _flatten(content, reweighting) if flatten else _follow(reference, content, reweighting)
        sums[name] = (content * histograms[name]).sum() / class_weight
    smallest = min(sums.values()) * LARGEST
    histograms = {name: histogram * (smallest / sums[name]) for name, histogram in histograms.items()}
    if base_weight is None:
        return histograms
    weights = weigh(reweighting, histograms, variables, base_weight)
    scale = np.percentile(weights, 100 - reweighting.threshold)
    return {name: histogram / scale for name, histogram in histograms.items()}


def _count(
    reweighting: Reweighting, name: str, variables: Mapping[str, np.ndarray], base_weight: np.ndarray | None
) -> np.ndarray:
    of_class = variables[name] == 1
    values = [variables[key][of_class] for key in reweighting.bins]
    weights = None if base_weight is None else base_weight[of_class]
    content = np.histogram2d(*values, bins=list(reweighting.bins.values()), weights=weights)[0].astype(np.float32)
    if not (content > 0).any():
        raise ValueError(f"weights: no jet with {name!r} lies in the bins of 'reweight_vars'; change them or the files")
    return content


def _flatten(content: np.ndarray, reweighting: Reweighting) -> np.ndarray:
    usual = content[content > _NEGLIGIBLE * np.median(content[content > 0])]
    level = np.percentile(usual, reweighting.threshold)
    return np.clip(_ratio(level, content), 0, 1)


def _follow(reference: np.ndarray, content: np.ndarray, reweighting: Reweighting) -> np.ndarray:
    ratio = _ratio(reference, content)
    if not (ratio > 0).any():
        raise ValueError("weights: a class has no bin with jets in common with the first class; change 'reweight_vars'")
    return np.clip(ratio / np.percentile(ratio[ratio > 0], 100 - reweighting.threshold), 0, 1)


def _ratio(wanted: np.ndarray, content: np.ndarray) -> np.ndarray:
    """The factor for each bin; 0 if it is empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(wanted / content, posinf=0)
