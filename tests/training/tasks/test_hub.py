"""Hub data sets map onto the same examples as local files.

They are read by the real `datasets` library, from folders that are called as the data sets are and hold what the hub
holds: Parquet files and a card that names configurations and splits.
"""

import sys
from pathlib import Path

import pytest
import yaml

from fishlens.errors import InputError
from fishlens.training.data.hub import HubPlace, hub_rows
from fishlens.training.data.squad import Answer, Question
from fishlens.training.tasks import TASKS, make_task
from fishlens.training.tasks.choice import ChoiceExample
from fishlens.training.tasks.classification import TextExample
from fishlens.training.tasks.tagging import TaggedSentence

datasets = pytest.importorskip("datasets", reason="needs the datasets library (pip install 'fishlens[hub]')")

NLI = datasets.ClassLabel(names=["entailment", "neutral", "contradiction"])
NER = datasets.List(datasets.ClassLabel(names=["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]))
COPA = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "idx": 7}
SQUAD = {
    "id": "q1",
    "context": "\ufeffIn Paris.",
    "question": "Where?",
    "answers": {"text": ["Paris"], "answer_start": [4]},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts a split of a data set where the library finds it: hub(id, config, split, rows, {column: class names})."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    there: dict[str, list] = {}

    def put(name, config, split, rows, classes=None):
        table = datasets.Dataset.from_list(rows)
        features = datasets.Features({**table.features, **(classes or {})})
        file = Path(name, config, f"{split}.parquet")
        file.parent.mkdir(parents=True, exist_ok=True)
        table.cast(features).to_parquet(file)
        there.setdefault(name, []).append(
            {"config_name": config, "data_files": [{"split": split, "path": str(file.relative_to(name))}]}
        )
        card = yaml.safe_dump({"configs": there[name]})
        Path(name, "README.md").write_text(f"---\n{card}---\n# {name}\n")

    return put


def put_converted(name, config, split, rows):
    """What the hub's own conversion leaves: folders without a card."""
    file = Path(name, config, split, "0000.parquet")
    file.parent.mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(file)


def test_xnli(hub):
    hub("facebook/xnli", "de", "test", [{"premise": "p", "hypothesis": "h", "label": 2}], {"label": NLI})
    split = make_task("nli").load("hub", "test", "de")
    assert split.examples == (TextExample("0", "p", "h", 2),)
    assert split.source == "hub:facebook/xnli/de/test"


def test_labels_are_mapped_by_name_not_by_number(hub):
    other_order = datasets.ClassLabel(names=["contradiction", "entailment", "neutral"])
    hub(
        "facebook/xnli",
        "de",
        "test",
        [{"premise": "p", "hypothesis": "h", "label": 0}],
        {"label": other_order},
    )
    assert make_task("nli").load("hub", "test", "de")[0].label == 2


def test_a_withheld_label_is_refused(hub):
    hub("facebook/xnli", "de", "test", [{"premise": "p", "hypothesis": "h", "label": -1}], {"label": NLI})
    with pytest.raises(InputError, match=r"hub:facebook/xnli/de/test, row 0: unknown label None"):
        make_task("nli").load("hub", "test", "de")


@pytest.mark.parametrize("language", ["de", "deu_Latn"])
def test_sib200_by_two_letters_and_by_its_own_language_codes(hub, language):
    hub("Davlan/sib200", "deu_Latn", "train", [{"index_id": 3, "category": "travel", "text": "Rom."}])
    expected = (TextExample("3", "Rom.", None, 6),)
    assert make_task("topic").load("hub", "train", language).examples == expected


def test_copa_has_named_labels_and_xcopa_plain_ones(hub):
    named = {"label": datasets.ClassLabel(names=["choice1", "choice2"])}
    hub("aps/super_glue", "copa", "train", [{**COPA, "label": 1}], named)
    hub("cambridgeltl/xcopa", "et", "test", [{**COPA, "label": 1, "changed": False}])
    expected = (ChoiceExample("7", "It rained.", "effect", ("Wet.", "Dry."), 1),)
    assert make_task("choice").load("hub", "train", "en").examples == expected
    assert make_task("choice").load("hub", "test", "et").examples == expected


QUESTIONS = (Question("q1", "Where?", "\ufeffIn Paris.", (Answer("Paris", 4),)),)


def test_questions_keep_their_offsets(hub):
    hub("google/xquad", "xquad.ar", "validation", [SQUAD])
    hub("rajpurkar/squad", "plain_text", "train", [SQUAD])
    for split, language in (("test", "ar"), ("train", "en")):
        loaded = make_task("qa").load("hub", split, language)
        assert loaded.examples == QUESTIONS and loaded.notes == ()


def test_mlqa_is_read_from_the_hubs_converted_copy_which_has_no_card(hub):
    put_converted("facebook/mlqa", "mlqa.ar.ar", "test", [SQUAD])
    put_converted("facebook/mlqa", "mlqa.de.de", "test", [{**SQUAD, "id": "other"}])
    assert make_task("qa", test="mlqa").load("hub", "test", "ar").examples == QUESTIONS


def test_a_data_set_that_is_a_script_is_read_from_the_converted_copy(hub, monkeypatch):
    put_converted("some/script", "small", "train", [{"text": "a", "label": "b"}])
    load = datasets.load_dataset

    def without_scripts(*arguments, **options):
        if options.get("revision") != "refs/convert/parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found script.py")
        return load(*arguments, **options)

    monkeypatch.setattr(datasets, "load_dataset", without_scripts)
    assert list(hub_rows(HubPlace("some/script", "small", "train"))) == [(0, {"text": "a", "label": "b"})]


def test_wikiann_tags_are_mapped_by_name(hub):
    rows = [{"tokens": ["北", "京", "。"], "ner_tags": [5, 6, 0]}]
    hub("unimelb-nlp/wikiann", "zh", "test", rows, {"ner_tags": NER})
    task = make_task("ner", types=["LOC", "PER", "ORG"])
    assert task.load("hub", "test", "zh").examples == (
        TaggedSentence("0", ("北", "京", "。"), (1, 2, 0), (False,) * 3),
    )


def test_every_data_set_of_the_table_is_tested_here():
    source = Path(__file__).read_text(encoding="utf-8")
    for name in list(TASKS)[:6]:
        for options in [{"test": "xquad"}, {"test": "mlqa"}] if name == "qa" else [{}]:
            places = make_task(name, **options).hub.values()
            for place in {one.dataset for split in places for one in split}:
                assert f'"{place}"' in source, place


def test_languages_are_known_without_asking_the_hub():
    assert "ur" in make_task("nli").languages("hub", "test")
    with pytest.raises(
        InputError, match=r"no test data for language 'fi' of task 'nli' on the hub .*there: ar, bg"
    ):
        make_task("nli").file("hub", "test", "fi")
    with pytest.raises(InputError, match=r"task 'pos' on the hub \(languages there: none\)"):
        make_task("pos").load("hub", "test", "en")


def test_a_data_set_that_cannot_be_loaded_is_named_in_one_line(hub):
    with pytest.raises(InputError, match=r"^hub:facebook/xnli/de/test cannot be loaded: [^\n]+$"):
        make_task("nli").load("hub", "test", "de")


def test_without_the_library_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'fishlens\[hub\]'"):
        make_task("nli").load("hub", "test", "de")


def test_a_file_of_ones_own_goes_before_the_hub(tmp_path):
    (tmp_path / "mine-en.tsv").write_text("a\tb\tneutral\n")
    task = make_task("nli", files={"train": str(tmp_path / "mine-{language}.tsv")})
    assert len(task.load("hub", "train", "en")) == 1


def test_a_row_without_a_column_is_named(hub):
    hub("facebook/xnli", "de", "test", [{"premise": "p", "label": 0}], {"label": NLI})
    with pytest.raises(InputError, match=r"row 0: no 'hypothesis'; there is 'premise', 'label'"):
        make_task("nli").load("hub", "test", "de")


# -- a data set that nobody here has heard of, told in the recipe ---------------------------------------------------


def test_any_data_set_by_id_configuration_split_and_columns(hub):
    mood = {"mood": datasets.ClassLabel(names=["sad", "glad"])}
    hub("me/moods", "de", "dev", [{"sentence": "Schön!", "mood": 1}], mood)
    task = make_task(
        "text",
        labels=["glad", "sad"],
        columns={"text": "sentence", "label": "mood"},
        hub={"dataset": "me/moods", "config": "{language}", "splits": {"validation": "dev"}},
    )
    assert task.load("hub", "validation", "de").examples == (TextExample("0", "Schön!", None, 0),)


def test_one_table_with_a_column_for_each_language(hub):
    hub("me/both", "default", "test", [{"text_de": "gut", "text_fr": "bien", "label": 1}])
    task = make_task(
        "text",
        labels={0: "bad", 1: "good"},
        columns={"text": "text_{language}"},
        hub="me/both",
        metrics="macro_f1",
    )
    assert [task.load("hub", "test", code)[0].first for code in ("de", "fr")] == ["gut", "bien"]
    assert task.headline == "macro_f1"


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        ("me/data", "is the same for every language: put {language} where"),
        ({"config": "{language}"}, "hub: dataset is missing"),
        ({"dataset": "me/data", "confg": "x"}, "hub has no 'confg'; expected dataset, config"),
        ({"dataset": "me/data", "config": 3}, "hub: config is 3; expected text"),
        ({"dataset": "me/data", "splits": {"dev": "x"}}, "hub: splits is .*names of train, validation, test"),
        (["me/data"], r"hub is \['me/data'\]; expected a data set's id"),
    ],
)
def test_a_hub_that_cannot_be_meant_is_refused(hub, message):
    with pytest.raises(InputError, match=message):
        make_task("text", labels=["a", "b"], hub=hub)
