"""Trainings that are killed, moved, named otherwise, repeated or take turns: one run each, and a line that says so."""

import json

import pytest
import torch
from transformers import TrainerCallback

from fishlens import FisherCallback, UnfreezeCallback, find_blocks, load_runs
from fishlens.journal.follow import Follower
from fishlens.tracking.account import lines, read
from fishlens.tracking.attached import AttachedCallback
from fishlens.tracking.overview import Overview
from fishlens.tracking.scores import AS_COMPUTED, Scores
from fishlens.tracking.settings import VARIABLE

pytestmark = pytest.mark.usefixtures("cheap_collections", "versions_read_once")


class KilledAt(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A program under `fishlens track`, with such settings; gives what it says at its end."""

    def begin(run, **settings):
        account = tmp_path / f"account-{len(list(tmp_path.glob('account*')))}"
        account.touch()
        content = {"run": str(run), "every": "2", "examples": 8, "process": -1, "account": str(account)}
        monkeypatch.setenv(VARIABLE, json.dumps({**content, **settings}))
        return lambda: lines(read(account))

    return begin


SHORT = {"max_steps": 4, "gradient_accumulation_steps": 1, "save_strategy": "steps", "save_steps": 2}


@pytest.mark.parametrize("moved", [False, True], ids=["in place", "moved"])
@pytest.mark.parametrize("name", ["run", "another"])
def test_a_killed_program_goes_on_in_its_run(tmp_path, make_model, make_trainer, program, name, moved):
    here = tmp_path / "here"
    program(here / "run")
    callback = AttachedCallback()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(make_model(layers=1), [callback, KilledAt(3)], output="here/out", **SHORT).train()
    callback.end_with(KeyboardInterrupt())  # as at the exit of the interpreter
    assert load_runs(here).runs.status.tolist() == ["interrupted"]
    if moved:
        here = here.rename(tmp_path / "there")
    said = program(here / name)
    trainer = make_trainer(make_model(layers=1), [AttachedCallback()], output=f"{here.name}/out", **SHORT)
    trainer.train(resume_from_checkpoint=True)
    (run,) = load_runs(here).runs.to_dict("records")
    assert (run["run"], run["attempts"], run["status"], run["steps"]) == ("run", 2, "finished", 4)
    assert sorted(set(load_runs(here).fisher.step)) == [0, 2, 4]
    asked = "" if name == "run" else f" (not in {here / name}: its checkpoint belongs to this run)"
    assert said() == [f"tracked in {here / 'run'}, resumed at step 2{asked}"]
    # what both attempts have to say is shown once
    followed = Follower(here / "run", lambda: Overview(here / "run")).look()
    notes = [text for _, text, _ in followed.notes]
    assert len(set(notes)) == len(notes) > 0


def test_two_trainers_of_one_model_that_take_turns_are_three_trainings(
    tmp_path, make_model, make_trainer, program
):
    said, model = program(tmp_path / "run"), make_model(layers=1)
    short = {**SHORT, "max_steps": 2, "save_strategy": "no"}
    one, other = (make_trainer(model, [AttachedCallback()], output=name, **short) for name in "ab")
    for trainer in (one, other, one):
        trainer.train()
    runs = load_runs(f"{tmp_path}/run*")
    assert sorted(runs.runs.run) == ["run", "run-2", "run-3"] and set(runs.runs.status) == {"finished"}
    assert said()[0] == "3 trainings began, 3 tracked" and len(said()) == 4
    last = runs.fisher[runs.fisher.block == "head"]
    traces = {(row.run, row.step): row.trace for row in last.itertuples()}
    assert len(set(traces.values())) == len(traces) == 6  # each of the weights at its own time


def test_a_callback_that_is_used_again_measures_the_new_model(tmp_path, make_model, make_trainer):
    callback = FisherCallback(every=2, run=tmp_path / "run", examples=8)
    short = {**SHORT, "max_steps": 2, "save_strategy": "no"}
    models = [make_model(layers=1), make_model(layers=2)]
    for model in models:
        make_trainer(model, [callback], **short).train()
        assert callback.tracker.model is model
    blocks = {run: set(frame.block) for run, frame in load_runs(f"{tmp_path}/run*").fisher.groupby("run")}
    assert blocks == {"run": {"layer.0", "head"}, "run-2": {"layer.0", "layer.1", "head"}}


def test_blocks_head_and_embeddings_are_as_the_program_was_told(tmp_path, make_model, make_trainer, program):
    program(tmp_path / "run", blocks="layer", head=False, embeddings=True, output="classification")
    model = make_model(layers=1)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    make_trainer(model, [AttachedCallback()], **{**SHORT, "max_steps": 1, "save_strategy": "no"}).train()
    runs = load_runs(tmp_path / "run")
    expected = find_blocks(model, by="layer", head=False, embeddings=True)
    assert set(runs.fisher.block) == {block.name for block in expected} == {"embeddings", "layer.0"}
    assert runs.runs.estimator_output[0] == "classification"


def test_a_schedule_that_chooses_at_once_does_so_by_what_the_first_update_is_fed(
    tmp_path, make_model, make_trainer
):
    """And ends in the same bits whether or not a callback tracks as well."""
    ends = []
    for tracked in (False, True):
        model = make_model(layers=3)
        callbacks = [FisherCallback(every=2, run=tmp_path / "run", examples=4)] if tracked else []
        callbacks.append(UnfreezeCallback("fun", every=2, first="select"))
        make_trainer(model, callbacks, **{**SHORT, "save_strategy": "no"}, output=f"out-{tracked}").train()
        ends.append(model.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    runs = load_runs(tmp_path / "run")
    first = runs.fisher[(runs.fisher.step == 0) & (runs.fisher.block != "head")]
    assert runs.unfreezing.step[0] == 0
    assert runs.unfreezing.block[0] == first.block[first.trace.idxmax()] and set(first.examples) == {4}


def test_a_sentence_is_in_the_journal_once(tmp_path, make_model, make_trainer):
    make_trainer(
        make_model(layers=1), [FisherCallback(every=1, run=tmp_path / "run", examples=4)],
        **{**SHORT, "save_strategy": "no"},
    ).train()  # fmt: skip
    notes = load_runs(tmp_path / "run").notes
    assert len(notes) and not notes.text.duplicated().any()


def test_the_unit_of_what_nobody_knows_is_as_the_script_computed_it():
    metrics = {"eval_de_runtime": 1.0, "eval_de_accuracy": 0.5, "eval_de_zebra": 0.5, "eval_de_loss": 2.0}
    found = {
        score.metric: (score.value, score.unit, score.language)
        for score in Scores().of(metrics, "validation")
    }
    assert found == {
        "accuracy": (50.0, None, "de"), "zebra": (0.5, AS_COMPUTED, "de"), "loss": (2.0, AS_COMPUTED, "de"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "language", "metric"),
    [
        ("test_xnli-sw", "sw", "xnli_accuracy"),
        ("eval_pt-BR", "pt-BR", "accuracy"),
        ("eval_e-snli", None, "e-snli_accuracy"),
        ("", None, "accuracy"),
    ],
)
def test_the_language_of_a_score_may_stand_behind_a_hyphen_and_a_prefix_may_be_empty(
    prefix, language, metric
):
    metrics = {f"{prefix}_runtime": 1.0, f"{prefix}_accuracy": 0.5}
    assert [(score.language, score.metric) for score in Scores().of(metrics, "test")] == [(language, metric)]
