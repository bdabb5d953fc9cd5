"""Features of curves whose features are known in closed form, and of curves that do not have them."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fishlens.analysis import dynamics
from fishlens.analysis.dynamics import (
    CURVE_FEATURES,
    Feature,
    NoFeature,
    block_features,
    curve_features,
    early_period,
    features,
    order_agreement,
)
from fishlens.analysis.report import build_report, to_markdown
from scipy import integrate, optimize, stats

TRIANGLE = np.array([0.0, 10, 20, 30, 40]), np.array([0.0, 4, 8, 2, 0])


def test_a_triangle_worked_out():
    found = curve_features(*TRIANGLE, early=15)
    assert (found["peak"], found["peak_step"]) == (8, 20)
    assert found["width"] == pytest.approx(20 + 40 / 6 - 10)  # from f = 4 at 10 to f = 4 at 20 + 10·4/6
    assert found["area"] == pytest.approx(10 * (0 / 2 + 4 + 8 + 2 + 0 / 2))
    assert found["early_area"] == pytest.approx(20 + 5 * (4 + 6) / 2)  # f(15) = 6 on the line from 4 to 8
    assert found["final"] == 0
    assert found["drop"] == 1
    assert (found["probes"], found["lost"], found["first_step"], found["last_step"]) == (5, 0, 0, 40)
    assert "decay_rate: 2 positive probes" in found["reason"]


def test_a_curve_of_known_shape_at_irregular_steps():
    """f = t·exp(−t/100), probed at random steps: peak at 100, integrals and half widths by quadrature and root."""
    steps = np.unique(np.r_[0, np.random.default_rng(0).integers(0, 1200, 700), 100, 1200]).astype(float)

    def f(t):
        return t * np.exp(-t / 100)

    found = curve_features(steps, f(steps), early=300)
    assert found["peak_step"] == 100
    assert found["peak"] == pytest.approx(100 / math.e)
    assert found["area"] == pytest.approx(integrate.quad(f, 0, 1200)[0], rel=1e-3)
    assert found["early_area"] == pytest.approx(integrate.quad(f, 0, 300)[0], rel=1e-3)
    left, right = (optimize.brentq(lambda t: f(t) - f(100) / 2, *ends) for ends in ((0, 100), (100, 1200)))
    assert found["width"] == pytest.approx(right - left, rel=1e-2)


def test_an_exponential_decay_has_its_rate():
    steps = np.array([0.0, 50, 60, 200, 500, 520])
    found = curve_features(steps, 7 * np.exp(-0.004 * steps))
    assert found["decay_rate"] == pytest.approx(0.004, rel=1e-9)
    assert found["peak_step"] == 0
    assert found["drop"] == pytest.approx(1 - np.exp(-0.004 * np.array([500, 520])).mean())
    theirs = stats.linregress(steps, np.log(7 * np.exp(-0.004 * steps))).slope
    assert found["decay_rate"] == pytest.approx(-theirs, rel=1e-9)


def test_the_unit_of_the_trace_only_scales_what_has_its_unit():
    one, other = (
        curve_features(*TRIANGLE, early=15),
        curve_features(TRIANGLE[0], 1e-6 * TRIANGLE[1], early=15),
    )
    for name, feature in CURVE_FEATURES.items():
        factor = 1e-6 if "tr(F)" in feature.unit else 1
        assert other[name] == pytest.approx(factor * one[name], rel=1e-9, nan_ok=True)


def test_a_curve_that_begins_high_is_as_wide_as_from_its_beginning():
    assert dynamics.width(np.array([0.0, 10, 20]), np.array([8.0, 6, 2])) == pytest.approx(15)


def test_a_curve_that_stays_high_has_no_width():
    found = curve_features([0, 10, 20], [1, 8, 5])
    assert math.isnan(found["width"])
    assert "width: still above half of its peak at the last probe" in found["reason"]


def test_width_is_of_the_peak_and_not_of_everything_above_half():
    values = np.array([0.0, 6, 1, 8, 1, 7, 0])  # three peaks; only the highest is measured
    assert dynamics.width(10 * np.arange(7.0), values) == pytest.approx(10 * (4 / 7 + 4 / 7))


def test_lost_probes_are_left_out_and_counted():
    steps, values = TRIANGLE
    gap = np.insert(steps, 3, 25.0), np.insert(values, 3, np.nan)
    found, whole = curve_features(*gap, early=15), curve_features(*TRIANGLE, early=15)
    assert (found.pop("lost"), whole.pop("lost")) == (1, 0)
    assert str(found) == str(whole)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan, 2.0], [np.nan] * 5])
def test_short_runs_have_no_features_and_say_why(values):
    found = curve_features(np.arange(len(values)), values)
    assert all(math.isnan(found[name]) for name in CURVE_FEATURES)
    assert "at least 3 are needed" in found["reason"]


def test_a_curve_of_zeros():
    found = curve_features([0, 1, 2, 3], [0, 0, 0, 0], early=2)
    assert (found["peak"], found["area"], found["early_area"], found["final"]) == (0, 0, 0, 0)
    for name in ("width", "drop", "decay_rate"):
        assert math.isnan(found[name])
        assert f"{name}:" in found["reason"]


def test_the_early_period_must_be_recorded():
    assert "before the early period's end at 50" in curve_features(*TRIANGLE, early=50)["reason"]
    assert "after the early period's end" in curve_features([5, 6, 7], [1, 2, 1], early=5)["reason"]
    assert "give early=" in curve_features(*TRIANGLE)["reason"]
    assert curve_features(*TRIANGLE, early=40)["early_area"] == curve_features(*TRIANGLE)["area"]


def test_the_order_of_unfreezing():
    blocks = ("a", "b", "c", "d")
    assert order_agreement({"d": 0, "c": 1, "b": 2, "a": 3}, blocks) == 1
    assert order_agreement({"a": 0, "b": 1, "c": 2, "d": 3}, blocks) == -1
    assert order_agreement({"d": 0, "b": 1, "c": 2, "a": 3}, blocks) == pytest.approx(4 / 6)
    assert order_agreement({"d": 0, "c": 0, "b": 1, "a": 1}, blocks) == pytest.approx(4 / math.sqrt(4 * 6))
    assert order_agreement({"d": 0}, blocks) == pytest.approx(
        3 / math.sqrt(3 * 6)
    )  # the rest never: last, tied
    with pytest.raises(NoFeature, match="at once"):
        order_agreement(dict.fromkeys(blocks, 0), blocks)
    with pytest.raises(NoFeature, match="no unfreezing"):
        order_agreement({}, blocks)


def test_features_of_a_study(study):
    table = features(study, curve="all").set_index("run")
    assert len(table) == 16
    assert (table["peak_step"] == 100).all()
    strength = 8 / 10 * (1 + 2 + 3 + 4) / 8  # Σ (i + 1) / 10 over four blocks
    own = study.fisher.query("step == 100 and block != 'head'").groupby("run", observed=True)["trace"].sum()
    assert table["peak"].to_dict() == pytest.approx({str(run): value for run, value in own.items()})
    assert strength == 1
    assert table["depth_centroid"].to_list() == pytest.approx([(0 * 1 + 1 * 2 + 2 * 3 + 3 * 4) / 10 / 3] * 16)
    order = table["order_agreement"].groupby(table.index.str.rsplit("-", n=1).str[0]).first()
    assert order[["gu", "gu-reverse", "fun"]].to_list() == pytest.approx([1, -1, 4 / 6])
    assert math.isnan(order["standard"])
    assert "all blocks were thawed at once" in table.loc["standard-0", "reason"]


def test_the_early_period_is_that_of_the_schedules_for_all_runs(study):
    assert early_period(study) == 50 * 4
    only_standard = replace(study, unfreezing=study.unfreezing[study.unfreezing["run"] == "standard-0"])
    assert early_period(only_standard) is None
    table = features(study).set_index("run")
    assert table["early_area"].notna().all()  # standard too
    assert features(only_standard)["early_area"].isna().all()
    assert features(only_standard, early=200)["early_area"].to_list() == table["early_area"].to_list()


def test_smoothing_lowers_the_peak_and_is_stated(study):
    rough, smooth = features(study, curve="all"), features(study, curve="all", window=200)
    assert (smooth["peak"] < rough["peak"]).all()
    assert (smooth["window"] == 200).all()


def test_every_block_has_its_own_features(study):
    table = block_features(study)
    assert len(table) == 16 * 5
    one = table[table["run"] == "fun-2"].set_index("block")
    assert one["depth"].to_list()[:4] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert math.isnan(one.loc["head", "depth"])
    assert (one["area"][:4] / one.loc["layer.0", "area"]).to_list() == pytest.approx([1, 2, 3, 4])


def test_a_study_of_broken_runs_gives_reasons_not_errors(study):
    """NaN traces, a block that is missing, a run cut short, no unfreezing recorded."""
    fisher = study.fisher.copy()
    fisher.loc[fisher["run"] == "gu-0", "trace"] = np.nan
    fisher = fisher[~((fisher["run"] == "gu-1") & (fisher["block"] == "layer.2") & (fisher["step"] > 100))]
    fisher = fisher[~((fisher["run"] == "gu-2") & (fisher["step"] > 50))]
    fisher = fisher[fisher["run"] != "gu-3"]
    broken = replace(study, fisher=fisher, unfreezing=study.unfreezing[study.unfreezing["run"] != "fun-0"])
    table = features(broken).set_index("run")
    assert len(table) == 15
    assert table.loc["gu-0", "lost"] == 11
    assert "0 probes with a value" in table.loc["gu-0", "reason"]
    assert (table.loc["gu-1", "probes"], table.loc["gu-1", "lost"]) == (3, 8)
    assert math.isfinite(table.loc["gu-1", "depth_centroid"])
    assert "2 probes with a value" in table.loc["gu-2", "reason"]
    assert "no unfreezing was recorded" in table.loc["fun-0", "reason"]
    assert math.isfinite(table.loc["fun-0", "peak"])
    assert len(block_features(broken)) == 15 * 5
    nothing = replace(study, fisher=study.fisher.iloc[:0], unfreezing=study.unfreezing.iloc[:0])
    assert features(nothing).empty
    assert block_features(nothing).empty


def test_a_block_thawed_at_a_step_trains_from_the_probe_of_that_step_on(study):
    """The trainer probes and then thaws, on the same weights: step 0 of `standard` is no lost probe."""
    fisher = study.fisher.assign(trainable=study.fisher["trainable"] & (study.fisher["step"] > 0))
    as_our_trainer_writes_it = replace(study, fisher=fisher)
    found, same = features(as_our_trainer_writes_it), features(study)
    assert found["lost"].eq(0).all() and found["early_area"].tolist() == same["early_area"].tolist()


def test_a_curve_that_begins_after_the_first_probe_has_no_early_area(study):
    """`lpft` trains no block at first: nothing is lost then, and its early period is not that of the others."""
    late = study.unfreezing[(study.unfreezing["run"] == "standard-0").to_numpy()].assign(step=100)
    others = study.unfreezing[(study.unfreezing["run"] != "standard-0").to_numpy()]
    untrained = (study.fisher["run"] == "standard-0") & (study.fisher["step"] < 100)
    fisher = study.fisher.assign(trainable=study.fisher["trainable"] & ~untrained)
    rows = features(replace(study, fisher=fisher, unfreezing=pd.concat([late, others]))).set_index("run")
    row = rows.loc["standard-0"]
    assert (row["lost"], row["first_step"]) == (0, 100) and math.isnan(row["early_area"])
    assert "early_area: the curve begins at step 100, after the run's first probe at 0" in row["reason"]


def test_areas_of_runs_of_different_lengths_are_not_compared(study):
    short = (study.fisher["run"] == "gu-1") & (study.fisher["step"] > 400)
    rows = features(replace(study, fisher=study.fisher[~short.to_numpy()])).set_index("run")
    assert math.isnan(rows.loc["gu-1", "area"]) and rows["area"].notna().sum() == 15
    assert "area: the last probe is at step 400, that of the longest run at 500" in rows.loc["gu-1", "reason"]


def test_a_feature_is_declared_in_one_place(study, monkeypatch):
    """A function and a `Feature`: tables and report take name, unit, label and digits from it."""
    middle = Feature(
        "middle", "tr(F)", "median of the curve", 1, lambda curve: float(np.median(curve.values))
    )
    first = Feature("first", "event", "first event", 0, lambda blocks: float(min(blocks.thawed.values())))
    monkeypatch.setitem(dynamics.CURVE_FEATURES, "middle", middle)
    monkeypatch.setitem(dynamics.RUN_FEATURES, "first", first)
    assert features(study)["first"].eq(0).all()
    rows = block_features(study).set_index(["run", "block"])
    mine = study.fisher[((study.fisher["run"] == "gu-1") & (study.fisher["block"] == "layer.2")).to_numpy()]
    assert rows.loc[("gu-1", "layer.2"), "middle"] == np.median(mine["trace"])
    page = to_markdown(build_report(study))
    assert "median of the curve" in page and "first event" in page
