"""The command that writes the scores of a pretrained model or of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from zoo.cli import training
from zoo.cli.data import Classes, Force, Layout, Rows, WeaverYaml
from zoo.cli.signatures import Option


def predict(
    file: str | None = None,
    *,
    model: str | None = None,
    run_folder: Annotated[Path | None, Option("DIR")] = None,
    config: Annotated[list[Path] | None, Option("YAML", names=("-c",), is_repeated=True)] = None,
    ckpt_path: training.Checkpoint = None,
    out: Annotated[Path | None, Option(before=("--predictions",))] = None,
    rows: Rows = None,
    fields: Annotated[list[str] | None, Option("NAME")] = None,
    rntuple: bool = False,
    force: Force = False,
    layout: Layout = None,
    weaver_yaml: WeaverYaml = None,
    classes: Classes = None,
    print_config: training.PrintConfig = False,
    all_keys: training.AllKeys = False,
    keys: training.Keys = (),
) -> None:
    """Score the jets in a file with a pretrained model or a run.

    zoo predict FILE --model MODEL     a pretrained model; the scores go to the output as CSV without --out
    zoo predict FILE --run-folder DIR  the best checkpoint of a run; to DIR/predictions.arrow without --out
    zoo predict --config YAML          the same with the files of data.predict; every key is an option, as of zoo fit

    Args:
        file: file of jets, converted folder, or packaged sample.
        model: a pretrained model, its folder, or hf://owner/repo@commit.
        run_folder: folder of a run, with the configuration of its training.
        config: another configuration for the run; of several, the last one wins.
        out: file that ends with .arrow, .parquet, .csv, .h5 or .root.
        fields: further numbers per jet to write beside the scores.
        rntuple: write a ROOT file with an RNTuple instead of a TTree.
    """
    if model is None:
        if file is not None and not (run_folder or config):
            raise ValueError(f"give what is to answer: zoo predict {file} --model MODEL, or --run-folder DIR")
        split: dict[str, Any] = {"predict.rows": rows}
        if file is not None:  # replace all of it: the rows in the configuration belong to its own file
            split = {"predict": {"files": [file], "rows": rows, "fraction": None}}
        settings = {**split, "observers": fields, "layout": layout, "weaver_yaml": weaver_yaml, "classes": classes}
        keys = [*keys, *_keys(settings)]
        if rntuple:
            raise ValueError("--rntuple: belongs to --model; the ROOT file of a run holds a TTree, so leave it out")
        given = {"run_folder": run_folder, "ckpt_path": ckpt_path, "predictions": out, "force": force or None}
        training.run("predict", config, given, keys, print_config, all_keys)
        return
    if run_folder or config or ckpt_path or keys:
        raise ValueError("--model: is a pretrained model; leave out run folder, configuration and keys")
    if file is None:
        raise ValueError(f"give the file to score: zoo predict FILE --model {model}")
    from zoo.inference import predict_file

    predict_file(
        model,
        file,
        out=out,
        rows=rows and (rows[0], rows[1]),
        layout=layout,
        weaver_yaml=weaver_yaml,
        classes=classes,
        fields=fields,
        rntuple=rntuple,
        force=force,
    )


def _keys(settings: Mapping[str, Any]) -> list[str]:
    """Settings of the data of a run as words of a command line; None stands for one that is not given."""
    return [f"--data.{name}={json.dumps(value, default=str)}" for name, value in settings.items() if value is not None]
