"""Weights of other frameworks, renamed and reshaped for the models of the zoo."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from zoo.card import write_card
from zoo.data.batch import PackedJets, collate, gather, padded_columns
from zoo.data.datasets import describe_dataset, resolve_file
from zoo.data.features import FEATURE_TABLES, FeatureTable
from zoo.data.readers import read_jets
from zoo.hub import PretrainedConfig, save_pretrained
from zoo.registry import create_model
from zoo.torch_files import DamagedFileError, read_torch_file

#: Jets whose logits are stored with the weights.
GOLDEN_JETS = 8

#: What wrappers such as DataParallel and weaver's own put before the names of the layers they wrap.
_WRAPPERS = re.compile(r"^(?:module\.|mod\.)+")


class ForeignModel(NamedTuple):
    """How to recognise a foreign checkpoint, and how its names become ours."""

    model: str  #: registered name
    paper: str
    sign: str  #: a key that only this architecture has
    input_layer: str | None  #: key whose length is the number of features, None if it sees the momenta only
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
        paper="arXiv:2202.03772",
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
        paper="arXiv:1902.08570",
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

#: The LorentzNet release, arXiv:2201.08187.
LORENTZNET_RELEASE = (
    ForeignModel(
        model="lorentznet_release",
        paper="arXiv:2201.08187",
        sign="LGEBs.0.phi_e.0.weight",
        input_layer=None,
        output_layer="graph_dec.3.bias",
        names=((r"^LGEBs\.", "blocks."), (r"^graph_dec\.", "decoder.")),
    ),
)

#: What `import_pretrained` understands.
KINDS = {"weaver-checkpoint": WEAVER, "lorentznet-release": LORENTZNET_RELEASE}


class Imported(NamedTuple):
    """A foreign model with its weights."""

    foreign: ForeignModel
    model: nn.Module  #: in evaluation mode
    input_dim: int | None  #: None if it sees the momenta only
    num_classes: int


def import_weights(path: str | Path, kind: str = "weaver-checkpoint") -> Imported:
    """A model of the zoo with the weights of another framework.

    Args:
        path: a ``state_dict`` that was saved on any device, with or without the prefixes of wrappers: of weaver-core's
            ``ParticleTransformer`` (as published, with the last activation of its pair network) or ``ParticleNet``, or
            of the LorentzNet release.
        kind: one of `KINDS`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such kind, the file is not a plain table of tensors or of another architecture, or a
            tensor is missing, unknown or of another shape; the message names the file and the tensors.
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of checkpoint is called {kind!r}; choose one of {', '.join(KINDS)}")
    state = read_state(path)
    foreign = next((candidate for candidate in KINDS[kind] if candidate.sign in state), None)
    if foreign is None:
        known = " or ".join(f"{candidate.model} ({candidate.sign})" for candidate in KINDS[kind])
        raise ValueError(f"{path}: is no {known}; its first tensors are {', '.join(list(state)[:3])}")
    sizes = [None if key is None else _length(state, key, path) for key in (foreign.input_layer, foreign.output_layer)]
    model = create_model(foreign.model, input_dim=sizes[0] or 1, num_classes=sizes[1])
    renamed = {_renamed(key, foreign.names): (key, value) for key, value in state.items()}
    model.load_state_dict(_fitted(renamed, model.state_dict(), f"{path}: does not fit {foreign.model}"))
    return Imported(foreign, model.eval(), *sizes)


