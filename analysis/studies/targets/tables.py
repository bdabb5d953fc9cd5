"""What says, without a target label, how well a language does: the tables of docs/targets.md, from the study's runs.

fishlens sweep analysis/studies/targets/study.yaml
python analysis/studies/targets/tables.py runs/targets            (or a folder of exported runs)
"""

import sys

import pandas as pd
from fishlens.analysis import targets

from fishlens.journal import load_runs

# of the pocket languages, to the source (docs/pocket.md)
DISTANCE = {
    "me": 0.04, "le": 0.13, "ri": 0.20, "ke": 0.29, "fu": 0.36, "ze": 0.41, "ob": 0.50, "xi": 0.64, "wi": 0.75,
    "tu": 0.98,
}  # fmt: skip
GIVEN = ((), ("entropy",), ("entropy", "distance"))


def interval(row: pd.Series, what: str = "estimate", low: str = "low", high: str = "high") -> str:
    if pd.isna(row[what]):
        return "–"
    if pd.isna(row[low]):
        return f"{row[what]:.2f}"
    return f"{row[what]:.2f} [{row[low]:.2f}, {row[high]:.2f}]"


def apart(points: pd.DataFrame) -> str:
    """The correlation of each feature with the score over the languages of a run."""
    found = [targets.over_languages(points, given=given).set_index("feature") for given in GIVEN]
    lines = ["| feature | alone | beyond entropy | beyond entropy and distance |", "|---|---|---|---|"]
    for feature in targets.FEATURES:
        cells = [interval(table.loc[feature]) for table in found]
        for place, given in enumerate(GIVEN):
            if feature in given or (feature == "confidence" and "entropy" in given):
                cells[place] = "–"  # a rival beside itself, or its mirror image
        lines.append(f"| {feature} | {' | '.join(cells)} |")
    return "\n".join(lines)


def course(points: pd.DataFrame) -> str:
    """Rates of change at lags, a run's own."""
    lines = ["| feature | lag −1 | lag 0 | lag +1 (the feature leads) |", "|---|---|---|---|"]
    for feature in ("trace", "overlap", "entropy"):
        found = targets.over_training(points, feature, max_lag=1)
        own = found[found["course"] == "own"].set_index("lag")
        lines.append(f"| {feature} | {' | '.join(interval(own.loc[lag]) for lag in (-1, 0, 1))} |")
    return "\n".join(lines)


def choice(found: pd.DataFrame) -> str:
    """What choosing by each criterion costs."""
    lines = ["| chosen by | points below the best | gained over source validation |", "|---|---|---|"]
    for _, row in found.iterrows():
        lines.append(
            f"| {row['criterion']} | {interval(row)} | {interval(row, 'gain', 'low_gain', 'high_gain')} |"
        )
    return "\n".join(lines)


def main(where: str) -> None:
    runs = load_runs(where)
    points = targets.language_points(runs, DISTANCE)
    counted = points.drop_duplicates("run").groupby("schedule").size().to_dict()
    print(
        f"{counted}, {points['language'].nunique()} languages, steps {sorted(map(int, points['step'].unique()))}\n"
    )
    same = targets.agreement(runs)
    scores = points[points["step"] == points["step"].max()].groupby(["schedule", "language"])["score"].mean()
    pairs = same.groupby(["schedule", "language"])["agreement"].mean() if len(same) else None
    if pairs is not None:
        for schedule in pairs.index.get_level_values(0).unique():
            r = pairs[schedule].corr(scores[schedule], method="spearman")
            print(f"agreement of two seeds and mean score over languages, {schedule}: Spearman {r:.2f}")
    print("", apart(points), "", course(points), "", choice(targets.choose_steps(points)), sep="\n")
    if points["schedule"].nunique() > 1:
        print("", choice(targets.choose_schedules(points)), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
