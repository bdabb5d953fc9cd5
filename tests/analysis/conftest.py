"""A small study written as real journals: schedules × seeds, made-up curves of a known shape, made-up scores."""

from pathlib import Path

import numpy as np
import pytest

from fishlens.journal import JournalWriter, Runs, load_runs

BLOCKS = ("layer.0", "layer.1", "layer.2", "layer.3")
LANGUAGES = ("en", "de", "sw", "th")
ESTIMATOR = {
    "labels": "exact",
    "samples": 1,
    "granularity": "example",
    "examples": 32,
    "mode": "eval",
    "seed": 0,
}
EVERY = 50  # updates between probes, and the schedules' interval
STEPS = 500


def order_of(schedule: str) -> list[list[str]]:
    """What each unfreezing event thaws; any other name: top-down."""
    top_down = [[block] for block in BLOCKS[::-1]]
    return {
        "standard": [list(BLOCKS)],
        "gu": top_down,
        "gu-reverse": [[block] for block in BLOCKS],
        "fun": [[BLOCKS[i]] for i in (3, 1, 2, 0)],
    }.get(schedule, top_down)


def write_run(
    folder: Path,
    schedule: str,
    seed: int,
    /,
    *,
    status: str | None = "finished",
    stronger: float = 0.0,
    **factors,
) -> None:
    """One run whose total tr(F) is 8·(t/100)·exp(1 − t/100) times a run's own factor, by `stronger` above about 1,
    higher in upper blocks; scores rise with the factor."""
    rng = np.random.default_rng([seed, *schedule.encode()])
    strength = 1 + stronger + 0.2 * rng.standard_normal()
    known = {
        "task": "pairs",
        "model": "tiny",
        "adapter": "seq_bn",
        "source": "en",
        "schedule": schedule,
        "seed": seed,
    }
    start = {
        "factors": known | factors,
        "estimator": ESTIMATOR,
        "seeds": {"training": seed},
        "device": "cpu",
        "blocks": {**dict.fromkeys(BLOCKS, 100), "head": 10},
    }
    events = order_of(schedule)
    with JournalWriter.open(folder / f"{schedule}-{seed}", start) as writer:
        thawed: list[str] = []
        for step in range(0, STEPS + 1, EVERY):
            if step // EVERY < len(events):
                chosen = events[step // EVERY]
                thawed += chosen
                writer.write("unfreeze", step, event=step // EVERY, chosen=chosen, trainable=list(thawed))
            bump = 8 * step / 100 * np.exp(1 - step / 100) * strength
            trace = {block: float(bump * (i + 1) / 10) for i, block in enumerate(BLOCKS)} | {"head": 1.0}
            writer.write(
                "fisher",
                step,
                trace=trace,
                stderr={block: value / 10 for block, value in trace.items()},
                trainable={block: block in thawed or block == "head" for block in trace},
                examples=32,
                purpose="track",
            )
            writer.write("train", step, loss=2 * np.exp(-step / 200), gradient_norm=1 + bump)
            writer.write(
                "eval", step, split="validation", language="en", metric="accuracy", headline=True, best=False,
                value=80 - 30 * np.exp(-step / 150) + 0.1 * rng.standard_normal(),
            )  # fmt: skip
        for place, language in enumerate(LANGUAGES):
            value = 80 - 8 * place + 5 * (strength - 1) + rng.standard_normal()
            writer.write(
                "eval",
                STEPS,
                split="test",
                language=language,
                metric="accuracy",
                value=value,
                headline=True,
                best=False,
            )
        writer.close(status, step=STEPS)


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Runs:
    """Four schedules × four seeds, all finished."""
    folder = tmp_path_factory.mktemp("study")
    for schedule in ("standard", "gu", "gu-reverse", "fun"):
        for seed in range(4):
            write_run(folder, schedule, seed)
    return load_runs(folder)


@pytest.fixture(scope="session")
def write():
    """`write_run`, for tests that make a study of their own."""
    return write_run


@pytest.fixture(scope="session")
def run_writer():
    """`write_run`: one run of a study, with what is given changed."""
    return write_run
