"""Features of languages in a mixed model of the score, beside the source's score and the distance."""

from collections.abc import Sequence

import pandas as pd

from ..models import MixedModel, mixed_model
from ..results import NotEnough


def language_slopes(
    points: pd.DataFrame,
    predictors: Sequence[str],
    *,
    first_step: int = 1,
    random: Sequence[str] = ("language", "run"),
) -> MixedModel | NotEnough:
    """score = β₀ + Σ β_j predictor_j + u_language + w_run + ε over the languages of runs, each the mean over its steps.

    Steps of one run and language follow each other and are not independent evidence: so they are averaged. `random`:
    add "schedule" and "seed" where there are three or more of each. See `fishlens.analysis.models.mixed_model`.
    """
    later = points[points["step"] >= first_step]
    keys = list(dict.fromkeys(["run", "language", *random]))
    table = later.groupby(keys, observed=True)[["score", *predictors]].mean().reset_index()
    return mixed_model(table, predictors, "score", random=random)
