"""The ``zoo`` command: a function for each command, which imports what it needs when it is called."""

import faulthandler
import sys
from collections.abc import Sequence

import zoo
from zoo.cli import data, hub, models, results, scores, training
from zoo.cli.signatures import Commands, Parser, add_commands
from zoo.errors import one_line_for_users

COMMANDS: Commands = {
    "fit": training.fit,
    "validate": training.validate,
    "test": training.run_test,
    "predict": scores.predict,
    "report": results.report,
    "significance": results.significance,
    "baseline": results.baseline,
    "models": models.list_models,
    "check": models.check,
    "publish": models.publish,
    "ensemble": models.ensemble,
    "export": models.export,
    "import": models.import_weights,
    "hub": (
        "pretrained folders: list, verify, push, pull, card",
        {"list": hub.list_pretrained, "verify": hub.verify, "push": hub.push, "pull": hub.pull, "card": hub.card},
    ),
    "data": (
        "data sets, and what files and converted folders hold",
        {
            "list": data.list_datasets,
            "info": data.info,
            "fit-scaling": data.fit_scaling,
            "extract": data.extract,
            "verify": data.verify,
            "download": data.download,
            "link": data.link,
        },
    ),
    "convert": data.convert,
    "simulate": data.simulate,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command line.

    An error that the user can fix ends with one line on stderr and status 2, a bug with a traceback; see `zoo.errors`.

    Args:
        arguments: words after ``zoo``; None: those that the program was started with.
    """
    # if a library crashes, or a file is truncated while it is mapped (SIGBUS), a traceback says where
    faulthandler.enable(file=sys.__stderr__ or sys.stderr)
    options = vars(build_parser().parse_args(sys.argv[1:] if arguments is None else arguments))
    run = options.pop("run")
    with one_line_for_users():
        run(**options)


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(prog="zoo", description="A model zoo for particle physics.", epilog="zoo COMMAND --help says more.")
    parser.add_argument("--version", action="version", version=f"zoo {zoo.__version__}")
    add_commands(parser, COMMANDS)
    return parser
