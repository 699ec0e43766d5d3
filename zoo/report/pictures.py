"""What all plots share: their style, axes and colours."""

import io
import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colours that colour-blind readers can distinguish (M. A. Petroff, arXiv:2107.02270).
BACKGROUND_COLOUR = "#3f90da"
SIGNAL_COLOURS = (
    "#bd1f01", "#ffa90e", "#832db6", "#717581", "#a96b59", "#e76300", "#b9ac70", "#92dadd", "#94a4a2",
)  # fmt: skip

#: A legend with more curves than this is placed beside the axes.
MOST_INSIDE = 10


def render(draw: Callable[["Figure"], None]) -> dict[str, bytes]:
    """A plot in mplhep's style as the bytes of a PNG and a PDF file; pyplot and the user's settings are left alone.

    Args:
        draw: function that draws on a given figure.

    Returns:
        The bytes under ``png`` and ``pdf``.
    """
    import matplotlib.style
    import mplhep
    from matplotlib.figure import Figure

    with matplotlib.style.context([mplhep.style.ROOT, {"font.size": 22, "lines.linewidth": 2.5}]):
        figure = Figure(figsize=(10, 8), layout="constrained")
        draw(figure)
        contents = {}
        for kind, metadata in (("png", {"Software": None}), ("pdf", {"CreationDate": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=120, metadata=metadata)
            contents[kind] = buffer.getvalue()
            figure.set_layout_engine("none")  # laid out once for both
    return contents


def labelled_axes(figure: "Figure", heading: tuple[str, str], x: str, y: str) -> "Axes":
    """The only axes of a figure, with labels and a heading on the left and on the right."""
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    for text, place in zip(heading, ("left", "right"), strict=True):
        axes.set_title(text, loc=place, fontsize="small")
    return axes


def coloured(items: dict[str, Any]) -> Iterator[tuple[str, tuple[str, Any]]]:
    """The items of a dictionary, each with its colour."""
    return zip(itertools.cycle(SIGNAL_COLOURS), items.items(), strict=False)


def add_legend(axes: "Axes", place: str, band: str) -> None:
    """Legend with an entry that says what the bands are."""
    from matplotlib.patches import Patch

    handles, labels = axes.get_legend_handles_labels()
    size = "small" if len(handles) <= 4 else "x-small"
    where: dict[str, Any] = {"loc": place}
    if len(handles) > MOST_INSIDE:
        axes.figure.set_figwidth(1.4 * axes.figure.get_figwidth())
        where = {"loc": "upper left", "bbox_to_anchor": (1.01, 1)}
    axes.legend([*handles, Patch(color="grey", alpha=0.3, linewidth=0)], [*labels, band], fontsize=size, **where)
