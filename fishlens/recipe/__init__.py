"""Recipes: what a run is made of, read from YAML, checked, and written back as it was resolved. No torch here."""

from importlib import import_module
from typing import Any

# public name -> module that defines it
_PUBLIC = {
    "Recipe": "recipe",
    "bundled_recipes": "loading",
    "load_recipe": "loading",
    "recipe_text": "loading",
    "resolve_path": "paths",
}

__all__ = ["Recipe", "bundled_recipes", "load_recipe", "recipe_text", "resolve_path"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fishlens.recipe' has no attribute {name!r}")
    return getattr(import_module(f"fishlens.recipe.{_PUBLIC[name]}"), name)
