"""The readers on files as they should be, and on files that somebody has damaged."""

import json
import random

import pytest

from fishlens.errors import InputError
from fishlens.training.data.conll import read_conll
from fishlens.training.data.conllu import read_conllu
from fishlens.training.data.jsonl import read_jsonl
from fishlens.training.data.lines import numbered_lines, read_text
from fishlens.training.data.squad import read_squad
from fishlens.training.data.table import read_table
from fishlens.training.data.texts import read_texts
from fishlens.training.data.tsv import read_quoted, read_tsv

COLUMNS = ("premise", "hypothesis", "label")
TSV = 'Sie sagte: "Ja\tÄpfel\tneutral\nb\u2028c\td\x85e\tentailment\n'
QUOTED = 'index_id\tcategory\ttext\n1\ttravel\t"Er sagte ""Ja"""\n2\tsports\tzwei\n'
JSONL = '{"a": "ä", "b": 1}\n{"a": "\u2028", "b": 2}\n'
SQUAD = json.dumps(
    {
        "data": [
            {
                "paragraphs": [
                    {
                        "context": "\ufeffIn Köln.",
                        "qas": [
                            {"id": "1", "question": "Wo?", "answers": [{"text": "Köln", "answer_start": 4}]}
                        ],
                    }
                ]
            }
        ]
    },
    indent=1,
    ensure_ascii=False,
)
WORD = "\t_\t_\t_\t_\t_\t_"
CONLLU = f"# sent_id = 1\n1\tÄ\t_\tNOUN{WORD}\n2\tb\t_\tVERB{WORD}\n\n# sent_id = 2\n1\tc\t_\tX{WORD}\n\n"
CONLL = "Ada B-PER\nsagt O\n\nKöln B-LOC\n"

READERS = {
    "tsv": (TSV, lambda path: read_tsv(path, COLUMNS)),
    "quoted tsv": (QUOTED, lambda path: read_quoted(path, ("index_id", "category", "text"))),
    "jsonl": (JSONL, read_jsonl),
    "squad": (SQUAD, read_squad),
    "conllu": (CONLLU, read_conllu),
    "conll": (CONLL, read_conll),
}


@pytest.fixture(params=list(READERS))
def good(request, tmp_path):
    """(text of a good file, function that reads bytes as one)"""
    text, reader = READERS[request.param]

    def read(content):
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return list(reader(path))

    return text, read


def test_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("\ufeffa\u2028b\x85c\x0bd\r\n\ufeffe\r\r\n\nlast".encode())
    assert list(numbered_lines(path)) == [(1, "a\u2028b\x85c\x0bd"), (2, "\ufeffe\r"), (3, ""), (4, "last")]


def test_text_that_is_not_utf8_is_named_with_line_and_position(tmp_path):
    path = tmp_path / "file"
    path.write_bytes("gut\nKöln\n".encode("latin-1"))
    with pytest.raises(
        InputError, match=r"file, line 2: byte 0xf6 at position 2 is not UTF-8; save the file as UTF-8"
    ):
        read_text(path)


