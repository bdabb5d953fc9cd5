"""Writes every table of the page, README.md, from the exported runs: python analysis/studies/real/tables.py

A table stands between `<!-- name -->` and `<!-- /name -->`; what is there is replaced.
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
import hypotheses as h  # type: ignore[import-not-found]
from confirmatory import FOLDERS, HERE, Task, read  # type: ignore[import-not-found]

ORDER = ["standard", "gu", "fun", "random", "lpft", "gu-reverse"]
NAMES = {
    "trace": "tr(F)", "overlap": "overlap with the source", "rank_overlap": "overlap by ranks", "drift": "drift",
    "entropy": "entropy", "confidence": "confidence", "atc": "average thresholded confidence",
    "distance": "syntactic distance", "log_trace": "log tr(F)", "source": "source score", "score": "source score",
    "peak_step": "step of the peak", "early_area": "early area", "depth_centroid": "depth centroid",
}  # fmt: skip


def interval(row: Any, what: str = "estimate", low: str = "low", high: str = "high", digits: int = 2) -> str:
    if pd.isna(row[what]):
        return "–"
    text = f"{row[what]:.{digits}f}"
    if not pd.isna(row[low]):
        text += f" [{row[low]:.{digits}f}, {row[high]:.{digits}f}]"
    return text.replace("-", "−")


def p_value(p: float) -> str:
    return "–" if pd.isna(p) else "< .001" if p < 0.001 else f"{p:.3f}".lstrip("0") if p < 1 else "1"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def seeds(task: Task) -> str:
    wide = task.table.pivot(index="seed", columns="schedule", values="average")
    source = task.table.pivot(index="seed", columns="schedule", values="source")
    gone = task.table.pivot(index="seed", columns="schedule", values="diverged")
    names = [name for name in ORDER if name in wide]
    rows = []
    for seed in wide.index:
        cells = []
        for name in names:
            score = wide.loc[seed, name]
            text = f"{score:.1f} ({source.loc[seed, name]:.1f})"
            cells.append("–" if pd.isna(score) else f"*{text}*" if gone.loc[seed, name] else text)
        rows.append([str(seed), *cells])
    return markdown(["seed", *names], rows)


def schedules(task: Task) -> str:
    found = h.schedules(task).set_index("schedule")
    rows = []
    for name in (name for name in ORDER if name in found.index):
        row = found.loc[name]
        spread = "" if math.isnan(row["sd"]) else f" ± {row['sd']:.1f}"
        cells = [name, str(int(row["runs"])), f"{row['mean']:.1f}{spread}"]
        if name == "standard":
            rows.append([*cells, "", "", "", "", ""])
            continue
        smallest = "more than three sd" if math.isnan(row["detectable"]) else f"{row['detectable']:.1f}"
        adjusted = interval(row, "adjusted", "adjusted_low", "adjusted_high")
        difference = interval(row)
        rows.append([*cells, difference, adjusted, p_value(row["p"]), p_value(row["p_holm"]), smallest])
    head = [
        "schedule",
        "runs",
        "average",
        "difference",
        "at equal source score",
        "p",
        "Holm",
        "could be seen",
    ]
    return markdown(head, rows)


def over_tasks(*tasks: Task) -> str:
    found = h.over_tasks(tasks).set_index("schedule")
    rows = [
        [
            name,
            str(found.loc[name, "n"]),
            interval(found.loc[name]),
            *map(p_value, found.loc[name, ["p", "p_holm"]]),
        ]
        for name in ORDER
        if name in found.index
    ]
    return markdown(["schedule", "seeds that both tasks have", "difference", "p", "Holm"], rows)


def shares(task: Task) -> str:
    found = h.shares(task).set_index("schedule")
    rows = []
    for name in (name for name in ORDER if name in found.index):
        row = found.loc[name]
        runs, gone, lost = (int(row[what]) for what in ("runs", "diverged", "collapsed"))
        ends = [100 * row[what] for what in ("diverged_low", "diverged_high", "low", "high")]
        cells = [
            f"{gone} of {runs} [{ends[0]:.0f}, {ends[1]:.0f} %]",
            f"{lost} of {runs - gone} [{ends[2]:.0f}, {ends[3]:.0f} %]",
        ]
        rows.append([name, *cells])
    return markdown(["schedule", "diverged on the source", "of the others, lost the targets"], rows)


def curve(task: Task) -> str:
    rows = [
        [
            NAMES.get(row["feature"], row["feature"]),
            str(row["n"]),
            interval(row) if row["needed"] == 0 else f"not enough: {row['note'].split(' (')[0]}",
            p_value(row["p"]),
            p_value(row["p_max"]),
        ]
        for _, row in h.curve_features(task).iterrows()
    ]
    return markdown(["feature of the curve", "runs", "ρ within schedules", "p", "p, max-T"], rows)


def held_out(task: Task) -> str:
    rows = []
    for _, row in h.held_out(task).iterrows():
        score = "–" if pd.isna(row["estimate"]) else f"{row['estimate']:.2f}".replace("-", "−")
        gain = (
            "–"
            if pd.isna(row["gain"])
            else f"{row['gain']:.2f} (p {p_value(row['gain_p'])})".replace("-", "−")
        )
        rows.append(
            [row["model"], row["predictors"].replace("_", " "), str(row["n"]), score, p_value(row["p"]), gain]
        )
    return markdown(["model", "predictors", "runs", "held-out R²", "p", "gain"], rows)


def languages(task: Task) -> str:
    found = [h.languages(task, given).set_index("feature") for given in ((), ("entropy", "distance"))]
    names = ["trace", "overlap", "rank_overlap", "drift", "entropy", "atc", "distance"]
    rows = []
    for name in names:
        beyond = "–" if name in ("entropy", "distance") else interval(found[1].loc[name])
        row = found[0].loc[name]
        rows.append([NAMES[name], interval(row), p_value(row["p"]), beyond])
    return markdown(["of the language", "ρ with its score", "p", "beyond entropy and distance"], rows)


def slopes(task: Task) -> str:
    table = h.slopes(task).fixed
    rows = [
        [NAMES.get(row["term"], row["term"]), interval(row), p_value(row["p"])]
        for _, row in table[table["term"] != "intercept"].iterrows()
    ]
    return markdown(["predictor", "points a standard deviation", "p"], rows)


def regrets(found: Callable[[Task], pd.DataFrame]) -> Callable[[Task], str]:
    def table(task: Task) -> str:
        rows = [
            [row["criterion"], interval(row), interval(row, "gain", "low_gain", "high_gain")]
            for _, row in found(task).iterrows()
            if not pd.isna(row["estimate"])
        ]
        return markdown(["chosen by", "points below the best", "gained over source validation"], rows)

    return table


def leads(task: Task) -> str:
    named = {
        "rise": "steepest rise of tr(F) (the plan's)", "passed": "log tr(F) past its middle",
        "passed_gradient": "log gradient norm past its middle", "passed_loss": "training loss past its middle",
    }  # fmt: skip
    rows = [
        [
            named[row["date"]],
            interval(row, digits=0),
            p_value(row["p"]),
            f"{row['earlier']} / {row['same']} / {row['later']}",
        ]
        for _, row in h.leads(task).iterrows()
    ]
    head = ["date", "updates before the take-off", "p", "runs earlier / same step / later"]
    return markdown(head, rows)


def foretold(task: Task) -> str:
    found = h.foretold(task, (20, 40, 60, 80))
    rows = []
    for step, own in found.groupby("step"):
        of = own.set_index("feature")
        cells = [
            text for name in h.FORETELLERS for text in (interval(of.loc[name]), p_value(of.loc[name]["p"]))
        ]
        rows.append([str(step), str(of["waiting"].iloc[0]), *cells])
    return markdown(
        ["update", "runs that wait", "tr(F)", "p", "gradient norm", "p", "source score", "p"], rows
    )


def mediated(task: Task) -> str:
    rows = []
    for name in ("gu", "fun"):
        row = h.mediated(task, name)
        later = f"{row['later']:.0f} updates"
        held = interval(row, "held", "held_low", "held_high")
        change = interval(row, "change", "change_low", "change_high")
        rows.append(
            [name, str(row["pairs"]), f"{row['difference']:.2f}".replace("-", "−"), later, held, change]
        )
    head = ["schedule", "pairs", "difference", "takes off later by", "difference at equal dates", "change"]
    return markdown(head, rows)


def paper(task: Task) -> str:
    """The paper's Table 1 beside ours: source, lowest and average of the languages that both have."""
    from fishlens.analysis.published.beside import published_beside

    ours = task.runs.evaluation.astype({"run": str, "language": str})
    ours = ours[(ours["split"] == "test") & ours["headline"].astype(bool)]
    kept = ours.merge(task.kept[["run", "schedule"]], on="run")
    means = kept.groupby(["schedule", "language"])["value"].mean().unstack()
    theirs = published_beside("xnli", "accuracy", [*means.columns.drop("en")])
    theirs = theirs[theirs["adapter"] == "mad-x"].set_index(["model", "method"])
    rows = []
    for name, method in {"standard": "standard", "random": "rand", "gu": "gu", "fun": "fun"}.items():
        own = means.loc[name]
        row = [name, f"{own['en']:.1f} / {own.drop('en').min():.1f} / {own.drop('en').mean():.1f}"]
        for model in ("mbert", "xlm-r"):
            one = theirs.loc[(model, method)]
            row.append(f"{one['english']:.1f} / {one['lowest']:.1f} / {one['shared']:.1f}")
        rows.append(row)
    return markdown(
        ["en / lowest / average of the seven", "me5-mlm, ours", "mBERT, paper", "XLM-R, paper"], rows
    )


