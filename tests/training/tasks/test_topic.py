"""SIB-200: a header, CSV quoting, FLORES codes."""

import pytest

from fishlens.errors import InputError
from fishlens.training.data.hub import FLORES_CODE
from fishlens.training.tasks import make_task
from fishlens.training.tasks.classification import TextExample
from fishlens.training.tasks.flores import FLORES_CODES

XLMR = """
    af am ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id is it
    ja jv ka kk km kn ko ku ky la lo lt lv mg mk ml mn mr ms my ne nl no om or pa pl ps pt ro ru sa sd si sk sl so sq
    sr su sv sw ta te th tl tr ug uk ur uz vi xh yi zh
"""
HEADER = "index_id\tcategory\ttext\n"


@pytest.fixture
def root(tmp_path):
    for code in ("deu_Latn", "ace_Arab"):
        (tmp_path / "sib200" / code).mkdir(parents=True)
        (tmp_path / "sib200" / code / "test.tsv").write_text(
            HEADER + '7\tscience/technology\t"Ein ""Quark"" ist klein."\n9\ttravel\tAb nach "Rom".\n'
        )
    return tmp_path


def test_quoted_fields_are_unquoted_and_labels_are_found_by_name(root):
    assert make_task("topic").load(root, "test", "de").examples == (
        TextExample("7", 'Ein "Quark" ist klein.', None, 4),
        TextExample("9", 'Ab nach "Rom".', None, 6),
    )


def test_two_letter_codes_where_there_are_any_else_the_files_own(root):
    assert make_task("topic").languages(root, "test") == ["ace_Arab", "de"]
    assert len(make_task("topic").load(root, "test", "ace_Arab")) == 2


def test_every_language_of_xlmr_that_flores_has_is_known_by_two_letters():
    xlmr = set(XLMR.split())
    assert xlmr - set(FLORES_CODES) == {"br", "fy", "la"}
    assert all(FLORES_CODE.fullmatch(code) for code in FLORES_CODES.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"test\.tsv is empty; expected a header"),
        (HEADER, r"test\.tsv is empty: no example"),
        (
            "index_id\ttext\n1\thello\n",
            r"line 1: the header has no column 'category'; it has 'index_id', 'text'",
        ),
        (HEADER + "1\ttravel\n", r"line 2: 2 fields, but the header has 3"),
        (
            HEADER + "1\ttravel\thi\n2\tweather\tho\n",
            r"line 3: unknown label 'weather'; topic has entertainment, ",
        ),
        (
            HEADER + '1\ttravel\thi\n2\ttravel\t"never\nclosed\n',
            r"line 3: broken quoting in the row that begins here",
        ),
        (HEADER + '1\ttravel\t"a" b\n', r"line 2: broken quoting"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(root, text, message):
    (root / "sib200" / "deu_Latn" / "test.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        make_task("topic").load(root, "test", "de")


def test_a_sentence_goes_through_model_and_score(root, tokenizer, model):
    task = make_task("topic")
    task.add_head(model, name="mine")
    split = task.load(root, "test", "de")
    features = task.encode(split, tokenizer, train=False)
    batch = task.collate(features, tokenizer)
    outputs = model(**batch)
    predictions = task.predict(split, features, task.rows(outputs, batch))
    best = outputs.logits.argmax(-1).tolist()
    assert model.active_head == "mine"
    assert [p.predicted for p in predictions] == [task.labels[i] for i in best]
    assert task.score(split, predictions)["accuracy"] == 50.0 * sum(
        i == e.label for i, e in zip(best, split, strict=True)
    )