def test_a_file_that_is_not_there_or_a_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing cannot be read: No such file"):
        read_text(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_text(tmp_path)


def test_tsv_rows_are_split_at_tabs_alone_and_quotes_are_text(tmp_path):
    (tmp_path / "file").write_text(TSV, encoding="utf-8")
    assert list(read_tsv(tmp_path / "file", COLUMNS)) == [
        (1, {"premise": 'Sie sagte: "Ja', "hypothesis": "Äpfel", "label": "neutral"}),
        (2, {"premise": "b\u2028c", "hypothesis": "d\x85e", "label": "entailment"}),
    ]


def test_quoted_tsv_takes_columns_by_name_in_any_order(tmp_path):
    (tmp_path / "file").write_text('text\textra\tindex_id\n"a\tb"\tx\t1\n', encoding="utf-8")
    assert list(read_quoted(tmp_path / "file", ("index_id", "text"))) == [
        (2, {"index_id": "1", "text": "a\tb"})
    ]


def test_a_quoted_text_may_go_over_lines_and_the_numbers_stay_right(tmp_path):
    (tmp_path / "file").write_text('id\ttext\n1\t"a\nb"\n2\tc\n', encoding="utf-8")
    rows = list(read_quoted(tmp_path / "file", ("id", "text")))
    assert rows == [(2, {"id": "1", "text": "a\nb"}), (4, {"id": "2", "text": "c"})]


def test_sentences_of_a_treebank_know_their_lines(tmp_path):
    (tmp_path / "file").write_text(CONLLU, encoding="utf-8")
    one, two = read_conllu(tmp_path / "file")
    assert [(w.line, w.form, w.upos) for w in one.words] == [(2, "Ä", "NOUN"), (3, "b", "VERB")]
    assert (two.line, two.id, [w.line for w in two.words]) == (5, "2", [6])


# what holds for every reader


def test_a_byte_order_mark_at_the_start_changes_nothing(good):
    text, read = good
    assert read("\ufeff" + text) == read(text) != []


def test_windows_line_ends_change_nothing(good):
    text, read = good
    assert read(text.replace("\n", "\r\n")) == read(text)


def test_a_last_line_without_its_end_changes_nothing(good):
    text, read = good
    assert read(text.rstrip("\n")) == read(text)


def test_blank_lines_at_the_end_change_nothing(good):
    text, read = good
    assert read(text + "\n\n") == read(text)


def test_a_cut_file_gives_what_is_whole_or_an_input_error(good):
    """Cut at every byte: no other exception, nothing invented, and nothing after the cut."""
    text, read = good
    content = text.encode("utf-8")
    whole = read(content)
    refused = 0
    for end in range(len(content)):
        try:
            rows = read(content[:end])
        except InputError:
            refused += 1
            continue
        assert len(rows) <= len(whole)
        assert rows[:-1] == whole[: max(0, len(rows) - 1)]  # only the last row may have been cut inside
    assert refused > 0


@pytest.mark.parametrize("seed", range(40))
def test_random_damage_is_read_or_refused_in_one_sentence(good, seed):
    """Bytes deleted, doubled and replaced: rows, or an InputError that names the file, never another exception."""
    text, read = good
    generator = random.Random(seed)
    content = bytearray(text.encode("utf-8"))
    for _ in range(generator.randint(1, 6)):
        i = generator.randrange(len(content))
        damage = generator.choice(["delete", "double", "replace"])
        if damage == "delete":
            del content[i : i + generator.randint(1, 5)]
        elif damage == "double":
            content[i:i] = content[i : i + generator.randint(1, 20)]
        else:
            content[i] = generator.choice(b'\t\n\r"{}[],:\\\x00\xff\xc3# -.19aB')
        content = content or bytearray(b"\n")
    try:
        read(bytes(content))
    except InputError as error:
        assert "file" in str(error) and "\n" not in str(error)


ROWS = [{"text": "eins", "label": "x"}, {"text": "zwei\u2028", "label": "y"}]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        json.dumps({"data": ROWS, "version": 1}),
        json.dumps({"data": ROWS}, indent=1) + "\n",
        "".join(json.dumps(row) + "\n" for row in ROWS),  # as transformers' examples and datasets write it
        "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS),
    ],
)
def test_json_is_a_list_an_object_with_data_or_an_object_a_line(tmp_path, written):
    (tmp_path / "rows.json").write_text(written, encoding="utf-8")
    assert [row for _, _, row in read_table(tmp_path / "rows.json", ["text"])] == ROWS


def test_a_broken_row_of_json_lines_is_named(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(ROWS[0]) + "\n{broken}\n")
    with pytest.raises(InputError, match=r"rows.json, line 2: not JSON"):
        list(read_table(tmp_path / "rows.json", ["text"]))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1, 2], "line 1: expected an object with 'text', got list"),
        ({"x": "a"}, "line 1: no 'text'; there is 'x'"),
        ({"text": "a\ud800"}, r"line 1: 'text' has half a surrogate pair, U\+D800, at character 2"),
        ({"text": ["a", None]}, r"line 1: 'text' is \['a', None\]; expected text"),
    ],
)
def test_a_row_without_its_text_is_one_sentence(tmp_path, row, said):
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(InputError, match=said):
        read_texts(tmp_path / "rows.jsonl")


def test_a_text_may_be_a_list_of_words(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"tokens": ["a", "b"]}\n\n{"tokens": "c"}\n')
    assert read_texts(tmp_path / "rows.jsonl", ["tokens"]) == [("1", ["a b"]), ("3", ["c"])]
