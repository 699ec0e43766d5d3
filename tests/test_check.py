"""`zoo check` tells symmetric models from others."""

import math
import re
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import Tensor, nn

from zoo.check import check_changes, check_requirements, find_model, read_some, settle
from zoo.check.jets import transform, transformations
from zoo.cli import main
from zoo.data.context import context_table
from zoo.data.features import feature_table
from zoo.hub import PACKAGED

TABLE = feature_table("kin")


@pytest.fixture(scope="module")
def jets():
    return read_some("sample:top_tagging/test", 12)


class Counting(nn.Module):
    """Knows only how long the batch is padded: it breaks two promises, and its parameter has no gradient."""

    symmetries = frozenset({"boost"})

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.ones(1))
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        energy = four_momenta[..., 0].nan_to_num().sum(1)
        return self.scale * (energy[:, None] / mask.shape[1] + torch.arange(len(self.scale)))


def changes(model: nn.Module, jets) -> dict:
    return {change.alteration: change for change in check_changes(model, TABLE, jets)}


def test_efn_keeps_what_it_promises_and_no_more(jets):
    found = changes(settle(find_model("efn", input_dim=7, num_classes=2), TABLE, jets), jets)
    promised = {name for name, change in found.items() if change.is_promised}
    assert promised == {
        "order of particles",
        "padding",
        "other jets of the batch",
        "beam rotation",
        "beam boost",
        "collinear splitting",
        "soft emission",
    }
    assert all(change.is_kept for change in found.values())
    assert found["rotation"].float64 > 1e-2
    assert found["boost, gamma 2"].float64 > 1e-2


def test_lorentznet_keeps_boosts_and_not_splittings(jets):
    found = changes(settle(find_model("lorentznet", input_dim=7, num_classes=2), TABLE, jets), jets)
    for name in ("rotation", "boost, gamma 2", "boost, gamma 10"):
        assert found[name].is_promised
        assert found[name].is_kept
    assert found["collinear splitting"].float64 > 1e-3


def test_scalars_that_change_with_the_frame_break_no_promise(jets):
    """What `lorentznet_qg` promises is judged with the features of before; with those of the boosted jet it moves."""
    found = changes(settle(find_model("lorentznet_qg", input_dim=7, num_classes=2), TABLE, jets), jets)
    for name in ("rotation", "boost, gamma 2", "boost, gamma 100"):
        assert not found[name].is_promised
        assert found[name].float64 > 0.1
        same = found[f"{name}, same features"]
        assert same.is_promised
        assert same.is_kept
    assert found["beam rotation"].is_promised
    assert not [name for name in changes(find_model("lorentznet", input_dim=7, num_classes=2), jets) if "same" in name]


def test_lgn_promises_boosts_that_float64_can_keep(jets):
    """Four digits are left of those by 100."""
    found = changes(settle(find_model("lgn", input_dim=7, num_classes=2), TABLE, jets), jets)
    assert found["boost, gamma 10"].is_promised
    assert found["boost, gamma 10"].float64 < 1e-8
    assert not found["boost, gamma 100"].is_promised
    assert found["boost, gamma 100"].float64 < 1e-2


def test_columns_and_context_turn_about_the_beam():
    jets = read_some("sample:four_tops/test", 6, context_table=context_table("met"))
    phi = np.arctan2(jets.four_momenta[:, 2], jets.four_momenta[:, 1])
    jets = jets._replace(columns={"part_phi": phi + 0.3, "part_mine": phi, "part_charge": phi})
    for name, angle in (("beam rotation", 1.0), ("beam boost", 0.0)):
        turned = transform(jets, name, transformations()[name])
        for new, old in (
            (turned.columns["part_phi"], jets.columns["part_phi"]),
            (turned.fields["met_phi"], jets.fields["met_phi"]),
        ):
            assert np.abs((new - old - angle + 9) % (2 * math.pi) - 9 % (2 * math.pi)).max() < 1e-5
        for column in ("part_mine", "part_charge"):
            assert np.array_equal(turned.columns[column], jets.columns[column]), "nobody knows, or it does not change"
        assert np.array_equal(turned.fields["met"], jets.fields["met"])


