"""A feature of the curve and an outcome of one's own, as plain functions, beside those that there are.

def median(curve):                # a feature: curve.steps, curve.values
    return float(np.median(curve.values))

def gap(scores, source):          # an outcome: {language: points} of one run, and its source language
    return scores[source] - np.mean([value for language, value in scores.items() if language != source])
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fishlens.errors import InputError
from fishlens.journal import Runs
from fishlens.own_code import said

from .dynamics import CURVE_FEATURES, RUN_FEATURES, Curve, Feature, NoFeature
from .outcomes import BASELINES, OUTCOMES, language_scores

COLUMNS = (
    "run",
    "schedule",
    "seed",
    "group",
    "language",
    "value",
    "reason",
    "curve",
    "window",
    "probes",
    "lost",
)


@dataclass(frozen=True)
class Outcome:
    """What a report asks the curve about: one number a run.

    label: on the page. words: in a sentence. compute: of the run's points by language and its source language; None for
    a column that `run_outcomes` has.
    """

    name: str
    label: str
    words: str
    compute: Callable[[Mapping[str, float], str | None], float] | None = None

    @property
    def noun(self) -> str:
        """What a sentence calls it."""
        return {"source": "source score", "lowest": "lowest score"}.get(
            self.name, self.name.replace("_", " ")
        )

    @property
    def subject(self) -> str:
        """What features are said to go with."""
        return "average transfer" if self.name == "average" else self.noun

    def direction(self, *, up: bool) -> str:
        """… goes with …"""
        if self.name == "average":
            return f"{'more' if up else 'less'} transfer"
        return f"a {'higher' if up else 'lower'} {self.noun}"


AVERAGE = Outcome(
    "average", "average without source", "the average over the target languages, without the source"
)
RUN_OUTCOMES = {
    "average": AVERAGE,
    "lowest": Outcome(
        "lowest", "each run's own lowest", "each run's score in its own lowest target language"
    ),
    "source": Outcome("source", "source", "the score in the source language"),
}


def outcome_of(given: Any) -> Outcome:
    """An `Outcome`, one of `OUTCOMES` by name, or a function that is one: its name is the outcome's."""
    if isinstance(given, Outcome):
        return given
    if isinstance(given, str) and given in RUN_OUTCOMES:
        return RUN_OUTCOMES[given]
    if not callable(given):
        raise InputError(
            f"outcome is {given!r}; expected one of {', '.join(RUN_OUTCOMES)}, or a function of scores and "
            "source (on the command line module:function)"
        )
    name = _name(given, "an outcome")
    return Outcome(name, name.replace("_", " "), f"{name.replace('_', ' ')}, an outcome of one's own", given)


def with_outcome(scored: pd.DataFrame, runs: Runs, outcome: Outcome, metric: str | None) -> pd.DataFrame:
    """`scored` (one row a run, as `run_outcomes` has them) with the column `outcome.name`.

    A run without an average has none either: its languages are not those of the others. Raises `InputError` where the
    user's function fails, or returns something that is not a number.
    """
    if outcome.compute is None:
        return scored
    of_run = {
        str(run): dict(zip(rows["language"].astype(str), rows["value"].astype(float), strict=True))
        for run, rows in language_scores(runs, metric=metric).groupby("run")
    }
    factors = runs.runs.astype({"run": str}).set_index("run")
    sources = factors["source"] if "source" in factors else pd.Series(dtype=object)
    values = [
        _value(
            outcome.compute,
            f"the outcome {outcome.name!r} of the run {run}",
            of_run[run],
            _text(sources.get(run)),
        )
        if average == average
        else math.nan
        for run, average in zip(scored["run"].astype(str), scored["average"], strict=True)
    ]
    return scored.assign(**{outcome.name: values})


def feature_of(given: Any) -> Feature[Curve]:
    """A `Feature`, or a function of a `Curve` made into one: its name is the feature's."""
    if isinstance(given, Feature):
        _name(given, "a feature")
        name, compute = given.name, given.compute
    elif callable(given):
        name, compute = _name(given, "a feature"), given
    else:
        raise InputError(f"a feature is {given!r}; expected a function of a curve, or a Feature")

    def computed(curve: Curve) -> float:
        value = _value(compute, f"the feature {name!r} of a curve of {len(curve.steps)} probes", curve)
        if math.isnan(value):
            raise NoFeature("not a number")
        return value

    if isinstance(given, Feature):
        return Feature(name, given.unit, given.label, given.digits, computed)
    return Feature(name, "own unit", name.replace("_", " "), 3, computed)


@contextmanager
def own_features(given: Sequence[Any]) -> Iterator[None]:
    """Within it the tables, the statistics and the report know these features too."""
    added: list[str] = []
    try:
        for one in given:
            feature = feature_of(one)
            CURVE_FEATURES[feature.name] = feature
            added.append(feature.name)
        yield
    finally:
        for name in added:
            del CURVE_FEATURES[name]


def _name(given: Any, what: str) -> str:
    name = str(getattr(given, "name", None) or getattr(given, "__name__", ""))
    if not name.isidentifier():
        raise InputError(f"{what} is called {name!r}; expected a name of letters, digits and _")
    if name in {*COLUMNS, *OUTCOMES, *BASELINES, *CURVE_FEATURES, *RUN_FEATURES}:
        raise InputError(f"{what} is called {name!r}, which the report has already; expected another name")
    return name


def _value(compute: Callable[..., Any], what: str, *arguments: Any) -> float:
    try:
        return float(compute(*arguments))
    except NoFeature:
        raise
    except Exception as error:  # a user's function may raise whatever it likes
        raise InputError(f"{what} could not be computed: {said(error)}") from error


def _text(value: Any) -> str | None:
    return None if value is None or value != value else str(value)
