"""Models of weaver-core, their weights imported, beside ours on real jets."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from zoo import create_model, load_pretrained
from zoo.cli import main
from zoo.data.batch import collate, gather
from zoo.data.datasets import describe_dataset
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.importers import import_weights

weaver_models = pytest.importorskip("weaver.nn.model.ParticleTransformer")
from weaver.nn.model.ParticleNet import ParticleNet  # noqa: E402
from weaver.nn.model.ParticleTransformer import ParticleTransformer  # noqa: E402

OF_TOP_TAGGING = ("--dataset", "top_tagging", "--licence", "MIT")


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


WITNESSES = {"particle_transformer": particle_transformer, "particlenet": particlenet}

#: First and last layer, in weaver's names and in ours.
SAME_LAYERS = {
    "particle_transformer": {"embed.input_bn.weight": "embedding.0.weight", "fc.0.weight": "head.0.weight"},
    "particlenet": {"bn_fts.weight": "norm.weight", "fc.1.weight": "head.3.weight"},
}


def witness_logits(name: str, witness: nn.Module, jets: Jets) -> Tensor:
    inputs = jets.channels_first
    if name == "particlenet":
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


@pytest.fixture(scope="module", params=sorted(WITNESSES))
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


def ours(witness: nn.Module, path: Path) -> nn.Module:
    return without_dropout(import_weights(save(witness, path)).model.double())


def test_jets_are_ragged(jets):
    assert jets.mask.sum(1).unique().numel() > 5


def test_logits_equal_those_of_weaver(trained, jets, tmp_path):
    name, witness = trained
    model = ours(witness, tmp_path / "net.pt")
    logits = model(jets.features, jets.four_momenta, jets.mask)
    expected = witness_logits(name, witness, jets)
    assert expected.std(0).min() > 1e-3
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


def test_training_step_equals_that_of_weaver(trained, jets, tmp_path):
    """Logits and gradients of the same batch statistics."""
    name, witness = trained
    model = ours(witness, tmp_path / "net.pt").train()
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
    imported = import_weights(save(witness, tmp_path / "net.pt", prefix, **old))
    assert imported.foreign.model == name
    plain = ours(witness, tmp_path / "plain.pt")
    inputs = (jets.features, jets.four_momenta, jets.mask)
    torch.testing.assert_close(imported.model.double()(*inputs), plain(*inputs))


def test_wrong_shape_is_named(trained, tmp_path):
    name, witness = trained
    state = dict(witness.state_dict())
    key = "fc.0.weight" if name == "particle_transformer" else "fc.1.weight"
    state[key] = state[key][:, :-1]
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=rf"net.pt: .*{key} has shape \[2, \d+\], expected"):
        import_weights(tmp_path / "net.pt")


def test_missing_tensor_is_named(trained, tmp_path):
    name, witness = trained
    state = dict(witness.state_dict())
    state.pop("blocks.3.fc1.weight" if name == "particle_transformer" else "edge_convs.1.convs.2.weight")
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt: does not fit .*missing: blocks\.\d"):
        import_weights(tmp_path / "net.pt")


def test_file_of_another_model_is_refused(tmp_path):
    torch.save(nn.Linear(2, 3).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net.pt: is no particle_transformer .* or particlenet .*weight, bias"):
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
        assert import_weights(path).foreign.model == "particlenet"


def test_tensor_of_more_numbers_than_stored_is_refused(tmp_path):
    state = particlenet(7, 2).state_dict()
    state["bn_fts.weight"] = torch.zeros(1).expand(10**12)
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"net\.pt: bn_fts\.weight claims the shape \[1000000000000\]"):
        import_weights(tmp_path / "net.pt")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none.pt: no such file"):
        import_weights(tmp_path / "none.pt")


@pytest.mark.parametrize("name", sorted(WITNESSES))
@pytest.mark.parametrize("features", ["kin", "kinpid", "full"])
def test_command_imports_models_of_jetclass(tmp_path, shared_data, name, features):
    """Of 7, 13 or 17 features and ten classes; what was imported answers to jets that have the columns."""
    table, out = feature_table(features), tmp_path / "out"
    torch.manual_seed(3)
    torch.save(WITNESSES[name](table.input_dim, 10).state_dict(), tmp_path / "net.pt")
    where = ["--out", str(out), "--dataset", "jetclass", "--licence", "MIT"]
    main(["import", "weaver-checkpoint", str(tmp_path / "net.pt"), *where])
    tagger = load_pretrained(out)
    assert tagger.feature_table == table
    assert tagger.config.classes == list(describe_dataset("jetclass").classes)
    golden = load_file(out / "golden.safetensors")
    if features != "kin":
        types = golden["features"][golden["mask"]][:, 6:11]
        assert types.sum(1).tolist() == [1.0] * len(types)
        assert types.any(0).all()
    jets = read_jets(shared_data / "jetclass2" / "JetClassII_example.parquet", rows=(0, 4))
    packed = gather(jets, np.arange(4), table.columns)
    batch = collate(packed, table)
    columns = {key: torch.from_numpy(packed.columns[key]) for key in packed.columns}
    for key in table.columns:
        padded = torch.zeros(batch.mask.shape)
        padded[batch.mask] = columns[key].float()
        columns[key] = padded
    logits = tagger(batch.four_momenta, batch.mask, columns)
    with torch.no_grad():
        expected = tagger.model(batch.features, batch.four_momenta, batch.mask)
    torch.testing.assert_close(logits, expected)
    if table.columns:
        with pytest.raises(ValueError, match=r"'part_charge' is missing, .* use the features kin"):
            tagger(batch.four_momenta, batch.mask)


@pytest.fixture
def release_file(tmp_path):
    """A file with the names of the LorentzNet release."""
    state = create_model("lorentznet", input_dim=7, num_classes=2).state_dict()
    names = {"blocks.": "LGEBs.", "decoder.": "graph_dec."}
    renamed = {}
    for key, value in state.items():
        for ours_, theirs in names.items():
            key = theirs + key.removeprefix(ours_) if key.startswith(ours_) else key
        renamed["module." + key] = value
    torch.save(renamed, tmp_path / "best-val-model.pt")
    return tmp_path / "best-val-model.pt"


def test_lorentznet_release_reads_out_over_the_rows_of_the_batch(release_file, jets):
    """With as many rows as a jet has particles and beams, it is the mean; control: with more it is not."""
    release = import_weights(release_file, "lorentznet-release").model.double()
    plain = create_model("lorentznet", input_dim=7, num_classes=2).double().eval()
    plain.load_state_dict(release.state_dict())
    count = int(jets.mask[0].sum())
    jet = (jets.features[:1], jets.four_momenta[:1], jets.mask[:1])
    release.readout_rows = count + 2
    torch.testing.assert_close(release(*jet), plain(*jet), rtol=0, atol=1e-12)
    release.readout_rows = count + 12
    assert (release(*jet) - plain(*jet)).abs().max() > 1e-4


def test_command_makes_a_pretrained_folder(release_file, tmp_path):
    out = tmp_path / "released"
    main(
        [
            "import",
            "lorentznet-release",
            str(release_file),
            "--out",
            str(out),
            "--dataset",
            "top_tagging",
            "--licence",
            "MIT",
        ]
    )
    loaded = load_pretrained(out)
    assert loaded.config.model == "lorentznet_release"
    assert loaded.config.paper == "arXiv:2201.08187"


def test_command_refuses_features_that_the_zoo_does_not_know(tmp_path, capsys):
    torch.save(particlenet(9, 2).state_dict(), tmp_path / "net.pt")
    with pytest.raises(SystemExit, match="2"):
        main(
            [
                "import",
                "weaver-checkpoint",
                str(tmp_path / "net.pt"),
                "--out",
                str(tmp_path / "out"),
                "--dataset",
                "top_tagging",
                "--licence",
                "MIT",
            ]
        )
    assert "net.pt: takes 9 features of a particle; the zoo knows kin (7)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_refuses_another_number_of_classes(tmp_path, capsys):
    torch.save(particlenet(7, 10).state_dict(), tmp_path / "net.pt")
    with pytest.raises(SystemExit, match="2"):
        main(
            [
                "import",
                "weaver-checkpoint",
                str(tmp_path / "net.pt"),
                "--out",
                str(tmp_path / "out"),
                "--dataset",
                "top_tagging",
                "--licence",
                "MIT",
            ]
        )
    assert "net.pt: has 10 classes, top_tagging has qcd, top" in capsys.readouterr().err


def test_unknown_kind_is_named(tmp_path):
    with pytest.raises(ValueError, match="'weaver'; choose one of weaver-checkpoint, lorentznet-release"):
        import_weights(tmp_path / "net.pt", "weaver")
