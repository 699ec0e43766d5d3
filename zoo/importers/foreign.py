"""Networks of other frameworks: their weights recognised, renamed and reshaped for the models of the zoo."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from zoo.data.features import FEATURE_TABLES
from zoo.registry import create_model
from zoo.torch_files import DamagedFileError, read_torch_file

#: Prefixes that wrappers such as DataParallel and weaver's own add to the names of the layers they wrap.
_WRAPPERS = re.compile(r"^(?:module\.|mod\.)+")


class ForeignModel(NamedTuple):
    """How to recognise a foreign checkpoint, and how to translate its names."""

    model: str  #: registered name
    paper: str
    sign: str  #: a key that only this architecture has
    input_layer: tuple[str, int]  #: key and axis whose length is the number of inputs of a particle
    output_layer: str  #: key whose length is the number of classes
    names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]  #: regular expressions and their replacements
    taken_as: str  #: what the file does not say and is assumed
    num_inputs: int | None = None  #: the only possible number of inputs
    features: str | None = None  #: the feature table that goes with it
    pre_activation: str | None = None  #: registered name of the variant with ``use_pre_activation_pair=True``


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
        model="particle_transformer_weaver",
        paper="arXiv:2202.03772",
        sign="cls_token",
        input_layer=("embed.input_bn.weight", 0),
        output_layer="fc.0.bias",
        taken_as="a network with GELU, pairs of a particle with itself and the attention mask in every block",
        pre_activation="particle_transformer_weaver_pre_activation",
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
        model="particlenet_weaver",
        paper="arXiv:1902.08570",
        sign="edge_convs.0.convs.0.weight",
        input_layer=("bn_fts.weight", 0),
        output_layer="fc.1.bias",
        taken_as="a network with 16 neighbours in every block, and a mean over the real particles",
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

_RELEASE_NAMES = ((r"^LGEBs\.", "blocks."), (r"^graph_dec\.", "head."))

#: The two networks of the LorentzNet release, arXiv:2201.08187.
LORENTZNET_RELEASE = tuple(
    ForeignModel(
        model=model,
        paper="arXiv:2201.08187",
        sign="LGEBs.0.phi_e.0.weight",
        input_layer=("embedding.weight", 1),
        output_layer="graph_dec.3.bias",
        names=_RELEASE_NAMES,
        taken_as=taken_as,
        num_inputs=num_inputs,
        features=features,
    )
    for model, num_inputs, features, taken_as in (
        ("lorentznet_release", 2, "kin", "the network of top tagging, with c = 0.005 and a read-out over 100 rows"),
        ("lorentznet_qg_release", 8, "quark_gluon_types", "that of quarks and gluons, with c = 0.001 and 148 rows"),
    )
)

#: What `import_pretrained` understands.
KINDS = {"weaver-checkpoint": WEAVER, "lorentznet-release": LORENTZNET_RELEASE}


class Imported(NamedTuple):
    """A foreign model with its weights."""

    foreign: ForeignModel
    name: str  #: registered name
    model: nn.Module  #: in evaluation mode
    input_dim: int  #: number of features of a particle
    num_classes: int


def import_weights(
    path: str | Path, kind: str = "weaver-checkpoint", *, use_pre_activation_pair: bool | None = None
) -> Imported:
    """A model of the zoo with the weights of another framework.

    Args:
        path: a ``state_dict`` that was saved on any device, with or without the prefixes of wrappers: of weaver-core's
            ``ParticleTransformer`` or ``ParticleNet``, or of the LorentzNet release.
        kind: one of `KINDS`.
        use_pre_activation_pair: the argument with which weaver-core's ``ParticleTransformer`` was built, which its
            weights do not show. Its default is True; the published networks have False.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such kind, the file is damaged, not a plain table of tensors or of another
            architecture, a tensor is missing, unknown or of another shape, or ``use_pre_activation_pair`` is missing or
            does not apply; the message names the file and the tensors.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of checkpoint is called {kind!r}; choose one of {', '.join(KINDS)}")
    state = read_state(path)
    foreign, num_inputs = _recognise(path, KINDS[kind], state)
    name = _registered_name(path, foreign, use_pre_activation_pair)
    input_dim = num_inputs if foreign.features is None else FEATURE_TABLES[foreign.features].input_dim
    num_classes = _length(state, (foreign.output_layer, 0), path)
    model = create_model(name, input_dim=input_dim, num_classes=num_classes)
    renamed = {_renamed(key, foreign.names): (key, value) for key, value in state.items()}
    model.load_state_dict(_fitted(renamed, model.state_dict(), f"{path}: does not fit {name}"))
    return Imported(foreign, name, model.eval(), input_dim, num_classes)


