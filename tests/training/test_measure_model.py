"""A model that no recipe trained is measured on a file: the numbers are plain autograd's, whatever its head."""

import json

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config
from typer.testing import CliRunner

from fishlens.cli import app
from fishlens.errors import InputError
from fishlens.fisher import find_blocks, reference_fisher
from fishlens.training.measure_model import measure_model

TEXTS = ["one two", "a third text that is longer", "four", "and five"]
MOODS = ["good", "bad", "good", "odd"]


def save(tmp_path, tokenizer, architecture, **options):
    torch.manual_seed(1)
    if architecture.startswith("GPT2"):
        config = GPT2Config(vocab_size=100, n_embd=8, n_layer=2, n_head=2, n_positions=64)
    else:
        config = BertConfig(
            vocab_size=100, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8,
            max_position_embeddings=64, pad_token_id=1, **options,
        )  # fmt: skip
    getattr(transformers, architecture)(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


NAMED = {"id2label": {0: "bad", 1: "good", 2: "odd"}, "label2id": {"bad": 0, "good": 1, "odd": 2}}
CLASSIFIER, MULTI = "BertForSequenceClassification", "multi_label_classification"


def plain_autograd(place, drawn, **batch):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place).double().eval()
    return reference_fisher(model, batch, find_blocks(model), labels=drawn).trace


@pytest.mark.parametrize("labels", ["exact", "empirical"])
@pytest.mark.parametrize("numbered", [False, True])
def test_a_classifier(tmp_path, tokenizer, labels, numbered):
    """The table names the labels, or numbers them as the model does; only the empirical Fisher reads them."""
    place = save(tmp_path, tokenizer, CLASSIFIER, **NAMED)
    index = NAMED["label2id"]
    rows = [
        {"sentence": text, "label": index[mood] if numbered else mood}
        for text, mood in zip(TEXTS, MOODS, strict=True)
    ]
    if labels == "exact":
        rows = [{"sentence": row["sentence"]} for row in rows]
    found = measure_model(
        place,
        write(tmp_path / "moods.jsonl", rows),
        [f"tracking.labels={labels}", "task.columns={text: sentence}"],
    )
    [record] = found.records
    assert (record["examples"], record["estimator"]["labels"], found.series) == (4, labels, None)
    assert sorted(record["examples_ids"]) == ["1", "2", "3", "4"]
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    wanted = plain_autograd(
        place, labels,
        **batch, labels=torch.tensor([index[mood] for mood in MOODS]),
    )  # fmt: skip
    assert record["trace"] == pytest.approx(wanted, rel=1e-4)


def test_a_pair_of_texts_is_one_row(tmp_path, tokenizer):
    place = save(tmp_path, tokenizer, CLASSIFIER, **NAMED)
    rows = [{"premise": a, "hypothesis": b} for a, b in zip(TEXTS, MOODS, strict=True)]
    overrides = ["tracking.labels=exact", "task.columns={text: premise, second: hypothesis}"]
    [record] = measure_model(place, write(tmp_path / "pairs.jsonl", rows), overrides).records
    assert record["estimator"]["output"] == "classification"
    batch = tokenizer(TEXTS, MOODS, padding=True, return_tensors="pt")
    wanted = plain_autograd(
        place, "exact",
        **batch, labels=torch.zeros(4, dtype=torch.long),
    )  # fmt: skip
    assert record["trace"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "BertForMaskedLM"])
