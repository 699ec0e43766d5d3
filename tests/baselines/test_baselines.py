"""Tables of the hardest objects against a loop, and what the networks on them see and do not see."""

import numpy as np
import pytest
import torch

from zoo import create_model
from zoo.baselines import MAX_OBJECTS, FullyConnected, fast, hardest_objects

NAMES = ["cnn_for_events", "fully_connected_for_events"]


@pytest.mark.parametrize("hardest", [hardest_objects, fast.hardest_objects])
@pytest.mark.parametrize("num_objects", [5, MAX_OBJECTS, 150])
def test_hardest_objects_as_numpy_sorts_them(jets, num_objects, hardest):
    found = hardest(jets.features, jets.four_momenta, jets.mask, num_objects).numpy()
    assert found.shape == (8, num_objects, 7)
    for table, features, momenta, mask in zip(found, jets.features, jets.four_momenta, jets.mask, strict=True):
        real = momenta[mask].double().numpy()
        order = np.argsort(-np.hypot(real[:, 1], real[:, 2]), kind="stable")[:num_objects]
        np.testing.assert_array_equal(table[: len(order)], features[mask].numpy()[order])
        assert not table[len(order) :].any()


@pytest.mark.parametrize("hardest", [hardest_objects, fast.hardest_objects])
def test_equal_transverse_momenta_are_put_in_one_order(hardest):
    momenta = torch.tensor([[5.0, 3, 4, 0], [5.0, 4, 3, 0], [5.0, 0, 5, 0]])[None]
    values, mask = torch.arange(3.0)[None, :, None], torch.ones(1, 3, dtype=torch.bool)
    expected = hardest_objects(values, momenta, mask, 3)
    assert torch.equal(hardest(values, momenta, mask, 3), expected)
    assert torch.equal(hardest(values.flip(1), momenta.flip(1), mask, 3), expected)


@pytest.mark.parametrize("name", NAMES)
def test_only_the_hardest_objects_count(name, jets):
    """Control: the last of them does."""
    model = create_model(name, input_dim=7, num_classes=2).eval()
    is_long = jets.mask.sum(1) > MAX_OBJECTS
    assert is_long.sum() == 7
    rank = torch.hypot(jets.four_momenta[..., 1], jets.four_momenta[..., 2]).argsort(dim=1, descending=True)
    logits = model(jets.features, jets.four_momenta, jets.mask)
    for place, is_seen in ((MAX_OBJECTS - 1, True), (MAX_OBJECTS, False)):
        features = jets.features.clone()
        features[torch.arange(8), rank[:, place]] += 1.0
        moved = (model(features, jets.four_momenta, jets.mask) - logits).abs().amax(dim=1)
        assert torch.equal(moved > 1e-6, is_long & is_seen)


def test_fully_connected_by_hand(jets):
    model = FullyConnected(7, 2, num_objects=3, hidden_dims=(4,), context_dim=1).eval()
    weights = {key: value.numpy() for key, value in model.state_dict().items()}
    context = torch.randn(8, 1)
    table = hardest_objects(jets.features, jets.four_momenta, jets.mask, 3).numpy().reshape(8, 21)
    hidden = np.hstack([table, context.numpy()]) @ weights["layers.0.weight"].T + weights["layers.0.bias"]
    expected = np.maximum(hidden, 0) @ weights["head.weight"].T + weights["head.bias"]
    found = model(jets.features, jets.four_momenta, jets.mask, context).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
