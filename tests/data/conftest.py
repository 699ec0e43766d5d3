"""Random jets, as tables and as files that PyTables itself writes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from zoo.data.store import JetTable

MakeTable = Callable[..., JetTable]


def random_momenta(particles: int, seed: int) -> np.ndarray:
    """Massless four-momenta (particle, 4) in GeV, float32, roughly those of a jet along +x at pt 600 GeV."""
    random = np.random.default_rng(seed)
    momenta = random.normal([12.0, 0.0, 4.0], [4.0, 2.0, 2.0], size=(particles, 3))
    return np.column_stack([np.linalg.norm(momenta, axis=1), momenta]).astype(np.float32)


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
    rows = np.zeros((6, 4, 4), dtype=np.float32)
    for jet, row in enumerate(rows):
        row[: 1 + jet % 4] = random_momenta(1 + jet % 4, seed=jet)
    names = [f"{component}_{i}" for i in range(4) for component in ("E", "PX", "PY", "PZ")]
    frame = pd.DataFrame(rows.reshape(6, 16), columns=names)
    for name in ("truthE", "truthPX", "truthPY", "truthPZ"):
        frame[name] = np.float32(0)
    frame["ttv"] = 0
    frame["is_signal_new"] = [0, 1, 0, 1, 1, 0]
    return frame


@pytest.fixture
def write_hdf5(tmp_path: Path) -> Callable[[pd.DataFrame], Path]:
    """Function that writes a frame as the public files were written."""

    def write(frame: pd.DataFrame) -> Path:
        path = tmp_path / "jets.h5"
        frame.to_hdf(path, key="table", format="table", mode="w", complib="blosc", complevel=5)
        return path

    return write
