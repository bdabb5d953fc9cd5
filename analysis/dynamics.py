"""Features of a tr(F) curve: when it peaks, how long it stays high, how much there is, and in which blocks.

A curve is a series of probes (t_1, f_1) … (t_n, f_n), t in completed updates, f = tr(F) or a normalised sum of it
(`series.CURVES`), optionally smoothed by a moving average whose window is stated. Probes need not be regular: every
integral is a trapezoid over the probes that are there. A lost probe (NaN) is left out and counted.
A feature that a curve does not have is NaN and the `reason` column says why, feature by feature.

`CURVE_FEATURES` and `RUN_FEATURES` are all that the tables, the report and the statistics know of features: a new one
is a function and a `Feature` there.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.integrate import trapezoid

from fishlens.journal import Runs
from fishlens.names import counted

from .series import HEAD, BlockCurves, block_curves, moving_average

Array = NDArray[np.float64]
NEEDED_PROBES = 3
UNEQUAL = 0.05  # share by which runs may differ in length for their areas to be compared
FINAL_SHARE = 0.1  # of the recorded updates


class NoFeature(Exception):
    """A curve does not have a feature; the text says why. Raised by `Feature.compute`, told as the `reason`."""


@dataclass(frozen=True)
class Curve:
    """The probes of one curve that have a value, at least three. `early`: the step at which the early period ends, if
    known. `begin`: the step of the run's first probe."""

    steps: Array
    values: Array
    early: float | None
    begin: float | None


@dataclass(frozen=True)
class Blocks:
    """The curves of all blocks of a run, and the event at which each block was thawed."""

    curves: BlockCurves
    thawed: Mapping[str, int]


Source = TypeVar("Source", Curve, Blocks)


@dataclass(frozen=True)
class Feature(Generic[Source]):
    """A number read off a curve. `compute` raises `NoFeature` with the reason where there is none.

    unit: of the number. label: what it is called on a page. digits: after the decimal point, in tables.
    """

    name: str
    unit: str
    label: str
    digits: int
    compute: Callable[[Source], float]


def peak(steps: Array, values: Array) -> tuple[float, float]:
    """max f and the first t where it is reached: (tr(F), updates)."""
    at = int(np.argmax(values))
    return float(values[at]), float(steps[at])


def width(steps: Array, values: Array) -> float:
    """Full width at half maximum, in updates: the paper's "learning period".

    From the last crossing of f_max / 2 before the peak to the first one after it, each found on the straight line
    between two probes. A curve that begins above half its maximum has its left end at the first probe: training does
    not exist before. One that is still above half at the last probe has no width (only a lower bound is known).
    """
    at = int(np.argmax(values))
    half = values[at] / 2
    if half <= 0:
        raise NoFeature("the curve is zero")
    after = np.flatnonzero(values[at:] < half)
    if not len(after):
        raise NoFeature("still above half of its peak at the last probe")
    right = _crossing(steps, values, at + int(after[0]) - 1, half)
    before = np.flatnonzero(values[:at] < half)
    left = _crossing(steps, values, int(before[-1]), half) if len(before) else float(steps[0])
    return right - left


def _crossing(steps: Array, values: Array, i: int, level: float) -> float:
    """Where the line from probe i to probe i+1 passes `level`."""
    share = (level - values[i]) / (values[i + 1] - values[i])
    return float(steps[i] + share * (steps[i + 1] - steps[i]))


def area(steps: Array, values: Array) -> float:
    """∫ f dt from the first to the last probe, by trapezoids. Compare only runs of the same length."""
    return float(trapezoid(values, steps))


def early_area(steps: Array, values: Array, until: float | None, begin: float | None = None) -> float:
    """∫ f dt from the first probe to step `until` (kL: when the schedule has thawed every block), f interpolated at
    the end. The paper's early period. `begin`: the run's first probe, where f must have a value."""
    if until is None:
        raise NoFeature("no schedule says when the early period ends: give early=")
    if begin is not None and steps[0] > begin:
        raise NoFeature(
            f"the curve begins at step {steps[0]:.0f}, after the run's first probe at {begin:.0f}"
        )
    if steps[0] >= until:
        raise NoFeature(
            f"the first probe is at step {steps[0]:.0f}, after the early period's end at {until:g}"
        )
    if steps[-1] < until:
        raise NoFeature(
            f"the last probe is at step {steps[-1]:.0f}, before the early period's end at {until:g}"
        )
    inside = steps < until
    t = np.r_[steps[inside], until]
    return float(trapezoid(np.r_[values[inside], np.interp(until, steps, values)], t))


def final(steps: Array, values: Array) -> float:
    """Mean of f over the probes in the last tenth of the recorded updates (at least the last probe)."""
    return float(values[steps >= steps[-1] - FINAL_SHARE * (steps[-1] - steps[0])].mean())


def drop(steps: Array, values: Array) -> float:
    """1 − final / peak: the share of the peak that is gone at the end. 0 when the curve ends at its peak."""
    top, _ = peak(steps, values)
    if top <= 0:
        raise NoFeature("the curve is zero")
    return 1 - final(steps, values) / top


