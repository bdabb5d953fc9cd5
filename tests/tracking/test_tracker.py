"""A tracker measures what is there, once, never stops training, and says what it lost."""

import errno
import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from fishlens import InputError, Tracker, estimate_fisher, load_runs
from fishlens.fisher import find_blocks
from fishlens.journal import JournalWriter, read_run
from fishlens.tracking import instrument as module
from fishlens.tracking import prober, progress


@pytest.fixture
def model(make_model):
    return make_model(layers=2)


def train_one_step(model, batch, rate=0.1):
    model(**batch).loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= rate * parameter.grad
    model.zero_grad(set_to_none=True)


@pytest.fixture
def counted(monkeypatch):
    """How many examples were really measured, in order."""
    seen = []

    def counting(model, data, **options):
        estimate = estimate_fisher(model, data, **options)
        seen.append(estimate.examples)
        return estimate

    monkeypatch.setattr(module, "estimate_fisher", counting)
    return seen


def test_a_bare_loop_in_three_lines_leaves_a_whole_run(tmp_path, model, batches):
    tracker = Tracker(model, batches[:2], run=tmp_path / "run", every=2, factors={"task": "toy"})
    for step in range(5):
        tracker.step(step)
        train_one_step(model, batches[step])
    tracker.close("finished")
    runs = load_runs(tmp_path / "run")
    assert runs.runs.status[0] == "finished" and runs.runs.steps[0] == 4 and runs.runs.task[0] == "toy"
    assert sorted(set(runs.fisher.step)) == [0, 2, 4]
    assert list(runs.fisher.block[:3]) == ["layer.0", "layer.1", "head"]
    assert runs.fisher.overhead.isna().tolist()[0] and (runs.fisher.overhead[3:] > 0).all()


def test_what_is_written_is_what_an_independent_estimate_finds(tmp_path, model, batches):
    expected = estimate_fisher(model, batches[:2], labels="exact", diagonal=True)
    with Tracker(model, batches[:2], run=tmp_path / "run", diagonals=[0]) as tracker:
        tracker.step(0)
    frame = load_runs(tmp_path / "run").fisher.set_index("block")
    for block in find_blocks(model):
        values = torch.cat([p.detach().double().flatten() for p in block.parameters.values()])
        assert frame.trace[block.name] == expected.trace[block.name]
        assert frame.stderr[block.name] == expected.stderr[block.name]
        assert frame.effective_dimension[block.name] == expected.effective_dimension[block.name]
        assert frame.weight_norm[block.name] == pytest.approx(float(values.norm()), rel=1e-6)
    diagonal = load_file(tmp_path / "run" / "diagonals" / "step-0.safetensors")
    assert all(torch.equal(diagonal[name], value) for name, value in expected.diagonal.items())


def test_a_frozen_block_is_measured_too_and_said_to_be_frozen(tmp_path, model, batches):
    for parameter in find_blocks(model)[0].parameters.values():
        parameter.requires_grad_(False)
    with Tracker(model, batches[:1], run=tmp_path / "run") as tracker:
        tracker.step(0)
    frame = load_runs(tmp_path / "run").fisher.set_index("block")
    assert not frame.trainable["layer.0"] and frame.trainable["layer.1"] and frame.trace["layer.0"] > 0


def test_the_same_weights_are_never_measured_twice(tmp_path, model, batches, counted):
    tracker = Tracker(model, batches[:4], run=tmp_path / "run", every=1, examples=8)
    assert counted == [8]  # the trial
    tracker.step(0)
    small, large = tracker.measure(0), tracker.measure(0, 24)
    assert (small.examples, large.examples) == (8, 24) and counted == [8, 8, 16]
    assert tracker.measure(0, 20) == large and tracker.measure(0, 10**6).examples == 32
    assert counted == [8, 8, 16, 8]
    train_one_step(model, batches[0])
    assert tracker.measure(0, 24).trace != large.trace  # same step, other weights
    tracker.measure(1)
    tracker.step(1)
    assert counted == [8, 8, 16, 8, 8, 16, 8]


