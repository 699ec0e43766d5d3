"""Weights of other frameworks, renamed and reshaped for the models of the zoo."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from zoo.card import write_card
from zoo.data.batch import JetBatch, PackedJets, collate, gather, padded_columns
from zoo.data.datasets import describe_dataset, resolve_file
from zoo.data.features import FEATURE_TABLES, FeatureTable, feature_table
from zoo.data.features_yaml import read_features
from zoo.data.readers import read_jets
from zoo.data.weaver.data_config import WeaverYaml, read_weaver_yaml, read_without_classes
from zoo.data.weaver.formulas import formula_table
from zoo.hub import PretrainedConfig, save_pretrained
from zoo.physics.lorentz import boost_matrix, rotation_matrix
from zoo.registry import create_model
from zoo.torch_files import DamagedFileError, read_torch_file

#: Jets whose logits are stored with the weights.
GOLDEN_JETS = 8

#: Jets that the cost in symmetry is measured on.
MEASURED_JETS = 64

#: What wrappers such as DataParallel and weaver's own put before the names of the layers they wrap.
_WRAPPERS = re.compile(r"^(?:module\.|mod\.)+")


class ForeignModel(NamedTuple):
    """How to recognise a foreign checkpoint, and how its names become ours."""

    model: str  #: registered name
    paper: str
    sign: str  #: a key that only this architecture has
    input_layer: tuple[str, int]  #: key and axis whose length is the number of inputs of a particle
    output_layer: str  #: key whose length is the number of classes
    names: tuple[tuple[str, str], ...]  #: regular expressions and what replaces them
    taken_as: str  #: what the file does not say and is assumed of it
    num_inputs: int | None = None  #: the only possible number of inputs
    features: str | None = None  #: the feature table that goes with it
    pre_activation: str | None = None  #: registered name of the same with ``use_pre_activation_pair=True``


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

_RELEASE_NAMES = ((r"^LGEBs\.", "blocks."), (r"^graph_dec\.", "decoder."))

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
        use_pre_activation_pair: what weaver-core's ``ParticleTransformer`` was built with, which its weights do not
            tell. Its default is True; the published networks have False.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no such kind, the file is damaged, no plain table of tensors or of another architecture,
            a tensor is missing, unknown or of another shape, or ``use_pre_activation_pair`` is missing or means
            nothing; the message names the file and the tensors.
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
    """The architecture of a file, and its number of inputs of a particle."""
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
            f"{path}: the weights do not tell whether the network was built with use_pre_activation_pair=True, the "
            "default of weaver-core, or False, as the published ones; give --use_pre_activation_pair true or false"
        )
    return foreign.pre_activation if use_pre_activation_pair else foreign.model


def import_pretrained(
    kind: str,
    path: str | Path,
    out: str | Path,
    *,
    licence: str,
    dataset: str | None = None,
    features: str | Path | None = None,
    weaver_yaml: str | Path | None = None,
    classes: Sequence[str] | None = None,
    use_pre_activation_pair: bool | None = None,
) -> None:
    """Make a pretrained folder of another framework's weights; see `import_weights` for the file.

    The number of features does not tell which they are. They are those of ``features``, or of weaver's data file, which
    is also looked for in the folder of the weights.

    Args:
        kind: one of `KINDS`.
        path: file of weights.
        out: folder to write; must not exist.
        licence: of the weights.
        dataset: what the weights were trained on, one of `zoo.data.datasets.DATASETS`; None: the jets of weaver's data
            file.
        features: name of a feature table, or a YAML file of features.
        weaver_yaml: the data file of the training with weaver-core.
        classes: their names in order; None: those of weaver's data file, else of the data set.
        use_pre_activation_pair: as of `import_weights`.

    Raises:
        FileNotFoundError: if there is no such file.
        FileExistsError: if ``out`` exists.
        ValueError: if the weights do not fit, features or classes are missing, ambiguous or of another number.
    """
    path = Path(path)
    imported = import_weights(path, kind, use_pre_activation_pair=use_pre_activation_pair)
    description = None if imported.foreign.features else _find_data_file(path, features, weaver_yaml, classes)
    table = _find_features(path, imported, features, description)
    names = _find_classes(path, imported, classes, description, dataset)
    facts = description if dataset is None else describe_dataset(dataset)
    if facts is None:
        raise ValueError(f"{path}: does not tell what it was trained on; give --dataset")
    told = f"use_pre_activation_pair={use_pre_activation_pair}" if imported.foreign.pre_activation else ""
    config = PretrainedConfig(
        model=imported.name,
        classes=list(names),
        features=table.to_dict(),
        dataset=facts.name,
        units=facts.metadata["units"],
        metrics={},
        licence=licence,
        paper=imported.foreign.paper,
        training={
            "origin": f"Trained elsewhere: the weights of `{path.name}`, a {kind}, taken as "
            + " and ".join(filter(None, (imported.foreign.taken_as, told))),
            "notes": _notes(imported, table, description),
        },
    )
    packed = _first_jets(table, GOLDEN_JETS)
    batch = collate(packed, table)
    card = write_card(Path(out).name, config)
    columns = padded_columns(packed, batch.mask)
    save_pretrained(out, imported.model, config, batch.four_momenta, batch.mask, card, columns=columns)


def _find_data_file(
    path: Path, features: str | Path | None, given: str | Path | None, classes: Sequence[str] | None
) -> WeaverYaml | None:
    """Weaver's data file: the given one, or, if no features are given, the only one in the folder of the weights."""
    if features is not None and given is not None:
        raise ValueError("features: weaver's data file has them; give one of --features and --weaver-yaml")
    if given is not None:
        return _read_data_file(Path(given), classes)
    if features is not None:
        return None
    found = [file for file in sorted(path.parent.glob("*.y*ml")) if _is_data_file(file)]
    if len(found) != 1:
        beside = f" ({', '.join(file.name for file in found)} lie beside it)" if found else ""
        raise ValueError(
            f"{path}: holds no names of features, and their number does not tell them; give weaver's data file of the "
            f"training with --weaver-yaml{beside}, or --features with a feature table"
        )
    return _read_data_file(found[0], classes)


