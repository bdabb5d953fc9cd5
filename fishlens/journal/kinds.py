"""The kinds of records: one declaration each, from which the writer's checks, the reader and the frames are made.

A field has a type, a unit and a meaning; a kind says which fields make two records the same record written twice
(the later attempt's is kept) and what its frame looks like. A new field or kind is added here and nowhere else;
docs/journal.md is printed from this file (`describe`), and a test holds them together.

Versions: `FORMAT` changes when an old reader would misread new records, and is then refused; `MINOR` when fields or
kinds are added: an older reader keeps and ignores what it does not know.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fishlens.journal.declarations import (
    BLOCK,
    BLOCKS,
    COUNT,
    COUNTS,
    FLAG,
    FLAGS,
    IDS,
    NAME,
    NUMBER,
    NUMBERS,
    POINTS,
    POSITIVE,
    SCORE,
    SETTINGS,
    SHARE,
    STATUS,
    STATUSES,
    TEXT,
    TIME,
    Column,
    Field,
    Kind,
)

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 1
MINOR = 2

_COMMON = {
    "step": Field(
        COUNT, "completed optimizer updates: the record is about the weights after so many", "updates", True
    ),
    "time": Field(TIME, "when it was written; a label only, order is the order of lines", "s"),
}
_FISHER_COLUMNS = (
    "block", "trace", "stderr", "trainable", "effective_dimension", "noise_scale", "weight_norm", "purpose",
    "examples", "overhead", "drift",
)  # fmt: skip

START = Kind(
    "start",
    "first line of every file: what the run is and what its numbers are",
    {
        "format": Field(COUNT, f"format of the journal ({FORMAT})", required=True),
        "minor": Field(COUNT, f"minor version ({MINOR}): a reader ignores what a newer one added", since=1),
        "attempt": Field(COUNT, "1, 2, …: the number in the file's name", required=True),
        "id": Field(NAME, "identity of the run: kept by its attempts and by copies of its folder", since=1),
        "resumed_from_step": Field(COUNT, "null: from the beginning; else readers drop what earlier attempts wrote "
                                   "after that step", "updates"),
        "run": Field(NAME, "name of the run's folder when it began"),
        "time": Field(TIME, "when the attempt began", "s"),
        "factors": Field(SETTINGS, "what an analysis groups by: task, model, adapter, schedule, seed, source, …"),
        "estimator": Field(SETTINGS, "identity of the numbers: labels, samples, granularity, examples, mode, dtype, …"),
        "blocks": Field(COUNTS, "parameters of each block, bottom to top"),
        "seeds": Field(SETTINGS, "seed of everything that draws"),
        "device": Field(NAME, "where the model is"),
        "versions": Field(SETTINGS, "of fishlens, Python and the libraries that numbers depend on"),
        "fingerprints": Field(SETTINGS, "content of model, adapters and data: moved is not changed", since=1),
        "command": Field(TEXT, "how the run was started", since=1),
        "git": Field(SETTINGS, "commit of the working directory, and whether it was changed since", since=1),
        "machine": Field(NAME, "name of the machine", since=1),
        "user": Field(NAME, "who started it", since=1),
        "process": Field(SETTINGS, "host, process id and when the process began"),
    },
)  # fmt: skip
FISHER = Kind(
    "fisher",
    "one probe: the Fisher information of every block, and what it cost",
    _COMMON
    | {
        "trace": Field(NUMBERS, "trace of the block's Fisher information", limits=POSITIVE),
        "stderr": Field(NUMBERS, "its standard error over examples", limits=POSITIVE),
        "trainable": Field(FLAGS, "was the block trainable then, before an event at this step"),
        "effective_dimension": Field(
            NUMBERS, "(sum of the diagonal)² / sum of its squares", "parameters", limits=POSITIVE
        ),
        "noise_scale": Field(NUMBERS, "gradient noise scale", "examples"),
        "weight_norm": Field(NUMBERS, "norm of the block's weights", limits=POSITIVE),
        "drift": Field(
            NUMBERS,
            "Jensen-Shannon divergence of the diagonal's log-histogram from the probe before, in "
            "the same language",
            "bits",
            since=1,
        ),
        "overlap": Field(
            NUMBERS,
            "of the diagonal with the source's at this step: cosine of the square roots",
            since=1,
            limits=SHARE,
        ),
        "rank_overlap": Field(NUMBERS, "the same by Spearman's correlation of the entries", since=1),
        "cka": Field(
            NUMBERS, "linear CKA of the layer's representation with the source's, on parallel rows", since=1
        ),
        "entropy": Field(NUMBER, "mean entropy of the predictions", "nats", since=1, limits=POSITIVE),
        "confidence": Field(NUMBER, "mean largest probability of the predictions", since=1, limits=SHARE),
        "atc": Field(
            NUMBER,
            "accuracy that average thresholded confidence predicts",
            "points (0–100)",
            since=1,
            limits=POINTS,
        ),
        "critical_sharpness": Field(NUMBER, "of the language's loss along the source's update", since=1),
        "examples": Field(COUNT, "examples measured", "examples"),
        "examples_ids": Field(
            IDS,
            "which examples, as their file calls them: said by the first probe that measures so many of a language; a "
            "smaller one measures the first of them",
            since=1,
        ),
        "language": Field(NAME, "language of the examples; null: the source language", since=1),
        "series": Field(NAME, "null: the tracked series; a named series is never part of a curve", since=1),
        "seconds": Field(NUMBER, "what the probe took", "s"),
        "overhead": Field(NUMBER, "share of the time so far that went into probes"),
        "purpose": Field(
            NAME, "track (the tracker's clock), select (asked for by a schedule) or measure (after the run)"
        ),
        "diagonal": Field(NAME, "file of the diagonal, in the run's folder"),
        "lost": Field(TEXT, "why there are no values"),
        "estimator": Field(SETTINGS, "where it differs from the start record's"),
    },
    identity=("purpose", "examples", "language", "series"),
    table="fisher",
    columns=_FISHER_COLUMNS,
    each="trace",
    needs=("trace", "lost"),
)
UNFREEZE = Kind(
    "unfreeze",
    "one event of a schedule: what was thawed, and the scores that decided",
    _COMMON
    | {
        "event": Field(COUNT, "0, 1, …"),
        "chosen": Field(BLOCKS, "blocks thawed, in order", required=True),
        "trainable": Field(BLOCKS, "blocks that train after the event"),
        "scores": Field(NUMBERS, "trace of each block that was to choose from"),
        "stderr": Field(NUMBERS, "standard errors of the scores"),
        "runner_up": Field(BLOCK, "the next one"),
        "margin": Field(NUMBER, "between the last chosen and the runner-up", "standard errors"),
        "examples": Field(COUNT, "examples that the scores are of", "examples"),
        "ended": Field(
            TEXT, "the stopping rule, at the event where the schedule ends and thaws all that is left", since=1
        ),
    },
    identity=("event",),
    table="unfreezing",
    columns=(
        Column("event", "event", "int64", missing=-1), "position", "block", Column("score", "scores"), "stderr",
        "runner_up", "margin",
    ),
    each="chosen",
)  # fmt: skip
TRAIN = Kind(
    "train",
    "a logged step",
    _COMMON
    | {
        "loss": Field(NUMBER, "training loss"),
        "learning_rate": Field(NUMBER, "of the step"),
        "gradient_norm": Field(NUMBER, "before clipping"),
        "epoch": Field(NUMBER, "passes over the training examples so far"),
        "seconds": Field(NUMBER, "of training so far, without probes and evaluation", "s"),
    },
    table="training",
    columns=("loss", "learning_rate", "gradient_norm", "epoch", "seconds"),
)
EVAL = Kind(
    "eval",
    "one metric of one language on one split",
    _COMMON
    | {
        "split": Field(
            NAME, "validation, test, or targets: target languages over training, which choose nothing"
        ),
        "language": Field(NAME, "language of the examples"),
        "metric": Field(NAME, "name of the metric", required=True),
        "value": Field(NUMBER, "the score", "points (0–100) unless `unit` says otherwise", limits=SCORE),
        "unit": Field(NAME, "null: points; else what the value is in", since=1),
        "headline": Field(FLAG, "is this the task's headline metric"),
        "examples": Field(COUNT, "examples scored", "examples"),
        "best": Field(FLAG, "is this the best validation so far"),
    },
    identity=("split", "language", "metric"),
    table="evaluation",
    columns=("split", "language", "metric", "value", "headline", "examples", "best", "unit"),
)
NOTE = Kind(
    "note",
    "something a reader should know",
    _COMMON
    | {
        "level": Field(NAME, "info, warning or error"),
        "text": Field(TEXT, "one sentence", required=True),
    },
    identity=("text",),
    table="notes",
    columns=("level", "text"),
)
END = Kind(
    "end",
    "how the attempt ended; without one it is running, or it died",
    _COMMON
    | {
        "status": Field(STATUS, f"{', '.join(STATUSES)}", required=True),
        "error": Field(TEXT, "why it failed"),
        "best_step": Field(COUNT, "step of the best validation", "updates"),
    },
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in (START, FISHER, UNFREEZE, TRAIN, EVAL, NOTE, END)}

# a frame of the same records as another: probes that are not the tracked series on the source language
SERIES_COLUMNS = (*_FISHER_COLUMNS, "language", "series", "overlap", "rank_overlap", "cka")
# and of all probes, one row each: what is not by block
PROBE_COLUMNS = (
    "language", "series", "purpose", "examples", "seconds", "entropy", "confidence", "atc", "critical_sharpness",
)  # fmt: skip


def identity(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What makes two records the same record, written twice. The record's kind must be one of `KINDS`."""
    kind = KINDS[record["kind"]]
    return kind.name, record["step"], *(record.get(name) for name in kind.identity)


