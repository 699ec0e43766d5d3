"""Models of weaver-core, their weights imported, beside ours on real jets."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import create_model
from zoo.data.batch import collate, gather
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.importers import import_weights
from zoo.particle_transformer import KinematicPairs, WeaverPairs

weaver_models = pytest.importorskip("weaver.nn.model.ParticleTransformer")
from weaver.nn.model.ParticleNet import ParticleNet  # noqa: E402
from weaver.nn.model.ParticleTransformer import ParticleTransformer  # noqa: E402


class Jets:
    """Real jets of at least 17 particles, massless in float64, in the layouts of both.

    Neutral particles of one calorimeter cell lie in the same direction. weaver drops the nearest of k + 1 as the
    particle itself, which among coincident ones may be another; here directions differ a little, so that it is not.
    """

    def __init__(self, path: Path) -> None:
        table = read_jets(path, rows=(60550, 60600))
        rows = np.flatnonzero(np.diff(table.offsets) >= 17)[:24]
        batch = collate(gather(table, rows), feature_table("kin"))
        self.mask, self.label = batch.mask, batch.label
        self.features = batch.features.double()
        momentum = batch.four_momenta[..., 1:].double()
        momentum *= 1 + 1e-6 * torch.randn(momentum.shape, generator=torch.Generator().manual_seed(1))
        energy = momentum.norm(dim=-1, keepdim=True)
        self.four_momenta = torch.cat([energy, momentum], dim=-1)
        self.channels_first = {
            "features": self.features.mT,
            "momenta": torch.cat([momentum, energy], dim=-1).mT,
            "points": _points(momentum, self.mask).mT,
            "mask": self.mask[:, None],
        }


def _points(momentum: Tensor, mask: Tensor) -> Tensor:
    """Pseudorapidity and azimuth about the jet, by numpy."""
    x, y, z = np.moveaxis(momentum.numpy(), -1, 0)
    jet_x, jet_y, jet_z = (column.sum(1, keepdims=True) for column in (x, y, z))
    with np.errstate(invalid="ignore", divide="ignore"):
        deta = np.arctanh(z / np.sqrt(x**2 + y**2 + z**2))
    deta = np.where(mask, deta, 0) - np.arctanh(jet_z / np.sqrt(jet_x**2 + jet_y**2 + jet_z**2))
    dphi = np.angle(np.exp(1j * (np.arctan2(y, x) - np.arctan2(jet_y, jet_x))))
    return torch.tensor(np.stack([deta, dphi], axis=-1))


class RealBatchNorm(nn.Module):
    """weaver's batch normalisation with the statistics of the real entries only, which is what ours has."""

    def __init__(self, norm: nn.Module, mask: Tensor) -> None:
        super().__init__()
        self.norm, self.mask = norm, mask

    def forward(self, values: Tensor) -> Tensor:
        last = values.movedim(1, -1)
        normed = torch.zeros_like(last)
        norm = self.norm
        normed[self.mask] = F.batch_norm(
            last[self.mask].flatten(0, -2),
            norm.running_mean,
            norm.running_var,
            norm.weight,
            norm.bias,
            training=norm.training,
            momentum=norm.momentum,
        ).view_as(last[self.mask])
        return normed.movedim(-1, 1)


def particle_transformer(input_dim: int, num_classes: int) -> nn.Module:
    return ParticleTransformer(input_dim, num_classes, use_pre_activation_pair=False, trim=False)


def particlenet(input_dim: int, num_classes: int) -> nn.Module:
    conv_params = [(16, (64, 64, 64)), (16, (128, 128, 128)), (16, (256, 256, 256))]
    return ParticleNet(input_dim, num_classes, conv_params, [(256, 0.1)], use_fusion=False, trim=False)


def pre_activation(input_dim: int, num_classes: int) -> nn.Module:
    """As by weaver's constructor, which leaves out the last activation of pairs."""
    return ParticleTransformer(input_dim, num_classes, trim=False)


WITNESSES = {
    "particle_transformer_weaver": particle_transformer,
    "particle_transformer_weaver_pre_activation": pre_activation,
    "particlenet_weaver": particlenet,
}

#: What `import_weights` has to be told of each.
OPTIONS = {
    "particle_transformer_weaver": {"use_pre_activation_pair": False},
    "particle_transformer_weaver_pre_activation": {"use_pre_activation_pair": True},
    "particlenet_weaver": {},
}

_LAYERS_OF_PART = {"embed.input_bn.weight": "embedding.0.weight", "fc.0.weight": "head.0.weight"}

#: First and last layer, in weaver's names and in ours.
SAME_LAYERS = {
    "particle_transformer_weaver": _LAYERS_OF_PART,
    "particle_transformer_weaver_pre_activation": _LAYERS_OF_PART,
    "particlenet_weaver": {"bn_fts.weight": "norm.weight", "fc.1.weight": "head.3.weight"},
}


def witness_logits(name: str, witness: nn.Module, jets: Jets) -> Tensor:
    inputs = jets.channels_first
    if name == "particlenet_weaver":
        return witness(inputs["points"], inputs["features"].clone().requires_grad_(), inputs["mask"])
    return witness(inputs["features"].clone().requires_grad_(), v=inputs["momenta"], mask=inputs["mask"])


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


