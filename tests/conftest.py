"""Fixtures that every room's tests share."""

from pathlib import Path

import pytest
import torch

#: Real jets lie beside a checkout of the developers; elsewhere the tests that need them are skipped.
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real jets."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real jets at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test starts from the same random state, whichever tests ran before."""
    torch.manual_seed(20260401)
