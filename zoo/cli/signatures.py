"""Commands from functions: arguments and options of a signature, with the help of its docstring.

A parameter before ``*`` is a positional argument; one after it is an option, ``run_folder`` as ``--run-folder``. One
without a default is required. A parameter may have these types:

- ``str``, ``int``, ``float``, `Path`: one word.
- ``bool``: a switch; if the default is True there is ``--no-...`` too.
- ``Literal["a", "b"]``: one of these words.
- ``list[T]``: one word or more. ``tuple[T, T]``: as many words as it has types.
- any of them ``| None``, and `Annotated` with an `Option`.
"""

import argparse
import difflib
import inspect
import os
import re
import shutil
import sys
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn

from zoo.data.hints import did_you_mean
from zoo.errors import MISTAKE

#: Names of commands -> their functions, or a line of help and the commands of a group.
Commands = dict[str, "Callable[..., None] | tuple[str, Commands]"]


@dataclass(frozen=True)
class Option:
    """What the type of a parameter does not say.

    Args:
        metavar: placeholder for the value in the help.
        help: help for a parameter that several commands share; the docstring takes precedence.
        names: further spellings, such as ``-c``.
        before: spellings of older versions, which are accepted with a hint at the new one.
        accepts: whether an option that the command does not have, given without its hyphens, belongs to this parameter,
            which takes such options and their values as words.
        is_repeated: whether the option is repeated before each word of a list.
    """

    metavar: str | tuple[str, ...] | None = None
    help: str = ""
    names: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    accepts: Callable[[str], bool] | None = None
    is_repeated: bool = False


class Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one line, and accepts no abbreviated options.

    An abbreviation would be a misspelt option that happens to be accepted.
    """

    def __init__(self, *, prog: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=prog, description=description, epilog=epilog, allow_abbrev=False, formatter_class=_HelpFormatter
        )
        self._before: dict[str, str] = {}
        self._further: tuple[str, Callable[[str], bool]] | None = None

    def add_parameter(self, parameter: inspect.Parameter, text: str) -> None:
        """Add an argument or option for a parameter of a function; its text comes from the docstring."""
        kind, option = _unwrapped(parameter.annotation)
        if option.accepts is not None:
            self._further = (parameter.name, option.accepts)
            return
        required = parameter.default is parameter.empty
        default = None if required else parameter.default
        text = text or option.help
        if default is not None and not isinstance(default, bool) and "default" not in text:
            text += " (default: %(default)s)"
        settings = {**_settings(kind, default), "default": default, "help": text}
        if option.is_repeated:
            settings |= {"action": "append", "nargs": None}
        if option.metavar is not None:
            settings["metavar"] = option.metavar
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            if "choices" not in settings:
                settings.setdefault("metavar", parameter.name.upper())
            self.add_argument(parameter.name, **settings | ({} if required else {"nargs": "?"}))
            return
        name = _spelt(parameter.name)
        self.add_argument(*option.names, name, dest=parameter.name, required=required, **settings)
        self._before |= dict.fromkeys(option.before, name)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong, and exit."""
        self.exit(MISTAKE, f"zoo: error: {message} (see {self.prog} --help)\n")

    def parse_known_args(  # type: ignore[override]  # of any class of namespace
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Take older spellings, and refuse unknown words here, where similar options are known."""
        words, further = self._split(self._respelt(args))
        namespace, unknown = super().parse_known_args(words, namespace)
        if unknown:
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        if self._further is not None:
            setattr(namespace, self._further[0], further)
        return namespace, unknown

    def _respelt(self, words: Sequence[str]) -> list[str]:
        """The words with options in today's spelling, with a hint for each that was respelt."""
        respelt: list[str] = []
        for number, word in enumerate(words):
            if word == "--":
                return [*respelt, *words[number:]]
            name, sign, value = word.partition("=")
            now = self._before.get(name.replace("_", "-"), _spelt(name.removeprefix("--")))
            if name.startswith("--") and now != name and self._knows(now):
                if os.environ.get("LOCAL_RANK", "0") == "0":  # only the first of several processes prints it
                    print(f"zoo: {name} is spelt {now} now", file=sys.stderr)
                word = now + sign + value
            respelt.append(word)
        return respelt

    def _knows(self, name: str) -> bool:
        if "." in name:
            return False  # a key of a file, which has underscores
        return name in self._option_string_actions or self._is_further(name)

    def _is_further(self, name: str) -> bool:
        return name.startswith("--") and self._further is not None and self._further[1](name.removeprefix("--"))

    def _takes(self, name: str, sign: str) -> bool:
        """Whether this is an option of the command itself, and allows a value after an equals sign if there is one."""
        action = self._option_string_actions.get(name)
        return action is not None and (not sign or action.nargs != 0)

    def _split(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """The words for this command, and the options that are keys of a file, with their values."""
        own, further = [], []
        words = [*words]
        while words and words[0] != "--":
            word = words.pop(0)
            name, sign, value = word.partition("=")
            if not self._is_further(name) or self._takes(name, sign):
                own.append(word)
                continue
            further.append(f"--{name.removeprefix('--').replace('-', '_')}{sign}{value}")
            if not sign and words and not words[0].startswith("--") and words[0] not in self._option_string_actions:
                further.append(words.pop(0))
        return [*own, *words], further

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = did_you_mean(str(value), map(str, action.choices))
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {hint}")


def add_commands(parser: Parser, commands: Commands) -> None:
    """Add commands to a parser: each a function, or a group of them with a line of help."""
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for name, command in commands.items():
        prog = f"{parser.prog} {name}"
        if isinstance(command, tuple):
            summary, below = command
            add_commands(subparsers.add_parser(name, prog=prog, help=summary, description=_sentence(summary)), below)
            continue
        description, texts = split_docstring(command)
        summary = description.partition("\n")[0].rstrip(".")
        added = subparsers.add_parser(name, prog=prog, help=summary[:1].lower() + summary[1:], description=description)
        for parameter in inspect.signature(command).parameters.values():
            added.add_parameter(parameter, texts.get(parameter.name, ""))
        added.set_defaults(run=command)


def split_docstring(command: Callable[..., None]) -> tuple[str, dict[str, str]]:
    """The text of a docstring before its sections, and its text for each parameter.

    Example:
        >>> def verify(folder: str) -> None:
        ...     '''Compare files with their checksums.
        ...
        ...     Args:
        ...         folder: what 'zoo convert'
        ...             wrote.
        ...     '''
        >>> split_docstring(verify)
        ('Compare files with their checksums.', {'folder': "what 'zoo convert' wrote"})
    """
    description, _, rest = (inspect.getdoc(command) or "").partition("\nArgs:\n")
    section = re.split(r"^(?=\S)", rest, maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^    (\w+): (.*(?:\n(?:        .*|\s*$))*)", section, flags=re.MULTILINE)
    return description.strip(), {name: " ".join(text.split()).rstrip(".").replace("%", "%%") for name, text in found}


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """At most as wide as the terminal, and never wider than a page."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(100, shutil.get_terminal_size().columns - 2))


def _spelt(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _unwrapped(annotation: Any) -> tuple[Any, Option]:
    """A type without `Annotated` and ``| None``, and the `Option` that came with it."""
    option = Option()
    if typing.get_origin(annotation) is Annotated:
        annotation, *said = typing.get_args(annotation)
        option = next(one for one in said if isinstance(one, Option))
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (annotation,) = (one for one in typing.get_args(annotation) if one is not type(None))
    return annotation, option


def _settings(kind: Any, default: Any) -> dict[str, Any]:
    """How argparse reads a type."""
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction if default else "store_true"}
    parts = typing.get_args(kind)
    origin = typing.get_origin(kind)
    if origin is Literal:
        return {"choices": parts}
    if origin is list:
        return {"type": parts[0], "nargs": "+", "action": "extend"}
    if origin is tuple:
        return {"type": parts[0], "nargs": len(parts)}
    return {"type": kind}
