"""The outcome of a run: `RunResult`, and `results.json` in its directory, there once the run has finished."""

import contextlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from fishlens.errors import InputError
from fishlens.files import mark, write_file

RESULTS = "results.json"
# folders that a run writes in its directory
FOLDERS = ("adapter", "model", "checkpoints", "predictions", "diagonals")


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    status: finished or interrupted (calling `train` again resumes it). validation: {metric: points} of the best step,
    on the source language. test: {language: {metric: points}}, of the weights of the best step.
    """

    run_dir: Path
    status: Literal["finished", "interrupted"]
    step: int
    steps: int
    best_step: int | None = None
    validation: dict[str, float] = field(default_factory=dict)
    test: dict[str, dict[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """One line about how it ended."""
        if self.status == "interrupted":
            return f"interrupted at step {self.step} of {self.steps}; the same command resumes it"
        scores = ", ".join(
            f"{lang} {' '.join(f'{v:.1f}' for v in s.values())}" for lang, s in self.test.items()
        )
        metrics = ", ".join(next(iter(self.test.values()), {}))
        tested = f"test {metrics}: {scores}" if self.test else "nothing was tested"
        return f"finished {self.steps} steps, best at step {self.best_step}; {tested}"


def read_results(run_dir: Path) -> RunResult | None:
    """The results of a run that has finished, else None."""
    path = run_dir / RESULTS
    if not path.is_file():
        return None
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(RunResult).validate_python({**stored, "run_dir": run_dir})
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({type(error).__name__}: {error}): remove it, and the run is tested again from its "
            "best checkpoint"
        ) from None


def claim_folders(run_dir: Path) -> None:
    """Mark the folders of a run that has begun as ours: runs before 0.2 did not. Links are left alone, and refused."""
    for name in FOLDERS:
        folder = run_dir / name
        if folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(OSError):
                mark(folder)


def write_results(result: RunResult) -> None:
    stored = {key: value for key, value in asdict(result).items() if key != "run_dir"}
    write_file(result.run_dir / RESULTS, json.dumps(stored, indent=1))
