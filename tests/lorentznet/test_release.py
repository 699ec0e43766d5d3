"""`lorentznet_release` beside the formulas of the LorentzNet release, written out on padded jets in float32."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import create_model, load_pretrained
from zoo.data.batch import JetBatch
from zoo.data.features import feature_table

LAYERS = 6


class Formulas:
    """Arithmetic of the release: float32 throughout, all pairs of the padded rows, and a mean over those rows.

    Args:
        weights: by the names of our models.
        scale: c of the coordinate update.
    """

    def __init__(self, weights: dict[str, Tensor], scale: float) -> None:
        self.weights = weights
        self.scale = scale
        self.largest_update = 0.0

    def layer(self, name: str, values: Tensor) -> Tensor:
        return F.linear(values, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, values: Tensor) -> Tensor:
        of = {key: self.weights[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")}
        normal = (values - of["running_mean"]) / torch.sqrt(of["running_var"] + 1e-5)
        return normal * of["weight"] + of["bias"]

    def logits(self, momenta: Tensor, scalars: Tensor, is_node: Tensor, further_rows: int = 0) -> Tensor:
        """Of jets (jet, row, 4), scalars (jet, row, scalar) and which rows are nodes, (jet, row).

        Of further rows without nodes, nothing remains but that they are counted.
        """
        rows = is_node.shape[1]
        is_pair = is_node[:, :, None] & is_node[:, None, :] & ~torch.eye(rows, dtype=torch.bool)
        x, h = momenta, self.layer("embedding", scalars)
        for number in range(LAYERS):
            x, h = self.block(f"blocks.{number}", x, h, scalars, is_pair, number == LAYERS - 1)
        mean = (h * is_node[..., None]).sum(1) / (rows + further_rows)
        return self.layer("head.3", self.layer("head.0", mean).relu())

    def block(self, name: str, x: Tensor, h: Tensor, scalars: Tensor, is_pair: Tensor, is_last: bool):
        difference = x[:, :, None] - x[:, None, :]
        invariants = torch.stack([compress(dot(difference, difference)), compress(dot(x[:, :, None], x[:, None]))], -1)
        ends = [h[:, :, None].expand(*is_pair.shape, -1), h[:, None].expand(*is_pair.shape, -1)]
        edge = self.norm(f"{name}.phi_e.1", self.layer(f"{name}.phi_e.0", torch.cat([*ends, invariants], -1))).relu()
        edge = self.layer(f"{name}.phi_e.3", edge).relu()
        message = edge * self.layer(f"{name}.phi_m.0", edge).sigmoid()
        if not is_last:
            update = difference * self.layer(f"{name}.phi_x.2", self.layer(f"{name}.phi_x.0", message).relu())
            self.largest_update = max(self.largest_update, update[is_pair].abs().max().item())
            update = update.clamp(-100, 100) * is_pair[..., None]
            x = x + self.scale * update.sum(2) / is_pair.sum(2).clamp(min=1)[..., None]
        gathered = torch.cat([h, (message * is_pair[..., None]).sum(2), scalars], -1)
        step = self.norm(f"{name}.phi_h.1", self.layer(f"{name}.phi_h.0", gathered)).relu()
        return x, h + self.layer(f"{name}.phi_h.3", step)


def dot(p: Tensor, q: Tensor) -> Tensor:
    products = p * q
    return 2 * products[..., 0] - products.sum(-1)


def compress(values: Tensor) -> Tensor:
    return values.sign() * (values.abs() + 1).log()


def with_beams(four_momenta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The beams in the first two rows, as there, and sqrt|m^2| of particles and of beams as two scalars."""
    beams = torch.tensor([[2**0.5, 0, 0, 1], [2**0.5, 0, 0, -1]]).expand(len(mask), -1, -1)
    momenta = torch.cat([beams, four_momenta], dim=1)
    is_beam = torch.tensor([True, True] + [False] * mask.shape[1])
    mass = compress(dot(momenta, momenta).abs().sqrt())
    return momenta, torch.stack([mass * ~is_beam, mass * is_beam], -1), F.pad(mask, (2, 0), value=True)


