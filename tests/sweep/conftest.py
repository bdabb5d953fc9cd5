"""A toy study: two schedules and two seeds of the toy run, as files."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def study_file(tmp_path, recipe) -> Path:
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    study = {
        "name": "study",
        "recipe": "toy.yaml",
        "set": {"tracking.every": 4},
        "vary": {"schedule.name": ["gu", "fun"], "seed": [0, 1]},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    return tmp_path / "study.yaml"


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Waits for a condition; half an hour is only a guard against hanging."""

    def wait(condition: Callable[[], bool], seconds: float = 1800.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)

    return wait