@pytest.fixture(scope="module")
def jets(shared_data: Path) -> Jets:
    return Jets(shared_data / "top_tagging" / "train_100k.h5")


@pytest.fixture(scope="module", params=["particle_transformer_weaver", "particlenet_weaver"])
def trained(request: pytest.FixtureRequest, jets: Jets) -> Iterator[tuple[str, nn.Module]]:
    """A model of weaver after a few steps, so that no statistic and no scale is trivial."""
    torch.manual_seed(7)
    name = request.param
    witness = without_dropout(WITNESSES[name](7, 2).double())
    optimizer = torch.optim.Adam(witness.parameters(), lr=1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        F.cross_entropy(witness_logits(name, witness, jets), jets.label).backward()
        optimizer.step()
    return name, witness.eval()


def save(witness: nn.Module, path: Path, prefix: str = "", **renamed: str) -> Path:
    """A file as weaver writes it, in float32; the witness goes on from what was rounded."""
    witness.float().double()
    state = {prefix + key: value for key, value in witness.state_dict().items()}
    for old, new in renamed.items():
        state = {key.replace(old, new): value for key, value in state.items()}
    torch.save(state, path)
    return path


def ours(name: str, witness: nn.Module, path: Path) -> nn.Module:
    return without_dropout(import_weights(save(witness, path), **OPTIONS[name]).model.double())


def test_jets_are_ragged(jets):
    assert jets.mask.sum(1).unique().numel() > 5


def test_logits_equal_those_of_weaver(trained, jets, tmp_path):
    name, witness = trained
    model = ours(name, witness, tmp_path / "net.pt")
    logits = model(jets.features, jets.four_momenta, jets.mask)
    expected = witness_logits(name, witness, jets)
    assert expected.std(0).min() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)
    # our own rules for masses and neighbours give the same on these jets
    own = create_model(name.removesuffix("_weaver"), input_dim=7, num_classes=2).double().eval()
    own.load_state_dict(model.state_dict())
    torch.testing.assert_close(own(jets.features, jets.four_momenta, jets.mask), expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_float32_momenta_have_the_noise_of_weaver(trained, real_jets, tmp_path):
    """Of a pair of massless particles, weaver takes the logarithm of what rounding leaves of the mass."""
    name, witness = trained
    if name == "particlenet_weaver":
        pytest.skip("looks at no masses")
    witness = copy.deepcopy(witness).float()
    momenta = torch.cat([real_jets.four_momenta[..., 1:], real_jets.four_momenta[..., :1]], dim=-1).mT
    expected = witness(real_jets.features.mT, v=momenta, mask=real_jets.mask[:, None])
    model, differences = import_weights(save(trained[1], tmp_path / "net.pt"), **OPTIONS[name]).model, []
    for pairs in (WeaverPairs(), KinematicPairs()):
        model.pair_inputs[0] = pairs
        logits = model(real_jets.features, real_jets.four_momenta, real_jets.mask)
        differences.append((logits - expected).abs().max().item() / expected.std(0).max().item())
    assert differences[0] < 1e-3 < differences[1], "relative to the spread of the logits"


@torch.no_grad()
def test_pairs_before_their_last_activation(jets, tmp_path):
    """As weaver's constructor builds it; control: with the activation the logits are others."""
    name = "particle_transformer_weaver_pre_activation"
    witness = without_dropout(WITNESSES[name](7, 2).double())
    for _ in range(3):
        witness_logits(name, witness, jets)
    path = save(witness.eval(), tmp_path / "net.pt")
    expected = witness_logits(name, witness, jets)
    for is_pre_activation in (True, False):
        model = import_weights(path, use_pre_activation_pair=is_pre_activation).model.double()
        difference = (model(jets.features, jets.four_momenta, jets.mask) - expected).abs().max()
        assert difference < 1e-9 if is_pre_activation else difference > 0.01


def test_the_last_activation_of_pairs_is_asked_for(tmp_path):
    """The weights are the same tensors with and without it, the logits are not."""
    torch.save(particle_transformer(7, 2).state_dict(), tmp_path / "net.pt")
    with pytest.raises(
        ValueError, match=r"net.pt: the weights do not show whether .* --use-pre-activation-pair true or"
    ):
        import_weights(tmp_path / "net.pt")
    torch.save(particlenet(7, 2).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt: is a particlenet_weaver, for which use_pre_activation_pair means"):
        import_weights(tmp_path / "net.pt", use_pre_activation_pair=True)


def test_training_step_equals_that_of_weaver(trained, jets, tmp_path):
    """Logits and gradients of the same batch statistics."""
    name, witness = trained
    model = ours(name, witness, tmp_path / "net.pt").train()
    witness.train().zero_grad()
    originals = {}
    for path, module in list(witness.named_modules()):
        # The pairs of ParT hold no padding in weaver either.
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and "pair_embed" not in path:
            parent, _, child = path.rpartition(".")
            originals[path] = module
            setattr(witness.get_submodule(parent), child, RealBatchNorm(module, jets.mask))
    logits = model(jets.features, jets.four_momenta, jets.mask)
    expected = witness_logits(name, witness, jets)
    for values in (logits, expected):
        F.cross_entropy(values, jets.label).backward()
    for path, module in originals.items():
        parent, _, child = path.rpartition(".")
        setattr(witness.get_submodule(parent), child, module)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-8)
    theirs, mine = (dict(one.named_parameters()) for one in (witness, model))
    for their_name, my_name in SAME_LAYERS[name].items():
        torch.testing.assert_close(mine[my_name].grad, theirs[their_name].grad, rtol=0, atol=1e-8)


@pytest.mark.parametrize("prefix", ["mod.", "module.mod."])
def test_prefixes_and_old_names_of_attention(trained, jets, tmp_path, prefix):
    name, witness = trained
    old = {"attn.in_proj.weight": "attn.in_proj_weight", "attn.in_proj.bias": "attn.in_proj_bias"}
    imported = import_weights(save(witness, tmp_path / "net.pt", prefix, **old), **OPTIONS[name])
    assert imported.name == name
    plain = ours(name, witness, tmp_path / "plain.pt")
    inputs = (jets.features, jets.four_momenta, jets.mask)
    torch.testing.assert_close(imported.model.double()(*inputs), plain(*inputs))


def test_wrong_shape_is_named(trained, tmp_path):
    name, witness = trained
    state = dict(witness.state_dict())
    key = "fc.0.weight" if name.startswith("particle_transformer") else "fc.1.weight"
    state[key] = state[key][:, :-1]
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=rf"net.pt: .*{key} has shape \[2, \d+\], expected"):
        import_weights(tmp_path / "net.pt", **OPTIONS[name])


