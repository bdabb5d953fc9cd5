"""Tasks said in a language and written in the official formats and layout, which the trainer's loaders read."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fishlens.pocket.languages import Family, Language, Token, text_of
from fishlens.pocket.meanings import World
from fishlens.pocket.tasks import Choice, Pair, Passage, Topical, make_splits
from fishlens.pocket.text import Meaning

# examples of each split; train is in the source language only, test in every language
SIZES: dict[str, dict[str, int]] = {
    "nli": {"train": 6000, "validation": 600, "test": 300},
    "choice": {"train": 2400, "validation": 400, "test": 300},
    "qa": {"train": 1500, "validation": 150, "test": 120},  # passages, two questions each
    "tagging": {"train": 1500, "validation": 200, "test": 150},
    "topic": {"train": 700, "validation": 200, "test": 200},
}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def nli_tsv(examples: Sequence[Pair], language: Language) -> str:
    """premise, hypothesis, label: no header, no quoting."""
    rows = (
        (text_of(language.say(e.premise)), text_of(language.say(e.hypothesis)), e.label) for e in examples
    )
    return "".join("\t".join(row) + "\n" for row in rows)


def choice_jsonl(examples: Sequence[Choice], language: Language) -> str:
    rows = []
    for number, example in enumerate(examples):
        first, second = (text_of(language.say(choice)) for choice in example.choices)
        row = {
            "premise": text_of(language.say(example.premise)),
            "choice1": first,
            "choice2": second,
            "question": example.question,
            "label": example.label,
            "idx": number,
        }
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(rows)


def _span(tokens: Sequence[Token], role: str) -> tuple[int, int]:
    """Characters (start, end) of the noun phrase of a role in `text_of(tokens)`, particles left out."""
    position, start, end = 0, -1, -1
    for token in tokens:
        if token.tag != "PUNCT" and position:
            position += 1
        if token.role == role and not token.particle:
            start = position if start < 0 else start
            end = position + len(token.form)
        position += len(token.form)
    return start, end


def squad_json(examples: Sequence[Passage], language: Language, split: str) -> str:
    """SQuAD v1.1: one article a passage; ids are the same in every language."""
    articles = []
    for number, passage in enumerate(examples):
        said = [language.say(clause) for clause in passage.clauses]
        texts = [text_of(tokens) for tokens in said]
        context = " ".join(texts)
        questions = []
        for order, (question, about) in enumerate(passage.questions):
            start, end = _span(said[about], question.asked)
            offset = sum(len(text) + 1 for text in texts[:about])
            answer = {"text": context[offset + start : offset + end], "answer_start": offset + start}
            questions.append(
                {
                    "answers": [answer],
                    "question": text_of(language.say(question)),
                    "id": f"{split}-{number}-{order}",
                }
            )
        articles.append(
            {"title": f"{split}-{number}", "paragraphs": [{"context": context, "qas": questions}]}
        )
    return json.dumps({"data": articles, "version": "1.1"}, ensure_ascii=False) + "\n"


def conllu(examples: Sequence[Meaning], language: Language) -> str:
    """Forms and universal tags; the columns for trees are unspecified."""
    blocks = []
    for number, meaning in enumerate(examples):
        tokens = language.say(meaning)
        lines = [f"# sent_id = {number + 1}", f"# text = {text_of(tokens)}"]
        for position, token in enumerate(tokens, start=1):
            attached = position < len(tokens) and tokens[position].tag == "PUNCT"
            misc = "SpaceAfter=No" if attached else "_"
            lines.append("\t".join([str(position), token.form, "_", token.tag, *"_____", misc]))
        blocks.append("\n".join(lines) + "\n\n")
    return "".join(blocks)


def topic_tsv(examples: Sequence[Topical], language: Language) -> str:
    """SIB-200: header and CSV quoting."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t", lineterminator="\n")
    writer.writerow(["index_id", "category", "text"])
    for number, example in enumerate(examples):
        text = " ".join(text_of(language.say(clause)) for clause in example.clauses)
        writer.writerow([number, example.topic, text])
    return out.getvalue()


def _say(task: str, examples: Sequence[Any], language: Language, split: str) -> str:
    if task == "nli":
        return nli_tsv(examples, language)
    if task == "choice":
        return choice_jsonl(examples, language)
    if task == "qa":
        return squad_json(examples, language, split)
    if task == "tagging":
        return conllu(examples, language)
    return topic_tsv(examples, language)


# where each split lies; {l} is the language
_PLACES: dict[str, dict[str, str]] = {
    "nli": {"train": "mnli/train-{l}.tsv", "validation": "xnli/dev-{l}.tsv", "test": "xnli/test-{l}.tsv"},
    "choice": {
        "train": "copa/train.{l}.jsonl",
        "validation": "copa/val.{l}.jsonl",
        "test": "xcopa/data/{l}/test.{l}.jsonl",
    },
    "qa": {
        "train": "squad/train-v1.1.json",
        "validation": "squad/dev-v1.1.json",
        "test": "xquad/xquad.{l}.json",
    },
    "tagging": {
        "train": "ud/{l}_pocket-ud-train.conllu",
        "validation": "ud/{l}_pocket-ud-dev.conllu",
        "test": "ud/{l}_pocket-ud-test.conllu",
    },
    "topic": {
        "train": "sib200/{l}/train.tsv",
        "validation": "sib200/{l}/dev.tsv",
        "test": "sib200/{l}/test.tsv",
    },
}


def write_tasks(folder: Path, family: Family, world: World, seed: int = 0) -> None:
    """All tasks: train and validation in the source language, test in every language, rows parallel."""
    for task, sizes in SIZES.items():
        for split, examples in make_splits(task, world, sizes, seed).items():
            for language in family.languages if split == "test" else (family.source,):
                path = folder / _PLACES[task][split].format(l=language.code)
                _write(path, _say(task, examples, language, split))