def test_a_language_model_reads_plain_text(tmp_path, tokenizer, architecture):
    """Of the next token everything is predicted, of a masked row at least one token; padding never."""
    place = save(tmp_path, tokenizer, architecture)
    (tmp_path / "lines.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    overrides = ["tracking.labels=empirical", "tracking.samples=1"]
    found = measure_model(place, tmp_path / "lines.txt", overrides)
    [record] = found.records
    assert record["examples"] == 4 and all(value > 0 for value in record["trace"].values())
    assert measure_model(place, tmp_path / "lines.txt", overrides).records[0]["trace"] == record["trace"]
    if architecture.startswith("GPT2"):
        model = transformers.GPT2LMHeadModel.from_pretrained(place).double().eval()
        total = dict.fromkeys(record["trace"], 0.0)
        for text in TEXTS:
            ids = tokenizer(text, return_tensors="pt").input_ids
            scores = model(ids).logits[0, :-1].log_softmax(-1)
            log_p = scores[torch.arange(len(scores)), ids[0, 1:]].sum()
            grads = torch.autograd.grad(log_p, list(model.parameters()))
            total["all"] = total.get("all", 0.0) + sum(float((g**2).sum()) for g in grads) / 4
        assert sum(record["trace"].values()) == pytest.approx(total["all"], rel=1e-4)


@pytest.mark.parametrize(
    ("architecture", "options", "row", "output"),
    [
        (CLASSIFIER, {"num_labels": 1}, {"text": "a text", "value": 0.5}, "regression"),
        (CLASSIFIER, {"problem_type": MULTI, **NAMED}, {"text": "a", "labels": ["odd"]}, "multilabel"),
        ("BertForTokenClassification", NAMED, {"words": ["a", "b"], "tags": ["odd", "bad"]}, "tagging"),
    ],
)  # fmt: skip
def test_other_heads_read_what_their_task_reads(tmp_path, tokenizer, architecture, options, row, output):
    place = save(tmp_path, tokenizer, architecture, **options)
    [record] = measure_model(place, write(tmp_path / "rows.jsonl", [row, row])).records
    assert record["estimator"]["output"] == output and record["examples"] == 2 and record["trace"]["head"] > 0


def test_the_numbers_do_not_depend_on_how_the_rows_are_batched(tmp_path, tokenizer):
    """Masks are drawn for each row, by the seed and its place in the file."""
    place = save(tmp_path, tokenizer, "BertForMaskedLM")
    (tmp_path / "lines.txt").write_text("\n".join(TEXTS * 10), encoding="utf-8")
    all_of_them = measure_model(
        place, tmp_path / "lines.txt", ["tracking.labels=empirical", "tracking.examples=40"]
    )
    few = measure_model(place, tmp_path / "lines.txt", ["tracking.labels=empirical", "tracking.examples=3"])
    assert few.records[0]["examples_ids"] == all_of_them.records[0]["examples_ids"][:3]


def test_the_command_prints_a_table_and_writes_nothing(tmp_path, tokenizer, monkeypatch):
    save(tmp_path, tokenizer, CLASSIFIER, **NAMED)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    there = sorted(tmp_path.rglob("*"))
    command = ["measure", "model", "--data", "texts.txt", "--labels", "exact", "--examples", "3"]
    printed = CliRunner().invoke(
        app, [*command, "--blocks", "attention=*.attention.*"], catch_exceptions=False
    )
    assert printed.exit_code == 0 and "attention" in printed.stdout and "labels=exact" in printed.stdout
    result = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    [probe] = json.loads(result.stdout)["probes"]
    assert list(probe["trace"])[-1] == "head" and probe["examples"] == 3
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize(
    ("architecture", "data", "overrides", "message"),
    [
        ("BertModel", "t.txt", [], r"is a BertModel; expected one of …ForSequence"),
        (CLASSIFIER, "no.txt", [], r"'.*no.txt', which is not a file"),
        (CLASSIFIER, "t.txt", ["tracking.labels=empirical"], r"t.txt has no labels, which labels=empirical"),
        (CLASSIFIER, "t.txt", ["task.columns={text: a, second: b}"], r"raw text, which has no columns"),
        (CLASSIFIER, "t.jsonl", ["tracking.labels=empirical"], r"t.jsonl.*: no 'label'; there is 'text'"),
        (CLASSIFIER, "t.jsonl", ["task.columns={text: nothing}"], r"no 'nothing'; there is"),
        (CLASSIFIER, "t.txt", ["tracking.cka=true"], r"tracking.cka is given, but tracking.languages"),
        (CLASSIFIER, "t.txt", ["train.steps=5"], r"train.steps is 5; of a model; expected one of seed"),
        (CLASSIFIER, "t.txt", ["tracking.blocks={a: 'no*'}"], r"tracking.blocks: 'a' matches no parameter"),
        (CLASSIFIER, "empty.txt", [], r"empty.txt is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused(tmp_path, tokenizer, architecture, data, overrides, message):
    place = save(tmp_path, tokenizer, architecture)
    (tmp_path / "t.txt").write_text("some text")
    (tmp_path / "empty.txt").write_text("\n")
    write(tmp_path / "t.jsonl", [{"text": "some text"}])
    with pytest.raises(InputError, match=message):
        measure_model(place, tmp_path / data, overrides)


def test_a_head_that_the_checkpoint_lacks_is_not_drawn_at_random(tmp_path, tokenizer):
    place = save(tmp_path, tokenizer, "BertModel")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, "architectures": [CLASSIFIER]}))
    (tmp_path / "t.txt").write_text("some text")
    with pytest.raises(
        InputError, match=r"lacks 2 weights, classifier.bias among them, which would be drawn at random"
    ):
        measure_model(place, tmp_path / "t.txt")


@pytest.mark.parametrize("words", [["--step", "2"], ["--language", "de"], []])
def test_options_of_runs_are_not_ignored(tmp_path, tokenizer, words):
    place = save(tmp_path, tokenizer, CLASSIFIER)
    with pytest.raises(InputError, match="is not a run"):
        CliRunner().invoke(app, ["measure", str(place), *words], catch_exceptions=False)
