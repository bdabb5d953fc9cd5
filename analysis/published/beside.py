"""Which published rows may stand beside a run of ours."""

import re

import pandas as pd

from .tables import read

DATASETS = ("xquad", "mlqa", "xcopa", "xnli")
# the table of the paper that is taken where several print the same cell
_PREFERRED = {table: place for place, table in enumerate((1, 14, 16, 17, 18, 12, 7, 2))}
_METHODS = {"random": "rand", "full": "full-fine-tuning"}
_MODELS = {
    "xlm-r": re.compile(r"xlm-?r(oberta)?(-base)?$"),
    "mbert": re.compile(r"(mbert|bert-base-multilingual(-(un)?cased)?)$"),
    "mdeberta": re.compile(r"mdeberta(-v3)?(-base)?$"),
}
_METRICS = {"exact_match": "em"}
_BOTTLENECKS = ("seq_bn", "double_seq_bn", "par_bn", "pfeiffer", "houlsby", "mad-x")


def dataset_of(*names: object) -> str | None:
    """The published data set that one of our names (task, data set, recipe) means, or None."""
    words = {
        word for name in names if isinstance(name, str) for word in re.split(r"[^a-z0-9]+", name.lower())
    }
    found = [dataset for dataset in DATASETS if dataset in words]
    return found[0] if len(found) == 1 else None


def languages_of(dataset: str) -> list[str]:
    """Codes of the languages that the paper tests a data set in."""
    cells = read("results_per_language")
    return sorted(cells.loc[cells["dataset"] == dataset, "language"].unique())


def method_of(schedule: str) -> str:
    """The paper's name of one of our schedules."""
    return _METHODS.get(schedule, schedule)


def model_of(name: object) -> str | None:
    """The paper's name of a model called by hub id or folder, or None where the paper did not use it."""
    last = str(name).rstrip("/").rsplit("/", 1)[-1].lower()
    return next((model for model, pattern in _MODELS.items() if pattern.fullmatch(last)), None)


def adapter_of(name: object) -> str | None:
    """`mad-x` for bottleneck adapters, `lora`, `none` for full fine-tuning; None where unknown."""
    text = str(name).lower()
    if text.startswith("lora"):
        return "lora"
    if text in ("none", "full"):
        return "none"
    return "mad-x" if text.startswith(_BOTTLENECKS) else None


def published_beside(dataset: str, metric: str, languages: list[str]) -> pd.DataFrame:
    """All published averages of a data set and (our name of a) metric, one row per model, adapter and method.

    Columns: those of `results_average` as printed, `shared`: the mean over those of `languages` that the paper
    prints for that row, and `shared_languages`: which they are (comma-separated). NaN and "" where the
    paper has no cells per language.
    """
    metric = _METRICS.get(metric, metric)
    average = read("results_average")
    average = average[(average["dataset"] == dataset) & (average["metric"] == metric)]
    average = average.assign(place=average["table"].map(_PREFERRED)).sort_values("place", kind="stable")
    average = average.drop_duplicates(["model", "adapter", "method"]).drop(columns="place")
    cells = read("results_per_language")
    cells = cells[
        (cells["dataset"] == dataset) & (cells["metric"] == metric) & cells["language"].isin(languages)
    ]
    cells = cells[cells["language"] != "en"]
    key = ["model", "adapter", "method"]
    shared = cells.groupby(key)["value"].mean().rename("shared")
    names = cells.groupby(key)["language"].agg(lambda some: ",".join(sorted(some))).rename("shared_languages")
    joined = average.merge(shared.reset_index(), on=key, how="left").merge(
        names.reset_index(), on=key, how="left"
    )
    return joined.assign(shared_languages=joined["shared_languages"].fillna(""))