def columns_of(kind: Kind, names: tuple[str | Column, ...] | None = None) -> Iterator[Column]:
    """The columns of a kind's frame with their dtypes, `block` and `position` included."""
    for column in kind.columns if names is None else names:
        if isinstance(column, str) and column in ("block", "position"):
            yield Column(column, "", "category" if column == "block" else "int64")
            continue
        one = Column(column, column) if isinstance(column, str) else column
        dtype = one.dtype or kind.fields[one.field].type.dtype
        assert dtype, f"{kind.name}.{one.field} has no place in a frame"
        yield Column(one.name, one.field, dtype, one.missing, kind.fields[one.field].since)


def _between(one: Field) -> str:
    if one.limits is None:
        return ""
    many = "each " if one.type.by_block else ""
    return f", {many}{one.limits.words.removeprefix('a number ')}"


def problem_of_frame(frame: "DataFrame", columns: Iterable[Column], kind: Kind) -> str | None:
    """What is wrong with the values of a kind's frame, in words: the first row with a value outside its limits.

    What the writer asks of a record, asked of a table that may come from anywhere.
    """
    if (before := frame["step"] < 0).any():
        return f"row {_first(before)}: step is {frame['step'][before].iloc[0]}; expected {COUNT.words}"
    for one in columns:
        declared = kind.fields.get(one.field)
        if declared is None or (limits := declared.limits) is None or one.name not in frame:
            continue
        values = frame[one.name]
        outside = (values < limits.low - limits.slack(limits.low)) | (
            values > limits.high + limits.slack(limits.high)
        )
        if limits.unless in frame:
            outside &= frame[limits.unless].isna()
        if outside.any():
            return (
                f"row {_first(outside)}: {one.name} is {values[outside].iloc[0]:g}; expected {limits.words}"
            )
    return None


def _first(rows: Any) -> int:
    return int(rows.to_numpy().argmax()) + 1


def describe() -> str:
    """Every kind and field as Markdown tables: what docs/journal.md shows."""
    parts = []
    for kind in KINDS.values():
        rows = [
            f"| `{name}` | {one.type.words}{_between(one)} | {one.unit} | {one.says} |"
            for name, one in kind.fields.items()
        ]
        same = ", ".join(f"`{name}`" for name in kind.identity)
        again = f" Written again by a later attempt when step{', ' + same if same else ''} are the same." * (
            kind.name not in ("start",)
        )
        head = f"**`{kind.name}`**: {kind.says}.{again}\n\n| field | is | unit | says |\n|---|---|---|---|\n"
        parts.append(head + "\n".join(rows) + "\n")
    return "\n".join(parts)
