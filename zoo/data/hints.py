"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name closest to an unknown one, else the first few known names, as the middle of a message."""
    known, lower = sorted(known), name.lower()
    close = [other for other in known if other.lower() == lower]
    close = close or difflib.get_close_matches(name, known, n=1)
    close = close or [other for other in known if lower in other.lower() or other.lower() in lower]
    if close:
        return f"did you mean {close[0]!r}?"
    return f"found {', '.join(known[:8]) or 'none'}{', ...' if len(known) > 8 else ''}"
