"""What all tests share."""

import os
from pathlib import Path

import pytest

pytest_plugins = ["toyrun"]
SHARED = Path(os.environ.get("FISHLENS_SHARED") or Path(__file__).parents[2] / "shared")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data sets and a small real encoder, which is not part of this repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real data: {SHARED} is not there (set FISHLENS_SHARED)")
    return SHARED
