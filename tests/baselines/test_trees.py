"""Boosted trees from LightGBM's text: by hand, beside LightGBM, and texts that are damaged or hostile."""

import numpy as np
import pytest
import torch

from zoo.baselines.trees import BoostedTrees, ForestError, input_names, parse_forest
from zoo.data.batch import JetBatch
from zoo.physics.substructure import substructure

#: Two trees on the mass and the number of particles: -1 and 2 left and right of a mass of 80 GeV; then 0.5.
TEXT = f"""tree
version=v4
num_class=1
num_tree_per_iteration=1
objective=binary sigmoid:1
feature_names=multiplicity mass

Tree=0
num_leaves=3
num_cat=0
split_feature=1 0
threshold={np.log(80)} {np.log(30.5)}
decision_type=2 2
left_child=-1 -2
right_child=1 -3
leaf_value=-1 2 3
is_linear=0

Tree=1
num_leaves=1
num_cat=0
leaf_value=0.5

end of trees
"""


def test_trees_by_hand_see_observables_by_name(jets: JetBatch):
    found = BoostedTrees(TEXT, "substructure", (), ())(*jets[:3])
    observed = substructure(jets.four_momenta, jets.mask)
    mass, number = (observed[name].double().exp() for name in ("mass", "multiplicity"))
    expected = torch.where(mass < 80, -1.0, torch.where(number < 30.5, 2.0, 3.0)) + 0.5
    assert len(set(expected.tolist())) > 1
    torch.testing.assert_close(found, torch.stack([torch.zeros(8), expected], dim=1))
    with pytest.raises(ForestError, match="the trees see 'multiplicity', which is not among the inputs 'objects'"):
        BoostedTrees(TEXT, "objects", ("part_pt_log",), ())


@pytest.mark.parametrize("inputs", ["objects", "pairs", "substructure", "subjets"])
def test_a_wrong_number_gives_no_score_and_no_jets_no_logits(inputs, jets: JetBatch):
    """What is absent is NaN for the trees, too, and must not stand for what is wrong."""
    names = input_names(inputs, "abcdefg", ())
    trees = BoostedTrees(TEXT.replace("multiplicity mass", f"{names[0]} {names[1]}"), inputs, "abcdefg", ())
    expected = trees(*jets[:3])
    four_momenta = jets.four_momenta.clone()
    four_momenta[3, 2] = torch.nan
    found = trees(jets.features, four_momenta, jets.mask)
    assert expected.isfinite().all()
    assert found[3].isnan().all()
    assert torch.equal(found[torch.arange(8) != 3], expected[torch.arange(8) != 3])
    assert trees(*(values[:0] for values in jets[:3])).shape == (0, 2)


@pytest.mark.parametrize("num_classes", [2, 4])
def test_the_same_as_lightgbm(num_classes):
    """With numbers that are absent, zero or beyond all that was trained on."""
    lightgbm = pytest.importorskip("lightgbm", exc_type=(ImportError, OSError))
    random = np.random.default_rng(num_classes)
    names = input_names("objects", ("a", "b"), ("met",))
    values = random.normal(size=(600, len(names)))
    label = (num_classes * random.uniform(size=600)).astype(int) ^ (values[:, 0] > 0)
    label = label.clip(0, num_classes - 1)
    values[random.uniform(size=values.shape) < 0.2] = np.nan
    values[random.uniform(size=values.shape) < 0.2] = 0
    values[:, 3] = np.nan_to_num(values[:, 3])  # a column that was never absent in the training
    for settings in ({}, {"zero_as_missing": True}, {"use_missing": False}):
        objective = {"objective": "binary"} if num_classes == 2 else {"objective": "multiclass", "num_class": 4}
        parameters = objective | settings | {"verbosity": -1, "num_leaves": 9, "min_data_in_leaf": 3}
        booster = lightgbm.train(parameters, lightgbm.Dataset(values, label, feature_name=names), 12)
        trees = BoostedTrees(booster.model_to_string(), "objects", ("a", "b"), ("met",))
        tested = np.concatenate([values, values * 5, np.full((1, len(names)), np.nan)])
        expected = booster.predict(tested, raw_score=True).reshape(len(tested), -1)
        np.testing.assert_allclose(trees.raw_scores(torch.from_numpy(tested)).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("end of trees", "", "a part of it is missing"),
        ("Tree=0", "tree 0", "is no text of boosted trees"),
        ("objective=binary", "objective=regression", "neither binary nor multiclass"),
        ("split_feature=1 0", "split_feature=1 2", "tree 0: split_feature must be 0 to 1"),
        ("split_feature=1 0", "split_feature=1", "tree 0: split_feature must have 2 finite numbers"),
        ("left_child=-1 -2", "left_child=-1 0", "a child is no later cut and no leaf"),
        ("left_child=-1 -2", "left_child=-1 -4", "a child is no later cut and no leaf"),
        ("decision_type=2 2", "decision_type=3 2", "decision_type must be of cuts on numbers"),
        ("num_cat=0", "num_cat=1", "cuts on categories"),
        ("is_linear=0", "is_linear=1", "linear leaves are not evaluated"),
        ("leaf_value=-1 2 3", "leaf_value=-1 nan 3", "leaf_value must have 3 finite numbers"),
        ("num_leaves=3", "num_leaves=2000000000", "num_leaves must be 1 to 1024"),
        ("leaf_value=-1 2 3", "leaf=", "tree 0: 'leaf_value'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(old, new, message):
    with pytest.raises(ForestError, match=message):
        parse_forest(TEXT.replace(old, new))