def _recognise(
    path: str | Path, candidates: Iterable[ForeignModel], state: Mapping[str, Tensor]
) -> tuple[ForeignModel, int]:
    """The architecture of a file, and its number of inputs per particle."""
    alike = [candidate for candidate in candidates if candidate.sign in state]
    if not alike:
        known = " or ".join(dict.fromkeys(f"{candidate.model} ({candidate.sign})" for candidate in candidates))
        raise ValueError(f"{path}: is no {known}; its first tensors are {', '.join(list(state)[:3])}")
    num_inputs = _length(state, alike[0].input_layer, path)
    for candidate in alike:
        if candidate.num_inputs in (None, num_inputs):
            return candidate, num_inputs
    known = " or ".join(f"{candidate.num_inputs} ({candidate.model})" for candidate in alike)
    raise ValueError(f"{path}: takes {num_inputs} scalars of a particle; the networks that are known take {known}")


def _registered_name(path: str | Path, foreign: ForeignModel, use_pre_activation_pair: bool | None) -> str:
    if foreign.pre_activation is None:
        if use_pre_activation_pair is not None:
            raise ValueError(f"{path}: is a {foreign.model}, for which use_pre_activation_pair means nothing")
        return foreign.model
    if use_pre_activation_pair is None:
        raise ValueError(
            f"{path}: the weights do not show whether the network was built with use_pre_activation_pair=True, the "
            "default of weaver-core, or False, as the published ones; give --use-pre-activation-pair true or false"
        )
    return foreign.pre_activation if use_pre_activation_pair else foreign.model


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
        state = read_torch_file(path, unchecked=True)
    except DamagedFileError as error:
        raise ValueError(f"{path}: {error}; get the file again") from error
    except Exception as error:  # torch raises many kinds for a damaged or malicious file
        raise ValueError(f"{path}: is not a file of weights alone, or damaged: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path}: must hold a table of tensors; save model.state_dict() alone")
    for key, value in state.items():
        # a view may repeat a few stored numbers, and copying it would fill the memory
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {key} claims the shape {[*value.shape]}, more numbers than the file holds")
    return {_WRAPPERS.sub("", key): value for key, value in state.items()}


def _length(state: Mapping[str, Tensor], place: tuple[str, int], path: str | Path) -> int:
    key, axis = place
    if key not in state or state[key].ndim <= axis:
        raise ValueError(f"{path}: the tensor {key} is missing, or is no matrix")
    return state[key].shape[axis]


def _fitted(renamed: dict[str, tuple[str, Tensor]], expected: dict[str, Tensor], complaint: str) -> dict[str, Tensor]:
    """Tensors in the shapes of ``expected``, from (foreign name, tensor) under our names."""
    missing, unknown = expected.keys() - renamed.keys(), renamed.keys() - expected.keys()
    if missing or unknown:
        theirs = [renamed[name][0] for name in unknown]
        raise ValueError(f"{complaint}; missing: {_some(missing)}; unknown: {_some(theirs)}")
    for name, (key, value) in renamed.items():
        # Axes of kernels of size one, which a linear layer does not have, make no difference.
        if _squeezed(value) != _squeezed(expected[name]):
            raise ValueError(f"{complaint}: {key} has shape {[*value.shape]}, expected {[*expected[name].shape]}")
    return {name: value.reshape(expected[name].shape) for name, (_, value) in renamed.items()}


def _renamed(key: str, names: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]) -> str:
    for pattern, replacement in names:
        key = re.sub(pattern, replacement, key)
    return key


def _squeezed(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "none"