def test_columns_are_boosted_along_the_beam():
    """The pseudorapidity of massless particles as a column, beside that of the boosted momenta; the azimuth stays."""
    jets = read_some("sample:top_tagging/test", 6)
    jets = jets._replace(columns={"part_eta": pseudorapidity(jets), "part_phi": pseudorapidity(jets)})
    boosted = transform(jets, "beam boost", transformations()["beam boost"])
    np.testing.assert_allclose(boosted.columns["part_eta"], pseudorapidity(boosted), rtol=1e-9)
    assert np.abs(boosted.columns["part_eta"] - jets.columns["part_eta"]).min() > 0.1
    assert np.array_equal(boosted.columns["part_phi"], jets.columns["part_phi"])


def pseudorapidity(jets) -> np.ndarray:
    _, px, py, pz = jets.four_momenta.T
    return np.arcsinh(pz / np.hypot(px, py))


def test_broken_promises_are_seen(jets):
    model = Counting(7, 2)
    found = changes(model, jets)
    broken = {name for name, change in found.items() if not change.is_kept}
    assert broken == {"padding", "other jets of the batch", "boost, gamma 2", "boost, gamma 10", "boost, gamma 100"}
    requirements = check_requirements(model, TABLE, jets)
    unmet = [requirement.what for requirement in requirements if not requirement.is_met]
    assert unmet == ["every parameter has a gradient: not unused"]


def test_models_without_weights_are_checked(jets):
    """As boosted trees are: there is nothing to learn by gradients."""
    requirements = check_requirements(EnergyByCharge(is_number=True), TABLE, jets)
    assert all(requirement.is_met for requirement in requirements)


class Brittle(nn.Module):
    """Raises errors of its own where other models answer."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, num_classes)

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        if not mask.any(dim=1).all():
            raise IndexError("an empty jet\nand more")
        total = self.layer(four_momenta.masked_fill(~mask[..., None], 0).sum(1))
        return total.masked_fill(total < -1e30, -1e9) / len(total)


def test_errors_of_a_model_are_answers_that_it_does_not_give(jets):
    requirements = check_requirements(Brittle(2), TABLE, jets)
    unmet = [requirement.what for requirement in requirements if not requirement.is_met]
    assert unmet[:2] == [
        "finite for jets of 0 to 3 particles: IndexError: an empty jet",
        "finite for a batch of empty jets: IndexError: an empty jet",
    ]
    assert "finite in float16: RuntimeError: value cannot be converted to type" in unmet[-1]


def test_command_prints_and_fails_on_a_broken_promise(capsys):
    main(["check", "pfn_energyflow", "--jets", "6"])
    shown = capsys.readouterr().out
    assert "82,458 parameters" in shown
    assert "beam boost" in shown
    with pytest.raises(SystemExit, match="1"):
        main(["check", f"{__name__}.Counting", "--jets", "6"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "NO" in shown
    assert "a plain torch module: without stages() fine-tuning finds no stages; without encode()" in shown


class OnlyClasses(nn.Module):
    """Takes no number of features."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.arange(1.0, num_classes + 1))

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        energy = four_momenta[..., 0].masked_fill(~mask, 0).sum(1, keepdim=True)
        return self.scale * energy.float().log1p().to(self.scale.dtype)