def decay_rate(steps: Array, values: Array) -> float:
    """λ of f ≈ c·exp(−λ t) after the peak: minus the slope of the least-squares line through (t, ln f), from the peak
    on, per update; ln 2 / λ is the half-life. Needs three positive probes from the peak on."""
    at = int(np.argmax(values))
    t, f = steps[at:], values[at:]
    positive = f > 0
    if positive.sum() < NEEDED_PROBES:
        raise NoFeature(
            f"{counted(int(positive.sum()), 'positive probes')} from the peak on, at least {NEEDED_PROBES} are needed"
        )
    t, log = t[positive] - t[positive].mean(), np.log(f[positive])
    return float(-(t @ log) / (t @ t))


CURVE_FEATURES: dict[str, Feature[Curve]] = {
    feature.name: feature
    for feature in (
        Feature("peak", "tr(F)", "peak", 3, lambda c: peak(c.steps, c.values)[0]),
        Feature("peak_step", "updates", "peak at step", 0, lambda c: peak(c.steps, c.values)[1]),
        Feature("width", "updates", "width at half peak (steps)", 0, lambda c: width(c.steps, c.values)),
        Feature("area", "tr(F) × updates", "area", 3, lambda c: area(c.steps, c.values)),
        Feature(
            "early_area",
            "tr(F) × updates",
            "early area",
            3,
            lambda c: early_area(c.steps, c.values, c.early, c.begin),
        ),
        Feature("final", "tr(F)", "final level", 3, lambda c: final(c.steps, c.values)),
        Feature("drop", "share of the peak", "drop from peak", 2, lambda c: drop(c.steps, c.values)),
        Feature("decay_rate", "per update", "decay (per step)", 5, lambda c: decay_rate(c.steps, c.values)),
    )
}


def curve_features(
    steps: ArrayLike, values: ArrayLike, *, early: float | None = None, begin: float | None = None
) -> dict[str, float | str]:
    """All of `CURVE_FEATURES` of one curve, with `probes`, `lost` (NaN probes), `first_step`, `last_step` and `reason`.

    `steps` must rise; `begin` is the step of the run's first probe, by default the curve's. With fewer than three
    finite probes every feature is NaN.
    """
    t, f = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    there = np.isfinite(f)
    found: dict[str, float | str] = {"probes": int(there.sum()), "lost": int((~there).sum())}
    start = begin if begin is not None else t[0] if len(t) else None
    t, f = t[there], f[there]
    found |= {
        "first_step": float(t[0]) if len(t) else math.nan,
        "last_step": float(t[-1]) if len(t) else math.nan,
    }
    found |= dict.fromkeys(CURVE_FEATURES, math.nan)
    if len(t) < NEEDED_PROBES:
        return found | {
            "reason": f"all: {counted(len(t), 'probes')} with a value, at least {NEEDED_PROBES} are needed"
        }
    computed, reasons = _computed(CURVE_FEATURES, Curve(t, f, early, start))
    return found | computed | {"reason": "; ".join(reasons)}


def _computed(features: Mapping[str, Feature[Source]], source: Source) -> tuple[dict[str, float], list[str]]:
    """Each feature, NaN where there is none, and the reasons."""
    values, reasons = {}, []
    for name, feature in features.items():
        values[name] = math.nan
        try:
            values[name] = feature.compute(source)
        except NoFeature as why:
            reasons.append(f"{name}: {why}")
    return values, reasons


def depth_centroid(one: BlockCurves) -> float:
    """Σ_b z_b A_b / Σ_b A_b: where in the network the Fisher information lies, 0 at the bottom and 1 at the top.

    A_b is the area under block b's curve over the probes that measured every block, z_b = b / (B − 1). Raw traces of
    all B blocks, frozen ones too.
    """
    if len(one.blocks) < 2:
        raise NoFeature(f"{len(one.blocks)} block, at least 2 are needed")
    whole = np.isfinite(one.trace).all(axis=1)
    if whole.sum() < 2:
        raise NoFeature("fewer than 2 probes measured every block")
    areas = trapezoid(one.trace[whole], one.steps[whole], axis=0)
    if areas.sum() <= 0:
        raise NoFeature("the curves are zero")
    if not np.isfinite(areas.sum()):
        raise NoFeature("the curves are too large to be summed in float64")
    return float(areas @ np.linspace(0, 1, len(areas)) / areas.sum())


def order_agreement(events: Mapping[str, int], blocks: tuple[str, ...]) -> float:
    """Kendall's τ-b between the order in which blocks were thawed and top-down: 1 top-down, −1 bottom-up.

    `events` gives the event at which each block was thawed; `blocks` all of them, bottom to top. Blocks thawed by the
    same event are tied; blocks that were never thawed come last, tied. With all blocks tied there is no order.
    """
    last = max(events.values(), default=0) + 1
    when = [events.get(block, last) for block in blocks]
    if len(set(when)) < 2:
        raise NoFeature("all blocks were thawed at once" if events else "no unfreezing was recorded")
    return float(stats.kendalltau(np.arange(len(blocks))[::-1], when).statistic)


