"""The probe set of a training that was given none: what the model itself is fed in its first updates.

Nothing of the user's is called or drawn from: no data set, collator, loader or sampler. The arguments of the model's
own calls in training are detached and cloned, where they are, until there are enough examples; then nothing is watched
any more. They are what training used, after whatever a `compute_loss` has done to them: masked, shuffled, without the
columns that it took out.
"""

import enum
import inspect
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fishlens.errors import InputError, said
from fishlens.fisher.batches import Batch
from fishlens.fisher.forward import inner
from fishlens.fisher.outputs import LABEL_KEYS
from fishlens.tracking.calls import Watch
from fishlens.tracking.guard import guarded
from fishlens.tracking.kept_examples import load_examples, save_examples
from fishlens.tracking.probe_set import ProbeSet
from fishlens.tracking.repeats import examples_apart, only_rows

MOST_BYTES = 256 * 2**20
"""Kept examples take no more memory than this, beside the first batch."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, enum.Enum)


class FedExamples(ProbeSet):
    """Grows with the calls of `model` until it holds `examples` examples, and `pool` for choices that want more.

    An example that was fed before is not kept again. Nothing is kept before `listen`, or after `stop`, when it is
    `full`. `update` is the number of the update that is under way (1, 2, …), set by whoever knows; `updates` says of
    each batch which update it was fed to. `off`: why nothing can be kept.
    """

    def __init__(
        self, model: nn.Module, examples: int = 128, pool: int | None = None, most_bytes: int = MOST_BYTES
    ):
        super().__init__([], examples)
        self._model, self._most_examples, self._most_bytes = model, max(examples, pool or 0), most_bytes
        self.updates: list[int] = []
        self.update = 1
        self.off: str | None = None
        self._bytes = self._saved = 0
        self._last: weakref.ref[Tensor] | None = None
        self._seen: dict[bytes, int] = {}  # what an example holds -> the update that it was fed to first
        self._in_evaluation_mode: list[tuple[Any, ...]] = []
        self.full = self._first_said = self._all_said = False
        self._watch: Watch | None = None

    @property
    def examples(self) -> int:
        assert self.wanted is not None
        return min(self.wanted, self.examples_in(len(self.batches))) if self.full else self.wanted

    def listen(self) -> "FedExamples":
        """Begin to keep what the model is called with."""
        if not self.full and self._watch is None:
            self._watch = Watch(self._model, self._hear)
        return self

    def stop(self) -> None:
        """Keep no more."""
        self.full = True
        if self._watch is not None:
            self._watch.stop()
        self._watch = None
        self._in_evaluation_mode.clear()

    def failed(self, error: BaseException) -> None:
        """Called by the guard: keep no more, and remember why."""
        self.off = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {said(error)}"
        self.stop()

    def save(self, place: Path) -> None:
        """Keep them in a file for a training that resumes; nothing is written where nothing is new."""
        if len(self.batches) == self._saved:
            return
        save_examples(place, self.batches, self.updates)
        self._saved = len(self.batches)

    def load(self, place: Path, until: int) -> None:
        """Begin with what was kept of the updates until `until`."""
        device = next((parameter.device for parameter in self._model.parameters()), "cpu")
        self.batches, self.updates = load_examples(place, until, device)
        self._saved = 0
        for batch, update in zip(self.batches, self.updates, strict=True):
            self._seen |= dict.fromkeys(examples_apart(batch), update)
        if self.examples_in(len(self.batches)) >= self._most_examples:
            self.stop()

    def end_of_update(self) -> None:
        """Before the optimizer's step: a model that trains in evaluation mode was fed all the same."""
        if not self.batches and self._watch is not None:
            for args, kwargs in list(self._in_evaluation_mode):
                self._keep(args, kwargs)
            if not self.batches:
                self._watch.look_again()
        self._in_evaluation_mode.clear()

    def described(self) -> str:
        """What has been kept, in words."""
        first, last = self.updates[0], self.updates[-1]
        of = f"update {first}" if first == last else f"updates {first} to {last}"
        return f"{self.examples_in(self.base)} examples that the model was fed in {of}"

    def news(self) -> list[str]:
        """What the journal does not know yet: which examples the first probe is of, and which all later ones."""
        if not self.batches or self._all_said:
            return []
        if self.full:
            self._all_said = True
            return [f"from here on probes are of the {self.described()}"]
        if self._first_said:
            return []
        self._first_said = True
        text = f"{self.described()}: a probe is of what was fed so far, until there are {self.examples}"
        return [f"the first probe is of the {text}"]

    @guarded
    def _hear(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._model.training:
            self._keep(args, kwargs)
        elif not self.batches and len(self._in_evaluation_mode) < 4:
            self._in_evaluation_mode.append((_kept(args), _kept(kwargs)))

    def _keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        first = _first_tensor(args, kwargs)
        if first is None or first.dim() == 0 or len(first) == 0 or self.full:
            return
        if self._last is not None and self._last() is first:
            return  # the same examples once more: a second pass over them, or a wrapper's call passed on
        self._last = weakref.ref(first)
        batch = self._new(_batch(self._model, args, kwargs, len(first)))
        if batch is None:
            return
        self._bytes += sum(tensor.numel() * tensor.element_size() for tensor in _tensors(batch))
        if self.batches and self._bytes > self._most_bytes:
            self.stop()
            return
        self.batches.append(batch)
        self.updates.append(self.update)
        if self.examples_in(len(self.batches)) >= self._most_examples:
            self.stop()

    def _new(self, batch: Batch) -> Batch | None:
        """The examples of a batch that were not fed before; None where there are none. If an earlier update was fed all
        of them, a second epoch has begun, and there is nothing more to keep."""
        marks = examples_apart(batch)
        rows = [number for number, mark in enumerate(marks) if mark not in self._seen]
        if not rows and all(self._seen[mark] < self.update for mark in marks):
            self.stop()
        for mark in marks:
            self._seen.setdefault(mark, self.update)
        rows = rows[: self._most_examples]
        if len(rows) == batch.size:
            return batch
        return only_rows(batch, rows) if rows else None


def _batch(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], size: int) -> Batch:
    """A call's arguments as a probe takes them: labels apart, unless the model cannot be called without."""
    parameters = _parameters(model)
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if any(name in LABEL_KEYS for name in positional[: len(args)]):
        args, kwargs = args[len(positional) :], {**dict(zip(positional, args, strict=False)), **kwargs}
    needed = {p.name for p in parameters if p.default is p.empty}
    declared = {p.name for p in (*parameters, *_parameters(inner(model)))}
    # a switch that no forward of a model's class declares makes a patched one give something else than its logits
    kwargs = {k: v for k, v in kwargs.items() if k in declared or not isinstance(v, bool)}
    inputs = {key: _kept(value, key) for key, value in kwargs.items()}
    labels = {k: v for k, v in inputs.items() if k in LABEL_KEYS and isinstance(v, Tensor)}
    without = {k: v for k, v in inputs.items() if k not in LABEL_KEYS or k in needed}
    return Batch(tuple(_kept(arg) for arg in args), without, labels, size)


