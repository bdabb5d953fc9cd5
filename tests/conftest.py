"""What all tests share."""

import os
import signal
from pathlib import Path

import pytest

from fishlens import own_code

pytest_plugins = ["toyrun"]
SHARED = Path(os.environ.get("FISHLENS_SHARED") or Path(__file__).parents[2] / "shared")

# a shell that starts the tests in the background has Ctrl-C ignored: tests interrupt, and so do the programs they start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _trust_as_before(monkeypatch):
    """A command line that runs in the tests' process begins by trusting no code, which would hold for later tests."""
    monkeypatch.setattr(own_code, "_trusted", own_code._trusted)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data sets and a small real encoder, which is not part of this repository."""
    if not SHARED.is_dir():
        pytest.skip(f"needs real data: {SHARED} is not there (set FISHLENS_SHARED)")
    return SHARED
