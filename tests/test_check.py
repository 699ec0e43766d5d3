"""`zoo check` tells symmetric models from others."""

import math

import pytest
import torch
from torch import Tensor, nn

from zoo.check import check_changes, check_requirements, find_model, read_some, settle
from zoo.cli import main
from zoo.data.features import feature_table

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


def test_broken_promises_are_seen(jets):
    model = Counting(7, 2)
    found = changes(model, jets)
    broken = {name for name, change in found.items() if not change.is_kept}
    assert broken == {"padding", "other jets of the batch", "boost, gamma 2", "boost, gamma 10", "boost, gamma 100"}
    requirements = check_requirements(model, TABLE, jets)
    unmet = [requirement.what for requirement in requirements if not requirement.is_met]
    assert unmet == ["every parameter has a gradient: not unused"]


def test_command_prints_and_fails_on_a_broken_promise(capsys):
    main(["check", "pfn_energyflow", "--jets", "6"])
    shown = capsys.readouterr().out
    assert "82,458 parameters" in shown
    assert "beam boost" in shown
    with pytest.raises(SystemExit, match="1"):
        main(["check", f"{__name__}.Counting", "--jets", "6"])
    assert "NO" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lorentznt"], "did you mean lorentznet"),
        (["no_such_package.Model"], "no_such_package.Model: cannot be imported"),
        (["builtins.dict"], "builtins.dict: gives dict, not a torch module"),
        (["pfn", "--features", "kim"], "no feature table is called 'kim'"),
        (["pfn", "--data", "none.h5"], "none.h5"),
        (["pfn", "--jets", "1"], "jets with particles"),
    ],
)
def test_user_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["check", *arguments])
    assert message in capsys.readouterr().err


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
