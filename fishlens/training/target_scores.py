"""Scores of the target languages over training: what the curves of a run are held against. They choose nothing."""

from collections.abc import Collection

from fishlens.recipe.recipe import Recipe
from fishlens.training.assembly import Assembly
from fishlens.training.evaluation import Prepared
from fishlens.training.tasks import Task, subset

OVER_TRAINING = "targets"
"""The split that such scores are written under; the final ones, of the best step's weights, are of `test`."""


def scored_targets(recipe: Recipe) -> list[str]:
    """The languages that are scored over training: data.targets, if the recipe asks for it."""
    return list(dict.fromkeys(recipe.data.targets)) if recipe.evaluate.targets is not None else []


def prepare_target(recipe: Recipe, task: Task, assembly: Assembly, language: str) -> Prepared:
    """A seeded subset of the language's test split: the same rows in all languages whose files are parallel."""
    assert recipe.evaluate.targets is not None
    whole, wanted = (
        task.load(recipe.data.folder, "test", language),
        recipe.evaluate.targets.examples,
    )
    split = whole if wanted is None or wanted >= len(whole) else subset(whole, wanted, recipe.seed)
    rows = task.encode(split, assembly.tokenizer, max_length=recipe.train.max_length, train=False)
    return Prepared(split, rows)


def remarks_on_scores(recipe: Recipe, targets: Collection[str]) -> list[str]:
    """What the run says of these scores in its journal."""
    if recipe.evaluate.targets is None:
        return []
    return [
        f"the targets {', '.join(targets)} are scored every {recipe.evaluate.targets.every} steps: these scores choose "
        "nothing, neither the best step nor what is unfrozen"
    ]
