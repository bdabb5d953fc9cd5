"""Power from a pilot: the spread of paired differences is what is left of scores after schedule and seed."""

import json

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis.power import paired_power, pilot_spread
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError


def pilot(seeds=2, schedules=5, seed=0):
    rng = np.random.default_rng(seed)
    schedule, k = (part.ravel() for part in np.indices((schedules, seeds)))
    score = 60 + 5 * rng.standard_normal(schedules)[schedule] + 9 * rng.standard_normal(seeds)[k]
    table = pd.DataFrame({"average": score + rng.standard_normal(len(k)), "seed": k, "task": "xnli"})
    return table.assign(schedule=[["standard", "gu", "fun", "lpft", "random"][s] for s in schedule])


def test_the_spread_is_that_of_the_differences_between_schedules_with_the_same_seeds():
    table = pilot(seeds=3)
    wide = table.pivot(index="seed", columns="schedule", values="average")
    names = list(wide.columns)
    variances = [(wide[a] - wide[b]).var(ddof=1) for i, a in enumerate(names) for b in names[:i]]
    sd, freedom = pilot_spread(table)["xnli"]
    assert sd == pytest.approx(np.sqrt(np.mean(variances)), rel=1e-9)
    assert freedom == 4 * 2


def test_a_pilot_of_one_seed_says_nothing_and_one_without_the_baseline_is_named():
    with pytest.raises(InputError, match="two schedules on the same two seeds"):
        pilot_spread(pilot(seeds=1))
    with pytest.raises(InputError, match="schedule 'none'"):
        pilot_spread(pilot(), baseline="none")


def test_the_command_prints_the_power_that_a_simulation_of_the_test_gives():
    done = CliRunner().invoke(app, ["power", "--sd", "2.5", "--seeds", "8", "--effect", "2", "--json"])
    row = json.loads(done.output)[0]
    rng = np.random.default_rng(77)
    differences = 2 + 2.5 * rng.standard_normal((4000, 8))
    signs = np.where((np.arange(256)[:, None] >> np.arange(8)) & 1, -1.0, 1.0)
    flipped = np.abs(differences @ signs.T)
    p = np.mean(flipped >= np.abs(differences.sum(axis=1))[:, None] - 1e-9, axis=1)
    assert row["power"] == pytest.approx(np.mean(p < 0.05), abs=0.03)
    assert paired_power(2, 2.5, row["needed"]) >= 0.8
