"""FisherCallback: tracking inside transformers' Trainer and adapters' AdapterTrainer.

A callback never sees a batch, and calling the Trainer's data set or collator would move their state: the probe set is
what the model itself is fed in its first updates (`FedExamples`), or what the user gives. So the journal is opened when
there is something to measure: before the optimizer's first step, whose weights are still those of step 0.
In a run of several processes the first one measures and writes.
"""

import atexit
import inspect
import sys
import time
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from fishlens.errors import InputError, first_line
from fishlens.fisher import Block
from fishlens.fisher.refusals import refuse_sharded
from fishlens.tracking.account import Entry
from fishlens.tracking.clock import Clock, make_clock
from fishlens.tracking.fed import FedExamples
from fishlens.tracking.guard import guarded, guarded_beginning, reason, say, shielded
from fishlens.tracking.late import LateJournal
from fishlens.tracking.plain import described
from fishlens.tracking.reporters import check_reporters, make_reporters
from fishlens.tracking.resumption import write_run
from fishlens.tracking.run_place import RunPlace
from fishlens.tracking.scores import Scores
from fishlens.tracking.settings import account_place
from fishlens.tracking.texts import Reader, as_batches
from fishlens.tracking.tracker import Tracker

# id of a model -> the callback that tracks it, or tracked it last
_tracking: dict[int, tuple["weakref.ref[nn.Module]", "weakref.ref[FisherCallback]"]] = {}


def callback_of(model: Any) -> "FisherCallback | None":
    """The callback that tracks `model`, or has tracked it last."""
    owner, callback = _tracking.get(id(model), (None, None))
    return callback() if owner is not None and callback is not None and owner() is model else None


