"""Tidy frames: one row per observation, with the run, its factors and the estimator's identity beside
them."""

import math

import pandas as pd
import pytest

from fishlens import InputError, load_runs
from fishlens.journal import JournalWriter


def write_run(run_dir, seed, blocks=("layer.0", "layer.1", "head"), probes=3):
    start = {
        "factors": {"task": "xnli", "seed": seed, "targets": ["de", "fr"], "schedule": "gu", "steps": 9},
        "blocks": dict.fromkeys(blocks, 10),
        "estimator": {"labels": "exact", "examples": 32},
    }
    with JournalWriter.open(run_dir, start) as journal:
        for step in range(probes):
            journal.write(
                "fisher",
                step,
                trace={block: step + i / 10 for i, block in enumerate(blocks)},
                stderr=dict.fromkeys(reversed(blocks), 0.1) | {blocks[0]: 0.2},
                trainable={block: block == "head" for block in blocks},
                weight_norm={blocks[0]: 5.0},
                purpose="track",
                examples=32,
                overhead=0.01,
            )
        journal.write("eval", 2, split="test", language="de", metric="f1", value=50.0, headline=True)
        journal.write(
            "unfreeze", 2, event=1, chosen=["layer.1", "layer.0"], scores={"layer.0": 1.0, "layer.1": 2.0},
            runner_up="layer.0", margin=1.5, trainable=["head"],
        )  # fmt: skip
        journal.write("fisher", 3, trace={}, lost="out of memory", purpose="track")
        journal.close("finished", step=3, best_step=2)


def test_fisher_has_one_row_per_run_step_and_block(tmp_path):
    write_run(tmp_path / "b", seed=1)
    write_run(tmp_path / "a", seed=0, blocks=("layer.0", "x", "head"))
    frame = load_runs(tmp_path).fisher
    assert len(frame) == 2 * 3 * 3
    assert not frame.duplicated(["run", "step", "block"]).any()
    row = frame[(frame.run == "b") & (frame.step == 2) & (frame.block == "layer.1")].iloc[0]
    assert row.trace == 2.1 and row.stderr == 0.1 and not row.trainable and math.isnan(row.weight_norm)
    first = frame[(frame.run == "a") & (frame.step == 1) & (frame.block == "layer.0")].iloc[0]
    assert first.stderr == 0.2 and first.weight_norm == 5.0 and first.examples == 32
    assert frame[frame.block == "head"].trainable.all()
    assert list(frame.block.cat.categories) == ["layer.0", "x", "head", "layer.1"]
    assert set(frame[frame.run == "a"].block) == {"layer.0", "x", "head"}


def test_runs_carry_factors_identity_and_outcome(tmp_path):
    write_run(tmp_path / "a", seed=0)
    (row,) = load_runs(tmp_path).runs.to_dict("records")
    assert row["run"] == "a" and row["status"] == "finished" and row["steps"] == 3 and row["best_step"] == 2
    assert row["task"] == "xnli" and row["seed"] == 0 and row["targets"] == "de,fr" and row["blocks"] == 3
    assert row["factor_steps"] == 9  # a factor never hides what the journal itself says
    assert row["estimator_labels"] == "exact" and row["estimator_examples"] == 32


def test_unfreezing_has_one_row_per_thawed_block_in_order(tmp_path):
    write_run(tmp_path / "a", seed=0)
    frame = load_runs(tmp_path).unfreezing
    assert frame.block.tolist() == ["layer.1", "layer.0"] and frame.position.tolist() == [0, 1]
    assert frame.score.tolist() == [2.0, 1.0] and frame.margin.tolist() == [1.5, 1.5]
    assert frame.runner_up.tolist() == ["layer.0", "layer.0"]


def test_a_lost_probe_is_a_note_and_no_row_of_values(tmp_path):
    write_run(tmp_path / "a", seed=0)
    runs = load_runs(tmp_path)
    assert runs.fisher.step.max() == 2
    assert runs.notes.text.tolist() == ["probe lost: out of memory"] and runs.notes.step.tolist() == [3]


def test_only_the_tables_asked_for_are_filled(tmp_path):
    write_run(tmp_path / "a", seed=0)
    some, whole = load_runs(tmp_path, tables=["evaluation"]), load_runs(tmp_path)
    assert some.fisher.empty and some.training.empty
    pd.testing.assert_frame_equal(some.evaluation, whole.evaluation)
    pd.testing.assert_frame_equal(some.runs, whole.runs)
    with pytest.raises(InputError, match="zebra"):
        load_runs(tmp_path, tables=["zebra"])


def test_runs_of_one_name_in_two_studies_stay_apart(tmp_path):
    write_run(tmp_path / "x" / "seed-0", seed=0)
    write_run(tmp_path / "y" / "seed-0", seed=0)
    runs = load_runs(tmp_path)
    assert runs.runs.run.tolist() == ["x/seed-0", "y/seed-0"]
    assert runs.fisher.groupby("run", observed=True).size().to_dict() == {"x/seed-0": 9, "y/seed-0": 9}


def test_many_runs_join_in_parts_as_in_one(tmp_path, monkeypatch):
    for seed in range(5):
        write_run(tmp_path / f"run-{seed}", seed=seed, probes=seed)
    whole = load_runs(tmp_path)
    monkeypatch.setattr("fishlens.journal.load._Parts.ROWS", 4)
    parts = load_runs(tmp_path)
    pd.testing.assert_frame_equal(parts.fisher, whole.fisher)
    pd.testing.assert_frame_equal(parts.unfreezing, whole.unfreezing)
    assert len(whole.fisher) == 3 * (0 + 1 + 2 + 3 + 4)
