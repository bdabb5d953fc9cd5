"""`measure_run`: the Fisher information of a finished run's weights, measured again; nothing is trained.

It is for another estimator, language, data set, checkpoint or other blocks than those that the run tracked.

It goes the way that tracking goes, with the same examples: with the run's own settings it finds the same bits. The
journal gets a new attempt with a named series, which no curve ever mixes with what was tracked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fishlens.errors import InputError
from fishlens.journal import JournalWriter, read_run, standing
from fishlens.recipe.loading import load_recipe
from fishlens.recipe.recipe import Recipe
from fishlens.schedules import State, make_schedule
from fishlens.tracking.unfreezing import Unfreezing
from fishlens.training.assembly import Assembly
from fishlens.training.checkpoint import Snapshot, read_checkpoint
from fishlens.training.finished import check_run, checkpoint_of, read_training, recipe_with, start_again
from fishlens.training.model import assemble
from fishlens.training.optimizer import make_optimizer, restore_optimizer
from fishlens.training.place import with_disk_errors_in_words
from fishlens.training.preparation import load_split, make_accelerator, make_the_task, prepare_schedule
from fishlens.training.probes import Probes
from fishlens.training.reading import check_places
from fishlens.training.targets import ids_of_rows, target_inputs
from fishlens.training.tasks import Task

MAY_CHANGE = ("tracking", "data.root", "data.train", "data.validation", "data.test", "language_adapters")
RULE = "a measurement changes only tracking.*, data.train, data.validation, data.test, data.root and language_adapters"
ONCE = ("tracking.every=1", "tracking.diagonals=[]")


@dataclass(frozen=True)
class Measurement:
    """What was measured at `step`, as records of the journal; `series`: its name there, None: nothing was written."""

    run_dir: Path
    step: int
    series: str | None
    records: Sequence[Mapping[str, Any]]
    notes: Sequence[str]


class Kept:
    """Takes a tracker's records as a journal would."""

    path = None

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []

    def write(self, kind: str, step: int, **fields: Any) -> None:
        (self.notes if kind == "note" else self.records).append(fields)


@with_disk_errors_in_words("run_dir")
def measure_run(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    checkpoint: str | Path | None = None,
    series: str | None = None,
    write: bool = True,
) -> Measurement:
    """Measure the weights of a step that has a checkpoint (default: the best), by the run's recipe with these overrides
    of `tracking.*` and of where its data is.

    checkpoint: a directory `step-<n>` that lies elsewhere, of the same model. series: the name of the new series
    (default: measured-<attempt>), or of one that gets another step, measured in the same way. Raises `InputError`,
    before anything is written, for what cannot be read or measured.
    """
    place = check_run(run_dir)
    if step is not None and checkpoint is not None:
        raise InputError("a step and a checkpoint were given; expected one of them")
    recipe = recipe_with(place, [*ONCE, *overrides], MAY_CHANGE, RULE)
    newest, state = read_training(place)
    seen = standing(place)
    name = series or f"measured-{seen.attempt + 1}"
    best = newest.step if state.best_step is None else state.best_step
    where = (
        Path(checkpoint) if checkpoint is not None else checkpoint_of(place, best if step is None else step)
    )
    snapshot = read_checkpoint(where)
    there = _series(place, name)
    if any(record["step"] == snapshot.step for record in there):
        raise InputError(
            f"{place} has a series {name!r} at step {snapshot.step} already; choose another name, or another step"
        )
    task = make_the_task(recipe)
    check_places(recipe)
    accelerator = make_accelerator(recipe)
    kept, source = _measure(recipe, task, snapshot, where, accelerator.device)
    lost = next((record["lost"] for record in kept.records if record.get("lost")), None)
    if lost is not None:
        raise InputError(f"{where} cannot be measured: {lost}")
    texts = [
        f"measured again: series {name!r} at step {snapshot.step}, on {source}",
        *(n["text"] for n in kept.notes),
    ]
    records = [{**record, "purpose": "measure", "series": name} for record in kept.records]
    texts += _name_other_adapters(records, recipe, load_recipe(place / "recipe.yaml"))
    _refuse_another_kind(place, name, there, records)
    if write and accelerator.is_main_process:
        start = start_again(place)
        with JournalWriter.open(place, start, resumed_from_step=newest.step, after=seen) as writer:
            for text in texts:
                writer.write("note", snapshot.step, level="info", text=text)
            for record in records:
                writer.write("fisher", snapshot.step, **record)
            writer.close("finished", step=newest.step, best_step=state.best_step)
    return Measurement(place, snapshot.step, name if write else None, records, texts)


