"""Draws the figures of the page into figures/: python analysis/studies/real/figures.py"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from confirmatory import HERE, Task, read  # type: ignore[import-not-found]
from fishlens.analysis.inference.clusters import codes_of
from fishlens.analysis.inference.layout import layout

WIDTH = 6.8
COLOURS = {
    "standard": "#4a4a4a", "gu": "#1f77b4", "fun": "#d95f02", "random": "#7a9e3b", "lpft": "#8c6bb1",
    "gu-reverse": "#b2182b",
}  # fmt: skip
LOOK = {"font.size": 7, "axes.spines.top": False, "axes.spines.right": False}


def take_offs(task: Task) -> plt.Figure:
    """Left: tr(F) of standard training by seed, coloured by the date of its take-off. Right: that date against tr(F) at
    update 80."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 2.6), layout="constrained")
    own = task.table[task.table["schedule"] == "standard"].sort_values("take_off")
    colours = plt.get_cmap("viridis")(np.linspace(0, 0.9, len(own)))
    for colour, (_, run) in zip(colours, own.iterrows(), strict=True):
        curve = task.curves[run["run"]]
        left.plot(curve.index, curve, color="#b2182b" if run["diverged"] else colour, lw=1)
        if not run["diverged"]:
            left.plot(run["take_off"], curve[run["take_off"]], "o", color=colour, ms=3.5)
    left.set(yscale="log", xlim=(0, 400), xlabel="updates", ylabel="tr(F), blocks without the head")
    left.set_title("standard, 12 seeds; a dot: the source takes off", fontsize=7, loc="left")
    kept = task.kept
    for name, colour in COLOURS.items():
        mine = kept[(kept["schedule"] == name) & (kept["take_off"] > 80)]
        if len(mine):
            right.plot(
                task.curves.loc[80, mine["run"]], mine["take_off"], "o", color=colour, ms=3.5, label=name
            )
    right.set(xscale="log", xlabel="tr(F) at update 80", ylabel="update of the take-off")
    right.set_title("runs still at chance at update 80", fontsize=7, loc="left")
    right.legend(fontsize=6, frameon=False)
    return figure


def paired(task: Task) -> plt.Figure:
    """Every seed's difference to standard, with the mean and its 95 % interval."""
    import hypotheses  # type: ignore[import-not-found]

    found = hypotheses.schedules(task).set_index("schedule")
    wide = task.kept.pivot(index="seed", columns="schedule", values="average")
    names = [name for name in COLOURS if name in wide and name != "standard"]
    figure, axes = plt.subplots(figsize=(WIDTH / 2, 2.4), layout="constrained")
    for place, name in enumerate(names):
        differences = (wide[name] - wide["standard"]).dropna()
        beside = place + np.linspace(-0.15, 0.15, len(differences))
        axes.plot(beside, differences, "o", color=COLOURS[name], ms=3, alpha=0.6)
        mean, low, high = found.loc[name, ["estimate", "low", "high"]]
        axes.errorbar(place, mean, [[mean - low], [high - mean]], fmt="_", color="#1b1c1d", ms=12, lw=1.2)
    axes.axhline(0, color="#999999", lw=0.6)
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel("points above standard,\naverage over targets")
    return figure


def final_level(*tasks: Task) -> plt.Figure:
    """What a run's last tr(F) and its score in the targets differ by from its schedule's and its seed's."""
    figure, axes = plt.subplots(1, len(tasks), figsize=(WIDTH, 2.5), layout="constrained")
    for place, (task, one) in enumerate(zip(tasks, axes, strict=True)):
        kept = task.kept.dropna(subset=["final", "average"])
        factors = [codes_of(kept[name].to_numpy(), len(kept)) for name in ("schedule", "seed")]
        final, score = layout(factors).residual(kept[["final", "average"]].to_numpy(dtype=float).T)
        for name, colour in COLOURS.items():
            mine = (kept["schedule"] == name).to_numpy()
            one.plot(final[mine], score[mine], "o", color=colour, ms=3.5, label=name)
        one.axhline(0, color="#dddddd", lw=0.6, zorder=0)
        one.axvline(0, color="#dddddd", lw=0.6, zorder=0)
        one.set(
            xlabel="last tr(F), less schedule and seed",
            ylabel="" if place else "targets, less schedule and seed",
        )
        one.set_title(f"{task.name}: {len(kept)} runs", fontsize=7, loc="left")
    axes[-1].legend(fontsize=6, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., plt.Figure]]] = {
    "take-offs": (("nli",), take_offs),
    "paired": (("nli",), paired),
    "final": (("nli", "topic"), final_level),
}


def main() -> None:
    tasks = {name: read(name) for name in ("nli", "topic")}
    for name, (made_of, draw) in FIGURES.items():
        with plt.rc_context(LOOK):
            figure = draw(*(tasks[task] for task in made_of))
        figure.savefig(HERE / "figures" / f"{name}.png", dpi=160)
        plt.close(figure)


if __name__ == "__main__":
    main()
