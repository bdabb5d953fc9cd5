"""Dashboards get the traces; one that fails is switched off, and training never notices."""

import importlib.util
import math
import sys
import types

import pytest

from fishlens import FisherCallback, InputError, Tracker
from fishlens.tracking.explosion import Explosion
from fishlens.tracking.reporters import REPORTERS, Reporter, check_reporters, make_reporters


class Recorded(Reporter):
    library = "recorded"

    def _open(self, directory, run, config):
        self.sent, self.closed = [], 0

    def _report(self, step, values):
        self.sent.append((step, values))

    def _close(self):
        self.closed += 1


class Broken(Recorded):
    def _report(self, step, values):
        raise ConnectionError("no route to host")


def test_every_tracked_probe_is_reported_once_by_block(tmp_path, make_model, batches):
    reporter = Recorded(tmp_path, "run", {})
    tracker = Tracker(make_model(), batches[:1], every=2, reporters=[reporter])
    estimates = []
    for step in range(3):
        estimates.append(tracker.step(step))
        tracker.measure(step)
    tracker.close()
    assert [step for step, _ in reporter.sent] == [0, 2] and reporter.closed == 1
    names = {f"fisher/{block}" for block in estimates[0].trace} | {"fisher_overhead", "fisher_sum"}
    assert set(reporter.sent[1][1]) == names
    assert reporter.sent[0][1]["fisher/head"] == estimates[0].trace["head"]
    assert reporter.sent[0][1]["fisher_sum"] == sum(estimates[0].trace.values())


def test_a_dashboard_that_fails_is_a_warning_once(tmp_path, make_model, batches):
    tracker = Tracker(make_model(), batches[:1], every=1, reporters=[Broken(tmp_path, "run", {})])
    with pytest.warns(UserWarning, match="reporting to recorded has stopped: no route to host") as caught:
        assert all(tracker.step(step) is not None for step in range(3))
        tracker.close()
    assert len(caught) == 1


def test_an_unknown_or_missing_dashboard_is_said_at_once(monkeypatch):
    with pytest.raises(
        InputError, match="'zebra' is unknown; expected one of tensorboard, wandb, mlflow, trackio"
    ):
        FisherCallback(reporters=["zebra"])
    monkeypatch.setattr("fishlens.tracking.reporters.find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs a package that is not installed: pip install wandb"):
        FisherCallback(reporters=["wandb"])


class Fake(types.ModuleType):
    """A library that notes every call made to it, and whose objects are itself."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("run", "active_run"):
            return None if name == "run" else (lambda: None)

        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return False if name == "is_tracking_uri_set" else self

        return call


SENT = {
    "tensorboard": ("add_scalar", ("fisher/head", 1.5, 3), {}),
    "wandb": ("log", ({"fisher/head": 1.5, "fisher/step": 3},), {}),
    "mlflow": ("log_metrics", ({"fisher/head": 1.5},), {"step": 3}),
    "trackio": ("log", ({"fisher/head": 1.5},), {"step": 3}),
}


@pytest.mark.parametrize("name", REPORTERS)
def test_each_adapter_speaks_its_library(tmp_path, monkeypatch, name):
    """Against stand-ins: what is called. That the real libraries accept it is checked where they are installed."""
    library = Fake(name)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, library)
    (reporter,) = make_reporters([name], tmp_path, {"task": "toy"})
    reporter.report(3, {"fisher/head": 1.5})
    reporter.close()
    before = list(library.calls)
    reporter.report(4, {"fisher/head": 2.5})
    assert library.calls == before, "nothing is reported after the end"
    assert SENT[name] in library.calls
    assert library.calls[-1][0] in ("close", "finish", "end_run")


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_itself_reads_what_was_reported(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    check_reporters(["tensorboard"])
    (reporter,) = make_reporters(["tensorboard"], tmp_path, {})
    reporter.report(3, {"fisher/head": 1.5})
    reporter.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("fisher/head")] == [(3, 1.5)]


def test_an_explosion_of_the_trace_is_said_once_and_to_dashboards_that_have_alerts(monkeypatch, tmp_path):
    sums = [
        9.0,
        1.0,
        2.0,
        19.0,
        21.0,
        500.0,
        5000.0,
    ]  # 19 < 10 × median(1, 2, 9); 21 < 10 × 5.5; 500 > 10 × 9
    explosion = Explosion()
    said = [explosion.at(step, {"low": one / 3, "head": 2 * one / 3}) for step, one in enumerate(sums)]
    assert [step for step, text in enumerate(said) if text] == [5]
    assert (
        "tr(F) explodes at step 5: its sum over blocks is 500, 56 times the median of the 5 probes before"
        in said[5]
    )
    resumed = Explosion(explosion.sums[:6])
    before = Explosion(explosion.sums[:5])
    assert "56 times the median of the 5 probes" in before.at(5, {"low": 500.0})
    assert resumed.at(6, {"low": 5000.0}) is None
    for name, called in (("wandb", 1), ("trackio", 1), ("mlflow", 0)):
        library = Fake(name)
        monkeypatch.setitem(sys.modules, name, library)
        (reporter,) = make_reporters([name], tmp_path, {})
        reporter.alert("tr(F) explodes", "text")
        assert [call[0] for call in library.calls].count("alert") == called and not reporter.failed


class Compared(float):
    """Counts how often it is compared with another number."""

    times = 0

    def __lt__(self, other):
        Compared.times += 1
        return float(self) < float(other)

    def __gt__(self, other):
        Compared.times += 1
        return float(self) > float(other)


def test_a_long_run_looks_at_no_earlier_probe_again():
    explosion = Explosion(map(Compared, range(1, 5000)))
    Compared.times = 0
    for step in range(20):
        assert explosion.at(step, {"low": 2500.5 + step}) is None
    assert 0 < Compared.times <= 20 * 16
    explosion.at(20, {"low": math.nan})
    assert explosion.at(21, {"low": 1e9}) is not None
