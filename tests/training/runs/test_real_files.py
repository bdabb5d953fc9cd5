"""One short run per task on the real files: what the bundled recipes name trains, evaluates and is written down."""

import json

import pytest

from fishlens.journal import load_runs
from fishlens.recipe.loading import load_recipe
from fishlens.training.preparation import languages_to_test, load_split, prepare_task
from fishlens.training.run import train

# recipe -> languages whose test files are there
TARGETS = {
    "xnli": ["ar", "de", "es", "hi", "ru", "sw", "zh"],
    "xquad": ["ar", "de", "el", "es", "th", "zh"],
    "mlqa": ["ar", "de"],
    "xcopa": ["et", "id", "it", "sw", "ta", "th", "tr", "vi", "zh"],
    "pos": ["ar", "de", "es", "fi", "fr", "hi", "id", "it", "ru", "th", "tr", "zh"],
    "topic": ["ar", "de", "el", "es", "et", "fi", "fr", "hi", "id", "it", "ru", "sw", "ta", "th", "tr", "vi", "zh"],
}  # fmt: skip


@pytest.fixture(scope="session")
def encoder_for_real_text(shared, encoder, tmp_path_factory):
    """The small real encoder; where it is absent, a tiny random one."""
    folder = shared / "models" / "mini-xlmr"
    return folder if folder.is_dir() else encoder


def settings(name: str, shared, model, **changes) -> list[str]:
    chosen = {
        "model": model,
        "data.root": shared / "data",
        "language_adapters": "null",
        "data.targets": f"[{', '.join(TARGETS[name][:2])}]",
        "train.steps": 4,
        "train.batch_size": 4,
        "train.examples": 16,
        "train.max_length": 96,
        "schedule.name": "fun",
        "schedule.every": 1,
        "tracking.every": 2,
        "tracking.examples": 4,
        "evaluate.every": 2,
        "evaluate.examples": 8,
        "evaluate.test_examples": 8,
        **changes,
    }
    return [f"{field}={value}" for field, value in chosen.items()]


@pytest.mark.parametrize("name", TARGETS)
def test_a_bundled_recipe_runs_on_the_real_files(name, shared, encoder_for_real_text, tmp_path):
    recipe = load_recipe(name, overrides=settings(name, shared, encoder_for_real_text))
    result = train(recipe, tmp_path / "run")
    assert result.status == "finished"
    languages = languages_to_test(recipe)
    assert set(result.test) == set(languages) >= set(TARGETS[name][:2])
    runs = load_runs(tmp_path / "run")
    assert runs.runs.status.tolist() == ["finished"]
    assert runs.unfreezing.block.nunique() == 4
    assert runs.fisher.trace.gt(0).all()
    test = runs.evaluation[runs.evaluation.split == "test"]
    assert test.value.between(0, 100).all() and set(test.language) == set(languages)
    for language in languages:
        lines = (tmp_path / "run" / "predictions" / f"{language}.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in lines.split("\n") if line]
        assert len(rows) == 8 and all(set(row) == {"id", "gold", "predicted"} for row in rows)


@pytest.mark.parametrize("name", TARGETS)
def test_every_language_of_a_bundled_recipe_whose_file_is_there_loads(name, shared):
    recipe = load_recipe(
        name, overrides=[f"data.root={shared / 'data'}", f"data.targets=[{', '.join(TARGETS[name])}]"]
    )
    task = prepare_task(recipe)  # raises if a file is missing
    assert sorted({*task.languages(shared / "data", "test"), "en"}) == sorted({"en", *TARGETS[name]})


def test_a_seeded_subset_of_the_training_data_is_part_of_a_larger_one(shared):
    root = f"data.root={shared / 'data'}"
    splits = []
    for examples in (10, 100):
        recipe = load_recipe("topic", overrides=[root, "data.targets=[]", f"train.examples={examples}"])
        splits.append(load_split(recipe, prepare_task(recipe), "train", "en").examples)
    small, large = ({e.id for e in split} for split in splits)
    assert (len(small), len(large)) == (10, 100) and small < large
