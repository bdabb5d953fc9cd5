"""The compact MAD-X trainer: recipe, model assembly, tasks, metrics and one visible loop.

Importing this package loads no torch: what a name needs is imported when the name is used.
"""

from importlib import import_module
from typing import Any

# public name -> module that defines it
_PUBLIC = {
    "Recipe": "fishlens.recipe.recipe",
    "RunResult": "fishlens.training.results",
    "load_recipe": "fishlens.recipe.loading",
    "train": "fishlens.training.run",
}

__all__ = ["Recipe", "RunResult", "load_recipe", "train"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fishlens.training' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
