"""Agreement of two seeds: where two runs that differ in the seed alone predict the same, a language is likely to do
well."""

import json
from itertools import combinations
from pathlib import Path

import pandas as pd

from fishlens.errors import InputError
from fishlens.files import open_regular
from fishlens.journal import Runs


def agreement(runs: Runs) -> pd.DataFrame:
    """One row per pair of runs of one schedule and language: run, other, schedule, language, agreement (points).

    The share of examples of the final test that both predict alike, from `predictions/<language>.jsonl` in the run
    directories; labels are not looked at. Empty where no two runs have them.
    """
    rows = []
    table = runs.runs.astype({"run": str})
    keys = [name for name in ("task", "model", "adapter", "schedule") if name in table]
    for _, alike in table.groupby(keys, dropna=False) if keys else [((), table)]:
        predicted = {row["run"]: _predictions(Path(row["path"])) for _, row in alike.iterrows()}
        schedule = alike["schedule"].iloc[0] if "schedule" in alike else None
        for one, other in combinations(predicted, 2):
            for language in sorted(predicted[one].keys() & predicted[other].keys()):
                a, b = predicted[one][language], predicted[other][language]
                shared = a.keys() & b.keys()
                if shared:
                    same = sum(a[name] == b[name] for name in shared) / len(shared)
                    rows.append([one, other, schedule, language, 100.0 * same])
    return pd.DataFrame(rows, columns=["run", "other", "schedule", "language", "agreement"])


def _predictions(run: Path) -> dict[str, dict[str, str]]:
    """Language → id → what was predicted, as JSON text."""
    found = {}
    for path in sorted((run / "predictions").glob("*.jsonl")):
        try:
            with open_regular(path) as file:
                records = [json.loads(line) for line in file.read().decode().splitlines()]
            found[path.stem] = {str(r["id"]): json.dumps(r["predicted"], ensure_ascii=False) for r in records}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} is not a table of predictions: {error}") from error
    return found
