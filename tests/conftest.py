"""Fixtures that all tests share."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.data.batch import JetBatch, collate, gather
from zoo.data.datasets import resolve_file
from zoo.data.features import feature_table
from zoo.data.readers import read_jets
from zoo.data.store import open_store

# Tests that start processes would otherwise run more threads than there are cores. This process has read it by now.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Trainings would take themselves for those of the job in which the tests run.
for variable in [name for name in os.environ if name.startswith("SLURM_")]:
    del os.environ[variable]

#: Real jets lie beside a checkout of the developers; elsewhere the tests that need them are skipped.
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real jets."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real jets at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def jets() -> JetBatch:
    """Eight jets of the packaged sample."""
    table = open_store(resolve_file("sample:top_tagging/test"))
    return collate(gather(table, np.arange(8)), feature_table("kin"))


@pytest.fixture(scope="session")
def real_jets(shared_data: Path) -> JetBatch:
    """Sixteen jets of the Top Tagging Reference set."""
    table = read_jets(shared_data / "top_tagging" / "train_100k.h5", rows=(60550, 60566))
    return collate(gather(table, np.arange(16)), feature_table("kin"))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before."""
    torch.manual_seed(20260401)
