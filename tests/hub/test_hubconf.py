"""The models by ``torch.hub``, from a checkout that is not installed."""

import subprocess
import sys
from pathlib import Path

import torch

from zoo import load_pretrained
from zoo.data.batch import JetBatch

CHECKOUT = Path(__file__).resolve().parents[2]

CODE = f"""
import sys
import torch

path = {str(CHECKOUT)!r}
four_momenta, mask = torch.load(sys.argv[1], weights_only=True)
tagger = torch.hub.load(path, "lorentznet_top_tagging", source="local")
again = torch.hub.load(path, "pretrained", "lorentznet.top_tagging", source="local")
logits = tagger(four_momenta, mask)
assert torch.equal(again(four_momenta, mask), logits)
model = torch.hub.load(path, "particlenet_lite", input_dim=7, num_classes=3, source="local")
assert sys.modules[type(model).__module__].__file__.startswith(path)
assert model(torch.zeros(*mask.shape, 7), four_momenta, mask).shape == (len(mask), 3)
torch.save(logits, sys.argv[2])
"""


def test_the_entry_points(tmp_path, jets: JetBatch):
    torch.save((jets.four_momenta, jets.mask), tmp_path / "jets.pt")
    arguments = [str(tmp_path / "jets.pt"), str(tmp_path / "logits.pt")]
    # from another folder, and -P, so that only torch.hub can find the zoo
    subprocess.run([sys.executable, "-P", "-c", CODE, *arguments], cwd=tmp_path, env={}, check=True)
    expected = load_pretrained("lorentznet.top_tagging")(jets.four_momenta, jets.mask)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt", weights_only=True), expected)
