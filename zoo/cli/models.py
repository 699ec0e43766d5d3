"""Commands for models: what they promise, and how they become pretrained folders."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from zoo.cli.data import Layout
from zoo.cli.signatures import Option


def list_models(*, sees: Literal["jets", "events"] | None = None, markdown: bool = False) -> None:
    """All models with paper, size and symmetries.

    Args:
        sees: only models for jets, or for events.
        markdown: print the tables of docs/models.md.
    """
    from zoo.model_table import show_models

    show_models(sees, markdown=markdown)


def check(
    name: Annotated[str, Option("MODEL")],
    *,
    data: str = "sample:top_tagging/test",
    jets: int = 32,
    features: str = "kin",
    context: str | None = None,
    layout: Layout = None,
    num_classes: Annotated[int, Option(before=("--classes",))] = 2,
) -> None:
    """What a model promises, such as symmetries, and how well it keeps it.

    Args:
        name: a model, a pretrained model or folder, or an import path such as my.Model.
        data: file of jets, or converted folder.
        jets: number of jets.
        features: feature table, or a YAML file.
        context: context of a model for events, such as met, or a YAML file (default: none).
        num_classes: number of logits.
    """
    from zoo.check import check_model

    if not check_model(
        name, data=data, num_jets=jets, features=features, num_classes=num_classes, context=context, layout=layout
    ):
        sys.exit(1)


def import_weights(
    kind: Literal["weaver-checkpoint", "lorentznet-release"],
    file: Path,
    *,
    out: Path,
    licence: str,
    dataset: str | None = None,
    weaver_yaml: Annotated[Path | None, Option("FILE")] = None,
    features: str | None = None,
    classes: Annotated[list[str] | None, Option("NAME")] = None,
    use_pre_activation_pair: Literal["true", "false"] | None = None,
) -> None:
    """Make a pretrained folder from weights of another framework.

    Args:
        kind: program that wrote the file.
        file: file of weights; nothing in it is run.
        out: folder to write; its name becomes the name of the model.
        licence: licence of the weights, such as MIT.
        dataset: data set that it was trained on, such as top_tagging.
        weaver_yaml: weaver's data file of the training, with features and classes (default: the only one next to
            the weights).
        features: feature table, such as kin, or a YAML file of features, instead.
        classes: classes in order (default: those of the data).
        use_pre_activation_pair: setting of weaver's ParticleTransformer; its default is true, the published networks
            have false.
    """
    from zoo.importers import import_pretrained

    config = import_pretrained(
        kind,
        file,
        out,
        licence=licence,
        dataset=dataset,
        features=features,
        weaver_yaml=weaver_yaml,
        classes=classes,
        use_pre_activation_pair=None if use_pre_activation_pair is None else use_pre_activation_pair == "true",
    )
    print(f"{out}: {config.model} for {', '.join(config.classes)}. {config.training['origin']}.")


def publish(source: Annotated[Path, Option("RUN")], *, out: Path, licence: str, paper: str | None = None) -> None:
    """Make a pretrained folder from a tested run, a pretraining or trees.

    Args:
        source: run folder that holds a report.
        out: folder to write; its name becomes the name of the model.
        licence: licence of the weights, such as MIT.
        paper: paper of the architecture, such as arXiv:2201.08187 (default: that of its builder).
    """
    from zoo.publish import publish_run

    publish_run(source, out, licence=licence, paper=paper)


def ensemble(names: Annotated[list[str], Option("MODEL")], *, out: Annotated[Path, Option("FOLDER")]) -> None:
    """Make a pretrained folder that averages others.

    Args:
        names: pretrained models, folders, hf://owner/repo@commit.
        out: folder to write.
    """
    from zoo.ensemble import make_ensemble

    make_ensemble(names, out)


def export(
    name: Annotated[str, Option("MODEL")],
    *,
    to: Literal["onnx"],
    out: Annotated[Path, Option("DIR")],
    scores: bool = False,
) -> None:
    """Export a model for programs without Python, and check its answers (extra 'export').

    Args:
        name: a pretrained model, its folder, hf://owner/repo@commit, or the folder of a tested run.
        to: onnx: a graph for ONNX Runtime, with batches and jets of any length.
        out: folder to write.
        scores: give scores, the softmax of the logits.
    """
    from zoo.export import export

    parity = export(name, out, scores=scores)
    print(f"{out}: {to}; answers of {parity.jets} jets agree with PyTorch's to {parity.largest_change:.1e}")
