"""What many runs look like side by side: tidy frames, whether they come from journals or from exported files."""

from dataclasses import dataclass

import pandas as pd

TABLES = ("fisher", "evaluation", "training", "unfreezing", "notes")


@dataclass(frozen=True)
class Runs:
    """What many runs left behind, as data frames whose `run` column says whose a row is.

    `runs`: one row per run: `run`, `path`, `status`, `attempts`, `steps` (updates completed), `began`,
    `last` (seconds since the epoch), `blocks` (how many), `best_step`, `error`, `damaged` (lines that could
    not be read), every factor of the start record under its own name, and the estimator's identity as
    `estimator_<field>`.
    `fisher`: run, step, time, block, trace, stderr, trainable, effective_dimension, noise_scale,
    weight_norm, purpose, examples, overhead; one row per run × step × block.
    `evaluation`: run, step, time, split, language, metric, value (points), headline, examples, best.
    `training`: run, step, time, loss, learning_rate, gradient_norm, epoch, seconds.
    `unfreezing`: run, step, time, event, position (0, 1, … within the event), block, score, stderr,
    runner_up, margin; one row per thawed block.
    `notes`: run, step, time, level, text; also lost probes and damaged lines.
    """

    runs: pd.DataFrame
    fisher: pd.DataFrame
    evaluation: pd.DataFrame
    training: pd.DataFrame
    unfreezing: pd.DataFrame
    notes: pd.DataFrame
