"""PELICAN beside the 15 maps written out one by one, and the sizes of the published networks."""

import pytest
import torch
from torch import Tensor

from zoo import create_model
from zoo.pelican.pelican import Equivariant2To2, NodeMask


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("pelican", 208_797), ("pelican_48k", 48_482), ("pelican_11k", 11_347), ("pelican_3k", 3_510)],
)
def test_sizes_are_those_of_the_reference_implementation(name, parameters):
    model = create_model(name, input_dim=7, num_classes=2)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def fifteen_maps(x: Tensor) -> list[Tensor]:
    """All that permutations allow to make of one matrix (node, node), entry by entry."""
    n = len(x)
    maps = [torch.zeros_like(x) for _ in range(15)]
    columns = [sum(x[k, j] for k in range(n)) / n for j in range(n)]
    rows = [sum(x[i, k] for k in range(n)) / n for i in range(n)]
    trace = sum(x[k, k] for k in range(n)) / n
    total = sum(rows) / n
    for i in range(n):
        for j in range(n):
            on = float(i == j)
            values = [
                x[i, j], x[j, i], on * x[i, i], x[j, j], x[i, i],
                on * columns[i], columns[j], columns[i], on * rows[i], rows[j], rows[i],
                trace, on * trace, total, on * total,
            ]  # fmt: skip
            for one, value in zip(maps, values, strict=True):
                one[i, j] = value
    return maps


def test_maps_are_the_fifteen_written_out():
    torch.manual_seed(1)
    layer = Equivariant2To2(3, 2).double()
    layer.bias.data.normal_()
    layer.diagonal_bias.data.normal_()
    count = torch.tensor([4, 6])
    nodes = NodeMask(torch.arange(6) < count[:, None])
    x = torch.randn(2, 6, 6, 3, dtype=torch.float64) * nodes.pairs[..., None]
    answer = layer(x, nodes)
    for jet, n in enumerate(count.tolist()):
        expected = (layer.bias + torch.eye(n)[..., None] * layer.diagonal_bias).clone()
        for channel in range(3):
            for number, one in enumerate(fifteen_maps(x[jet, :n, :n, channel])):
                power = (n / 49) ** layer.exponents[number - 5, channel] if number >= 5 else 1.0
                weight = (
                    layer.maps_in[number, channel] * layer.mix_in[channel]
                    + layer.maps_out[number] * layer.mix_out[channel]
                )
                expected = expected + power * one[..., None] * weight
        assert torch.allclose(answer[jet, :n, :n], expected, rtol=1e-10, atol=1e-12)


def test_maps_do_not_commute_with_what_is_no_permutation():
    torch.manual_seed(1)
    layer = Equivariant2To2(3, 2).double()
    nodes = NodeMask(torch.ones(1, 5, dtype=torch.bool))
    x = torch.randn(1, 5, 5, 3, dtype=torch.float64)
    order = torch.tensor([2, 0, 1, 4, 3])
    permuted = x[:, order][:, :, order]
    assert torch.allclose(layer(permuted, nodes), layer(x, nodes)[:, order][:, :, order])
    of_rows_only = x[:, order]
    assert not torch.allclose(layer(of_rows_only, nodes), layer(x, nodes)[:, order])
