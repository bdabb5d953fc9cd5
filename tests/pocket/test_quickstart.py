"""The quickstart recipe fits what ships: every language, adapter and file that it names is there."""

from pathlib import Path

import pytest

from fishlens.pocket.build import PACKAGE
from fishlens.pocket.languages import make_family
from fishlens.recipe.loading import load_recipe
from fishlens.recipe.paths import resolve_path

pytestmark = pytest.mark.skipif(
    not (PACKAGE / "model").exists(), reason="the package data is not in this checkout"
)


@pytest.mark.parametrize("task", ["choice", "pos", "topic", "nli", "qa"])
def test_the_recipe_names_only_what_ships(task):
    from fishlens.training.preparation import load_split, prepare_task

    recipe = load_recipe("quickstart", overrides=[f"task.name={task}"])
    family = make_family()
    assert recipe.data.source == family.source.code
    assert recipe.data.targets == [language.code for language in family.targets]
    loader = prepare_task(recipe)
    for split, languages in (("train", ["mu"]), ("validation", ["mu"]), ("test", recipe.languages)):
        assert all(len(load_split(recipe, loader, split, language)) for language in languages)
    for language in recipe.languages:
        assert (Path(resolve_path(recipe.language_adapter(language))) / "adapter.safetensors").exists()


def test_every_block_is_thawed_well_before_the_end():
    for task in ("choice", "pos", "topic", "nli", "qa"):
        recipe = load_recipe("quickstart", overrides=[f"task.name={task}"])
        assert 6 * recipe.schedule.every <= 0.75 * recipe.train.steps
