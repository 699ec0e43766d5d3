"""Turns the few marks of reStructuredText in our docstrings into Markdown: formulas, examples, names of functions."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^([ \t]*)Example:[ \t]*$", re.MULTILINE)
_BLOCK = re.compile(r"^([ \t]*)\.\. math::(.*\n?(?:(?:[ \t]*\n)*\1[ \t]+\S.*\n?)*)", re.MULTILINE)
_FORMULA = re.compile(r":math:`([^`]*)`")
_ROLE = re.compile(r":(?:class|func|meth|mod|attr):`~?([^`]*)`")


def as_markdown(text: str) -> str:
    """A docstring with its formulas between dollar signs.

    >>> as_markdown("The mass :math:`m`, see :func:`mass`.")
    'The mass $m$, see `mass`.'
    >>> print(as_markdown(".. math:: a =\\n    b\\n\\nwith b."))
    $$
    a =
    b
    $$
    <BLANKLINE>
    with b.
    """
    text = _EXAMPLE.sub(r"\1Examples:", _BLOCK.sub(_block, text))
    return _ROLE.sub(r"`\1`", _FORMULA.sub(r"$\1$", text))


def _block(match: re.Match[str]) -> str:
    indent, formula = match[1], match[2]
    lines = [line.strip() for line in formula.splitlines() if line.strip()]
    return "\n".join(f"{indent}{line}" for line in ("$$", *lines, "$$")) + "\n"


class PlainMarks(griffe.Extension):
    """Does so with every docstring."""

    def on_object(self, *, obj: griffe.Object, **further: Any) -> None:
        """One object of the package."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
