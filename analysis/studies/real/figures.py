"""Draws the figures of the page into figures/: python analysis/studies/real/figures.py"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from confirmatory import HERE, Task, read  # type: ignore[import-not-found]

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


def paired(*tasks: Task) -> plt.Figure:
    """Every seed's difference to standard, with the mean and its 95 % interval; a panel a task."""
    import hypotheses  # type: ignore[import-not-found]

    figure, panels = plt.subplots(1, len(tasks), figsize=(WIDTH, 2.4), layout="constrained")
    for task, axes in zip(tasks, panels, strict=True):
        found = hypotheses.schedules(task).set_index("schedule")
        wide = task.kept.pivot(index="seed", columns="schedule", values="average")
        names = [name for name in COLOURS if name in wide and name != "standard"]
        for place, name in enumerate(names):
            differences = (wide[name] - wide["standard"]).dropna()
            beside = place + np.linspace(-0.15, 0.15, len(differences))
            axes.plot(beside, differences, "o", color=COLOURS[name], ms=3, alpha=0.6)
            mean, low, high = found.loc[name, ["estimate", "low", "high"]]
            if np.isfinite([mean, low, high]).all():
                ends = [[mean - low], [high - mean]]
                axes.errorbar(place, mean, ends, fmt="_", color="#1b1c1d", ms=12, lw=1.2)
        axes.axhline(0, color="#999999", lw=0.6)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(f"{task.name}, {len(wide)} seeds of standard", fontsize=7, loc="left")
    panels[0].set_ylabel("points above standard,\naverage over targets")
    return figure


FIGURES: dict[str, tuple[tuple[str, ...], Callable[..., plt.Figure]]] = {
    "take-offs": (("nli",), take_offs),
    "paired": (("nli", "topic"), paired),
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
