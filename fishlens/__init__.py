"""fishlens: the Fisher information of every block of a model while adapters train.

`import fishlens` loads neither torch nor pandas: a public name is imported when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# public name -> module that defines it
_PUBLIC = {
    "Block": "fishlens.fisher",
    "FisherCallback": "fishlens.tracking",
    "FisherEstimate": "fishlens.fisher",
    "InputError": "fishlens.errors",
    "Tracker": "fishlens.tracking",
    "UnfreezeCallback": "fishlens.tracking",
    "watching": "fishlens.tracking",
    "load_recipe": "fishlens.recipe.loading",
    "make_schedule": "fishlens.schedules",
    "train": "fishlens.training.run",
    "load_runs": "fishlens.journal",
    "estimate_fisher": "fishlens.fisher",
    "find_blocks": "fishlens.fisher",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fishlens' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
