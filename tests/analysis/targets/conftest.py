"""Runs whose languages are known: twelve seeds, two schedules, six steps, eight languages."""

import numpy as np
import pandas as pd
import pytest

LANGUAGES = list("abcdefgh")


@pytest.fixture
def make_points():
    """(seeds, schedules) -> points in which `trace` tells the score within a step, and every other feature is noise"""

    def make(seeds=12, schedules=("standard", "gu"), steps=(0, 10, 20, 30, 40, 50), slope=1.0, random_seed=0):
        random = np.random.default_rng(random_seed)
        distance = {language: place / len(LANGUAGES) for place, language in enumerate(LANGUAGES)}
        rows = []
        for seed in range(seeds):
            for schedule in schedules:
                for step in steps:
                    source = random.normal()
                    for language in LANGUAGES:
                        trace = random.normal()
                        rows.append(
                            {
                                "run": f"{schedule}-{seed}", "seed": seed, "schedule": schedule, "step": step,
                                "language": language, "trace": trace, "distance": distance[language],
                                "entropy": random.normal(), "source": source,
                                "score": slope * trace - 3 * distance[language] + step / 10 + 0.3 * random.normal(),
                            }
                        )  # fmt: skip
        points = pd.DataFrame(rows)
        for name in (
            "ratio",
            "overlap",
            "rank_overlap",
            "drift",
            "cka",
            "confidence",
            "atc",
            "critical_sharpness",
        ):
            points[name] = random.normal(size=len(points))
        return points

    return make
