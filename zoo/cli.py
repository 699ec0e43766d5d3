"""The ``zoo`` command: one subcommand a room, each imported only when it is called."""

import argparse
import faulthandler
import functools
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user errors end with one line on stderr and status 2, never a traceback.

    A `KeyError` is none of them: it comes from a fault in the code, and its message is a bare word.
    """
    # where a library crashes, or a file is cut while it is mapped (SIGBUS), a traceback says where
    faulthandler.enable(file=sys.__stderr__)
    parser = build_parser()
    options = vars(parser.parse_args(_with_hyphens(sys.argv[1:] if arguments is None else arguments)))
    run = options.pop("run")
    try:
        run(**options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        is_of_system = isinstance(error, OSError) and error.filename is not None
        print(f"zoo: error: {f'{error.filename}: {error.strerror}' if is_of_system else error}", file=sys.stderr)
        sys.exit(2)


def _with_hyphens(arguments: Sequence[str]) -> list[str]:
    """Options as they are called here; underscores, with which configs and ``train.py`` spell them, are taken too."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    parts = [argument.partition("=") for argument in arguments[:end]]
    options = [
        (name.replace("_", "-") if name.startswith("--") else name) + sign + value for name, sign, value in parts
    ]
    return [*options, *arguments[end:]]


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    # Whole options only: an abbreviation is a misspelt option that happens to be accepted. Subcommands inherit nothing.
    new_parser = functools.partial(argparse.ArgumentParser, allow_abbrev=False)
    parser = new_parser(prog="zoo", description="A model zoo for particle physics.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=new_parser)

    simulate = commands.add_parser("simulate", help="make labelled jets with Pythia 8 and FastJet (extra 'sim')")
    simulate.add_argument("dataset", choices=["top_tagging"], help="which data set to imitate")
    simulate.add_argument("--jets", type=int, required=True, help="number of jets, half of them signal")
    simulate.add_argument("--seed", type=int, default=1, help="the same seed gives the same bytes")
    simulate.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a file that ends with .arrow, or a folder of shards to make, to go on with or to enlarge",
    )
    simulate.add_argument("--processes", type=int, default=None, help="worker processes (default: all cores)")
    simulate.add_argument(
        "--multiple-interactions",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether the protons interact more than once, as in the reference jets",
    )
    _add_force(simulate)
    simulate.set_defaults(run=_simulate)

    convert = commands.add_parser("convert", help="shuffle files of jets into a folder that is read without loading it")
    convert.add_argument(
        "files", nargs="+", metavar="IN", help="files of any format the zoo reads, or patterns of them"
    )
    convert.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make, or to go on with")
    convert.add_argument("--jets-per-shard", type=int, default=100_000, help="mean number (default: %(default)s)")
    convert.add_argument("--seed", type=int, default=1, help="of the shuffle; the same seed gives the same bytes")
    convert.add_argument("--processes", type=int, help="processes, which share all cores (default: one for four cores)")
    convert.add_argument("--scheduler", metavar="ADDRESS", help="dask scheduler whose workers see the same files")
    convert.add_argument("--compression", choices=["lz4", "zstd"], help="small shards that are loaded, not mapped")
    _add_description(convert)
    convert.add_argument("--unlabelled", action="store_true", help="take jets without a class, for a pretraining")
    convert.add_argument(
        "--split",
        choices=["train", "val", "test"],
        default="train",
        help="what the jets are for, which decides on selection and weights of a data file of weaver "
        "(default: %(default)s)",
    )
    convert.set_defaults(run=_convert)

    data = commands.add_parser("data", help="data sets, and what files and converted folders hold").add_subparsers(
        required=True, metavar="COMMAND", parser_class=new_parser
    )
    data.add_parser("list", help="classes, units, source and licence of the data sets").set_defaults(run=_data_list)
    info = data.add_parser("info", help="classes, columns, rejected jets and oddities of a file")
    info.add_argument("file", metavar="FILE", help="file of jets, converted folder, or packaged sample")
    _add_description(info)
    info.add_argument("--jets", type=int, default=100_000, help="rows to read at most (default: %(default)s)")
    info.set_defaults(run=_data_info)
    fit = data.add_parser("fit-scaling", help="fit centres and scales that are 'auto', and write them down")
    fit.add_argument("files", nargs="+", metavar="FILE", help="files of jets to train on, or patterns of them")
    described = fit.add_mutually_exclusive_group(required=True)
    described.add_argument(
        "--weaver-yaml", type=Path, metavar="YAML", help="data file of weaver, the weights of which are made too"
    )
    described.add_argument("--features", type=Path, metavar="YAML", help="file of features")
    described.add_argument("--context", type=Path, metavar="YAML", help="file of context features")
    fit.add_argument(
        "--layout", type=Path, metavar="YAML", help="file that says which columns hold what; not with --weaver-yaml"
    )
    fit.add_argument("--out", type=Path, required=True, metavar="YAML", help="the same with the fitted numbers")
    _add_force(fit)
    fit.set_defaults(run=_fit_scaling)
    extract = data.add_parser("extract", help="copy some rows of a file to a small file of the zoo")
    extract.add_argument("file", metavar="FILE", help="file of jets of any format the zoo reads")
    extract.add_argument("--rows", type=int, nargs=2, metavar=("FIRST", "STOP"), help="only these rows (default: all)")
    _add_description(extract)
    extract.add_argument("--out", type=Path, required=True, help="Arrow file to write, compressed")
    _add_force(extract)
    extract.set_defaults(run=_extract)
    verify = data.add_parser("verify", help="compare every column of a converted folder with its checksum")
    verify.add_argument("folder", type=Path, metavar="DIR", help="what 'zoo convert' wrote")
    verify.set_defaults(run=_verify)
    download = data.add_parser("download", help="fetch the public files of a data set, resumed and checked")
    download.add_argument("name", metavar="NAME", help="such as top_tagging")
    download.add_argument("--out", type=Path, default=None, metavar="DIR", help="folder to write (default: NAME)")
    download.set_defaults(run=_download)

    report = commands.add_parser("report", help="put several runs or seeds in one table and one picture")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders that hold a tested report")
    report.add_argument("--out", type=Path, default=Path("comparison"), help="folder to write")
    _add_force(report)
    report.set_defaults(run=_report)

    baseline = commands.add_parser("baseline", help="train what networks have to beat on the data of a config")
    baseline.add_argument("kind", choices=["lightgbm"], help="boosted decision trees (extra 'trees')")
    baseline.add_argument("--config", type=Path, required=True, help="of train.py; its data, seed and signal are used")
    baseline.add_argument("--run-folder", type=Path, required=True, metavar="DIR", help="folder of this run")
    baseline.add_argument(
        "--inputs",
        choices=["objects", "pairs", "substructure", "subjets"],
        default="objects",
        help="hardest objects, these and their pairs, the substructure of jets, or this and the shapes of subjets "
        "(default: %(default)s)",
    )
    baseline.add_argument("--seed", type=int, help="of the trees (default: seed_everything of the config)")
    baseline.add_argument(
        "--train-jets",
        type=int,
        metavar="N",
        help="train on N rows of the split, the first of each file (default: as the config says)",
    )
    baseline.set_defaults(run=_baseline)

    significance = commands.add_parser(
        "significance", help="expected significance of a search that cuts on the score of a tested run"
    )
    significance.add_argument("run_folder", type=Path, metavar="RUN", help="run folder that holds a tested report")
    significance.add_argument("--signal-yield", type=float, required=True, help="signal events before the cut")
    significance.add_argument("--background-yield", type=float, required=True, help="background events before the cut")
    significance.add_argument(
        "--background-uncertainty", type=float, default=0.0, help="relative, behind any cut (default: %(default)s)"
    )
    significance.add_argument(
        "--signal", metavar="CLASS", help="signal class; of two the one that is not the report's background"
    )
    significance.add_argument(
        "--validation", type=Path, metavar="FILE", help="predictions of other events, to choose the cut on"
    )
    significance.add_argument("--out", type=Path, help="folder to write (default: RUN/significance)")
    _add_force(significance)
    significance.set_defaults(run=_significance)

    publish = commands.add_parser("publish", help="make a pretrained folder of a tested run, a pretraining or trees")
    publish.add_argument("source", type=Path, metavar="RUN", help="run folder that holds a report")
    publish.add_argument("--out", type=Path, required=True, help="folder to write, named as the model shall be")
    publish.add_argument("--licence", required=True, help="of the weights, such as MIT")
    publish.add_argument("--paper", help="of the architecture, such as arXiv:2201.08187 (default: its builder's)")
    publish.set_defaults(run=_publish)

    ensemble = commands.add_parser("ensemble", help="make a pretrained folder that answers with the mean of others")
    ensemble.add_argument(
        "names", nargs="+", metavar="MODEL", help="pretrained models, folders, hf://owner/repo@commit"
    )
    ensemble.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder to write")
    ensemble.set_defaults(run=_ensemble)

    predict = commands.add_parser("predict", help="scores of the jets in a file, by a pretrained model")
    predict.add_argument("file", metavar="FILE", help="file of jets, converted folder, or packaged sample")
    predict.add_argument("--model", required=True, help="a pretrained model, its folder, or hf://owner/repo@commit")
    predict.add_argument("--out", type=Path, help=".arrow, .parquet, .csv, .h5 or .root (default: CSV to the output)")
    predict.add_argument("--rows", type=int, nargs=2, metavar=("FIRST", "STOP"), help="only these rows (default: all)")
    predict.add_argument("--fields", nargs="+", metavar="NAME", help="numbers of the jets to write beside the scores")
    predict.add_argument("--rntuple", action="store_true", help="write a ROOT file with an RNTuple instead of a TTree")
    _add_force(predict)
    _add_description(predict)
    predict.set_defaults(run=_predict)

    hub = commands.add_parser("hub", help="pretrained folders: list, verify, push, pull, card").add_subparsers(
        required=True, metavar="COMMAND", parser_class=new_parser
    )
    hub.add_parser("list", help="the models that ship with the package or were fetched").set_defaults(run=_hub_list)
    verify = hub.add_parser("verify", help="compare files with their checksums, and outputs with the stored ones")
    verify.add_argument("name", metavar="NAME", help="a pretrained model, its folder, or hf://owner/repo@commit")
    verify.set_defaults(run=_hub_verify)
    push = hub.add_parser("push", help="verify a folder and upload it to the Hugging Face Hub (extra 'hub')")
    push.add_argument("folder", type=Path, metavar="DIR", help="pretrained folder")
    push.add_argument("repository", metavar="OWNER/REPO", help="where to")
    push.add_argument("--create", action="store_true", help="make the repository, public, if there is none")
    push.set_defaults(run=_hub_push)
    pull = hub.add_parser("pull", help="fetch a folder and verify it; later uses need no network (extra 'hub')")
    pull.add_argument("address", metavar="ADDRESS", help="hf://owner/repo@commit")
    pull.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: only the cache)")
    pull.add_argument("--anew", action="store_true", help="fetch what is in the cache already, such as after damage")
    pull.set_defaults(run=_hub_pull)
    card = hub.add_parser("card", help="write the card of a folder again")
    card.add_argument("folder", type=Path, metavar="DIR", help="pretrained folder")
    card.set_defaults(run=_hub_card)

    check = commands.add_parser("check", help="what a model promises, such as symmetries, and how well it keeps it")
    check.add_argument(
        "name", metavar="MODEL", help="a model, a pretrained model or folder, or an import path such as my.Model"
    )
    check.add_argument(
        "--data", default="sample:top_tagging/test", help="file of jets, or converted folder (default: %(default)s)"
    )
    check.add_argument("--jets", type=int, default=32, help="how many of them (default: %(default)s)")
    check.add_argument("--features", default="kin", help="feature table, or a YAML file (default: %(default)s)")
    check.add_argument("--context", help="context of a model for events, such as met, or a YAML file (default: none)")
    check.add_argument("--layout", type=Path, metavar="YAML", help="file that says which columns of the data hold what")
    check.add_argument(
        "--num-classes",
        "--classes",
        dest="classes",
        type=int,
        default=2,
        help="number of logits (default: %(default)s)",
    )
    check.set_defaults(run=_check)

    importing = commands.add_parser("import", help="make a pretrained folder of another framework's weights")
    importing.add_argument("kind", choices=["weaver-checkpoint", "lorentznet-release"], help="who wrote the file")
    importing.add_argument("file", type=Path, metavar="FILE", help="file of weights; nothing in it is run")
    importing.add_argument("--out", type=Path, required=True, help="folder to write, named as the model shall be")
    importing.add_argument("--licence", required=True, help="of the weights, such as MIT")
    importing.add_argument("--dataset", help="what it was trained on, such as top_tagging")
    importing.add_argument(
        "--weaver-yaml",
        type=Path,
        metavar="FILE",
        help="weaver's data file of the training: features and classes (default: the only one beside the weights)",
    )
    importing.add_argument("--features", help="feature table, such as kin, or a YAML file of features, instead")
    importing.add_argument("--classes", nargs="+", metavar="NAME", help="classes in order (default: those of the data)")
    importing.add_argument(
        "--use-pre-activation-pair",
        choices=["true", "false"],
        help="what weaver's ParticleTransformer was built with: its default is true, the published networks have false",
    )
    importing.set_defaults(run=_import)
    return parser


