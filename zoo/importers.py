"""Weights of other frameworks, renamed and reshaped for the models of the zoo."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.registry import create_model

#: What wrappers such as DataParallel and weaver's own put before the names of the layers they wrap.
_WRAPPERS = re.compile(r"^(?:module\.|mod\.)+")


class ForeignModel(NamedTuple):
    """How to recognise a foreign checkpoint, and how its names become ours."""

    model: str  #: registered name
    sign: str  #: a key that only this architecture has
    input_layer: str  #: key whose length is the number of features
    output_layer: str  #: key whose length is the number of classes
    names: tuple[tuple[str, str], ...]  #: regular expressions and what replaces them


_WEAVER_BLOCK = (
    (r"pre_attn_norm", "norm_in"),
    (r"attn\.in_proj[._]", "in_proj."),
    (r"attn\.out_proj", "out_proj"),
    (r"post_attn_norm", "norm_out"),
    (r"pre_fc_norm", "norm_mlp"),
    (r"post_fc_norm", "norm_hidden"),
    (r"c_attn", "head_scale"),
    (r"w_resid", "residual_scale"),
)

#: The architectures of weaver-core, with its names of layers.
WEAVER = (
    ForeignModel(
        model="particle_transformer",
        sign="cls_token",
        input_layer="embed.input_bn.weight",
        output_layer="fc.0.bias",
        names=(
            (r"^cls_token$", "class_token"),
            (r"^embed\.input_bn\.", "embedding.0."),
            (r"^embed\.embed\.(\d+)\.", lambda match: f"embedding.{int(match[1]) + 1}."),
            (r"^pair_embed\.embed\.", "pair_embedding."),
            (r"^cls_blocks\.", "class_blocks."),
            (r"^fc\.", "head."),
            *_WEAVER_BLOCK,
        ),
    ),
    ForeignModel(
        model="particlenet",
        sign="edge_convs.0.convs.0.weight",
        input_layer="bn_fts.weight",
        output_layer="fc.1.bias",
        names=(
            (r"^bn_fts\.", "norm."),
            (r"^edge_convs\.", "blocks."),
            (r"\.convs\.", ".layers."),
            (r"\.bns\.", ".norms."),
            (r"\.sc\.", ".shortcut."),
            (r"\.sc_bn\.", ".shortcut_norm."),
            (r"^fc\.0\.0\.", "head.0."),
            (r"^fc\.1\.", "head.3."),
        ),
    ),
)


def import_weaver_checkpoint(path: str | Path) -> tuple[str, nn.Module]:
    """A model of the zoo with the weights of a ``.pt`` file that weaver-core wrote.

    Args:
        path: state of weaver's ``ParticleTransformer`` or ``ParticleNet``, with or without the prefix ``mod.``, saved
            on any device.

    Returns:
        The registered name of the model, and the model in evaluation mode.

    Raises:
        ValueError: if the file is not a plain table of tensors, or of another architecture, or a tensor is missing,
            unknown or of another shape; the message names the file and the tensors.
    """
    return model_from_state(read_state(path), WEAVER, str(path))


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint without the prefixes of wrappers, on the CPU; nothing else is unpickled.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or malicious file
        raise ValueError(f"{path}: is not a file of weights alone, or damaged: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: must hold a table of tensors; save model.state_dict() alone")
    return {_WRAPPERS.sub("", key): value for key, value in state.items()}


def model_from_state(
    state: dict[str, Tensor], candidates: tuple[ForeignModel, ...], source: str
) -> tuple[str, nn.Module]:
    """The model among ``candidates`` that ``state`` belongs to, with its weights; see `import_weaver_checkpoint`."""
    foreign = next((candidate for candidate in candidates if candidate.sign in state), None)
    if foreign is None:
        known = " or ".join(f"{candidate.model} ({candidate.sign})" for candidate in candidates)
        raise ValueError(f"{source}: is no {known}; its first tensors are {', '.join(list(state)[:3])}")
    for key in (foreign.input_layer, foreign.output_layer):
        if key not in state:
            raise ValueError(f"{source}: {foreign.model} needs the tensor {key}, which is missing")
    model = create_model(
        foreign.model, input_dim=len(state[foreign.input_layer]), num_classes=len(state[foreign.output_layer])
    )
    expected = model.state_dict()
    renamed = {_renamed(key, foreign.names): (key, value) for key, value in state.items()}
    missing, unknown = expected.keys() - renamed.keys(), renamed.keys() - expected.keys()
    if missing or unknown:
        raise ValueError(
            f"{source}: does not fit {foreign.model}; missing: {_some(missing)}; "
            f"unknown: {_some(renamed[name][0] for name in unknown)}"
        )
    weights = {}
    for name, (key, value) in renamed.items():
        # Kernels of size one, of which a linear layer has none.
        if value.numel() != expected[name].numel() or _squeezed(value) != _squeezed(expected[name]):
            raise ValueError(f"{source}: {key} has shape {tuple(value.shape)}, expected {tuple(expected[name].shape)}")
        weights[name] = value.reshape(expected[name].shape)
    model.load_state_dict(weights)
    return foreign.model, model.eval()


def _renamed(key: str, names: tuple[tuple[str, str | Callable[[re.Match], str]], ...]) -> str:
    for pattern, replacement in names:
        key = re.sub(pattern, replacement, key)
    return key


def _squeezed(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _some(names: object) -> str:
    names = sorted(names)
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "none"