def test_a_grown_measurement_is_the_measurement_of_all_its_examples(model, batches):
    scores = Tracker(model, batches[:3], examples=8, labels="mc", samples=2).measure(0, 24)
    expected = estimate_fisher(model, batches[:3], labels="mc", samples=2, diagonal=True)
    for block, trace in expected.trace.items():
        assert scores.trace[block] == pytest.approx(trace, rel=1e-12)
        assert scores.stderr[block] == pytest.approx(expected.stderr[block], rel=1e-12)
        assert scores.per_example[block] == expected.per_example[block].tolist()


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate"),
        RuntimeError("mat1 and mat2"),
        MemoryError(),
    ],
)
def test_a_probe_that_fails_is_lost_and_training_goes_on(
    tmp_path, monkeypatch, capsys, model, batches, failure
):
    tracker = Tracker(model, batches[:1], run=tmp_path / "run", every=1)
    real = module.estimate_fisher

    def failing(*args, **kwargs):
        raise failure

    for step in range(3):
        monkeypatch.setattr(module, "estimate_fisher", failing if step == 1 else real)
        estimate = tracker.step(step)
        assert (estimate is None) == (step == 1) == ("is lost" in capsys.readouterr().err)
        train_one_step(model, batches[step])
    tracker.close()
    runs = load_runs(tmp_path / "run")
    assert sorted(set(runs.fisher.step)) == [0, 2] and runs.runs.status[0] == "finished"
    assert runs.notes.step.tolist() == [1] and type(failure).__name__ in runs.notes.text[0]
    assert "\n" not in runs.notes.text[0]


def test_weights_that_are_not_finite_lose_the_probe_and_not_the_training(tmp_path, capsys, model, batches):
    tracker = Tracker(model, batches[:1], run=tmp_path / "run", every=1)
    with torch.no_grad():
        next(iter(find_blocks(model)[-1].parameters.values())).fill_(float("nan"))
    assert tracker.step(0) is None
    said = capsys.readouterr().err
    assert "the probe at step 0 is lost, training goes on" in said and "not finite" in said
    with pytest.raises(RuntimeError, match=r"could not be measured at step 0: .*not finite"):
        tracker.measure(0)  # a schedule cannot choose by nothing
    tracker.close()
    assert "not finite" in load_runs(tmp_path / "run").notes.text[0]


