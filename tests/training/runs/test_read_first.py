"""What a run will read is read before its first update: a late mistake costs seconds, and a corrected run just runs."""

import json
import shutil

import pytest
from transformers import PreTrainedModel

from fishlens.errors import InputError
from fishlens.training.run import train
from fishlens.training.tasks.topic import Topic


@pytest.fixture
def own_data(recipe, data_root, tmp_path):
    shutil.copytree(data_root, tmp_path / "data")
    recipe["data"]["root"] = str(tmp_path / "data")
    return recipe, tmp_path / "data" / "sib200" / "spa_Latn" / "test.tsv"


def refused(recipe, place, message, models=0):
    """The refusal comes before the first update and leaves nothing behind; so many models were loaded for it."""
    steps, loaded = [], []
    real = PreTrainedModel.from_pretrained.__func__

    def counted(kind, *args, **options):
        loaded.append(kind)
        return real(kind, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted))
        with pytest.raises(InputError, match=message):
            train(recipe, place, on_step=steps.append)
    assert not steps and not place.exists()
    assert len(loaded) == models


def test_a_label_that_is_unknown_in_the_last_language_and_then_the_corrected_file(own_data, tmp_path):
    recipe, file = own_data
    good = file.read_text()
    file.write_text(good.replace("\tsports\t", "\tsport\t", 1))
    refused(recipe, tmp_path / "run", r"spa_Latn/test.tsv, line \d+: unknown label 'sport'; topic has")
    file.write_text(good)
    assert set(train(recipe, tmp_path / "run").test) == {"en", "de", "es"}


def test_a_test_file_without_labels_and_one_with_more_tags_than_the_task(recipe, tmp_path):
    (tmp_path / "train.tsv").write_text("a\tb\tneutral\nc\td\tentailment\n" * 4)
    (tmp_path / "de.tsv").write_text("a\tb\t-\n")
    nli = {**recipe, "task": {"name": "nli"}}
    files = {"train": str(tmp_path / "train.tsv"), "validation": str(tmp_path / "train.tsv")}
    nli["data"] = {**files, "test": {"de": str(tmp_path / "de.tsv")}, "targets": ["de"], "test_source": False}
    refused(nli, tmp_path / "run", r"de.tsv, line 1: unknown label '-'; nli has entailment")
    (tmp_path / "train.txt").write_text("Ada B-PER\nrests O\n\n" * 4)
    (tmp_path / "de.txt").write_text("heute B-DATE\n\n")
    ner = {**recipe, "task": {"name": "ner"}}
    ner["data"] = {key: value.replace(".tsv", ".txt") for key, value in files.items()} | {
        "test": {"de": str(tmp_path / "de.txt")}, "targets": ["de"], "test_source": False,
    }  # fmt: skip
    refused(ner, tmp_path / "run", r"de.txt, line 1: unknown tag 'B-DATE'; ner has O, B-PER")


def test_a_language_that_the_test_does_not_have_and_answers_that_are_withheld(recipe, tmp_path):
    def squad(text, start):
        answers = [{"text": text, "answer_start": start}]
        paragraph = {"context": "In Ulm.", "qas": [{"id": "1", "question": "Wo?", "answers": answers}]}
        return json.dumps({"data": [{"paragraphs": [paragraph]}]})

    (tmp_path / "good.json").write_text(squad("Ulm", 3))
    (tmp_path / "de.json").write_text(squad("", 0))
    files = {key: str(tmp_path / "good.json") for key in ("train", "validation")}
    data = {**files, "root": str(tmp_path), "targets": ["ru"], "test_source": False}
    mlqa = {**recipe, "task": {"name": "qa", "test": "mlqa"}, "data": data}
    refused(mlqa, tmp_path / "run", "no test data for language 'ru'; expected .*test-context-ru-question-ru.json")
    target = {**files, "test": {"de": str(tmp_path / "de.json")}, "targets": ["de"], "test_source": False}
    source = {**files, "train": str(tmp_path / "de.json"), "targets": [], "test_source": False}
    for data in (target, source):
        withheld = {**recipe, "task": {"name": "qa"}, "data": data}
        refused(withheld, tmp_path / "run", r"de.json: .* the answer of question '1' is ''; expected words of its")


class Unscored(Topic):
    """Somebody's own task, whose score fails in one language."""

    def score(self, split, predictions):
        if split.language == "es":
            raise KeyError("es")
        return super().score(split, predictions)


class Misnamed(Topic):
    headline = "f1"

    def __init__(self, files=None):
        super().__init__(files)
        self.headline = "f1"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Unscored, "test in 'es' cannot be scored: KeyError: 'es'"),
        (Misnamed, "task 'topic' is judged by 'f1', but its scores are accuracy"),
    ],
)
def test_a_score_that_would_fail_in_the_end_fails_now(recipe, tmp_path, monkeypatch, kind, message):
    import sys

    monkeypatch.setitem(sys.modules, "my_tasks", sys.modules[__name__])
    recipe["task"] = {"name": f"my_tasks:{kind.__name__}"}
    refused(recipe, tmp_path / "run", message, models=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "./no/such/model"}, r"model '.*no/such/model' does not exist; expected a folder with config.json"),
        ({"model": "models/xlmr/base"}, r"model 'models/xlmr/base' does not exist"),
        ({"language_adapters": "/nowhere/{language}"}, r"language adapter for 'en' '/nowhere/en' does not exist"),
    ],
)
def test_a_model_or_adapter_that_is_a_path_and_not_there(recipe, tmp_path, changes, message):
    refused({**recipe, **changes}, tmp_path / "run", message)


def test_a_folder_that_is_no_model(recipe, tmp_path):
    (tmp_path / "empty").mkdir()
    refused({**recipe, "model": str(tmp_path / "empty")}, tmp_path / "run", "is a folder without config.json")


def test_a_language_adapter_of_another_width_is_refused_for_the_last_target(
    recipe, language_adapters, encoder_narrow, tmp_path
):
    from adapters import AutoAdapterModel

    model = AutoAdapterModel.from_pretrained(encoder_narrow)
    model.add_adapter("es", config="seq_bn_inv")
    model.save_adapter(str(tmp_path / "es"), "es", with_head=False, use_safetensors=True)
    places = {code: str(language_adapters / code) for code in ("en", "de")} | {"es": str(tmp_path / "es")}
    message = "adapter .* for 'es' does not fit the model"
    refused({**recipe, "language_adapters": places}, tmp_path / "run", message, models=1)


def test_training_data_that_the_tokenizer_does_not_know_is_said_with_its_share(recipe, tmp_path):
    lines = [f"ぬぬぬ{letter}\tx\tneutral\n" for letter in "abcd"]
    (tmp_path / "train.tsv").write_text("".join(lines), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("a\tb\tneutral\n" * 4)
    recipe["task"], recipe["language_adapters"] = {"name": "nli"}, None
    recipe["train"] = {"steps": 1, "batch_size": 4}
    files = {"train": str(tmp_path / "train.tsv"), "validation": str(tmp_path / "dev.tsv")}
    recipe["data"] = {**recipe["data"], **files, "targets": [], "test_source": False}
    recipe["tracking"], recipe["evaluate"] = {"every": None}, {"every": 1}
    warnings = train(recipe, tmp_path / "run").warnings
    assert any("does not know 60% of the tokens of" in text and "train.tsv (<unk>)" in text for text in warnings)
