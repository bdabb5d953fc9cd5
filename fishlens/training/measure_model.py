"""`measure_model`: the Fisher information of a model that no recipe of ours trained, on a file of texts.

What the model is fed follows from its head: the tasks of recipes for labels, spans and tags, plain text for language
models. A table needs labels only where the measurement does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fishlens.errors import InputError
from fishlens.fisher.blocks import find_blocks
from fishlens.recipe.loading import differences, load_recipe
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.probe_set import probe_order
from fishlens.tracking.texts import masked
from fishlens.tracking.tracker import Tracker
from fishlens.training.data.texts import read_texts
from fishlens.training.measure_run import Kept, Measurement
from fishlens.training.preparation import make_accelerator
from fishlens.training.pretrained import CAUSAL, MASKED, Pretrained
from fishlens.training.probes import estimator_options, own_blocks, probe_size
from fishlens.training.targets import ids_of_rows
from fishlens.training.tasks import Split, Task, make_task
from fishlens.training.tasks.base import NOT_SCORED
from fishlens.training.tasks.classification import TextExample
from fishlens.training.tasks.encoding import encode_texts, pad
from fishlens.training.tasks.text import ColumnText

MAY_CHANGE = (
    "seed", "train.max_length", "train.batch_size",
    "task.columns", "task.header", "task.quoting", "task.delimiter", "task.separator", "task.stride", "task.prompt",
    "tracking.examples", "tracking.labels", "tracking.samples", "tracking.granularity", "tracking.preset",
    "tracking.blocks", "tracking.noise_scale",
)  # fmt: skip


@dataclass(frozen=True)
class _Inputs:
    """Rows of a file, what the example of each is called there, and the shape of the model's output."""

    rows: Sequence[Any]
    ids: Sequence[str]
    output: str
    collate: Callable[[Sequence[int]], dict[str, torch.Tensor]]  # of rows by their numbers


def measure_model(model: str | Path, data: str | Path, overrides: Sequence[str] = ()) -> Measurement:
    """Measure a model (a folder or hub id) on a table with the columns of its task, or on raw text (`.txt`).

    overrides: fields of a recipe that say how, `tracking.labels=mc`, `task.columns={text: sentence}` (MAY_CHANGE).
    Raises `InputError` for what cannot be read or measured.
    """
    source, path = Pretrained.of(str(model)), Path(data)
    recipe = _recipe(source, path, overrides)
    loaded, tokenizer = source.load()
    inputs = _inputs(source, recipe, path, tokenizer)
    device = make_accelerator(recipe).device
    loaded.to(device)
    count, size = probe_size(recipe)
    order = probe_order(len(inputs.rows), recipe.seed)[:count]
    batches = [inputs.collate(order[i : i + size]) for i in range(0, len(order), size)]
    patterns, parameters = recipe.tracking.blocks, dict(loaded.named_parameters())
    kept = Kept()
    tracker = Tracker(
        loaded,
        [{key: value.to(device) for key, value in batch.items()} for batch in batches],
        writer=kept,  # type: ignore[arg-type]
        every=1,
        blocks=own_blocks(parameters, patterns) if patterns else find_blocks(loaded),
        output=inputs.output,
        **estimator_options(recipe),
        examples_ids={None: [inputs.ids[i] for i in order]},
    )
    tracker.step(0)
    if tracker.trouble:
        raise InputError(f"{model} cannot be measured: {tracker.trouble}")
    records = [{"estimator": tracker.identity, **record, "purpose": "measure"} for record in kept.records]
    texts = [f"{source.architecture} {model} on {len(order)} rows of {data}"]
    return Measurement(Path(model), 0, None, records, [*texts, *(note["text"] for note in kept.notes)])


def _recipe(source: Pretrained, data: Path, overrides: Sequence[str]) -> Recipe:
    """How to measure, as the fields of a recipe that have this meaning."""
    if not data.is_file():
        raise InputError(f"--data is {str(data)!r}, which is not a file; expected a table or a text file")
    task: dict[str, Any] = {"name": source.task if source.task not in (MASKED, CAUSAL) else "text"}
    if source.task == "tagging":
        task["labels"] = list(source.labels)
    elif source.labels:  # a table may name them, or number them as the model does
        named = {name: name for name in source.labels}
        task["labels"] = {**named, **{str(i): n for i, n in enumerate(source.labels) if str(i) not in named}}
    plain = {"name": "measure", "model": source.name, "adapter": None, "task": task, "train": {"steps": 1}}
    recipe = load_recipe(plain, overrides=overrides)
    for path, value, _ in differences(recipe, load_recipe(plain)):
        if not path.startswith(MAY_CHANGE):
            raise InputError(f"{path} is {value!r}; of a model; expected one of {', '.join(MAY_CHANGE)}")
    return recipe


def _inputs(source: Pretrained, recipe: Recipe, data: Path, tokenizer: Any) -> _Inputs:
    length = recipe.train.max_length
    if source.task in (MASKED, CAUSAL):
        columns = dict(recipe.task.options.get("columns") or {})
        texts = _texts(recipe, data, [columns.get("text", "text")])
        rows = encode_texts(tokenizer, [text for _, [text] in texts], None, length or Task.max_length)
        ids = [name for name, _ in texts]

        def collate(part: Sequence[int]) -> dict[str, torch.Tensor]:
            batch = pad([rows[i] for i in part], tokenizer)
            if source.task == CAUSAL:
                return _asked_for_every_token(batch)
            return masked(batch, [f"{recipe.seed}/{ids[i]}" for i in part], tokenizer)

        return _Inputs(rows, ids, source.task, collate)
    pairs = recipe.task.name == "text" and "second" in (recipe.task.options.get("columns") or {})
    name = "pair" if pairs else recipe.task.name
    task = make_task(name, files={"test": {recipe.data.source: str(data)}}, **recipe.task.options)
    split = _split(task, recipe, data)
    rows = task.encode(split, tokenizer, max_length=length, train=True)
    return _Inputs(
        rows,
        ids_of_rows(split, rows),
        task.output,
        lambda part: task.collate([rows[i] for i in part], tokenizer),
    )


def _split(task: Task, recipe: Recipe, data: Path) -> Split:
    """The file's examples; their labels are read only if the measurement needs them."""
    labelled = recipe.tracking.labels == "empirical" or recipe.tracking.noise_scale
    if not isinstance(task, ColumnText) or (labelled and data.suffix != ".txt"):
        return task.load(".", "test", recipe.data.source)
    if labelled:
        raise InputError(
            f"{data} has no labels, which labels=empirical and noise_scale need; expected a table"
        )
    columns = [task.columns[name] for name in ("text", "second") if name in task.columns]
    examples = tuple(
        TextExample(name, texts[0], texts[1] if len(texts) > 1 else None, task.blank)
        for name, texts in _texts(recipe, data, columns)
    )
    return Split("text", recipe.data.source, str(data), examples)


def _texts(recipe: Recipe, data: Path, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    told = {
        key: recipe.task.options[key]
        for key in ("header", "quoting", "delimiter")
        if key in recipe.task.options
    }
    return read_texts(data, columns, **told)


def _asked_for_every_token(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, NOT_SCORED)}