def test_missing_tensor_is_named(trained, tmp_path):
    name, witness = trained
    state = dict(witness.state_dict())
    state.pop("blocks.3.fc1.weight" if name.startswith("particle_transformer") else "edge_convs.1.convs.2.weight")
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt: does not fit .*missing: blocks\.\d"):
        import_weights(tmp_path / "net.pt", **OPTIONS[name])


def test_file_of_another_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "net.pt")
    with pytest.raises(
        ValueError, match=r"net.pt: is no particle_transformer_weaver .* or particlenet_weaver .*weight, bias"
    ):
        import_weights(tmp_path / "net.pt")


def test_pickle_of_a_whole_model_is_not_run(tmp_path):
    torch.save(nn.Linear(2, 3), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt: is not a file of weights alone"):
        import_weights(tmp_path / "net.pt")


def test_changed_bit_is_refused(tmp_path):
    """As a download or a disk would do it: at any place in the weights, the file is not taken for another network."""
    state = particlenet(7, 2).state_dict()
    path = tmp_path / "net.pt"
    torch.save(state, path)
    content = path.read_bytes()
    start = content.index(state["fc.0.0.weight"].numpy().tobytes())
    for byte in range(start, start + 200_000, 40_009):
        path.write_bytes(content[:byte] + bytes([content[byte] ^ 4]) + content[byte + 1 :])
        with pytest.raises(ValueError, match=r"net\.pt: wrong checksum of .*; get the file again"):
            import_weights(path)


def test_old_format_has_no_checksums_and_says_so(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(particlenet(7, 2).state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.warns(UserWarning, match=r"net\.pt: .* torch before 1\.6, which has no checksums"):
        assert import_weights(path).name == "particlenet_weaver"


def test_tensor_of_more_numbers_than_stored_is_refused(tmp_path):
    state = particlenet(7, 2).state_dict()
    state["bn_fts.weight"] = torch.zeros(1).expand(10**12)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.pt: bn_fts\.weight claims the shape \[1000000000000\]"):
        import_weights(tmp_path / "net.pt")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file"):
        import_weights(tmp_path / "none.pt")


def named_as_released(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of ours under the names of the LorentzNet release, in the wrapper that it was trained in."""
    names = {"blocks.": "LGEBs.", "head.": "graph_dec."}
    renamed = {}
    for key, value in state.items():
        for ours_, theirs in names.items():
            key = theirs + key.removeprefix(ours_) if key.startswith(ours_) else key
        renamed["module." + key] = value
    return renamed


@pytest.fixture
def release_file(tmp_path):
    """A file with the names of the LorentzNet release."""
    state = create_model("lorentznet", input_dim=7, num_classes=2).state_dict()
    torch.save(named_as_released(state), tmp_path / "best-val-model.pt")
    return tmp_path / "best-val-model.pt"


def test_wide_release_is_refused(release_file):
    state = torch.load(release_file)
    key = "module.embedding.weight"
    state[key] = torch.cat([state[key], state[key][:, :1]], dim=1)
    torch.save(state, release_file)
    with pytest.raises(ValueError, match=r"takes 3 scalars of a particle; .* 2 \(lorentznet_release\) or 8 \(lorentz"):
        import_weights(release_file, "lorentznet-release")


def test_unknown_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="'weaver'; choose one of weaver-checkpoint, lorentznet-release"):
        import_weights(tmp_path / "net.pt", "weaver")