def _add_force(command: argparse.ArgumentParser) -> None:
    """The option of every command that writes a file or files by a name that the user gives."""
    command.add_argument("--force", action="store_true", help="replace an output that exists")


def _add_description(parser: argparse.ArgumentParser) -> None:
    """Options that say which columns of files hold what, for `zoo.data.description.read_description`."""
    described = parser.add_mutually_exclusive_group()
    described.add_argument("--layout", type=Path, metavar="YAML", help="file that says which columns hold what")
    described.add_argument("--weaver-yaml", type=Path, metavar="YAML", help="data file of weaver, which says that too")
    parser.add_argument(
        "--classes", nargs="+", metavar="NAME", help="classes in order, if the labels of weaver's data file are custom"
    )


def _data_list() -> None:
    from zoo.data.info import show_datasets

    show_datasets()


def _data_info(file: str, layout: Path | None, weaver_yaml: Path | None, classes: list[str] | None, jets: int) -> None:
    from zoo.data.description import read_description
    from zoo.data.info import show_file

    show_file(file, read_description(layout, weaver_yaml, classes, labelled=False), jets)


def _fit_scaling(
    files: list[str],
    weaver_yaml: Path | None,
    features: Path | None,
    context: Path | None,
    layout: Path | None,
    out: Path,
    force: bool,
) -> None:
    from zoo.data.fit import fit_context, fit_features, fit_weaver_yaml

    if features is not None:
        fit_features(files, features, out, layout, force=force)
    elif context is not None:
        fit_context(files, context, out, layout, force=force)
    elif layout is not None:
        raise ValueError(
            "--layout: belongs to --features or --context; a data file of weaver describes the files itself"
        )
    else:
        fit_weaver_yaml(files, weaver_yaml, out, force=force)