class Wide(OnlyClasses):
    """Needs what `zoo check` cannot know."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(num_classes)


@pytest.mark.parametrize("name", ["zoo.lorentznet.LorentzNet", f"{__name__}.OnlyClasses"])
def test_classes_are_given_what_they_take(name, capsys):
    main(["check", name, "--jets", "3"])
    assert "NO" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pfn_energyflow.top_tagging", "particle_transformer.substructure"])
def test_folders_are_checked(name, tmp_path, monkeypatch, capsys):
    """By their path, in whatever way it is written; a backbone by the mean of its representation."""
    shutil.copytree(PACKAGED / name, tmp_path / "my.folder")
    monkeypatch.chdir(tmp_path)
    for path in ("./my.folder", "my.folder"):
        main(["check", path, "--jets", "3"])
        assert "NO" not in capsys.readouterr().out


def test_features_and_layout_of_ones_own(tmp_path, capsys):
    jets = read_some("sample:top_tagging/test", 6)
    names = [np.split(values, np.cumsum(jets.counts)[:-1]) for values in jets.four_momenta.T]
    columns = dict(
        zip(["E", "PX", "PY", "PZ"], ([list(map(float, jet)) for jet in column] for column in names), strict=True)
    )
    parquet.write_table(
        pa.table({**columns, "quality": [[0.5] * int(count) for count in jets.counts]}), tmp_path / "a.parquet"
    )
    (tmp_path / "layout.yaml").write_text(
        "units: GeV\nmomenta: {energy: E, px: PX, py: PY, pz: PZ}\nparticles: {part_quality: quality}\n"
    )
    (tmp_path / "features.yaml").write_text(
        "features:\n  - {name: a, formula: log_pt}\n  - {name: b, formula: part_quality * log_pt}\n"
    )
    given = ["--features", str(tmp_path / "features.yaml"), "--layout", str(tmp_path / "layout.yaml"), "--jets", "4"]
    main(["check", "pfn", "--data", str(tmp_path / "a.parquet"), *given])
    assert "83,202 parameters" in capsys.readouterr().out


def test_events_with_their_context(capsys):
    sample = ["--data", "sample:four_tops/test", "--features", "events", "--jets", "4"]
    main(["check", "pfn_for_events", "--context", "met", *sample])
    assert "NO" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["check", "efn", "--context", "met", *sample])
    assert "context: met has 2 numbers, efn takes 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lorentznt"], "did you mean lorentznet"),
        (["no_such_package.Model"], "no_such_package.Model: cannot be imported"),
        (
            ["lorentznet.top_taggin"],
            "lorentznet.top_taggin: cannot be imported .*; did you mean lorentznet.top_tagging",
        ),
        (["./no.folder"], "no pretrained model or folder './no.folder'"),
        (
            [f"{__name__}.Wide"],
            f"{__name__}.Wide: cannot be built of num_classes .missing a required argument: 'width'",
        ),
        (["zoo.check"], "zoo.check: is module, not a class or function"),
        (["builtins.dict"], "builtins.dict: gives dict, not a torch module"),
        (["pfn", "--features", "kim"], "no feature table is called 'kim'"),
        (["pfn", "--data", "none.h5"], "none.h5"),
        (["pfn", "--jets", "1"], "jets with particles"),
    ],
)
def test_user_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check", *arguments])
    assert re.search(message, capsys.readouterr().err)


class EnergyByCharge(nn.Module):
    """Sums over particles of each charge: their energy, or, as a control, their number."""

    symmetries = frozenset({"collinear splitting"})

    def __init__(self, is_number: bool) -> None:
        super().__init__()
        self.is_number = is_number

    def forward(self, features: Tensor, four_momenta: Tensor, mask: Tensor) -> Tensor:
        charge = torch.where(mask, features[..., 5], math.nan)
        energy = torch.where(mask, four_momenta[..., 0], 0)
        weight = torch.ones_like(energy) if self.is_number else energy
        return torch.stack([(weight * (charge == value)).sum(1) for value in (-1, 0, 1)], dim=1)


@pytest.mark.parametrize("is_number", [False, True])
def test_charges_go_with_the_particles(shared_data, is_number):
    """Half of a charged particle is charged, and the order of the charges is that of the particles."""
    table = feature_table("full")
    jets = read_some(shared_data / "jetclass2" / "JetClassII_example.parquet", 12, table.columns)
    found = {change.alteration: change for change in check_changes(EnergyByCharge(is_number), table, jets)}
    broken = {name for name, change in found.items() if not change.is_kept}
    assert broken == ({"collinear splitting"} if is_number else set())


def test_file_without_the_columns_of_the_features(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check", "pfn", "--features", "full"])
    assert "particle column 'part_charge' is missing" in capsys.readouterr().err
