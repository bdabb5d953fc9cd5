"""Inputs of the target languages, without their labels: what the Fisher information of a language is measured on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.fisher.representation import FEWEST
from fishlens.recipe.paths import resolve_path
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.probe_set import probe_order
from fishlens.tracking.texts import UNKNOWN_NOTED, UNKNOWN_REFUSED, unknown_share
from fishlens.training.data.lines import numbered_lines
from fishlens.training.tasks import Split, Task, subset

INPUTS_FROM = ("validation", "test")  # the first that the language has


@dataclass(frozen=True)
class TargetInputs:
    """Rows of one language as the model is fed them. ids: which example each row came from, as its file calls it.

    notes: what a reader of the numbers has to know, one sentence each. pairs: if CKA is asked for, such rows beside
    those of the source's example of the same id.
    """

    language: str
    source: str
    rows: Sequence[Any]
    ids: Sequence[str]
    notes: tuple[str, ...] = ()
    pairs: Sequence[tuple[Any, Any]] = ()


def target_inputs(recipe: Recipe, task: Task, tokenizer: Any, language: str, count: int) -> TargetInputs:
    """`count` rows of a language, or as many as there are: the same ones in all languages whose files are parallel.

    Raises `InputError` for a language without text, text that the tokenizer mostly does not know, and a task that
    cannot be made of raw text.
    """
    split = _split(recipe, task, language)
    chosen = subset(split, min(count, len(split)), recipe.seed)
    features = task.encode(chosen, tokenizer, max_length=recipe.train.max_length, train=False)
    order = probe_order(len(features), recipe.seed)
    rows = [features[i] for i in order[:count]]
    notes = [f"language {language!r}: the Fisher information is measured on {split.source}, without labels"]
    unknown = share_of_unknown_tokens(task, rows, tokenizer)
    if unknown > UNKNOWN_REFUSED:
        raise InputError(
            f"language {language!r}: the tokenizer makes {unknown:.0%} of {split.source} {tokenizer.unk_token}; "
            f"expected at most {UNKNOWN_REFUSED:.0%}: leave the language out of tracking.languages"
        )
    if unknown > UNKNOWN_NOTED:
        notes.append(
            f"language {language!r}: the tokenizer makes {unknown:.0%} of the text {tokenizer.unk_token}"
        )
    ids = ids_of_rows(chosen, rows)
    pairs = _beside_the_source(recipe, task, tokenizer, split, rows, ids) if recipe.tracking.cka else ()
    return TargetInputs(language, split.source, rows, ids, tuple(notes), pairs)


def _beside_the_source(
    recipe: Recipe, task: Task, tokenizer: Any, split: Split, rows: Sequence[Any], ids: Sequence[str]
) -> list[tuple[Any, Any]]:
    """Every row whose example has a counterpart in the source's file of the same split, beside the counterpart's first.

    Raises `InputError` if there are too few for CKA.
    """
    source = _split(recipe, task, recipe.data.source, split.name)
    wanted = set(ids)
    chosen = replace(source, examples=tuple(example for example in source if _id(example) in wanted))
    theirs: dict[str, Any] = {}
    if len(chosen):
        for row in task.encode(chosen, tokenizer, max_length=recipe.train.max_length, train=False):
            theirs.setdefault(_id(chosen.examples[row["example"]]), row)
    first = dict(reversed(list(zip(ids, rows, strict=True))))
    pairs = [(row, theirs[name]) for name, row in first.items() if name in theirs]
    if len(pairs) < FEWEST:
        raise InputError(
            f"tracking.cka compares parallel examples, but {len(pairs)} of {split.source} have the id of one of "
            f"{source.source}; expected at least {FEWEST}: set tracking.cka to false"
        )
    return pairs


def ids_of_rows(split: Split, rows: Sequence[Any]) -> list[str]:
    """What the example of each row is called in its file."""
    return [_id(split.examples[row["example"]]) for row in rows]


def _id(example: Any) -> str:
    return str(getattr(example, "id", ""))


def _split(recipe: Recipe, task: Task, language: str, only: str | None = None) -> Split:
    """The validation split of the language, or else its test split; or `only` that one; or the raw text.

    A file that a recipe names without {language} is the source's: what it holds is not text of another language.
    """
    if recipe.tracking.text is not None:
        return _of_text(recipe.tracking.text.replace("{language}", language), task, language)
    root, missing = recipe.data.folder, []
    for name in INPUTS_FROM if only is None else (only,):
        try:
            task.file(root, name, language)
        except InputError as error:
            missing.append(str(error))
            continue
        split = task.load(root, name, language)
        if not _of_the_source(recipe, task, split):
            return split
        missing.append(
            f"data.{name} is {split.source}, whose examples are those of the source language {recipe.data.source!r}; "
            "expected a pattern with {language}"
        )
    raise InputError(
        f"language {language!r} of tracking.languages has no text: {missing[-1]}; add the file, give raw text by "
        "tracking.text, or leave the language out"
    )


def _of_the_source(recipe: Recipe, task: Task, split: Split) -> bool:
    root, source = recipe.data.folder, recipe.data.source
    if split.language == source:
        return False
    try:
        if str(task.file(root, split.name, source)) != split.source:
            return False
    except InputError:
        return False
    return split.examples == task.load(root, split.name, source).examples


def _of_text(named: str, task: Task, language: str) -> Split:
    path = Path(resolve_path(named))
    if not path.is_file():
        raise InputError(f"language {language!r} of tracking.languages has no text: {path} is not a file")
    lines = [line.strip() for _, line in numbered_lines(path)]
    split = task.from_text([line for line in lines if line], str(path), language)
    if not len(split):
        raise InputError(f"{path} has too little text for one example of the task {task.name!r}")
    return split


def share_of_unknown_tokens(task: Task, rows: Sequence[Any], tokenizer: Any) -> float:
    """Of the tokens of these rows, special ones aside, the share that the tokenizer calls unknown."""
    ids = task.collate(rows, tokenizer).get("input_ids")
    # (a task of somebody's own may have a model that takes something else)
    return 0.0 if ids is None else unknown_share(ids, tokenizer)