def test_a_full_disk_costs_the_diagonal_and_a_note_and_nothing_else(tmp_path, monkeypatch, model, batches):
    tracker = Tracker(model, batches[:1], run=tmp_path / "run", every=1, diagonals=[0, 1])

    def full(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(prober, "save_file", full)
    tracker.step(0)
    monkeypatch.undo()
    tracker.step(1)
    tracker.close()
    written = [path.name for path in (tmp_path / "run" / "diagonals").iterdir()]
    assert [name for name in written if not name.startswith(".")] == ["step-1.safetensors"]
    runs = load_runs(tmp_path / "run")
    assert sorted(set(runs.fisher.step)) == [0, 1] and "No space left" in runs.notes.text[0]


def test_what_can_be_known_to_fail_is_raised_before_anything_is_written(tmp_path, model, batches):
    bare = [{"input_ids": batches[0]["input_ids"]}]
    with pytest.raises(InputError, match="labels"):
        Tracker(model, bare, run=tmp_path / "run", labels="empirical")
    with pytest.raises(InputError, match="no batches"):
        Tracker(model, [], run=tmp_path / "run")
    with pytest.raises(InputError, match="0 examples"):
        Tracker(model, batches, run=tmp_path / "run", examples=0)
    with pytest.raises(InputError, match="every is"):
        Tracker(model, batches, run=tmp_path / "run", every="often")
    with pytest.raises(InputError, match="both run and writer"):
        Tracker(model, batches, run=tmp_path / "a", writer=JournalWriter.open(tmp_path / "b"))
    assert not (tmp_path / "run").exists() and not (tmp_path / "a").exists()


def test_a_batch_of_another_kind_is_tried_when_the_tracker_is_made(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    wrong = [{"input": torch.rand(4, 4)}, {"input": torch.rand(2, 4, 4)}]
    with pytest.raises(InputError, match="expects logits of 2 dimensions"):
        Tracker(model, wrong, run=tmp_path / "run", blocks="module", output="classification")
    assert not (tmp_path / "run").exists()


def test_a_measurement_leaves_no_trace_in_the_model(model, batches):
    train_one_step(model, batches[0])
    model(**batches[1]).loss.backward()
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    attributes = [set(vars(m)) for m in model.modules()]
    Tracker(model, batches[:1], noise_scale=True, labels="mc", mode="train").step(0)
    assert torch.equal(torch.get_rng_state(), state) and [m.training for m in model.modules()] == modes
    assert [set(vars(m)) for m in model.modules()] == attributes
    for name, parameter in model.named_parameters():
        before = gradients[name]
        assert parameter.grad is before is None or torch.equal(parameter.grad, before)


def test_the_overhead_is_probe_seconds_per_second_of_training(model, batches, monkeypatch):
    """By a clock of the test's own: a probe takes a second, training ten, of which four were an evaluation."""
    now = [0.0]
    measure = module.estimate_fisher

    def one_second(*arguments, **options):
        now[0] += 1.0
        return measure(*arguments, **options)

    tracker = Tracker(model, batches[:1], every=1)
    monkeypatch.setattr(module, "estimate_fisher", one_second)
    for part in (prober, progress):
        monkeypatch.setattr(part, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    tracker.step(0)
    assert tracker.overhead is None  # nothing has been trained yet
    now[0] += 10.0
    tracker.step(1)
    assert tracker.overhead == pytest.approx(2 / 10)
    tracker.leave_out(4.0)
    assert tracker.overhead == pytest.approx(2 / 6)


def test_a_tracker_in_a_failing_program_says_so(tmp_path, model, batches):
    with pytest.raises(ZeroDivisionError), Tracker(model, batches[:1], run=tmp_path / "run") as tracker:
        tracker.step(3)
        _ = 1 / 0
    (run,) = load_runs(tmp_path / "run").runs.to_dict("records")
    assert (
        run["status"] == "failed"
        and run["error"] == "ZeroDivisionError: division by zero"
        and run["steps"] == 3
    )


def test_steps_that_start_again_are_said_once_and_disturb_nothing(tmp_path, capsys, model, batches):
    tracker = Tracker(model, batches, run=tmp_path / "run", every=1)
    for _ in range(3):
        for step in range(3):  # the batch's number in its epoch
            assert tracker.step(step) is not None
    tracker.close()
    assert capsys.readouterr().err.count("was given after step 2: a step is the number of updates") == 1
    notes = load_runs(tmp_path / "run").notes
    assert notes.text.str.startswith("step 0 was given after step 2").tolist() == [True]


def test_an_end_of_no_known_kind_is_refused(tmp_path, model, batches):
    with (
        Tracker(model, batches, run=tmp_path / "run") as tracker,
        pytest.raises(InputError, match="status is 'done'; expected one of finished, interrupted, failed"),
    ):
        tracker.close("done")
    assert load_runs(tmp_path / "run").runs.status.tolist() == ["finished"]


def test_a_diagonal_that_is_asked_for_is_measured_off_the_clock_too(tmp_path, model, batches):
    with Tracker(model, batches, run=tmp_path / "run", every=4, diagonals=[3]) as tracker:
        for step in range(6):
            tracker.step(step)
    assert [r["step"] for r in read_run(tmp_path / "run").records if r["kind"] == "fisher"] == [0, 3, 4]
    assert (tmp_path / "run" / "diagonals" / "step-3.safetensors").exists()