class FisherCallback(TrainerCallback):
    """Tracks the Fisher information of every block while a Trainer trains.

        Trainer(..., callbacks=[FisherCallback(every=50)])

    every: 50 steps, "2%" of the training time, or a list of steps.
    data: the probe set, as `Tracker` takes it; default: the first examples that the model is fed in training. A probe
        measures `examples` of them; `pool` are kept where a schedule may want more. The probe of step 0 is of what the
        first update is made with, if that is fewer.
    run: the run's directory, which must be new unless training resumes; default: a free name like that of the
        Trainer's output directory, in `runs/`. A further training of the same callback is tracked in `<run>-2`.
    blocks: as `find_blocks` makes them, or what it is to make them by, with `head` and `embeddings`.
    reporters: names of dashboards to report to as well (tensorboard, wandb, mlflow, trackio).
    tokenizer, max_length: for the texts in `languages`; default: the Trainer's, or the one beside the model's
        checkpoint, and 128 tokens.
    What is left is for `Tracker`: languages (`{"de": texts}`, or pairs of texts, or batches: unlabelled examples of
        other languages, measured at every probe beside what the model is fed), labels, output, diagonals, …

    Raises `InputError` for what cannot be right before training begins; after that nothing stops the training.
    """

    off: str | None = None
    strict = True
    gives_way = False
    tracker: Tracker | None = None
    journal = LateJournal()
    _entry: Entry | None = None
    _state: Any = None
    _ended = True

    def __init__(
        self,
        every: int | str | Collection[int] | Clock = 50,
        *,
        data: Any = None,
        run: str | Path | None = None,
        examples: int = 128,
        pool: int | None = None,
        blocks: Sequence[Block] | str | None = None,
        seed: int = 0,
        factors: dict[str, Any] | None = None,
        reporters: Iterable[str] = (),
        tokenizer: Any = None,
        max_length: int | None = None,
        journal: LateJournal | None = None,
        **tracker_options: Any,
    ):
        unknown = tracker_options.keys() - inspect.signature(Tracker).parameters.keys()
        if unknown:
            raise InputError(f"FisherCallback has no option {sorted(unknown)[0]!r}")
        self.every, self.clock = every, make_clock(every)
        self.data, self.run, self.examples, self.pool = data, run, examples, pool
        self.blocks, self.seed = blocks, seed
        self.factors, self.reporters, self.options = dict(factors or {}), tuple(reporters), tracker_options
        self.tokenizer, self.max_length = tokenizer, max_length
        check_reporters(self.reporters)
        if examples < 1:
            raise InputError(f"a probe of {examples} examples measures nothing; expected 1 or more")
        self._beside = journal
        self._runs: set[Path] = set()
        self._last_step_end = 0.0

    # -- what the Trainer calls -------------------------------------------------------------------------------------

    @guarded_beginning
    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **_: Any
    ) -> None:
        self.begin(args, state, model, processing_class)

    @guarded
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.tracker is None:
            return
        if isinstance(self.tracker.probe_set, FedExamples):
            self.tracker.probe_set.update = state.global_step + 1
        if self.tracker.ready:
            self._open()
            self._say_what_is_measured()
        self.tracker.step(state.global_step)

    @guarded
    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The weights are still those of `state.global_step`, and the model has been fed."""
        if self.tracker is None or self._ended:
            return
        fed = self.tracker.probe_set
        if isinstance(fed, FedExamples) and not fed.full:
            fed.end_of_update()
        if self.tracker.ready:
            self._open()
            self._say_what_is_measured()
            self.tracker.catch_up()
        elif isinstance(fed, FedExamples) and (fed.off or state.global_step > self._first_step):
            raise InputError(
                fed.off
                or "the model was not called, with gradients enabled and a batch, in the first updates; give data="
            )

    @guarded
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._last_step_end = time.perf_counter()
        if self.tracker is not None and state.global_step >= state.max_steps:
            self.tracker.step(state.global_step)  # the last weights: no further step begins

    @guarded
    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._stop_listening()  # every row has been fed once: more would be the same examples again

    @guarded
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if self.tracker is None or not logs or "loss" not in logs:
            return
        self.journal.write(
            "train",
            state.global_step,
            loss=_number(logs["loss"]),
            learning_rate=_number(logs.get("learning_rate")),
            gradient_norm=_number(logs.get("grad_norm")),
            epoch=_number(logs.get("epoch")),
            seconds=self.tracker.seconds,
        )

    @guarded
    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        if self.tracker is not None and not self._ended:
            now = time.perf_counter()
            self.tracker.leave_out(now - self._last_step_end)
            self._last_step_end = now
        self._write_scores(args, state, metrics or {}, model, "validation")

    @guarded
    def on_predict(
        self, args: Any, state: Any, control: Any, metrics: Any = None, model: Any = None, **_: Any
    ) -> None:
        self._write_scores(args, state, metrics or {}, model, "test")

    @guarded
    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.journal.run is not None and not self._ended and self._beside is None:
            write_run(args, state, self.journal.run)
        self._save_examples()

    @guarded
    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write how it ended, but keep the journal open: scripts evaluate after training."""
        self.end("finished", step=state.global_step, best_step=getattr(state, "best_global_step", None))

    # -- the tracker's life -----------------------------------------------------------------------------------------

    def begin(self, args: Any, state: Any, model: nn.Module, tokenizer: Any = None) -> None:
        """Prepare to track this training, once; in processes other than the first there is nothing to do. `tokenizer`:
        the Trainer's, if it has one.

        Raises `InputError` when nothing can be measured or written.
        """
        if self._state is state:
            return
        self._begins_again(model)
        self.end("interrupted", error="another training began")
        self._state, self.off, self.tracker, self._entry = state, None, None, None
        self.journal, self._scores = LateJournal(), Scores()
        self._args, self._first_step = args, state.global_step
        if state.is_world_process_zero and self._beside is None:
            self._entry = Entry(account_place(), type(model).__name__)
        refuse_sharded(model)  # by every process, or the others wait for the first
        self._take_over(state, model)
        _tracking[id(model)] = (weakref.ref(model), weakref.ref(self))
        if not state.is_world_process_zero:
            return
        self._place().find()  # a name that is taken is said before training
        options = self._with_batches(model, tokenizer)
        data = self.data if self.data is not None else FedExamples(model, self.examples, self.pool)
        try:
            if isinstance(data, FedExamples):
                self._load_examples(data)
                data.listen()
            self.tracker = Tracker(
                model,
                data,
                writer=self._beside or self.journal,
                every=self.clock,
                examples=self.examples,
                blocks=self.blocks,
                seed=self.seed,
                **{"autocast": _autocast(args), **options},
            )
        except BaseException:
            if isinstance(data, FedExamples):
                data.stop()
            raise
        self._ended = False
        self._last_step_end = time.perf_counter()
        atexit.register(shielded, _end_at_exit, weakref.ref(self))

    def _begins_again(self, model: nn.Module) -> None:
        """A training of the same model that ended before its first update was an attempt (`auto_find_batch_size`)."""
        before, entry = self.tracker, self._entry
        attempt = not self._ended and self.journal.writer is None
        if entry is not None and before is not None and before.model is model and attempt:
            entry.dropped()

    def _with_batches(self, model: nn.Module, tokenizer: Any) -> dict[str, Any]:
        """The tracker's options, with batches in the place of the languages' texts."""
        languages = self.options.get("languages")
        self._said_of_languages: list[str] = []
        if not isinstance(languages, Mapping):
            return self.options
        reader = Reader(
            model,
            self.tokenizer or tokenizer,
            self.options.get("output", "auto"),
            self._args.per_device_train_batch_size,
            self.max_length,
            self.seed,
        )
        batches, names, self._said_of_languages = as_batches(languages, reader, self.examples)
        return {"examples_ids": names, **self.options, "languages": batches}

    def tracks(self, state: Any) -> bool:
        """Is it this training that the callback tracks, in whichever process?"""
        return (
            self._state is state
            and not self.off
            and (self.tracker is not None or not state.is_world_process_zero)
        )

    def _take_over(self, state: Any, model: Any) -> None:
        """Two callbacks do not track one training; one that was interrupted has ended."""
        other = callback_of(model)
        if other is None or other is self or other._ended:
            return
        if other._state is not state:
            other.end("interrupted", error="another training began")
        elif other.gives_way:
            other.withdraw()
        elif not self._beside:
            raise InputError(
                "two callbacks track one model: put FisherCallback before UnfreezeCallback, and only once"
            )

    def withdraw(self) -> None:
        """Another callback tracks this training: nothing was written yet."""
        if self._entry is not None:
            self._entry.dropped()
        self.end("interrupted")  # of nothing: no journal was opened
        self.tracker = None

    def _open(self) -> None:
        """Prove that the examples can be measured and open the journal, once."""
        assert self.tracker is not None
        if self.journal.writer is not None or self._beside is not None:
            return
        self.tracker.prove()
        factors = described(self._factors())
        seeds = {"probe": self.seed, "trainer": self._args.seed, "data": self._args.data_seed}
        start = {**self.tracker.start_record(), "factors": factors, "seeds": seeds}
        writer, asked = self._place().take(start, self._say_and_note)
        self.journal.open(writer)
        run, resumed = writer.path.parent, self._first_step or None
        self._runs.add(run.resolve())
        if self._entry is not None:
            self._entry.tracked(run, resumed, asked)
        if resumed is not None and account_place() is None:  # else the account says so at the end
            say(f"tracked in {run}, from step {resumed} on")
        if asked is not None:
            self.tracker.note(
                self._first_step, f"goes on in {run}, not in {asked}: the checkpoint belongs to it"
            )
        for text in self._said_of_languages:
            self.tracker.note(self._first_step, text, level="info")
        self.tracker.reporters = make_reporters(self.reporters, run, {k: str(v) for k, v in factors.items()})

    def _load_examples(self, fed: FedExamples) -> None:
        """A training that resumes is measured on the examples of before."""
        origin = self._place().origin()
        if origin is not None:
            fed.load(origin.run / self._examples_file, self._first_step)

    def _save_examples(self) -> None:
        run = (self._beside or self.journal).run
        if self.tracker is None or run is None or not isinstance(self.tracker.probe_set, FedExamples):
            return
        try:
            self.tracker.probe_set.save(run / self._examples_file)
        except Exception as error:  # safetensors has its own kinds for a refusing disk
            text = f"the examples of the probes could not be kept, a resumed run takes others: {first_line(error)}"
            self.tracker.note(self.tracker.last_step, text)

    @property
    def _examples_file(self) -> str:
        return "examples.safetensors" if self._beside is None else "examples-schedule.safetensors"

    def _say_what_is_measured(self) -> None:
        assert self.tracker is not None
        if isinstance(self.tracker.probe_set, FedExamples):
            for text in self.tracker.probe_set.news():
                self.tracker.note(self.tracker.last_step, text, level="info")

    def _say_and_note(self, text: str) -> None:
        assert self.tracker is not None
        self.tracker.note(self._first_step, text, level="info")
        say(text)

    def _factors(self) -> dict[str, Any]:
        assert self.tracker is not None
        known = {"model": _name_of(self.tracker.model), "seed": self._args.seed, "every": str(self.every)}
        targets = {"targets": list(self.tracker.targets)} if self.tracker.targets else {}
        return {**known, **targets, **self.factors}

    def end(
        self, status: str, *, step: int | None = None, error: str | None = None, best_step: int | None = None
    ) -> None:
        """Write the journal's end record, once."""
        if self._ended or self.tracker is None:
            return
        self._ended = True
        self._stop_listening()
        for reporter in self.tracker.reporters:
            reporter.close()
        trouble = self.tracker.trouble
        if trouble and self._entry is not None:
            self._entry.untracked(trouble)
        last = self.tracker.last_step if step is None else step
        self.journal.write("end", last, status=status, error=error, best_step=best_step)

    @guarded
    def end_with(self, error: BaseException | None) -> None:
        """The program ends, with an error or without one."""
        if error is None or isinstance(error, KeyboardInterrupt):
            self.end("interrupted", error=None if error is None else "KeyboardInterrupt")
        else:
            self.end("failed", error=f"{type(error).__name__}: {first_line(error)}")

    def failed(self, error: BaseException) -> None:
        """Called by the guard: this training is not tracked, or not to its end. It goes on."""
        self.off = reason(error)
        self._stop_listening()
        run, step = self.journal.run, self.tracker.last_step if self.tracker is not None else 0
        if run is None:
            say(f"this training is NOT TRACKED, because {self.off}")
        else:
            say(f"tracking in {run} has stopped, because {self.off}; the training goes on")
        if self._entry is not None:
            self._entry.untracked(self.off if run is None else f"tracking stopped at step {step}: {self.off}")
        if run is not None and not self._ended:
            self.journal.write("note", step, level="error", text=f"tracking has stopped: {self.off}")
        self.end("failed", step=step, error=f"tracking has stopped: {self.off}")
        self._ended = True

    def _stop_listening(self) -> None:
        if self.tracker is not None and isinstance(self.tracker.probe_set, FedExamples):
            self.tracker.probe_set.stop()

    def _place(self) -> RunPlace:
        named = None if self.run is None else Path(self.run)
        return RunPlace(self._args, self._state, self._first_step, named, self._runs, self.gives_way)

    def _write_scores(self, args: Any, state: Any, metrics: dict[str, Any], model: Any, split: str) -> None:
        """To the journal of this training, or of the last one of the model: a second Trainer may evaluate it."""
        if self.tracker is None:
            other = callback_of(model)
            if other is not None and other is not self and other.tracker is not None:
                other._write_scores_at(other.tracker.last_step, args, state, metrics, split)
            return
        self._write_scores_at(state.global_step, args, state, metrics, split)

    def _write_scores_at(self, step: int, args: Any, state: Any, metrics: dict[str, Any], split: str) -> None:
        for fields in self._scores.records(metrics, split, args, state):
            self.journal.write("eval", step, **fields)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _autocast(args: Any) -> Any:
    """The dtype that the Trainer runs the forward pass in, so that the journal says it."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None


def _name_of(model: Any) -> str:
    return getattr(getattr(model, "config", None), "_name_or_path", "") or type(model).__name__


def _end_at_exit(callback: "weakref.ref[FisherCallback]") -> None:
    """The interpreter ends while training has not: say with what."""
    there = callback()
    if there is not None:
        there.end_with(getattr(sys, "last_value", None))
