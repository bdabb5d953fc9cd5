"""Hub data sets map onto the same examples as local files. The hub itself is stood in for."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from fishlens.errors import InputError
from fishlens.training.data.squad import Answer, Question
from fishlens.training.tasks import make_task
from fishlens.training.tasks.choice import ChoiceExample
from fishlens.training.tasks.classification import TextExample
from fishlens.training.tasks.tagging import TaggedSentence


class Rows(list):
    """What `datasets.load_dataset` gives, as far as it is used: rows, and features that know class names."""

    def __init__(self, rows, features):
        super().__init__(rows)
        self.features = {**{key: SimpleNamespace() for key in rows[0]}, **features}


def classes(*names):
    return SimpleNamespace(names=list(names))


NLI = classes("entailment", "neutral", "contradiction")
NER = SimpleNamespace(feature=classes("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"))
COPA = {"premise": "It rained.", "choice1": "Wet.", "choice2": "Dry.", "question": "effect", "idx": 7}
SQUAD = {
    "id": "q1",
    "context": "\ufeffIn Paris.",
    "question": "Where?",
    "answers": {"text": ["Paris"], "answer_start": [4]},
}


@pytest.fixture
def hub(monkeypatch):
    """{(id, config, split): rows}, and the library that finds them."""
    there = {}

    def load_dataset(name, config, split):
        if (name, config, split) not in there:
            raise FileNotFoundError(f"there is no {name}")
        return there[name, config, split]

    library = ModuleType("datasets")
    library.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", library)
    return there


def test_xnli(hub):
    hub["facebook/xnli", "de", "test"] = Rows(
        [{"premise": "p", "hypothesis": "h", "label": 2}], {"label": NLI}
    )
    split = make_task("nli").load("hub", "test", "de")
    assert split.examples == (TextExample("0", "p", "h", 2),)
    assert split.source == "hub:facebook/xnli/de/test"


def test_labels_are_mapped_by_name_not_by_number(hub):
    other_order = classes("contradiction", "entailment", "neutral")
    hub["facebook/xnli", "de", "test"] = Rows(
        [{"premise": "p", "hypothesis": "h", "label": 0}], {"label": other_order}
    )
    assert make_task("nli").load("hub", "test", "de")[0].label == 2


def test_a_withheld_label_is_refused(hub):
    hub["facebook/xnli", "de", "test"] = Rows(
        [{"premise": "p", "hypothesis": "h", "label": -1}], {"label": NLI}
    )
    with pytest.raises(InputError, match=r"hub:facebook/xnli/de/test, row 0: unknown label None"):
        make_task("nli").load("hub", "test", "de")


def test_sib200_by_its_own_language_codes(hub):
    hub["Davlan/sib200", "deu_Latn", "train"] = Rows(
        [{"index_id": 3, "category": "travel", "text": "Rom."}], {}
    )
    assert make_task("topic").load("hub", "train", "de").examples == (TextExample("3", "Rom.", None, 6),)


def test_copa_has_named_labels_and_xcopa_plain_ones(hub):
    named = {"label": classes("choice1", "choice2")}
    hub["aps/super_glue", "copa", "train"] = Rows([{**COPA, "label": 1}], named)
    hub["cambridgeltl/xcopa", "et", "test"] = Rows([{**COPA, "label": 1, "changed": False}], {})
    expected = (ChoiceExample("7", "It rained.", "effect", ("Wet.", "Dry."), 1),)
    assert make_task("choice").load("hub", "train", "en").examples == expected
    assert make_task("choice").load("hub", "test", "et").examples == expected


@pytest.mark.parametrize(
    ("test", "place"),
    [
        ("xquad", ("google/xquad", "xquad.ar", "validation")),
        ("mlqa", ("facebook/mlqa", "mlqa.ar.ar", "test")),
    ],
)
def test_questions_keep_their_offsets(hub, test, place):
    hub[place] = Rows([SQUAD], {})
    split = make_task("qa", test=test).load("hub", "test", "ar")
    assert split.examples == (Question("q1", "Where?", "\ufeffIn Paris.", (Answer("Paris", 4),)),)
    assert split.notes == ()


def test_wikiann_tags_are_mapped_by_name(hub):
    hub["unimelb-nlp/wikiann", "zh", "test"] = Rows(
        [{"tokens": ["北", "京", "。"], "ner_tags": [5, 6, 0]}], {"ner_tags": NER}
    )
    task = make_task("ner", types=["LOC", "PER", "ORG"])
    assert task.load("hub", "test", "zh").examples == (
        TaggedSentence("0", ("北", "京", "。"), (1, 2, 0), (False,) * 3),
    )


def test_languages_are_known_without_asking_the_hub():
    assert "ur" in make_task("nli").languages("hub", "test")
    with pytest.raises(
        InputError, match=r"no test data for language 'fi' of task 'nli' on the hub .*there: ar, bg"
    ):
        make_task("nli").file("hub", "test", "fi")
    with pytest.raises(InputError, match=r"task 'pos' on the hub \(languages there: none\)"):
        make_task("pos").load("hub", "test", "en")


def test_a_data_set_that_cannot_be_loaded_is_named(hub):
    with pytest.raises(
        InputError, match=r"hub:facebook/xnli/de/test cannot be loaded: FileNotFoundError: there is no"
    ):
        make_task("nli").load("hub", "test", "de")


def test_without_the_library_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'fishlens\[hub\]'"):
        make_task("nli").load("hub", "test", "de")


def test_a_file_of_ones_own_goes_before_the_hub(hub, tmp_path):
    (tmp_path / "mine-en.tsv").write_text("a\tb\tneutral\n")
    task = make_task("nli", files={"train": str(tmp_path / "mine-{language}.tsv")})
    assert len(task.load("hub", "train", "en")) == 1


def test_a_row_without_a_column_is_named(hub):
    hub["facebook/xnli", "de", "test"] = Rows([{"premise": "p", "label": 0}], {"label": NLI})
    with pytest.raises(InputError, match=r"row 0: no 'hypothesis'; there is 'premise', 'label'"):
        make_task("nli").load("hub", "test", "de")