def warm_up(task: Task, control: Task, source: Task) -> str:
    """The seed that never learnt: as it ran, and the control's runs; these through the source's adapter, too."""
    before = task.table[
        (task.table["schedule"] == "standard") & task.table["seed"].isin(control.table["seed"])
    ]
    through = source.table.set_index("run")["average"]
    rows = []
    for where, of, runs in (("bfloat16, GPU", task, before), ("float32, CPU", control, control.table)):
        updates = of.runs.runs.astype({"run": str}).set_index("run")["train.warmup"]
        for _, run in runs.iterrows():
            take_off = "never" if pd.isna(run["take_off"]) else f"{run['take_off']:.0f}"
            score = f"{run['average']:.1f} ({run['source']:.1f})"
            other = f"{through[run['run']]:.1f}" if of is control else "–"
            rows.append([where, f"{updates[run['run']]:.0f}", score, run["state"], take_off, other])
    head = ["`standard`, seed 21", "updates of warm-up", "average (English)", "state", "takes off at update"]
    return markdown([*head, "average, all tested through the English adapter"], rows)


def adapters(task: Task, source: Task, none: Task) -> str:
    """Averages over the targets through their own language adapters, the source's, and none in training or test."""
    ways = [h.beside(task, control).set_index("schedule") for control in (source, none)]
    rows = []
    for name in (name for name in [*ORDER, "all"] if name in ways[0].index):
        cells = [name, str(int(ways[0].loc[name, "runs"])), f"{ways[0].loc[name, 'task']:.1f}"]
        for way in ways:
            if name not in way.index:
                cells += ["–", "–"]
                continue
            same_runs = way.loc[name, "runs"] == ways[0].loc[name, "runs"]
            cells += [f"{way.loc[name, 'control']:.1f}" if same_runs else "–", interval(way.loc[name])]
        rows.append(cells)
    head = ["schedule", "runs", "targets' own adapters", "the source's at test time", "difference"]
    return markdown([*head, "no language adapters", "difference"], rows)


