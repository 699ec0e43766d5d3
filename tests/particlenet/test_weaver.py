"""`particlenet_weaver` beside weaver-core's ParticleNet on few and on coincident particles."""

import pytest
import torch
from torch import Tensor, nn

from zoo.importers import import_weights
from zoo.particlenet.fast import weaver_neighbors
from zoo.physics.kinematics import relative_to_jet

pytest.importorskip("weaver.nn.model.ParticleNet")
from weaver.nn.model.ParticleNet import ParticleNet

#: As many rows as weaver needs at least are 17, for its 16 neighbours and the particle itself.
ROWS = 20


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, nn.Module]:
    """weaver's with statistics of random features, and ours with the same weights."""
    torch.manual_seed(3)
    conv_params = [(16, (64, 64, 64)), (16, (128, 128, 128)), (16, (256, 256, 256))]
    witness = ParticleNet(7, 2, conv_params, [(256, 0.1)], use_fusion=False, trim=False).double()
    with torch.no_grad():
        for _ in range(10):
            witness(torch.randn(8, 2, 30).double(), torch.randn(8, 7, 30).double() + 0.5, torch.ones(8, 1, 30))
    path = tmp_path_factory.mktemp("weaver") / "net.pt"
    torch.save(witness.state_dict(), path)
    model = import_weights(path).model.double()
    return witness.float().double().eval(), model.eval()  # of weights that were rounded for ours, too


def jets(counts: Tensor, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    """Features and massless momenta of random particles, and the mask."""
    mask = torch.arange(rows) < counts[:, None]
    direction = torch.tensor([0.0, 300.0, 100.0]) + 60 * torch.randn(len(counts), rows, 3)
    momentum = (direction * torch.rand(len(counts), rows, 1)).double()
    four_momenta = torch.cat([momentum.norm(dim=-1, keepdim=True), momentum], dim=-1)
    return torch.randn(len(counts), rows, 7).double() * mask[..., None], four_momenta * mask[..., None], mask


def by_weaver(witness: nn.Module, features: Tensor, four_momenta: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
    points = torch.zeros(*mask.shape, 2, dtype=dtype)
    points[mask] = torch.stack(relative_to_jet(four_momenta[mask], mask.sum(1)), dim=1).to(dtype)
    return witness(points.mT, features.mT.to(dtype), mask[:, None])


@torch.no_grad()
def test_one_to_twenty_particles(networks):
    """Of up to 16, weaver fills each neighbourhood with padded rows; control: our own networks do not."""
    witness, model = networks
    batch = jets(torch.arange(1, ROWS + 1))
    expected = by_weaver(witness, *batch, torch.float64)
    torch.testing.assert_close(model(*batch), expected, rtol=0, atol=1e-9)
    model.as_weaver = False
    differences = (model(*batch) - expected).abs().amax(1)
    model.as_weaver = True
    assert differences[:16].min() > 1e-3 * expected.std()
    assert differences[16:].max() < 1e-9


@torch.no_grad()
def test_coincident_particles(networks):
    """Neutral particles of one cell: any of them may be dropped as the particle itself, which changes logits."""
    witness, model = networks
    features, four_momenta, mask = jets(torch.full((12,), ROWS))
    four_momenta[:, 5:9] = four_momenta[:, 4:5] * torch.tensor([0.5, 0.25, 2, 0.125])[:, None]
    batch = features, four_momenta, mask
    expected = by_weaver(witness.float(), *batch, torch.float32)
    logits = model.float()(features.float(), four_momenta, mask)
    witness.double(), model.double()
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    model.as_weaver = False
    own = model(*batch)
    model.as_weaver = True
    assert (own - expected).abs().max() > 1e-3 * expected.std()


@torch.no_grad()
def test_coincident_particles_beside_a_longer_jet(networks):
    """weaver's answer moves with the rows that the batch is padded to; ours is that of weaver for the jet alone."""
    witness, model = networks
    features, four_momenta, mask = jets(torch.tensor([30, 90]), rows=90)
    four_momenta[0, 2:30] = four_momenta[0, 1:2] * torch.tensor(2.0).pow(torch.arange(28))[:, None] / 2**20
    together = by_weaver(witness.float(), features, four_momenta, mask, torch.float32)[:1]
    alone = by_weaver(witness.float(), features[:1, :30], four_momenta[:1, :30], mask[:1, :30], torch.float32)
    logits = model.float()(features.float(), four_momenta, mask)[:1]
    witness.double(), model.double()
    torch.testing.assert_close(logits, alone, rtol=0, atol=2e-6)
    assert (together - alone).abs().max() > 1e-5


def test_a_batch_without_jets_and_jets_without_particles():
    assert weaver_neighbors(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), 16).j.tolist() == []
    neighbors = weaver_neighbors(torch.zeros(1, 2), torch.tensor([0, 1]), 3)
    assert neighbors.j.tolist() == [1, 1, 1]
    assert neighbors.starts.tolist() == [0, 3]


def test_gradients_pass_by_what_is_no_particle(networks):
    """In training, too, the rows that fill up count as edges from zeros."""
    _, model = networks
    model.train()
    features, four_momenta, mask = jets(torch.arange(1, ROWS + 1))
    model(features, four_momenta, mask).square().sum().backward()
    model.eval()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
