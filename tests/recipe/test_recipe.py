"""Recipes: what is bundled is what the paper says, and what is wrong is said in one sentence with the field's path."""

import csv
import json
from pathlib import Path

import pytest
import yaml

from fishlens.errors import InputError
from fishlens.recipe.loading import (
    bundled_recipes,
    describe_fields,
    first_difference,
    load_recipe,
    recipe_text,
)
from fishlens.tracking.clock import make_clock

MINIMAL = {"name": "mine", "model": "somewhere/encoder", "task": {"name": "topic"}, "train": {"steps": 10}}
OF_DATA = {"squad": ["xquad", "mlqa"], "copa": ["xcopa"], "mnli": ["xnli"]}


def published_settings(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_bundled_recipes_have_the_papers_settings_in_every_row_of_its_tables(shared):
    compared = 0
    for row in published_settings(shared / "paper" / "hyperparameters.csv"):
        for name in OF_DATA[row["train_data"]]:
            recipe = load_recipe(
                name if row["model"] == "xlm-r" else f"{name}-mbert",
                overrides=[
                    f"schedule.name={row['method']}",
                    f"adapter={'lora' if row['adapter'] == 'lora' else 'seq_bn'}",
                    f"train.examples={'null' if row['train_size'] == 'full' else row['train_size']}",
                ],
            )
            where = (name, row)
            assert recipe.train.epochs == float(row["epochs"]), where
            assert recipe.train.learning_rate == float(row["learning_rate"]), where
            assert recipe.train.batch_size == int(row["batch_size"]), where
            assert recipe.train.lr_schedule == (row["lr_schedule"] or "linear"), where
            if row["k"]:
                assert recipe.schedule.every == int(row["k"]), where
            compared += 1
    assert compared == 110  # of 78 rows, 32 are of SQuAD and hold for two recipes


def test_every_bundled_recipe_is_whole_and_written_back_the_same(tmp_path):
    assert {"xnli", "xquad", "mlqa", "xcopa", "pos", "topic"} <= set(bundled_recipes())
    for name in bundled_recipes():
        recipe = load_recipe(name)
        (tmp_path / "recipe.yaml").write_text(recipe_text(recipe), encoding="utf-8")
        assert load_recipe(tmp_path / "recipe.yaml") == recipe
        assert set(yaml.safe_load(recipe_text(recipe))) == set(type(recipe).model_fields)


def test_full_fine_tuning_of_a_bundled_recipe_needs_one_override():
    recipe = load_recipe("xnli", overrides=["schedule.name=full"])
    assert recipe.adapter is None and recipe.language_adapters is None


def test_an_override_wins_over_a_variant_and_steps_replace_epochs():
    recipe = load_recipe(
        "xquad", overrides=["schedule.name=fun", "schedule.every=7", "train.steps=30", "seed=3"]
    )
    assert (recipe.schedule.every, recipe.train.steps, recipe.train.epochs, recipe.seed) == (7, 30, None, 3)
    assert load_recipe("xquad", overrides=["schedule.name=fun"]).schedule.every == 100


def test_overrides_reach_any_field_and_options_too():
    recipe = load_recipe(
        MINIMAL,
        overrides=[
            "data.targets=[de, fr]",
            "schedule.name=fixed",
            "schedule.order=[1, 0]",
            "language_adapters.en=a/b",
            "train.learning_rate=5e-4",
            "model=elsewhere",
            "adapter=lora[r=4,alpha=8]",
        ],
    )
    assert recipe.data.targets == ["de", "fr"]
    assert recipe.schedule.options == {"order": [1, 0]}
    assert recipe.language_adapters == {"en": "a/b"}
    assert recipe.train.learning_rate == 5e-4
    assert (recipe.model, recipe.adapter) == ("elsewhere", "lora[r=4,alpha=8]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batchsize=3", r"there is no field train.batchsize \(did you mean train.batch_size\?\)"),
        ("train.batch_size=big", "train.batch_size is 'big': input should be a valid integer"),
        ("train.batch_size=0", "train.batch_size is 0: input should be greater than or equal to 1"),
        ("train.lr_schedule=cosine", "train.lr_schedule is 'cosine': input should be 'linear' or 'constant'"),
        ("data.targets=[false]", r"data.targets.0 is False: input should be a valid string"),
        ("speed=3", "there is no field speed"),
        ("trian.steps=3", r"there is no field trian \(did you mean train\?\)"),
        ("learning_rate=3", r"there is no field learning_rate \(did you mean train.learning_rate\?\)"),
        (
            "train.early_stopping=3",
            "no field train.early_stopping: training ends after train.steps; what is tested",
        ),
        ("train.class_weights=[1, 2]", "no field train.class_weights: the loss has no class weights"),
        (
            "tracking.every=0",
            r"tracking.every is 0; expected a number of steps \(50\), a share of the training",
        ),
        ("tracking.every=200%", "tracking.every is '200%'; expected a number of steps"),
        ("tracking.every=[0, no]", r"tracking.every is \[0, 'no'\]; expected a number of steps"),
        (
            "tracking.budget=much",
            "tracking.budget is 'much'; expected a share of the training time, as tracking.every: 2%",
        ),
        ("tracking.labels=gold", "tracking.labels is 'gold'"),
        ("train.steps=null", "train: give either steps or epochs"),
        ("schedule.name=full", "set adapter=null"),
        ("model=null", "model is None"),
        ("language_adapters=madx/adapters", "put {language} where the language stands"),
        ("seed", "override 'seed'; expected field=value"),
        ("seed=[", "the value is not valid YAML"),
        (".=3", "expected field=value"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_the_fields_path(override, message):
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(MINIMAL, overrides=[override])
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipes_are_named(tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: [", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad.yaml is not valid YAML"):
        load_recipe(bad)
    bad.write_text("just words", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad.yaml is not a recipe; expected fields and values, got str"):
        load_recipe(bad)
    bad.write_bytes(b"name: \xff\xfe")
    with pytest.raises(InputError, match=r"bad.yaml is not UTF-8"):
        load_recipe(bad)
    bad.write_text("name: x\nmodel: y\ntask: {name: topic}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"bad.yaml: train is missing"):
        load_recipe(bad)
    with pytest.raises(InputError, match=r"no recipe 'xnly'; expected a YAML file or one of .*xnli"):
        load_recipe("xnly")
    with pytest.raises(InputError, match="there is no package 'no_such_package'"):
        load_recipe("package://no_such_package/recipe.yaml")


def test_a_variant_with_a_wrong_shape_is_refused():
    with pytest.raises(InputError, match="variants is a list of"):
        load_recipe({**MINIMAL, "variants": [{"when": {}}]})


@pytest.mark.parametrize("every", [50, "2%", [0, 10, 100], None])
def test_a_probe_is_due_in_a_recipe_as_in_python(every):
    recipe = load_recipe({**MINIMAL, "tracking": {"every": every}})
    assert recipe.tracking.every == every
    assert every is None or make_clock(recipe.tracking.every) == make_clock(every)


def test_the_names_of_older_recipes_are_read_with_a_note(caplog):
    old = {**MINIMAL, "tracking": {"every": 50, "budget": 0.02, "diagonal_at": [4]}}
    recipe = load_recipe(old)
    assert (recipe.tracking.every, recipe.tracking.diagonals) == ("2%", [4])
    assert "tracking.budget is called tracking.every now: read as tracking.every: 2%" in caplog.text
    assert load_recipe(old, overrides=["tracking.every=7"]).tracking.every == 7
    assert load_recipe("xnli", overrides=["tracking.budget=0.1"]).tracking.every == "10%"


def test_a_recipe_inside_a_package_is_found():
    recipe = load_recipe("package://fishlens.recipe/bundled/pos.yaml")
    assert recipe == load_recipe("pos")


def test_paths_are_kept_as_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").mkdir()
    (tmp_path / "adapters" / "en").mkdir(parents=True)
    recipe = load_recipe(
        {
            **MINIMAL,
            "model": "encoder",
            "language_adapters": "adapters/{language}",
            "data": {"root": "data"},
        }
    )
    assert recipe.model == "encoder"
    assert recipe.language_adapter("en") == "adapters/en"
    assert recipe.data.root == "data"
    hub = load_recipe({**MINIMAL, "language_adapters": "AdapterHub/xlm-roberta-base-{language}-wiki"})
    assert hub.language_adapter("de") == "AdapterHub/xlm-roberta-base-de-wiki"
    assert hub.model == "somewhere/encoder"


@pytest.mark.parametrize(
    "part", [{"when": "seed", "set": {}}, {"when": {}, "set": ["x"]}, {"when": {3: 1}, "set": {}}]
)
def test_a_variant_of_anything_but_fields_and_values_is_refused(part):
    with pytest.raises(InputError, match=r"variants: (when|set) is .*; expected fields and values"):
        load_recipe({**MINIMAL, "variants": [part]})


def test_no_is_norwegian_and_true_is_true():
    recipe = load_recipe(MINIMAL, overrides=["data.targets=[sv, no, on]", "data.test_source=false"])
    assert recipe.data.targets == ["sv", "no", "on"] and recipe.data.test_source is False
    assert load_recipe(yaml.safe_load(recipe_text(recipe))) == recipe


def test_the_first_difference_between_two_recipes_is_named():
    one, other = (
        load_recipe(MINIMAL),
        load_recipe(MINIMAL, overrides=["schedule.name=fixed", "schedule.order=[0]"]),
    )
    assert first_difference(one, load_recipe(MINIMAL)) is None
    assert first_difference(one, other) == "schedule.name is 'fixed' instead of 'standard'"


def test_every_field_says_what_it_means():
    fields = list(describe_fields())
    assert len(fields) == len({path for path, *_ in fields}) > 40
    undescribed = [path for path, _, _, text in fields if not text and path != "task"]
    assert not undescribed


def test_the_documentation_has_every_field_as_it_is():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    for path, kind, default, text in describe_fields():
        row = f"| `{path}` | {kind.replace('|', 'or')} | {default.removeprefix('default ')} | {text} |"
        assert row in page, f"docs/training.md: expected the row {row}"


@pytest.mark.parametrize("name", ["", "..", "a/b", "../up", " . "])
def test_a_run_is_called_by_the_name_of_one_folder(name):
    with pytest.raises(InputError, match="expected a name that can be a folder's"):
        load_recipe("quickstart", overrides=[f"name={name!r}"])


@pytest.mark.parametrize(
    "code", ["../../other/journal-1", "/absolute", "zh/Hant", "zh.Hant", "", "con", "\u202ede", "a b"]
)
def test_a_language_is_a_code_and_never_a_path(code):
    """It names the adapter and a file of predictions."""
    for field in ("data.targets=[{}]", "data.source={}", "tracking.languages=[{}]"):
        with pytest.raises(InputError, match=r"expected the code of a language|expected a name") as told:
            load_recipe(MINIMAL, overrides=[field.format(json.dumps(code))])
        assert "\n" not in str(told.value) and "\u202e" not in str(told.value)
    load_recipe(MINIMAL, overrides=['data.targets=["pt-BR", zh_Hant]'])


def test_languages_that_are_one_file_on_some_systems_are_refused():
    with pytest.raises(InputError, match="'de' and 'DE'"):
        load_recipe(MINIMAL, overrides=["data.targets=[de, DE]"])


def test_a_recipe_of_aliases_that_stand_for_millions_of_values_is_refused(tmp_path):
    lines = ["name: x", "model: m", "task: {name: topic}", "train: {steps: 1}", "schedule:", "  name: fun"]
    lines.append("  a0: &a0 [x, x, x, x, x, x, x, x, x, x]")
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 8)]
    (tmp_path / "bomb.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match="stand for more than 100,000 values"):
        load_recipe(tmp_path / "bomb.yaml")


@pytest.mark.parametrize("field", ["model", "language_adapters", "data.root", "data.test"])
def test_an_address_is_no_place(field):
    for address in (
        "http://example.org/{language}",
        "HTTPS://example.org/{language}.zip",
        "ftp://example.org/x",
    ):
        with pytest.raises(InputError, match="nothing is fetched"):
            load_recipe(MINIMAL, overrides=[f"{field}={address!r}"])