def _extract(
    file: str,
    rows: list[int] | None,
    layout: Path | None,
    weaver_yaml: Path | None,
    classes: list[str] | None,
    out: Path,
    force: bool,
) -> None:
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


def _check(
    name: str, data: str, jets: int, features: str, context: str | None, layout: Path | None, classes: int
) -> None:
    from zoo.check import check_model

    if not check_model(
        name, data=data, num_jets=jets, features=features, num_classes=classes, context=context, layout=layout
    ):
        sys.exit(1)


def _import(
    kind: str,
    file: Path,
    out: Path,
    licence: str,
    dataset: str | None,
    weaver_yaml: Path | None,
    features: str | None,
    classes: list[str] | None,
    use_pre_activation_pair: str | None,
) -> None:
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


def _simulate(
    dataset: str, jets: int, seed: int, out: Path, processes: int | None, multiple_interactions: bool, force: bool
) -> None:
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


def _convert(
    files: list[str],
    out: Path,
    jets_per_shard: int,
    seed: int,
    processes: int | None,
    scheduler: str | None,
    compression: str | None,
    layout: Path | None,
    weaver_yaml: Path | None,
    classes: list[str] | None,
    split: str,
    unlabelled: bool,
) -> None:
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


def _verify(folder: Path) -> None:
    from zoo.data.shards import ShardFolder

    shards = ShardFolder(folder)
    shards.verify()
    manifest = shards.manifest
    print(f"{folder}: all {len(manifest.shards)} shards with {manifest.jets} jets match their checksums")