def _parameters(model: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _kept(value: Any, name: str = "an argument") -> Any:
    """A copy that training can no longer change. Raises `InputError` for what cannot be copied without being called."""
    if isinstance(value, Tensor):
        return _unwrapped(value).detach().clone()
    if isinstance(value, _PLAIN) or callable(value):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_kept(item, name) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_kept(item, name) for item in value)
    if isinstance(value, Mapping):
        return {key: _kept(item, str(key)) for key, item in value.items()}
    raise InputError(
        f"the model is called with {name!r}, a {type(value).__name__}, which cannot be kept for a probe; give data=, "
        "batches of your own"
    )


def _unwrapped(value: Tensor) -> Tensor:
    """The tensor inside of what torch.func.grad makes of it."""
    while torch._C._functorch.is_gradtrackingtensor(value):
        value = torch._C._functorch.get_unwrapped(value)
    if torch._C._functorch.is_batchedtensor(value):
        raise InputError(
            "the model is called inside torch.vmap, where it sees one example and not the batch; give data=, batches "
            "of your own"
        )
    return value


def _tensors(*parts: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for part in parts:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, Batch):
            found += _tensors(part.args, part.inputs, part.labels)
        elif isinstance(part, Mapping):
            found += _tensors(*part.values())
        elif isinstance(part, (list, tuple)):
            found += _tensors(*part)
    return found


def _first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    for key in ("input_ids", "inputs_embeds", "pixel_values"):
        if isinstance(kwargs.get(key), Tensor):
            return kwargs[key]
    inputs = {key: value for key, value in kwargs.items() if key not in LABEL_KEYS}
    return next(iter(_tensors(args, inputs)), None)
