"""What is known of a target language without its labels, beside how well it does: docs/targets.md."""

from .agreement import agreement
from .association import FEATURES, RIVALS, over_languages
from .choice import CRITERIA, choose_schedules, choose_steps
from .course import over_training
from .points import language_points
from .slopes import language_slopes

__all__ = [
    "CRITERIA",
    "FEATURES",
    "RIVALS",
    "agreement",
    "choose_schedules",
    "choose_steps",
    "language_points",
    "language_slopes",
    "over_languages",
    "over_training",
]
