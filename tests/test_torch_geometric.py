"""Layers of PyTorch Geometric as witnesses: jets as graphs, and the same networks built of its parts."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch
from torch_geometric.nn import DeepSetsAggregation, EdgeConv, global_add_pool, global_mean_pool

import zoo
from zoo.data.batch import JetBatch, collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.graphs import from_graphs, to_graphs
from zoo.data.readers import read_jets


@pytest.fixture(scope="module")
def jets() -> JetBatch:
    table = read_jets(resolve_file("sample:top_tagging/test"), rows=(0, 12))
    return collate(gather(table, np.arange(len(table))), feature_table("kin"))


@pytest.fixture(scope="module")
def graphs(jets: JetBatch) -> Batch:
    return to_graphs(jets)


def test_jets_become_graphs_and_come_back(jets, graphs):
    assert graphs.num_graphs == len(jets.mask)
    momenta = jets.four_momenta.numpy().astype(np.float64).sum(1)
    np.testing.assert_allclose(global_add_pool(graphs.four_momenta.double(), graphs.batch).numpy(), momenta, rtol=1e-12)
    assert torch.equal(graphs.y, jets.label)
    assert torch.equal(graphs[3].x, jets.features[3][jets.mask[3]])
    for back, given in zip(from_graphs(graphs), (jets.features, jets.four_momenta, jets.mask), strict=True):
        assert torch.equal(back, given)


def test_an_empty_jet_is_a_graph_without_nodes(jets):
    empty = jets._replace(mask=jets.mask.clone().index_fill_(0, torch.tensor([0, 11]), False))
    graphs = to_graphs(empty)
    assert graphs.num_graphs == 12
    assert torch.equal(from_graphs(graphs)[2].sum(1), empty.mask.sum(1))


def built(name: str) -> nn.Module:
    torch.manual_seed(1)
    model = zoo.create_model(name, input_dim=7, num_classes=2).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


def logits_of(model: nn.Module, jets: JetBatch) -> Tensor:
    return model(jets.features.double(), jets.four_momenta.double(), jets.mask)


@torch.no_grad()
def test_pfn_is_a_deep_sets_aggregation(jets, graphs):
    model = built("pfn")
    witness = DeepSetsAggregation(local_nn=copy.deepcopy(model.phi), global_nn=copy.deepcopy(model.head))
    witness.local_nn.load_state_dict(model.phi.state_dict())  # which were drawn again
    witness.global_nn.load_state_dict(model.head.state_dict())
    expected = witness(graphs.x.double(), graphs.batch)
    torch.testing.assert_close(logits_of(model, jets), expected, rtol=1e-10, atol=1e-10)


def perceptron(weights: dict[str, Tensor], block: str, layers: int) -> nn.Module:
    """Linear layers, each with a batch normalisation and a ReLU."""
    parts = []
    for layer in range(layers):
        weight = weights[f"{block}layers.{layer}.weight"]
        linear = nn.Linear(*reversed(weight.shape), bias=False, dtype=weight.dtype)
        linear.weight.copy_(weight)
        parts += [linear, norm(weights, f"{block}norms.{layer}."), nn.ReLU()]
    return nn.Sequential(*parts).eval()


def norm(weights: dict[str, Tensor], name: str) -> nn.Module:
    module = nn.BatchNorm1d(len(weights[f"{name}weight"]), dtype=torch.float64)
    module.load_state_dict({key: weights[name + key] for key in module.state_dict()})
    return module.eval()


def nearest(points: Tensor, batch: Tensor, number: int) -> Tensor:
    """Edges (2, edge) from the nearest others of the same jet, by numpy."""
    edges = []
    points, batch = points.numpy(), batch.numpy()
    for i in range(len(points)):
        others = np.flatnonzero((batch == batch[i]) & (np.arange(len(batch)) != i))
        distance = ((points[others] - points[i]) ** 2).sum(1)
        edges += [(j, i) for j in others[np.argsort(distance, kind="stable")[:number]]]
    return torch.tensor(edges).T


@torch.no_grad()
def test_particlenet_is_made_of_edge_convolutions(jets, graphs):
    model = built("particlenet_lite")
    weights = model.state_dict()
    _, px, py, pz = graphs.four_momenta.double().T.numpy()
    jet = global_add_pool(graphs.four_momenta.double(), graphs.batch)[graphs.batch].T.numpy()
    eta = np.arcsinh(pz / np.hypot(px, py)) - np.arcsinh(jet[3] / np.hypot(jet[1], jet[2]))
    phi = np.angle(np.exp(1j * (np.arctan2(py, px) - np.arctan2(jet[2], jet[1]))))
    points = torch.tensor(np.stack([eta, phi], axis=1))
    x = norm(weights, "norm.")(graphs.x.double())
    for block in ("blocks.0.", "blocks.1."):
        convolution = EdgeConv(perceptron(weights, block, 3), aggr="mean")
        convolution.nn.load_state_dict(perceptron(weights, block, 3).state_dict())  # which were drawn again
        shortcut = norm(weights, f"{block}shortcut_norm.")(x @ weights[f"{block}shortcut.weight"].T)
        x = points = (shortcut + convolution(x, nearest(points, graphs.batch, 7))).relu()
    expected = model.head(global_mean_pool(x, graphs.batch))
    torch.testing.assert_close(logits_of(model, jets), expected, rtol=1e-9, atol=1e-9)
    other = model.head(global_mean_pool(x.flip(0), graphs.batch))  # control: particles in other jets
    assert (logits_of(model, jets) - other).abs().max() > 1e-3
