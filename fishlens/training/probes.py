"""What the trainer asks for during a run: follow the Fisher information, and score the blocks for a schedule."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import torch

from fishlens.errors import InputError
from fishlens.fisher import Block
from fishlens.fisher.blocks import check_blocks
from fishlens.fisher.relative_gradient import relative_gradient_norms
from fishlens.journal import JournalWriter
from fishlens.recipe.recipe import Recipe
from fishlens.schedules import RELATIVE_GRADIENT, Schedule, Scores
from fishlens.tracking.probe_set import probe_order
from fishlens.tracking.processes import from_first
from fishlens.tracking.reporters import Reporter
from fishlens.tracking.tracker import Tracker
from fishlens.training.assembly import Assembly
from fishlens.training.beside import Beside
from fishlens.training.confidence import ONE_LABEL, entropies, threshold
from fishlens.training.distributed import first_process
from fishlens.training.evaluation import Evaluation
from fishlens.training.targets import TargetInputs
from fishlens.training.tasks import Task

ROWS = 16  # per batch of a probe: its memory, not its result, depends on it
PUBLISHED_BATCHES = 41


def probe_size(recipe: Recipe) -> tuple[int, int]:
    """How many examples a probe measures, and how many at a time (which counts where a batch is squared as one)."""
    settings = recipe.tracking
    whole_batches = settings.granularity == "batch" or settings.preset == "published"
    size = recipe.train.batch_size if whole_batches else ROWS
    return PUBLISHED_BATCHES * size if settings.preset == "published" else settings.examples, size


def estimator_options(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of how a `Tracker` estimates."""
    settings = recipe.tracking
    return {
        "noise_scale": settings.noise_scale,
        "labels": settings.labels,
        "samples": settings.samples,
        "granularity": settings.granularity,
        "preset": settings.preset,
        "seed": recipe.seed,
    }


