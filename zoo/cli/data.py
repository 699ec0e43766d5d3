"""Commands for files of jets and events: what they hold, and how to convert them."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal

from zoo.cli.signatures import Option

#: Folder where the configurations look for the files of each data set.
FOLDER = Path("data")

#: Options that several commands share.
Force = Annotated[bool, Option(help="replace an output that exists")]
Layout = Annotated[Path | None, Option("YAML", "file that says which columns hold what")]
WeaverYaml = Annotated[Path | None, Option("YAML", "data file of weaver, which says that too; not with --layout")]
Classes = Annotated[
    list[str] | None, Option("NAME", "classes in order, if the labels of weaver's data file are custom")
]
Rows = Annotated[tuple[int, int] | None, Option(("FIRST", "STOP"), "only these rows (default: all)")]


def list_datasets() -> None:
    """Classes, units, source and licence of the data sets."""
    from zoo.data.info import show_datasets

    show_datasets()


def info(
    file: str,
    *,
    layout: Layout = None,
    weaver_yaml: WeaverYaml = None,
    classes: Classes = None,
    jets: int = 100_000,
) -> None:
    """Classes, columns, rejected jets and oddities of a file.

    Args:
        file: file of jets, converted folder, or packaged sample.
        jets: maximum number of rows to read.
    """
    from zoo.data.description import read_description
    from zoo.data.info import show_file

    show_file(file, read_description(layout, weaver_yaml, classes, labelled=False), jets)


def fit_scaling(
    files: Annotated[list[str], Option("FILE")],
    *,
    weaver_yaml: Annotated[Path | None, Option("YAML")] = None,
    features: Annotated[Path | None, Option("YAML")] = None,
    context: Annotated[Path | None, Option("YAML")] = None,
    layout: Layout = None,
    out: Annotated[Path, Option("YAML")],
    force: Force = False,
) -> None:
    """Fit centres and scales that are 'auto', and write them to a file.

    Give one of --weaver-yaml, --features and --context.

    Args:
        files: files of jets to train on, or patterns of them.
        weaver_yaml: data file of weaver, whose weights are made too.
        features: file of features.
        context: file of context features.
        layout: file that says which columns hold what; not with --weaver-yaml.
        out: file to write, the same with the fitted numbers.
    """
    from zoo.data.fit import fit_context, fit_features, fit_weaver_yaml

    if [weaver_yaml, features, context].count(None) != 2:
        raise ValueError("give one of --weaver-yaml, --features and --context")
    if features is not None:
        fit_features(files, features, out, layout, force=force)
    if context is not None:
        fit_context(files, context, out, layout, force=force)
    if weaver_yaml is not None:
        if layout is not None:
            raise ValueError(
                "--layout: belongs to --features or --context; a data file of weaver describes the files itself"
            )
        fit_weaver_yaml(files, weaver_yaml, out, force=force)


def extract(
    file: str,
    *,
    rows: Rows = None,
    layout: Layout = None,
    weaver_yaml: WeaverYaml = None,
    classes: Classes = None,
    out: Path,
    force: Force = False,
) -> None:
    """Copy some rows of a file to a small file of the zoo.

    Args:
        file: file of jets in any format that the zoo reads.
        out: Arrow file to write, compressed.
    """
    from zoo.data.datasets import resolve_file
    from zoo.data.description import read_description
    from zoo.data.readers import read_jets
    from zoo.data.store import write_store
    from zoo.files import require_output

    path = resolve_file(file)
    require_output(out, (path, layout, weaver_yaml), force=force)
    described = read_description(layout, weaver_yaml, classes)
    jets = read_jets(path, None if rows is None else (rows[0], rows[1]), described)
    write_store(out, jets, compression="zstd")
    print(f"{out}: {len(jets)} jets")


def verify(folder: Annotated[Path, Option("DIR")]) -> None:
    """Compare every column of a converted folder with its checksum.

    Args:
        folder: what 'zoo convert' wrote.
    """
    from zoo.data.shards import ShardFolder

    shards = ShardFolder(folder)
    shards.verify()
    manifest = shards.manifest
    print(f"{folder}: all {len(manifest.shards)} shards with {manifest.jets} jets match their checksums")


def download(name: str, *, out: Annotated[Path | None, Option("DIR")] = None) -> None:
    """Download the public files of a data set, resumable and checked.

    Args:
        name: name of the data set, such as top_tagging.
        out: folder to write (default: data/NAME, where the configurations look).
    """
    from zoo.data.download import download

    for path in download(name, out or FOLDER / name):
        print(path)


def link(
    name: str,
    file: str,
    *,
    called: Annotated[str | None, Option("NAME")] = None,
    out: Annotated[Path | None, Option("DIR")] = None,
) -> None:
    """Link a file from elsewhere to where the configurations look for it.

    Args:
        name: data set, such as top_tagging, whose jets the file must hold.
        file: file of jets or converted folder.
        called: name of the link, such as train.h5 (default: name of the file, which must then be identical to the
            published file of that name).
        out: folder to write (default: data/NAME).
    """
    from zoo.data.link import link

    with warnings.catch_warnings(record=True) as noted:
        print(link(name, file, out or FOLDER / name, called=called))
    for warning in noted:
        print(warning.message, file=sys.stderr)


def convert(
    files: Annotated[list[str], Option("IN")],
    *,
    out: Annotated[Path, Option("DIR")],
    jets_per_shard: int = 100_000,
    seed: int = 1,
    processes: int | None = None,
    scheduler: Annotated[str | None, Option("ADDRESS")] = None,
    compression: Literal["lz4", "zstd"] | None = None,
    layout: Layout = None,
    weaver_yaml: WeaverYaml = None,
    classes: Classes = None,
    unlabelled: bool = False,
    split: Literal["train", "val", "test"] = "train",
) -> None:
    """Shuffle files of jets into a folder that is read without loading it into memory.

    Args:
        files: files in any format that the zoo reads, or patterns of them.
        out: folder to make, or to continue.
        jets_per_shard: mean number of jets per shard.
        seed: seed of the shuffle; the same seed gives the same bytes.
        processes: number of processes, which share all cores (default: one per four cores).
        scheduler: dask scheduler whose workers see the same files.
        compression: write smaller shards that are loaded, not mapped.
        unlabelled: take jets without a class, for pretraining.
        split: what the jets are for, which decides the selection and weights of a data file of weaver.
    """
    from zoo.data.convert import convert, describe
    from zoo.data.description import read_description

    manifest = convert(
        files,
        out,
        jets_per_shard=jets_per_shard,
        seed=seed,
        processes=processes,
        scheduler=scheduler,
        compression=compression,
        layout=read_description(layout, weaver_yaml, classes, split=split, labelled=not unlabelled),
        labelled=not unlabelled,
    )
    print(describe(out, manifest))


def simulate(
    dataset: Literal["top_tagging"],
    *,
    jets: int,
    seed: int = 1,
    out: Path,
    processes: int | None = None,
    multiple_interactions: bool = True,
    force: Force = False,
) -> None:
    """Make labelled jets with Pythia 8 and FastJet (extra 'sim').

    Args:
        dataset: which data set to imitate.
        jets: number of jets, half of them signal.
        seed: the same seed gives the same bytes.
        out: a file that ends with .arrow, or a folder of shards to make, to continue or to enlarge.
        processes: worker processes (default: all cores).
        multiple_interactions: whether the protons interact more than once, as in the reference jets.
    """
    from zoo.simulate import simulate

    simulate(
        dataset,
        jets=jets,
        seed=seed,
        out=out,
        processes=processes,
        multiple_interactions=multiple_interactions,
        force=force,
    )
