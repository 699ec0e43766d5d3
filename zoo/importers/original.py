"""The network in which foreign weights were trained, if its package is installed: the witness of the importer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from zoo.data.batch import JetBatch
from zoo.physics.kinematics import relative_to_jet


def weaver_logits(name: str, state: dict[str, Tensor], input_dim: int, num_classes: int, jets: JetBatch) -> Tensor:
    """Logits (batch, class) of weaver-core's own network with these weights.

    Args:
        name: registered name of the model into which the weights were imported.
        state: the weights under weaver's names.
        input_dim: number of features of a particle.
        num_classes: number of logits.
        jets: padded, with more particles than the 16 neighbours of a ParticleNet.

    Raises:
        ModuleNotFoundError: if weaver-core is not installed.
    """
    network = _NETWORKS[name](input_dim, num_classes)
    network.load_state_dict(state)
    network.eval()
    features, mask = jets.features.mT, jets.mask[:, None]
    with torch.no_grad():
        if name == "particlenet_weaver":
            points = jets.features.new_zeros(*jets.mask.shape, 2)
            places = relative_to_jet(jets.four_momenta[jets.mask], jets.mask.sum(1))
            points[jets.mask] = torch.stack(places, dim=1).to(points.dtype)
            return network(points.mT, features, mask)
        return network(features, v=jets.four_momenta[..., [1, 2, 3, 0]].mT, mask=mask)


def _particle_transformer(input_dim: int, num_classes: int) -> nn.Module:
    from weaver.nn.model.ParticleTransformer import ParticleTransformer

    return ParticleTransformer(input_dim, num_classes, use_pre_activation_pair=False, trim=False)


def _pre_activation(input_dim: int, num_classes: int) -> nn.Module:
    from weaver.nn.model.ParticleTransformer import ParticleTransformer

    return ParticleTransformer(input_dim, num_classes, use_pre_activation_pair=True, trim=False)


def _particlenet(input_dim: int, num_classes: int) -> nn.Module:
    from weaver.nn.model.ParticleNet import ParticleNet

    conv_params = [(16, (64, 64, 64)), (16, (128, 128, 128)), (16, (256, 256, 256))]
    return ParticleNet(input_dim, num_classes, conv_params, [(256, 0.1)], use_fusion=False, trim=False)


_NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "particle_transformer_weaver": _particle_transformer,
    "particle_transformer_weaver_pre_activation": _pre_activation,
    "particlenet_weaver": _particlenet,
}
