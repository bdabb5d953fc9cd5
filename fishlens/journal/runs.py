"""What many runs look like side by side: tidy frames, whether they come from journals or from exported files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from fishlens.journal.declarations import Column
from fishlens.journal.find import LeftOut
from fishlens.journal.kinds import FISHER, KINDS, PROBE_COLUMNS, SERIES_COLUMNS, columns_of

_NAMED = {kind.table: kind for kind in KINDS.values() if kind.table is not None}
# table -> the kind of record that its rows are
KIND_OF = _NAMED | {"fisher_series": FISHER, "probes": FISHER}
# table -> its columns after run, step and time
COLUMNS = {name: list(columns_of(kind)) for name, kind in _NAMED.items()} | {
    "fisher_series": list(columns_of(FISHER, SERIES_COLUMNS)),
    "probes": list(columns_of(FISHER, PROBE_COLUMNS)),
}
TABLES = tuple(COLUMNS)
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
    `others`: {table: frame} of further kinds of records; such a frame is an attribute too, by its table's name.
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
    others: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def of(cls, frames: Mapping[str, pd.DataFrame], left_out: tuple[LeftOut, ...] = ()) -> "Runs":
        """From {table: frame}, `runs` among them."""
        return cls(**_by_field(frames), left_out=left_out)

    def with_frames(self, frames: Mapping[str, pd.DataFrame]) -> "Runs":
        """The same with these frames instead of those of their names."""
        return replace(self, **_by_field({**self.others, **frames}))

    def __getattr__(self, name: str) -> pd.DataFrame:
        others = self.__dict__.get("others", {})
        if name not in others:
            raise AttributeError(f"runs have no table {name!r}")
        return others[name]

    def __post_init__(self) -> None:
        for table in ("fisher_series", "probes"):
            if getattr(self, table) is None:
                names = ["run", "step", "time", *(column.name for column in COLUMNS[table])]
                object.__setattr__(self, table, pd.DataFrame(columns=names))


def _by_field(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    """Frames that are fields of `Runs`, and the rest as `others`."""
    own = {one.name for one in fields(Runs)}
    rest = {name: frame for name, frame in frames.items() if name not in own}
    return {**{name: frame for name, frame in frames.items() if name in own}, "others": rest}