RUN_FEATURES: dict[str, Feature[Blocks]] = {
    wide.name: wide
    for wide in (
        Feature[Blocks](
            "depth_centroid",
            "0 bottom … 1 top",
            "depth centroid",
            3,
            lambda blocks: depth_centroid(blocks.curves),
        ),
        Feature[Blocks](
            "order_agreement",
            "Kendall's τ, 1 = top-down",
            "agreement with top-down (τ)",
            2,
            lambda blocks: order_agreement(blocks.thawed, blocks.curves.layers),
        ),
    )
}


def features(
    runs: Runs,
    *,
    curve: str = "normalised",
    window: float = 0,
    early: float | None = None,
    head: bool = False,
) -> pd.DataFrame:
    """One row per run: `run`, `curve`, `window`, the features of its curve, `depth_centroid`, `order_agreement`.

    `window` smooths the curve before anything is read off it (steps; 0: not at all). `early` is the end of the early
    period in steps; without it, kL as the schedules of these runs say (`early_period`), the same for all runs.
    """
    until = early if early is not None else early_period(runs)
    thawed = {str(run): rows for run, rows in runs.unfreezing.groupby("run", observed=True)}
    rows = []
    for one in block_curves(runs.fisher, runs.unfreezing, head=head):
        smooth = moving_average(one.steps, one.series(curve), window)
        # where no block trains the curve does not exist, which does not mean that a probe was lost
        exists = np.ones(len(one.steps), dtype=bool) if curve == "all" else one.trainable.any(axis=1)
        row = {"run": one.run, "curve": curve, "window": window} | curve_features(
            one.steps[exists], smooth[exists], early=until, begin=float(one.steps[0])
        )
        reasons = [str(row.pop("reason"))]
        values, missing = _computed(RUN_FEATURES, Blocks(one, _events(thawed.get(one.run))))
        rows.append(row | values | {"reason": "; ".join(filter(None, [*reasons, *missing]))})
    names = ["run", "curve", "window", "probes", "lost", "first_step", "last_step"]
    table = pd.DataFrame(rows, columns=[*names, *CURVE_FEATURES, *RUN_FEATURES, "reason"])
    return _without_unequal_areas(table)


def _without_unequal_areas(table: pd.DataFrame) -> pd.DataFrame:
    """`area` grows with the length of a run: NaN, with the reason, in runs clearly shorter than the longest."""
    longest = table["last_step"].max()
    short = (table["last_step"] < (1 - UNEQUAL) * longest) & table["area"].notna()
    why = f"area: the last probe is at step {{:.0f}}, that of the longest run at {longest:.0f}"
    table.loc[short, "reason"] = [
        "; ".join(filter(None, (reason, why.format(last))))
        for reason, last in zip(table.loc[short, "reason"], table.loc[short, "last_step"], strict=True)
    ]
    return table.assign(area=table["area"].mask(short))


def block_features(
    runs: Runs, *, window: float = 0, early: float | None = None, head: bool = True
) -> pd.DataFrame:
    """One row per run and block: `run`, `block`, `depth` (0 bottom … 1 top), the features of its raw trace."""
    until = early if early is not None else early_period(runs)
    rows = []
    for one in block_curves(runs.fisher, runs.unfreezing, head=head):
        layers = [block for block in one.blocks if block != HEAD]
        for k, block in enumerate(one.blocks):
            depth = (
                layers.index(block) / (len(layers) - 1) if block in layers and len(layers) > 1 else math.nan
            )
            smooth = moving_average(one.steps, one.trace[:, k], window)
            found = curve_features(one.steps, smooth, early=until)
            rows.append({"run": one.run, "block": block, "depth": depth, "window": window} | found)
    names = ["run", "block", "depth", "window", "probes", "lost", "first_step", "last_step"]
    return _without_unequal_areas(pd.DataFrame(rows, columns=[*names, *CURVE_FEATURES, "reason"]))


def early_period(runs: Runs) -> float | None:
    """kL: when a schedule that thaws block by block has thawed every block, k · L for interval k and L blocks.

    k is the smallest distance between the unfreezing events of a run, L the number of its blocks without the head;
    the longest kL among the runs, so that all of them (also `standard`, which has no events) are measured over the
    same stretch. None when no run has two events at different steps.
    """
    if runs.unfreezing.empty:
        return None
    layers = runs.fisher[(runs.fisher["block"] != HEAD).to_numpy()]
    counts = layers.groupby("run", observed=True)["block"].nunique()
    periods = []
    for run, rows in runs.unfreezing.groupby("run", observed=True):
        between = np.diff(np.unique(rows["step"].to_numpy()))
        if len(between) and run in counts.index:
            periods.append(float(between.min() * counts[run]))
    return max(periods, default=None)


def _events(rows: pd.DataFrame | None) -> dict[str, int]:
    if rows is None:
        return {}
    return {str(block): int(event) for block, event in zip(rows["block"], rows["event"], strict=True)}
