"""L-GATr-slim beside the authors' implementation, and what its reference vectors leave of the symmetry."""

import pytest
import torch
from torch import Tensor, nn

from zoo.data.batch import JetBatch
from zoo.lgatr import LGATrSlim
from zoo.physics.lorentz import random_lorentz


def small(**options) -> LGATrSlim:
    torch.manual_seed(3)
    sizes = {"embed_dim": 16, "num_vectors": 8, "num_layers": 3, "num_heads": 4}
    return LGATrSlim(7, 2, **sizes | options).double().eval()


def heads_last(weight: Tensor, num_heads: int) -> Tensor:
    """Rows (3, head, channel) of a projection in the order (3, channel, head)."""
    return weight.unflatten(0, (3, num_heads, -1)).transpose(1, 2).flatten(0, 2)


def authors_model(model: LGATrSlim) -> nn.Module:
    """The network of the package lgatr with the same weights."""
    lgatr = pytest.importorskip("lgatr", minversion="2.0")
    first = model.blocks[0]
    peer = lgatr.LGATrSlim(
        num_blocks=len(model.blocks),
        in_v_channels=1,
        out_v_channels=0,
        hidden_v_channels=len(model.embedding.vectors.weight),
        in_s_channels=model.embedding.scalars.in_features,
        out_s_channels=model.head.out_features,
        hidden_s_channels=model.embed_dim,
        num_heads=first.num_heads,
    ).double()
    weights = {
        "linear_in.weight_v": model.embedding.vectors.weight,
        "linear_in.linear_s.weight": model.embedding.scalars.weight,
        "linear_in.linear_s.bias": model.embedding.scalars.bias,
        "linear_out.linear_s.weight": model.head.weight,
        "linear_out.linear_s.bias": model.head.bias,
    }
    for n, block in enumerate(model.blocks):
        layers = {
            "attention.linear_out": block.out_proj,
            "mlp.layers.0.linear": block.gates,
            "mlp.layers.1": block.mlp_out,
        }
        for name, layer in layers.items():
            weights[f"blocks.{n}.{name}.linear_s.weight"] = layer.scalars.weight
            weights[f"blocks.{n}.{name}.linear_s.bias"] = layer.scalars.bias
            if layer.vectors is not None:
                weights[f"blocks.{n}.{name}.weight_v"] = layer.vectors.weight
        into = f"blocks.{n}.attention.linear_in"
        weights[f"{into}.weight_v"] = heads_last(block.in_proj.vectors.weight, block.num_heads)
        weights[f"{into}.linear_s.weight"] = heads_last(block.in_proj.scalars.weight, block.num_heads)
        for name, norm in {"norm1": block.norm_attention, "norm2": block.norm_mlp}.items():
            weights[f"blocks.{n}.{name}.weight_s"] = norm.scalars
            if norm.vectors is not None:
                weights[f"blocks.{n}.{name}.weight_v"] = norm.vectors
    missing, unexpected = peer.load_state_dict(weights, strict=False)
    # its last feed-forward network has vectors that nobody reads, and a map of them to none
    last = (f"blocks.{len(model.blocks) - 1}.", "linear_out.")
    assert not unexpected
    assert all(name.startswith(last) and name.endswith("weight_v") for name in missing)
    return peer.eval()


def test_logits_are_those_of_the_authors(jets: JetBatch):
    model = small()
    for parameter in model.parameters():  # norms and biases begin at one and zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    vectors, scalars, is_token = model.tokens(jets.features.double(), jets.four_momenta.double(), jets.mask)
    _, answers = authors_model(model)(vectors.transpose(-1, -2), scalars, attn_mask=is_token[:, None, None])
    logits = model(jets.features.double(), jets.four_momenta.double(), jets.mask)
    assert (logits - answers[:, 0]).abs().max() < 1e-6 * logits.abs().max()
    model.blocks[1].gates.vectors.weight.data[0, 0] += 0.5
    changed = model(jets.features.double(), jets.four_momenta.double(), jets.mask)
    assert (changed - answers[:, 0]).abs().max() > 1e-6 * logits.abs().max()


def test_fixed_references_leave_the_rotations_about_the_beam(jets: JetBatch):
    """Without references the answers are those of the whole group; with beams and the time axis, of one rotation."""
    features, four_momenta = torch.zeros(*jets.mask.shape, 7).double(), jets.four_momenta.double()
    boosted = four_momenta @ random_lorentz(gamma=1.5, generator=torch.Generator().manual_seed(1)).T
    angle = torch.tensor(0.7, dtype=torch.float64)
    turn = torch.eye(4, dtype=torch.float64)
    turn[1:3, 1:3] = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    for references, is_free in (((), True), (("beams", "time"), False)):
        model = small(references=references)
        logits = model(features, four_momenta, jets.mask)
        spread = logits.std(0).min()
        assert (model(features, four_momenta @ turn.T, jets.mask) - logits).abs().max() < 1e-9 * spread
        moved = (model(features, boosted, jets.mask) - logits).abs().max()
        assert moved < 1e-7 * spread if is_free else moved > 1e-3 * spread


def test_settings_are_refused():
    with pytest.raises(ValueError, match="num_heads 3 must divide"):
        small(num_heads=3)
    with pytest.raises(ValueError, match="references: beam: choose of beams, time"):
        small(references=["beam"])
