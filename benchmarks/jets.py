"""Real jets for the benchmarks."""

from pathlib import Path

import numpy as np

from zoo.data.batch import JetBatch, collate, gather
from zoo.data.features import feature_table
from zoo.data.readers import read_jets

#: The developers' copy of the first rows of the Top Tagging Reference training set.
DEFAULT_FILE = Path(__file__).resolve().parents[2] / "shared" / "data" / "top_tagging" / "train_100k.h5"


def load_batches(path: Path, batch_size: int, num_batches: int, first_row: int = 0) -> list[JetBatch]:
    """Batches of consecutive jets, padded to the longest jet of each, with the ``kin`` features."""
    num_jets = batch_size * num_batches
    table = read_jets(path, rows=(first_row, first_row + num_jets))
    rows = np.arange(num_jets).reshape(num_batches, batch_size)
    return [collate(gather(table, batch), feature_table("kin")) for batch in rows]