def _is_data_file(path: Path) -> bool:
    try:
        read_without_classes(path)
    except (ValueError, OSError):
        return False
    return True


def _read_data_file(path: Path, classes: Sequence[str] | None) -> WeaverYaml:
    description = read_without_classes(path)
    return read_weaver_yaml(path, tuple(classes) if description.is_custom and classes else None)


def _find_features(
    path: Path, imported: Imported, given: str | Path | None, description: WeaverYaml | None
) -> FeatureTable:
    if imported.foreign.features is not None:
        if given not in (None, imported.foreign.features):
            raise ValueError(f"{path}: a {imported.name} takes the features {imported.foreign.features}, not {given}")
        return FEATURE_TABLES[imported.foreign.features]
    if description is not None:
        _check_points(imported, description)
        table, source = formula_table(description), description.path
    else:
        is_file = Path(given).suffix in (".yaml", ".yml")
        table, source = read_features(given) if is_file else feature_table(str(given)), given
    if table.input_dim != imported.input_dim:
        raise ValueError(f"{path}: takes {imported.input_dim} features of a particle, {source} has {table.input_dim}")
    return table


def _check_points(imported: Imported, description: WeaverYaml) -> None:
    """ParticleNet's first neighbourhood is in the coordinates of weaver's points."""
    names = [point.name for point in description.points]
    is_plane = len(names) == 2 and "eta" in names[0].lower() and "phi" in names[1].lower()
    if imported.foreign.model == "particlenet_weaver" and names and not is_plane:
        raise ValueError(
            f"{description.path}: the points are {', '.join(names)}, in which the network finds its first neighbours; "
            "the zoo's takes pseudorapidity and azimuth, such as part_deta and part_dphi"
        )