def import_pretrained(kind: str, path: str | Path, out: str | Path, *, dataset: str, licence: str) -> None:
    """Make a pretrained folder of another framework's weights; see `import_weights` for the file.

    Args:
        kind: one of `KINDS`.
        path: file of weights.
        out: folder to write; must not exist.
        dataset: what the weights were trained on, which names the classes in their order.
        licence: of the weights.

    Raises:
        FileNotFoundError: if there is no such file.
        FileExistsError: if ``out`` exists.
        ValueError: if the weights do not fit, or their features or classes are not those that the zoo knows.
    """
    facts, imported = describe_dataset(dataset), import_weights(path, kind)
    if imported.num_classes != len(facts.classes):
        raise ValueError(f"{path}: has {imported.num_classes} classes, {dataset} has {', '.join(facts.classes)}")
    tables = [table for table in FEATURE_TABLES.values() if imported.input_dim in (None, table.input_dim)]
    if not tables:
        known = ", ".join(f"{name} ({table.input_dim})" for name, table in FEATURE_TABLES.items())
        raise ValueError(f"{path}: takes {imported.input_dim} features of a particle; the zoo knows {known}")
    config = PretrainedConfig(
        model=imported.foreign.model,
        classes=list(facts.classes),
        features=tables[0].to_dict(),
        dataset=facts.name,
        units=facts.units,
        metrics={},
        licence=licence,
        paper=imported.foreign.paper,
        training={"origin": f"Trained elsewhere: the weights of `{Path(path).name}`, a {kind}"},
    )
    packed = _golden_jets(tables[0])
    batch = collate(packed, tables[0])
    card = write_card(Path(out).name, config)
    columns = padded_columns(packed, batch.mask)
    save_pretrained(out, imported.model, config, batch.four_momenta, batch.mask, card, columns=columns)


def _golden_jets(table: FeatureTable) -> PackedJets:
    """The first jets of the packaged sample, which is of momenta alone.

    Charges, types and impact parameters are made up, the same every time: one of five types a particle, the charge that
    goes with it, and a displacement of charged ones. They show that weights and code belong together, not physics.
    """
    jets = read_jets(resolve_file("sample:top_tagging/test"), rows=(0, GOLDEN_JETS))
    packed = gather(jets, np.arange(len(jets)))
    random = np.random.default_rng(1)
    kind = random.integers(0, 5, len(packed.four_momenta))
    is_charged = np.isin(kind, (0, 3, 4))
    names = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    made_up = {f"part_is{name}": kind == i for i, name in enumerate(names)}
    made_up["part_charge"] = random.choice((-1, 1), len(kind)) * is_charged
    for name, spread in (("d0val", 0.5), ("d0err", 0.1), ("dzval", 0.5), ("dzerr", 0.1)):
        values = random.normal(0, spread, len(kind)) * is_charged
        made_up[f"part_{name}"] = np.abs(values) if name.endswith("err") else values
    columns = {name: made_up[name].astype(np.float32) for name in table.columns}
    return packed._replace(columns=columns)


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
        # a view may repeat a few stored numbers, and what copies it would fill the memory
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{path}: {key} claims the shape {[*value.shape]}, more numbers than the file holds")
    return {_WRAPPERS.sub("", key): value for key, value in state.items()}


def _length(state: dict[str, Tensor], key: str, path: str | Path) -> int:
    if key not in state:
        raise ValueError(f"{path}: the tensor {key} is missing")
    return len(state[key])


def _fitted(renamed: dict[str, tuple[str, Tensor]], expected: dict[str, Tensor], complaint: str) -> dict[str, Tensor]:
    """Tensors in the shapes of ``expected``, from (foreign name, tensor) under our names."""
    missing, unknown = expected.keys() - renamed.keys(), renamed.keys() - expected.keys()
    if missing or unknown:
        theirs = [renamed[name][0] for name in unknown]
        raise ValueError(f"{complaint}; missing: {_some(missing)}; unknown: {_some(theirs)}")
    for name, (key, value) in renamed.items():
        # Kernels of size one, of which a linear layer has none, are no difference.
        if _squeezed(value) != _squeezed(expected[name]):
            raise ValueError(f"{complaint}: {key} has shape {[*value.shape]}, expected {[*expected[name].shape]}")
    return {name: value.reshape(expected[name].shape) for name, (_, value) in renamed.items()}


def _renamed(key: str, names: tuple[tuple[str, str | Callable[[re.Match], str]], ...]) -> str:
    for pattern, replacement in names:
        key = re.sub(pattern, replacement, key)
    return key


def _squeezed(tensor: Tensor) -> list[int]:
    return [size for size in tensor.shape if size != 1]


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return f"{', '.join(names[:3])}{' ...' if len(names) > 3 else ''}" if names else "none"