TABLES: dict[str, tuple[str, Callable[..., str]]] = {  # the tasks it is made of, and how
    "nli seeds": ("nli", seeds),
    "nli schedules": ("nli", schedules),
    "nli shares": ("nli", shares),
    "nli curve": ("nli", curve),
    "nli held out": ("nli", held_out),
    "nli languages": ("nli", languages),
    "nli slopes": ("nli", slopes),
    "nli checkpoints": ("nli", regrets(h.checkpoints)),
    "nli choices": ("nli", regrets(h.choices)),
    "nli leads": ("nli", leads),
    "nli foretold": ("nli", foretold),
    "nli mediated": ("nli", mediated),
    "nli paper": ("nli", paper),
    "nli warm-up": ("nli warm-up source-adapter-nli", warm_up),
    "topic seeds": ("topic", seeds),
    "topic schedules": ("topic", schedules),
    "tasks schedules": ("nli topic", over_tasks),
    "topic shares": ("topic", shares),
    "topic curve": ("topic", curve),
    "topic held out": ("topic", held_out),
    "topic leads": ("topic", leads),
    "topic mediated": ("topic", mediated),
    "topic slopes": ("topic", slopes),
    "topic adapters": ("topic source-adapter topic-controls", adapters),
}


def replaced(page: str, name: str, table: str) -> str:
    """The page with the table in its place. Raises `LookupError` if it has none."""
    before, found, rest = page.partition(f"<!-- {name} -->\n")
    _, there, after = rest.partition(f"<!-- /{name} -->")
    if not (found and there):
        raise LookupError(f"the page has no place for the table {name!r}")
    return f"{before}{found}{table}\n{there}{after}"


def main() -> None:
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    tasks = {name: read(name) for name in FOLDERS}
    for name, (made_of, table) in TABLES.items():
        text = replaced(text, name, table(*(tasks[task] for task in made_of.split())))
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
