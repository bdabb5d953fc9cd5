"""Every task from file to score on a tiny model: it learns what is there to learn, and its Fisher can be measured."""

import json

import pytest

from fishlens.errors import InputError
from fishlens.training.tasks import make_task


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_nli(root):
    rows = [("entailment", "aaa", "aaa"), ("neutral", "bbb", "bbb"), ("contradiction", "ccc", "ccc")]
    text = "".join(f"{p}\t{h}\t{label}\n" for label, p, h in rows)
    write(root / "mnli" / "train-en.tsv", text * 4)


def write_topic(root):
    rows = [("travel", "aa ab"), ("sports", "bb cd"), ("health", '"cc ""ef"""')]
    text = "".join(f"{i}\t{label}\t{t}\n" for i, (label, t) in enumerate(rows))
    write(root / "sib200" / "eng_Latn" / "train.tsv", "index_id\tcategory\ttext\n" + text * 4)


def write_choice(root):
    rows = [("aaa", "bbb", 0), ("bbb", "aaa", 1)] * 6
    text = "".join(
        json.dumps({"premise": "p", "choice1": a, "choice2": b, "question": "cause", "label": c, "idx": i})
        + "\n"
        for i, (a, b, c) in enumerate(rows)
    )
    write(root / "copa" / "train.en.jsonl", text)


def write_qa(root):
    contexts = ["xx aa yy zz", "zz xx yy aa", "aa xx yy", "yy zz aa xx"] * 3
    paragraphs = [
        {
            "context": c,
            "qas": [
                {"id": str(i), "question": "q?", "answers": [{"text": "aa", "answer_start": c.index("aa")}]}
            ],
        }
        for i, c in enumerate(contexts)
    ]
    write(root / "squad" / "train-v1.1.json", json.dumps({"data": [{"paragraphs": paragraphs}]}))


def write_pos(root):
    rows = [("aa", "NOUN"), ("b", "VERB"), ("aa", "NOUN"), (".", "PUNCT")]
    lines = [f"{i}\t{w}\t_\t{t}" + "\t_" * 6 for i, (w, t) in enumerate(rows, 1)]
    write(root / "ud" / "en_x-ud-train.conllu", ("\n".join(lines) + "\n\n") * 12)


def write_ner(root):
    write(root / "ner" / "en" / "train.txt", "a B-PER\na I-PER\nc O\nd B-LOC\nc O\n\n" * 12)


def write_table(root):
    rows = [("aaa", "x", "x", 1.0), ("bbb", "y", "x;y", 0.0), ("ccc", "y", "", -1.0)]
    text = "".join(f"{t},{t},{label},{labels},{value}\n" for t, label, labels, value in rows)
    write(root / "train-en.csv", "text,second,label,labels,value\n" + text * 4)
    write(root / "train-en.jsonl", '{"words": ["aa", "b", "aa"], "tags": ["x", "y", "x"]}\n' * 12)


XY = {"labels": ["x", "y"]}
TASKS = {
    "nli": (write_nli, {}), "topic": (write_topic, {}), "choice": (write_choice, {}), "qa": (write_qa, {}),
    "pos": (write_pos, {}), "ner": (write_ner, {}), "text": (write_table, XY), "pair": (write_table, XY),
    "multilabel": (write_table, {**XY, "separator": ";"}), "regression": (write_table, {}),
    "tagging": (write_table, XY),
}  # fmt: skip


@pytest.fixture(params=list(TASKS))
def prepared(request, tmp_path, tokenizer, model):
    """(task, split, features, batch, model with the task's adapter and head)"""
    write_files, options = TASKS[request.param]
    write_files(tmp_path)
    if options or request.param == "regression":
        suffix = "jsonl" if request.param == "tagging" else "csv"
        options = {**options, "files": {"train": f"train-{{language}}.{suffix}"}}
    task = make_task(request.param, **options)
    split = task.load(tmp_path, "train", "en")
    features = task.encode(split, tokenizer, train=False)
    model.add_adapter("t", config="seq_bn")
    task.add_head(model)
    model.train_adapter("t")
    return task, split, features, task.collate(features, tokenizer), model.eval()


def scores(task, split, features, batch, model):
    import torch

    with torch.no_grad():
        rows = task.rows(model(**batch), batch)
    return task.score(split, task.predict(split, features, rows))


def test_a_task_is_learned_from_its_own_loss(prepared):
    import torch

    task, split, features, batch, model = prepared
    model.requires_grad_(True)  # all of it: an adapter on random weights learns slowly
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(40):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    after = scores(task, split, features, batch, model)
    assert after[task.headline] > 95, (task.name, after)
    assert all(0 <= value <= 100 for value in after.values())


def test_its_fisher_is_measured_on_its_batches(prepared):
    from fishlens.fisher import estimate_fisher

    task, _, features, batch, model = prepared
    estimate = estimate_fisher(model, batch, output=task.output, labels="empirical")
    assert estimate.meta["examples"] == len(features)
    assert all(value > 0 for value in estimate.trace.values())


def test_one_by_one_gives_the_same_predictions_as_in_a_batch(prepared, tokenizer):
    import torch

    task, _, features, batch, model = prepared
    together = task.rows(model(**batch), batch)
    with torch.no_grad():
        for feature, row in zip(features[:4], together, strict=False):
            alone = task.collate([feature], tokenizer)
            (single,) = task.rows(model(**alone), alone)
            assert torch.allclose(torch.from_numpy(single), torch.from_numpy(row), atol=1e-5)


def test_without_its_labels_the_fisher_is_the_same_whatever_they_said(prepared):
    import torch

    from fishlens.fisher import estimate_fisher

    task, _, _, batch, model = prepared
    blank = task.unlabelled(batch)
    for key in ("start_positions", "end_positions"):
        assert key not in blank
    if "labels" in blank:  # which tokens have one, and not what it is
        assert set(blank["labels"].unique().tolist()) <= {-100, 0}
    measured = [
        estimate_fisher(model, each, output=task.output, labels="exact").trace for each in (batch, blank)
    ]
    assert measured[0] == measured[1]
    assert torch.is_tensor(blank["input_ids"])


def test_raw_text_becomes_input_or_is_refused(prepared, tokenizer):
    task = prepared[0]
    lines = ["aa b c", "dd", "e f"]
    if task.name in ("choice", "qa"):
        with pytest.raises(
            InputError, match=f"'{task.name}' cannot be made of raw text: leave tracking.text out"
        ):
            task.from_text(lines, "de.txt", "de")
        return
    split = task.from_text(lines, "de.txt", "de")
    texts = [tokenizer.decode(row["input_ids"]) for row in task.encode(split, tokenizer, train=False)]
    pairs = ["<s>aa b c</s></s>dd</s>", "<s>dd</s></s>e f</s>"]
    expected = pairs if task.name in ("nli", "pair") else ["<s>aa b c</s>", "<s>dd</s>", "<s>e f</s>"]
    spaced = [text.replace("<", " <").replace(">", "> ").split() for text in texts]
    assert ["".join(words) for words in spaced] == [text.replace(" ", "") for text in expected]
