"""Pretrained folders of other frameworks' weights: their features and classes, and how far they break symmetries."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zoo.card import write_card
from zoo.data.batch import JetBatch, collate, gather, padded_columns
from zoo.data.datasets import describe_dataset, resolve_file
from zoo.data.features import FeatureTable
from zoo.data.features_yaml import named_features
from zoo.data.packed import PackedJets
from zoo.data.readers import read_jets
from zoo.data.weaver.data_config import WeaverYaml, read_weaver_yaml, read_without_classes
from zoo.data.weaver.formulas import formula_table, warn_of_columns
from zoo.hub import GOLDEN_JETS, PretrainedConfig, save_pretrained
from zoo.importers.foreign import LORENTZNET_RELEASE, WEAVER, Imported, import_weights, read_state
from zoo.importers.original import weaver_logits
from zoo.physics.lorentz import boost_matrix, rotation_matrix

#: Number of jets on which the symmetry breaking is measured.
MEASURED_JETS = 32

#: Median difference of the logits from those of the original network above which an import is refused.
MAX_DIFFERENCE = 1e-2


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
) -> PretrainedConfig:
    """Make a pretrained folder from another framework's weights; see `import_weights` for the file.

    The weights give only the number of features. The features themselves are those of ``features``, or of weaver's data
    file, which is also searched for in the folder of the weights.

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

    Returns:
        The contents of the folder's ``config.json``.

    Raises:
        FileNotFoundError: if there is no such file.
        FileExistsError: if ``out`` exists.
        ValueError: if the weights do not fit, features or classes are missing, ambiguous or of another number.
    """
    path = Path(path)
    imported = import_weights(path, kind, use_pre_activation_pair=use_pre_activation_pair)
    description = None if imported.foreign.features else _find_data_file(path, features, weaver_yaml, classes)
    table, source = _find_features(path, imported, features, description)
    names = _find_classes(path, imported, classes, description, dataset)
    facts = description if dataset is None else describe_dataset(dataset)
    if facts is None:
        raise ValueError(f"{path}: does not say what it was trained on; give --dataset")
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
            + " and ".join(filter(None, (imported.foreign.taken_as, told)))
            + f"; features of {Path(source).name}",
            "notes": _notes(path, imported, table, description),
        },
    )
    packed = _first_jets(table, GOLDEN_JETS)
    batch = collate(packed, table)
    card = write_card(Path(out).name, config)
    columns = padded_columns(packed, batch.mask)
    save_pretrained(out, imported.model, config, batch.four_momenta, batch.mask, card, columns=columns)
    return config


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
            f"{path}: holds no names of features, and their number does not say which; give weaver's data file of the "
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
) -> tuple[FeatureTable, str]:
    """The feature table and its origin."""
    known = imported.foreign.features
    if known is not None and given not in (None, known):
        raise ValueError(f"{path}: a {imported.name} takes the features {known}, not {given}")
    if description is not None:
        _check_points(imported, description)
        table, source = formula_table(description), str(description.path)
        warn_of_columns(description, table, stacklevel=3)
    else:
        source = str(known or given)
        table = named_features(source)
    if table.input_dim != imported.input_dim:
        raise ValueError(f"{path}: takes {imported.input_dim} features of a particle, {source} has {table.input_dim}")
    return table, source


def _check_points(imported: Imported, description: WeaverYaml) -> None:
    """Check the coordinates of weaver's points, in which ParticleNet finds its first neighbours."""
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
        names, source = description.classes, str(description.path)
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


def _notes(path: Path, imported: Imported, table: FeatureTable, description: WeaverYaml | None) -> list[str]:
    """What a user of the weights must know."""
    notes = [_cost_in_symmetry(imported.model, table)] if imported.foreign in LORENTZNET_RELEASE else []
    if description is not None:
        of = f" with `{description.selection}`" if description.selection else ""
        length = description.features[0].length
        notes.append(
            f"It was trained on jets{of}, of which it saw the first {length} particles in the order of the file; give "
            "it no others."
        )
    if imported.foreign in WEAVER:
        notes += _agreement(path, imported, table)
    return notes


@torch.no_grad()
def _agreement(path: Path, imported: Imported, table: FeatureTable) -> list[str]:
    """How far the logits differ from those of weaver's own network, if weaver is installed."""
    jets = collate(_first_jets(table, MEASURED_JETS), table)
    try:
        theirs = weaver_logits(imported.name, read_state(path), imported.input_dim, imported.num_classes, jets)
    except ModuleNotFoundError:
        return []
    difference = (imported.model(*jets.inputs) - theirs).abs().amax(dim=1)
    if not difference.median() <= MAX_DIFFERENCE:
        raise ValueError(
            f"{path}: as a {imported.name} it gives other logits than weaver-core {version('weaver-core')} itself, by "
            f"{difference.median():.2g} in the median; pip install weaver-core==0.5.3, or report it with the file"
        )
    return [
        f"Compared at the import with weaver-core {version('weaver-core')} itself, on {len(jets.mask)} jets of the "
        f"packaged sample: the logits differ by {difference.median():.2g} in the median, at most by "
        f"{difference.max():.2g}."
    ]


@torch.no_grad()
def _cost_in_symmetry(model: nn.Module, table: FeatureTable) -> str:
    """How far the log-odds move under transformations that do not change those of an invariant network."""
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
    logits = model(*jets.inputs)
    return logits[:, -1] - logits[:, 0]


def _first_jets(table: FeatureTable, number: int) -> PackedJets:
    """The first jets of the packaged sample, which has only momenta.

    Charges, types and impact parameters are made up, the same every time: one of five types per particle, the matching
    charge, and a displacement of charged ones. They test that weights and code belong together, not physics.
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
