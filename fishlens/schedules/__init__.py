"""Which block to unfreeze when: Algorithm 1 as small pure objects, with no model and no torch in sight."""

from fishlens.schedules.base import RELATIVE_GRADIENT, TRACE, Schedule, budget_warning
from fishlens.schedules.registry import SCHEDULES, make_schedule, schedule_class
from fishlens.schedules.scores import Scores
from fishlens.schedules.state import Event, State
from fishlens.schedules.stepwise import Stepwise

__all__ = [
    "RELATIVE_GRADIENT",
    "SCHEDULES",
    "TRACE",
    "Event",
    "Schedule",
    "Scores",
    "State",
    "Stepwise",
    "budget_warning",
    "make_schedule",
    "schedule_class",
]
