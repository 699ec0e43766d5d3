"""Particle Transformer as weaver-core's training program takes it (``--network-config``), for `benchmarks.training`."""

import torch
from torch import Tensor, nn

from benchmarks.peers import WeaverParticleTransformer


class _Network(nn.Module):
    """Inputs as weaver's loader makes them, padded and channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.net = WeaverParticleTransformer().net

    def forward(self, features: Tensor, vectors: Tensor, mask: Tensor) -> Tensor:
        return self.net(features.requires_grad_(torch.is_grad_enabled()), v=vectors, mask=mask)


def get_model(data_config, **options) -> tuple[nn.Module, dict]:
    names = list(data_config.input_names)
    info = {
        "input_names": names,
        "input_shapes": {name: (1, *shape[1:]) for name, shape in data_config.input_shapes.items()},
        "output_names": ["softmax"],
        "dynamic_axes": {name: {0: "N"} for name in names},
    }
    return _Network(), info


def get_loss(data_config, **options) -> nn.Module:
    return nn.CrossEntropyLoss()