def as_trained(model: nn.Module) -> nn.Module:
    """Weights of a real training, with coordinate updates of the size of the release's, which its bound cuts."""
    weights = load_pretrained("lorentznet.top_tagging").model.state_dict()
    fitting = {key: value for key, value in weights.items() if value.shape == model.state_dict()[key].shape}
    model.load_state_dict(model.state_dict() | fitting)
    with torch.no_grad():
        for block in model.blocks[:-1]:
            block.phi_x[2].weight /= 16
    return model.eval()


@pytest.fixture(scope="module")
def jets(real_jets: JetBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Six real jets."""
    rows = int(real_jets.mask[:6].sum(1).max())
    return tuple(values[:6, :rows] for values in (real_jets.features, real_jets.four_momenta, real_jets.mask))


@pytest.mark.parametrize("further_rows", [0, 30])
@torch.no_grad()
def test_top_tagging_equals_the_formulas_of_the_release(jets, further_rows):
    model = as_trained(create_model("lorentznet_release", input_dim=7, num_classes=2))
    _, momenta, mask = jets
    momenta, mask = F.pad(momenta, (0, 0, 0, further_rows)), F.pad(mask, (0, further_rows))
    formulas = Formulas(model.state_dict(), scale=5e-3)
    expected = formulas.logits(*with_beams(momenta, mask))
    assert expected.std(0).min() > 0.3
    assert formulas.largest_update > 1000, "else the bound is not tested"
    model.readout_rows = mask.shape[1] + 2
    torch.testing.assert_close(model(*jets), expected, rtol=0, atol=1e-3)
    # control: our own rules for masses and bounds give other answers with the same weights
    model.as_released = False
    assert (model(*jets) - expected).abs().max() > 0.1


#: Numbers of the types that have a column each, and of two that have none.
NUMBERS = torch.tensor([11, 13, 22, 130, 211, 321, 2112, 2212, 310, 3122])
MASSES = torch.tensor([0.00051, 0.10566, 0, 0.49761, 0.13957, 0.49368, 0.93957, 0.93827, 0.49761, 1.11568])


@torch.no_grad()
def test_quarks_and_gluons_equal_the_formulas_of_the_release(jets):
    """There particles have the masses of their types at the transverse momentum and rapidity of the file."""
    model = as_trained(create_model("lorentznet_qg_release", input_dim=9, num_classes=2))
    _, massless, mask = jets
    kind = torch.randint(len(NUMBERS), mask.shape)
    columns = {"part_pdg_id": NUMBERS[kind].double(), "part_mass": MASSES[kind].double()}
    features = feature_table("quark_gluon_types").padded(massless, mask, columns)
    one_hot = F.one_hot(kind, len(NUMBERS))[..., :8].float() * mask[..., None]
    assert torch.equal(features[..., :8], one_hot)
    momenta = massless.double()
    pt, mt = momenta[..., 1:3].norm(dim=-1), torch.hypot(momenta[..., 1:3].norm(dim=-1), MASSES[kind].double())
    rapidity = torch.asinh(momenta[..., 3] / pt.clamp(min=1e-9))
    momenta = torch.stack([mt * rapidity.cosh(), *momenta[..., 1:3].unbind(-1), mt * rapidity.sinh()], -1).float()
    formulas = Formulas(model.state_dict(), scale=1e-3)
    expected = formulas.logits(momenta, one_hot, mask, 148 - mask.shape[1])
    assert expected.std(0).min() > 0.1
    torch.testing.assert_close(model(features, massless, mask), expected, rtol=0, atol=1e-3)
    # controls: without the masses, and with the mean over the particles, the answers are others
    model.massive = False
    assert (model(features, massless, mask) - expected).abs().max() > 4e-3
    model.massive, model.readout_rows = True, None
    assert (model(features, massless, mask) - expected).abs().max() > 0.1
