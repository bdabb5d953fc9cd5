"""What many runs look like side by side: tidy frames, whether they come from journals or from exported files."""

from dataclasses import dataclass

import pandas as pd

from fishlens.journal.declarations import Column
from fishlens.journal.find import LeftOut
from fishlens.journal.kinds import (
    EVAL,
    FISHER,
    KINDS,
    NOTE,
    PROBE_COLUMNS,
    SERIES_COLUMNS,
    TRAIN,
    UNFREEZE,
    columns_of,
)

# table -> its columns after run, step and time
COLUMNS = {
    "fisher": list(columns_of(FISHER)),
    "evaluation": list(columns_of(EVAL)),
    "training": list(columns_of(TRAIN)),
    "unfreezing": list(columns_of(UNFREEZE)),
    "notes": list(columns_of(NOTE)),
    "fisher_series": list(columns_of(FISHER, SERIES_COLUMNS)),
    "probes": list(columns_of(FISHER, PROBE_COLUMNS)),
}
TABLES = tuple(COLUMNS)
# table -> the kind of record that its rows are
KIND_OF = {kind.table: kind for kind in KINDS.values() if kind.table} | {
    "fisher_series": FISHER,
    "probes": FISHER,
}
# what the frame `runs` always has, besides factors and the estimator's identity
RUN_COLUMNS = [
    Column("run", "", "category"),
    Column("path", "", "object"),
    Column("status", "", "category"),
    Column("attempts", "", "int64"),
    Column("steps", "", "int64"),
    Column("began", "", "float64"),
    Column("last", "", "float64"),
    Column("blocks", "", "int64"),
    Column("best_step", "", "float64"),
    Column("error", "", "object"),
    Column("damaged", "", "int64"),
    Column("id", "", "object", since=2),
]
assert {kind.table for kind in KINDS.values() if kind.table} <= {*TABLES}


@dataclass(frozen=True)
class Runs:
    """What many runs left behind, as data frames whose `run` column says whose a row is.

    `runs`: one row per run: `run`, `path`, `status`, `attempts`, `steps` (updates completed), `began`,
    `last` (seconds since the epoch), `blocks` (how many), `best_step`, `error`, `damaged` (lines that could
    not be read), every factor of the start record under its own name, and the estimator's identity as
    `estimator_<field>`.
    `fisher`: run, step, time, block, trace, stderr, trainable, effective_dimension, noise_scale,
    weight_norm, purpose, examples, overhead, drift; one row per run × step × block. The tracked series on the source
    language and nothing else.
    `evaluation`: run, step, time, split, language, metric, value (points), headline, examples, best, unit.
    `training`: run, step, time, loss, learning_rate, gradient_norm, epoch, seconds.
    `unfreezing`: run, step, time, event, position (0, 1, … within the event), block, score, stderr,
    runner_up, margin; one row per thawed block.
    `notes`: run, step, time, level, text; also lost probes and damaged lines.
    `fisher_series`: as `fisher`, and language, series, overlap, rank_overlap, cka: probes of other languages and named
    series. They are a frame of their own, so that no curve ever mixes them with the tracked series.
    `probes`: run, step, time, language (none: the source), series, purpose, examples, seconds, entropy, confidence,
    atc, critical_sharpness; one row per probe, lost ones left out.
    `left_out`: what was asked for and could not be read, or is a copy of a run that is here.
    """

    runs: pd.DataFrame
    fisher: pd.DataFrame
    evaluation: pd.DataFrame
    training: pd.DataFrame
    unfreezing: pd.DataFrame
    notes: pd.DataFrame
    fisher_series: pd.DataFrame | None = None
    probes: pd.DataFrame | None = None
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        for table in ("fisher_series", "probes"):
            if getattr(self, table) is None:
                names = ["run", "step", "time", *(column.name for column in COLUMNS[table])]
                object.__setattr__(self, table, pd.DataFrame(columns=names))