def own_blocks(
    parameters: Mapping[str, torch.nn.Parameter], patterns: Mapping[str, str | list[str]]
) -> list[Block]:
    """Blocks of these parameters, which can train, by patterns (globs) over their names; bottom to top, by where each
    begins. A pattern that begins with ! leaves out what it matches, wherever it stands among a block's patterns.

    Raises `InputError` for a block that has no parameter, or a parameter that is in two.
    """
    blocks: list[Block] = []
    owner: dict[str, str] = {}
    for name, given in patterns.items():
        globs = [given] if isinstance(given, str) else given
        mine = {n: p for n, p in parameters.items() if _matches(n, globs)}
        if not mine:
            shown = ", ".join(
                dict.fromkeys([next(iter(parameters)), *list(parameters)[len(parameters) // 2 :][:3]])
            )
            raise InputError(
                f"tracking.blocks: {name!r} matches no parameter that can train: {globs} of {len(parameters)}, "
                f"{shown} among them"
            )
        if twice := next((n for n in mine if n in owner), None):
            raise InputError(
                f"tracking.blocks: {owner[twice]!r} and {name!r} both match {twice}; expected disjoint blocks: leave "
                "it out of one by a pattern that begins with !, as in mlp: ['*.output.*', '!*.attention.*']"
            )
        owner |= dict.fromkeys(mine, name)
        blocks.append(Block(name, mine, None, f"own blocks {', '.join(patterns)}"))
    position = {name: i for i, name in enumerate(parameters)}
    blocks.sort(key=lambda block: min(position[name] for name in block.parameters))
    return check_blocks(blocks)


def _matches(parameter: str, globs: Sequence[str]) -> bool:
    wanted = [glob for glob in globs if not glob.startswith("!")]
    unwanted = [glob[1:] for glob in globs if glob.startswith("!")]
    return any(fnmatchcase(parameter, glob) for glob in wanted) and not any(
        fnmatchcase(parameter, glob) for glob in unwanted
    )


class Probes:
    """Measurements on training rows of its own choice; they never touch training (`Tracker`).

    rows: what the source's examples are chosen from. ids: what the example of each row is called in its file.
    In a run of several processes only the first one measures, and all get what it found: so they decide alike.
    """

    def __init__(
        self,
        recipe: Recipe,
        schedule: Schedule,
        task: Task,
        assembly: Assembly,
        rows: Sequence[Any],
        training_seconds: Callable[[], float],
        targets: Sequence[TargetInputs],
        optimizer: torch.optim.Optimizer,
        ids: Sequence[str] = (),
    ):
        self._schedule, self._task, self._tokenizer = schedule, task, assembly.tokenizer
        self._model, self._blocks, self._rows = assembly.model, assembly.blocks, rows
        self._source = recipe.data.source
        self._by_gradient = schedule.scores_by == RELATIVE_GRADIENT
        self._order = probe_order(len(rows), recipe.seed)
        settings = recipe.tracking
        self._examples, self._size = probe_size(recipe)
        self._tracked = tracked = settings.every is not None
        scored = schedule.scores_by is not None and not self._by_gradient
        if scored and settings.blocks:
            raise InputError(
                f"tracking.blocks cannot be measured while the schedule {schedule.name!r} chooses by the Fisher "
                "information of its own blocks: leave it out, or take another schedule"
            )
        self._beside = Beside(
            recipe,
            task,
            assembly.model,
            assembly.tokenizer,
            assembly.blocks,
            optimizer,
            [rows[i] for i in self._order[: self._examples]],
            {inputs.language: inputs for inputs in targets},
            self._size,
        )
        self.tracker: Tracker | None = None
        if first_process() and (tracked or scored):
            self.tracker = Tracker(
                assembly.model,
                self._data(targets),
                every=settings.every or 1,
                examples=self._examples,
                blocks=own_blocks(assembly.parameters(), settings.blocks)
                if settings.blocks
                else assembly.blocks,
                output=task.output,
                **estimator_options(recipe),
                diagonals=settings.diagonals,
                training_seconds=training_seconds,
                in_language=assembly.in_language,
                passing=assembly.passing_parameters,
                languages_every=settings.languages_every,
                beside=self._beside,
                examples_ids={
                    None: [ids[i] for i in self._order] if ids else (),
                    **{inputs.language: inputs.ids for inputs in targets},
                },
            )

    def start_record(self) -> dict[str, Any]:
        """What is known of the journal's start record."""
        if self.tracker is not None:
            return self.tracker.start_record()
        return {"blocks": {block.name: block.size for block in self._blocks}}

    def write_to(self, writer: JournalWriter, reporters: Sequence[Reporter] = ()) -> None:
        if self.tracker is not None:
            self.tracker.writer, self.tracker.reporters = writer, list(reporters)

    def memory(self) -> dict[str, Any]:
        """What a checkpoint keeps of earlier probes."""
        return self.tracker.memory() if self.tracker is not None else {}

    def remember(self, memory: dict[str, Any]) -> None:
        if self.tracker is not None:
            self.tracker.remember(memory)

    def track(self, step: int) -> None:
        """Measure and write down, if it is time to."""
        self._beside.step = step
        if self.tracker is not None and self._tracked:
            self.tracker.step(step)

    def source_validated(self, step: int, result: Evaluation) -> None:
        """The source was scored at these weights: what average thresholded confidence needs to know of it."""
        if self._task.output in ONE_LABEL:
            correct = np.array([prediction.gold == prediction.predicted for prediction in result.predictions])
            self._beside.threshold = (step, threshold(entropies(result.logits), correct))

    def scores(self, step: int, examples: int) -> Scores:
        """The scores of all blocks at the present weights, from at least `examples` examples (if there are as many)."""

        def measure() -> dict[str, Any]:
            return asdict(self._relative_gradients() if self._by_gradient else self._traces(step, examples))

        return Scores(**from_first(measure, self._device))

    @property
    def _device(self) -> torch.device:
        return next(iter(self._blocks[0].parameters.values())).device

    def _traces(self, step: int, examples: int) -> Scores:
        if self.tracker is None:
            raise InputError(
                f"the schedule {self._schedule.name!r} asks for scores but does not say of what: set its class's "
                "scores_by to fishlens.schedules.TRACE"
            )
        return self.tracker.measure(step, examples or None, self._schedule.scored_on)

    def _relative_gradients(self) -> Scores:
        batches = (
            {key: value.to(self._device) for key, value in batch.items()}
            for batch in self._batches(self._examples)
        )
        norms = relative_gradient_norms(self._model, self._blocks, batches)
        return Scores(trace={}, relative_gradient=norms, examples=min(self._examples, len(self._rows)))

    def _data(self, targets: Sequence[TargetInputs]) -> Any:
        """What the tracker measures: training rows of the source, and of each target its inputs without labels."""
        source = self._batches(max(self._examples, self._schedule.most_examples))
        if not targets:
            return source
        unlabelled = {
            inputs.language: [self._task.unlabelled(batch) for batch in self._collated(inputs.rows)]
            for inputs in targets
        }
        return {self._source: source, **unlabelled}

    def _batches(self, examples: int) -> Iterator[dict[str, torch.Tensor]]:
        return self._collated([self._rows[i] for i in self._order[:examples]])

    def _collated(self, rows: Sequence[Any]) -> Iterator[dict[str, torch.Tensor]]:
        for start in range(0, len(rows), self._size):
            yield self._task.collate(rows[start : start + self._size], self._tokenizer)