def _name_other_adapters(records: Sequence[dict[str, Any]], recipe: Recipe, own: Recipe) -> Iterator[str]:
    """Puts into records of languages whose adapter is not the run's which one it was; says so."""
    for record in records:
        language = record.get("language") or recipe.data.source
        adapter, before = recipe.language_adapter(language), own.language_adapter(language)
        if adapter != before:
            record["estimator"] = {**record["estimator"], "language_adapter": adapter}
            yield f"{language!r} was measured through the language adapter {adapter}; the run's is {before}"


def _series(place: Path, name: str) -> list[Mapping[str, Any]]:
    run = read_run(place, kinds=("fisher",))
    known = run.start.get("estimator")
    return [{"estimator": known, **r} for r in run.records if r.get("series") == name]


def _refuse_another_kind(
    place: Path, name: str, there: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]
) -> None:
    """A series is one curve: raises `InputError` where a field of its probes would differ from those that there are."""
    if not there:
        return

    def kinds(probes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in probes:
            language = one.get("language") or ""
            found |= {f"{language} {field}".strip(): value for field, value in one["estimator"].items()}
            found |= {
                f"{language} blocks".strip(): list(one["trace"]),
                f"{language} ids".strip(): one.get("examples_ids"),
            }
        return {field: value for field, value in found.items() if field.split()[-1] != "version"}

    first = [record for record in there if record["step"] == there[0]["step"]]
    before, now = kinds(first), kinds(records)
    for field in (*before, *now):
        if before.get(field) != now.get(field):
            raise InputError(
                f"{place} has a series {name!r} that was measured otherwise: its {field} is "
                f"{before.get(field)!r:.60}, now {now.get(field)!r:.60}; choose another name"
            )


def _measure(
    recipe: Recipe, task: Task, snapshot: Snapshot, where: Path, device: torch.device
) -> tuple[Kept, str]:
    """The records of one probe, and what the source's examples were read from."""
    split = load_split(recipe, task, recipe.tracking.split, recipe.data.source)
    assembly = assemble(recipe, task)
    assembly.model.to(device)
    rows = task.encode(split, assembly.tokenizer, max_length=recipe.train.max_length, train=True)
    targets = [
        target_inputs(recipe, task, assembly.tokenizer, language, recipe.tracking.examples)
        for language in recipe.tracked_languages
    ]
    optimizer = make_optimizer(assembly.blocks, recipe.train)
    Unfreezing(
        prepare_schedule(recipe, assembly.thawable),
        assembly.blocks,
        State.from_json(snapshot.state["schedule"]),
    )
    _set_weights(assembly, snapshot, where)
    restore_optimizer(optimizer, assembly.blocks, snapshot.optimizer)
    assembly.model.train()
    assembly.activate_language(recipe.data.source if recipe.data.train_language_adapter else None)
    # no schedule chooses here, so that blocks may be any
    chooses_nothing = make_schedule("standard", every=1, blocks=assembly.thawable)
    probes = Probes(
        recipe,
        chooses_nothing,
        task,
        assembly,
        rows,
        lambda: 0.0,
        targets,
        optimizer,
        ids_of_rows(split, rows),
    )
    kept = Kept()
    assert probes.tracker is not None, "measuring is of one process"
    identity = probes.tracker.identity
    probes.tracker.writer = kept  # type: ignore[assignment]
    probes.track(snapshot.step)
    kept.records = [{"estimator": identity, **record} for record in kept.records]
    kept.notes += [{"text": note} for inputs in targets for note in inputs.notes]
    return kept, split.source


def _set_weights(assembly: Assembly, snapshot: Snapshot, where: Path) -> None:
    """Raises `InputError` for a checkpoint of another model."""
    wanted = {name: tuple(p.shape) for name, p in assembly.parameters().items()}
    there = {name: tuple(p.shape) for name, p in snapshot.weights.items()}
    for name in (*wanted, *there):
        if wanted.get(name) != there.get(name):
            raise InputError(
                f"{where} is a checkpoint of another model: {name} is {there.get(name) or 'missing'}; expected "
                f"{wanted.get(name) or 'none'}"
            )
    assembly.set_weights(snapshot.weights)
