"""fishlens: the Fisher information of every block of a model while adapters train.

`import fishlens` loads neither torch nor pandas: a public name is imported when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> module that defines it
_PUBLIC = {
    "Block": "fishlens.fisher",
    "BlockDidNotMove": "fishlens.tracking.thaw",
    "FisherCallback": "fishlens.tracking",
    "FisherEstimate": "fishlens.fisher",
    "InputError": "fishlens.errors",
    "Recipe": "fishlens.recipe",
    "RunResult": "fishlens.training",
    "Runs": "fishlens.journal",
    "Tracker": "fishlens.tracking",
    "UnfreezeCallback": "fishlens.tracking",
    "coverage": "fishlens.fisher",
    "estimate_fisher": "fishlens.fisher",
    "find_blocks": "fishlens.fisher",
    "load_recipe": "fishlens.recipe",
    "load_runs": "fishlens.journal",
    "make_schedule": "fishlens.schedules",
    "merge": "fishlens.fisher",
    "self_check": "fishlens.fisher",
    "train": "fishlens.training",
    "watching": "fishlens.tracking",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fishlens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