def _download(name: str, out: Path | None) -> None:
    from zoo.data.download import download

    for path in download(name, out or Path(name)):
        print(path)


def _report(runs: list[Path], out: Path, force: bool) -> None:
    from zoo.report import compare_runs

    compare_runs(runs, out, force=force)


def _baseline(kind: str, config: Path, run_folder: Path, inputs: str, seed: int | None, train_jets: int | None) -> None:
    from zoo.boosted_trees import train_boosted_trees

    train_boosted_trees(config, run_folder, inputs=inputs, seed=seed, train_jets=train_jets)


def _significance(
    run_folder: Path,
    signal_yield: float,
    background_yield: float,
    background_uncertainty: float,
    signal: str | None,
    validation: Path | None,
    out: Path | None,
    force: bool,
) -> None:
    from zoo.report.significance import Yields, show_significance

    yields = Yields(signal_yield, background_yield, background_uncertainty)
    show_significance(run_folder, yields, signal=signal, validation=validation, out=out, force=force)


def _publish(source: Path, out: Path, licence: str, paper: str | None) -> None:
    from zoo.publish import publish_run

    publish_run(source, out, licence=licence, paper=paper)


def _ensemble(names: list[str], out: Path) -> None:
    from zoo.ensemble import make_ensemble

    make_ensemble(names, out)


