"""fishlens.analysis: from Fisher curves to statements about transfer. Reads journals; never imports torch.

    from fishlens import load_runs
    from fishlens.analysis import build_report, correlate, features

A public name is imported when it is first used.
"""

from importlib import import_module
from typing import Any

# public name -> module that defines it
_PUBLIC = {
    "curves": "series",
    "block_features": "dynamics",
    "early_period": "dynamics",
    "features": "dynamics",
    "language_scores": "outcomes",
    "run_baselines": "outcomes",
    "run_outcomes": "outcomes",
    "collapsed_runs": "collapse",
    "collapse_shares": "collapse",
    "select_runs": "selection",
    "correlate": "correlation.table",
    "lead_lag": "correlation.leadlag",
    "predict": "correlation.prediction",
    "repeated_measures": "correlation.repeated",
    "mixed_model": "models",
    "clustered_regression": "regression",
    "compare": "paired",
    "compare_over": "paired",
    "equivalence": "paired",
    "paired_difference": "paired",
    "scored_runs": "paired",
    "table_one": "paired",
    "low_data_curve": "effects",
    "paired_d": "effects",
    "performance_profile": "effects",
    "interquartile_mean": "effects",
    "probability_of_improvement": "effects",
    "scores_by_task": "effects",
    "language_distances": "covariates",
    "read_covariates": "covariates",
    "token_overlap": "covariates",
    "tokens_per_word": "covariates",
    "runs_needed": "power",
    "seeds_needed": "power",
    "Estimate": "results",
    "NotEnough": "results",
    "Study": "report.study",
    "build_report": "report",
    "Outcome": "own",
    "own_features": "own",
    "to_csv": "report",
    "to_html": "report",
    "to_latex": "report",
    "to_markdown": "report",
}
_PARTS = ("figures", "published", "targets")  # used as modules: figures.forest(…)

__all__ = [*_PUBLIC, *_PARTS]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