def _find_classes(
    path: Path,
    imported: Imported,
    given: Sequence[str] | None,
    description: WeaverYaml | None,
    dataset: str | None,
) -> tuple[str, ...]:
    if given is not None:
        names, source = tuple(given), "classes"
    elif description is not None:
        names, source = description.classes, description.path
    elif dataset is not None:
        names, source = describe_dataset(dataset).classes, dataset
    else:
        raise ValueError(f"{path}: has {imported.num_classes} classes; name them with --classes or --dataset")
    if len(names) != imported.num_classes or len(set(names)) < len(names):
        raise ValueError(
            f"{path}: has {imported.num_classes} classes, {source} has {', '.join(names)}; give as many names, none "
            "twice, with --classes"
        )
    return names


def _notes(imported: Imported, table: FeatureTable, description: WeaverYaml | None) -> list[str]:
    """What a user of the weights has to know."""
    notes = [_cost_in_symmetry(imported.model, table)] if imported.foreign in LORENTZNET_RELEASE else []
    if description is not None:
        of = f" with `{description.selection}`" if description.selection else ""
        length = description.features[0].length
        notes.append(
            f"It was trained on jets{of}, of which it saw the first {length} particles in the order of the file; give "
            "it no others."
        )
    return notes


@torch.no_grad()
def _cost_in_symmetry(model: nn.Module, table: FeatureTable) -> str:
    """How far the log-odds move under what leaves those of an invariant network alone."""
    jets = collate(_first_jets(table, MEASURED_JETS), table)
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    changes = {
        "a rotation by 1 about the beam": rotation_matrix(axis, torch.tensor(1.0, dtype=torch.float64)),
        "a boost along it by gamma = 2": boost_matrix(axis * 0.75**0.5),
    }
    log_odds = _log_odds(model, jets)
    found = []
    for change, matrix in changes.items():
        moved = jets._replace(four_momenta=(jets.four_momenta.double() @ matrix.mT).float())
        difference = (_log_odds(model, moved) - log_odds).abs()
        found.append(f"{change} moves them by {difference.median():.2g} ({difference.max():.2g})")
    return (
        "It gives the answers of its release, which keep no symmetry exactly: massless particles have the mass of "
        "their rounding, and coordinate updates are bounded component by component. Measured at the import on "
        f"{len(log_odds)} jets of the packaged sample, of log-odds with a spread of {log_odds.std():.2g}, median "
        f"(largest): {'; '.join(found)}."
    )


def _log_odds(model: nn.Module, jets: JetBatch) -> Tensor:
    logits = model(jets.features, jets.four_momenta, jets.mask)
    return logits[:, -1] - logits[:, 0]


def _first_jets(table: FeatureTable, number: int) -> PackedJets:
    """The first jets of the packaged sample, which is of momenta alone.

    Charges, types and impact parameters are made up, the same every time: one of five types a particle, the charge that
    goes with it, and a displacement of charged ones. They show that weights and code belong together, not physics.
    """
    jets = read_jets(resolve_file("sample:top_tagging/test"), rows=(0, number))
    packed = gather(jets, np.arange(len(jets)))
    random = np.random.default_rng(1)
    kind = random.integers(0, 5, len(packed.four_momenta))
    is_charged = np.isin(kind, (0, 3, 4))
    names = ("ChargedHadron", "NeutralHadron", "Photon", "Electron", "Muon")
    made_up = {f"part_is{name}": kind == i for i, name in enumerate(names)}
    made_up["part_charge"] = random.choice((-1, 1), len(kind)) * is_charged
    made_up["part_pdg_id"] = np.array([211, 130, 22, -11, 13])[kind]
    made_up["part_mass"] = np.array([0.13957, 0.49761, 0, 0.00051, 0.10566])[kind]
    for name, spread in (("d0val", 0.5), ("d0err", 0.1), ("dzval", 0.5), ("dzerr", 0.1)):
        values = random.normal(0, spread, len(kind)) * is_charged
        made_up[f"part_{name}"] = np.abs(values) if name.endswith("err") else values
    for name in table.columns:  # of a user's own table
        made_up.setdefault(name, random.normal(0, 1, len(kind)))
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