def _predict(
    file: str,
    model: str,
    out: Path | None,
    rows: list[int] | None,
    layout: Path | None,
    weaver_yaml: Path | None,
    classes: list[str] | None,
    fields: list[str] | None,
    rntuple: bool,
    force: bool,
) -> None:
    from zoo.inference import predict_file

    predict_file(
        model,
        file,
        out=out,
        rows=rows and tuple(rows),
        layout=layout,
        weaver_yaml=weaver_yaml,
        classes=classes,
        fields=fields,
        rntuple=rntuple,
        force=force,
    )


def _hub_list() -> None:
    from zoo.hub.sharing import show_pretrained

    show_pretrained()


def _hub_verify(name: str) -> None:
    from zoo.hub import load_pretrained

    config = load_pretrained(name).config
    purpose = f"for {', '.join(config.classes)}" if config.classes else "without a read-out, a backbone"
    print(f"{name}: checksums and golden outputs are right: {config.model} {purpose}")


def _hub_push(folder: Path, repository: str, create: bool) -> None:
    from zoo.hub.sharing import push

    print(push(folder, repository, create=create))


def _hub_pull(address: str, out: Path | None, anew: bool) -> None:
    from zoo.hub.sharing import pull

    print(pull(address, out, anew=anew))


def _hub_card(folder: Path) -> None:
    from zoo.card import renew_card

    renew_card(folder)


if __name__ == "__main__":
    main()
