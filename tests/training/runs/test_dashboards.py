"""Recipes report to dashboards: what, with which configuration, and that a failing one changes nothing."""

import sys
import types

import pytest

from fishlens.errors import InputError
from fishlens.journal import load_runs, read_run
from fishlens.training.run import train


class Library(types.ModuleType):
    """Stands for trackio: keeps what it is told; with `fails`, its log raises."""

    def __init__(self, fails=False):
        super().__init__("trackio")
        self.fails, self.config, self.logged, self.finished = fails, None, [], 0

    def init(self, project, name, config):
        self.config = config

    def log(self, values, step):
        if self.fails:
            raise ConnectionError("no route to host")
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def small(recipe, monkeypatch):
    recipe["data"]["targets"], recipe["train"]["steps"], recipe["tracking"]["every"] = ["de"], 4, 2
    monkeypatch.setattr("fishlens.tracking.reporters.find_spec", lambda name: True)
    return recipe


def test_a_dashboard_gets_what_the_journal_has_and_a_failing_one_changes_nothing(small, tmp_path, monkeypatch):
    library = Library()
    monkeypatch.setitem(sys.modules, "trackio", library)
    small["report_to"] = ["trackio"]
    result = train(small, tmp_path / "one")
    got = {}
    for step, values in library.logged:
        got.setdefault(step, {}).update(values)
    probe = next(r for r in read_run(tmp_path / "one").records if r["kind"] == "fisher" and r["step"] == 2)
    assert got[2]["fisher_sum"] == sum(probe["trace"].values()) and got[2]["fisher/head"] == probe["trace"]["head"]
    events = [r for r in read_run(tmp_path / "one").records if r["kind"] == "unfreeze" and r["chosen"]]
    assert events and all(got[e["step"]][f"unfreeze/{e['chosen'][0]}"] == 1.0 for e in events)
    assert got[4]["train/loss"] > 0 and got[result.best_step]["test/de/accuracy"] == result.test["de"]["accuracy"]
    assert library.config["train.learning_rate"] == "0.01" and library.config["schedule"] == "gu"
    assert library.finished == 1

    monkeypatch.setitem(sys.modules, "trackio", Library(fails=True))
    with pytest.warns(UserWarning, match="reporting to trackio has stopped: no route to host"):
        train(small, tmp_path / "two")
    one, two = load_runs(tmp_path / "one"), load_runs(tmp_path / "two")
    assert (one.training.loss == two.training.loss).all() and (one.fisher.trace == two.fisher.trace).all()


def test_a_dashboard_that_is_not_installed_is_refused_before_anything_is_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr("fishlens.tracking.reporters.find_spec", lambda name: None)
    small["report_to"] = ["wandb"]
    with pytest.raises(InputError, match="reporting to wandb needs a package that is not installed: pip install wandb"):
        train(small, tmp_path / "run")
    assert not (tmp_path / "run").exists()
