"""A file of jets in, a `JetTable` out, in one call; to do more with a file, open it with `zoo.data.source`."""

from pathlib import Path

from zoo.data.formats.known import Description
from zoo.data.read_report import warn_of
from zoo.data.source import open_source
from zoo.data.store import JetTable


def read_jets(
    path: str | Path,
    rows: tuple[int, int] | None = None,
    layout: Description | None = None,
    *,
    labelled: bool = True,
) -> JetTable:
    """Read jets from a file of any known format, recognised by its content.

    The formats are the zoo's own file, a folder that `zoo convert` wrote (to leave it on disk:
    `zoo.data.source.JetSource.tables`), and those of `zoo.data.formats.known.known_formats`. Jets that
    `zoo.data.store.bad_jets` names are left out with a `zoo.data.read_report.RejectedJetsWarning`; ``source_rows`` of
    the table gives the row in the file of each remaining jet. Repairs, such as of padding in lists and of values that
    rounding made unphysical, are counted in a `zoo.data.read_report.MendedWarning`.

    Args:
        path: file or converted folder.
        rows: first row and the row after the last; None reads all.
        layout: which columns of a ROOT, parquet or HDF5 file, or of events in text, hold what; see
            `zoo.data.formats.layout_yaml.read_layout` and `zoo.data.weaver.data_config.read_weaver_yaml`. The zoo's own
            file says that itself.
        labelled: whether the file must give the class of each jet; if not, it is -1 where the class is missing.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the format is unknown, the file is damaged, or a column is missing or holds something else than
            it should; the message names the file, the field and the remedy.
        NoJetsError: if no good jet is left.
    """
    with open_source(path, layout, labelled=labelled, verify=True) as source:
        table, report = source.read(rows)
    warn_of(report, stacklevel=2)
    return table
