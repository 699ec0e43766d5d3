"""The backbone of a model: what pretraining trains, and what fine-tuning starts from."""

from pathlib import Path

from torch import Tensor, nn

from zoo.model import has_encode, is_readout
from zoo.training.checkpoints import BACKBONE, read_checkpoint
from zoo.training.run_folder import CheckpointError


def require_backbone(model: nn.Module) -> None:
    """Refuse a model that gives no representation of its particles.

    Raises:
        ValueError: if the model has no ``encode``.
    """
    if not has_encode(model):
        raise ValueError(
            f"model.model: {type(model).__name__} has no 'encode', which gives the representation of each particle; "
            "choose one that has, such as particle_transformer, particlenet, lorentznet or lgatr_slim"
        )


def backbone_names(model: nn.Module) -> list[str]:
    """Parameters and buffers of a model that its ``encode`` uses.

    Example:
        >>> from zoo.particlenet import particlenet_lite
        >>> names = backbone_names(particlenet_lite(input_dim=7, num_classes=2))
        >>> "blocks.1.shortcut.weight" in names, "head.0.weight" in names
        (True, False)
    """
    return [name for name in model.state_dict() if not is_readout(name, model)]


def read_backbone(source: str | Path) -> dict[str, Tensor]:
    """Weights of the pretrained backbone, under their names in the model itself.

    ``model.load_state_dict(read_backbone(...), strict=False)`` fills a model with the same number of features, all but
    its read-out.

    Args:
        source: run folder of a pretraining, whose best checkpoint is read; or one of its checkpoints.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        CheckpointError: if there is no checkpoint, or it is damaged or from another kind of training.
    """
    if Path(source).is_dir():
        folder = Path(source) / "checkpoints"
        source = folder / "last.ckpt" if not (folder / "best.ckpt").is_file() else folder / "best.ckpt"
    checkpoint = read_checkpoint(source)
    if BACKBONE not in checkpoint:
        raise CheckpointError(
            f"checkpoint {source}: is not of a pretraining (it has no {BACKBONE!r}); give a run of "
            "MaskedParticles, Contrastive or Substructure, or read another with "
            "zoo.training.checkpoints.read_model_weights"
        )
    return {name: checkpoint["state_dict"][f"model.{name}"] for name in checkpoint[BACKBONE]}
