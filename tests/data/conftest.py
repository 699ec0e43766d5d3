"""Random jets, as tables and as files that PyTables itself writes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.data.writers import random_momenta, top_tagging_rows
from zoo.data.store import JetTable

MakeTable = Callable[..., JetTable]


@pytest.fixture(scope="session")
def make_table() -> MakeTable:
    """Function (jets, seed) -> table of jets with 1 to 12 particles; the weight is 1 + the row."""

    def make(jets: int, seed: int = 0) -> JetTable:
        random = np.random.default_rng(seed)
        offsets = np.concatenate([[0], np.cumsum(random.integers(1, 13, jets))])
        momenta = random_momenta(offsets[-1], seed)
        names = ("part_energy", "part_px", "part_py", "part_pz")
        return JetTable(
            particles={name: momenta[:, i].copy() for i, name in enumerate(names)},
            offsets=offsets,
            fields={},
            label=random.permutation(np.arange(jets) % 2),
            weight=1 + np.arange(jets, dtype=np.float32),
            metadata={"dataset": "top_tagging", "classes": ["qcd", "top"], "units": "GeV"},
        )

    return make


@pytest.fixture
def top_tagging_frame() -> pd.DataFrame:
    """Six jets in the public layout, zero-padded to four constituents; jet ``j`` has 1 + j % 4 of them."""
    return top_tagging_rows(6)


@pytest.fixture
def write_hdf5(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    """Function that writes a frame as the public files were written."""

    def write(frame: pd.DataFrame) -> Path:
        path = tmp_path / "jets.h5"
        frame.to_hdf(path, key="table", format="table", mode="w", complib="blosc", complevel=5)
        return path

    return write
