"""Tracking changes nothing and stops nothing: scripts of many kinds, and an exception at every line of ours."""

import ast
import importlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from torch.utils.data import Dataset, IterableDataset
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)

import fishlens.tracking
from fishlens import load_runs, watching
from fishlens.tracking import attach, calls, guard
from fishlens.tracking.attached import AttachedCallback
from fishlens.tracking.settings import VARIABLE

pytestmark = pytest.mark.usefixtures("cheap_collections", "versions_read_once")


class Net(nn.Module):
    """What a script may train: dropout, a forward of its own, labels or none."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.drop, self.head = nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 3)

    def forward(self, input_ids, labels=None):
        logits = self.head(self.drop(torch.tanh(self.body(input_ids.float()))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


class Rows(Dataset):
    """Augments with a generator of its own, and counts."""

    def __init__(self, extra=False):
        self.generator, self.read, self.extra = torch.Generator().manual_seed(1), 0, extra

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.read += 1
        row = {"input_ids": torch.rand(4, generator=self.generator) + i, "labels": torch.tensor(i % 3)}
        return {**row, "weight": torch.tensor(1.0 + i)} if self.extra else row


class Stream(IterableDataset):
    def __init__(self, extra=False):
        self.rows = Rows(extra)

    def __iter__(self):
        return iter([self.rows[i] for i in range(12)])


class SeededCollator:
    def __init__(self):
        self.generator = torch.Generator().manual_seed(2)

    def __call__(self, rows):
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        noise = torch.rand(batch["input_ids"].shape, generator=self.generator)
        return {**batch, "input_ids": batch["input_ids"] + noise}


class CountingCollator:
    def __init__(self):
        self.calls = 0

    def __call__(self, rows):
        self.calls += 1
        batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        return {**batch, "input_ids": batch["input_ids"] / self.calls}


def weighted(self, model, inputs, return_outputs=False, **_):
    weight, labels = inputs.pop("weight"), inputs.pop("labels")
    return (nn.functional.cross_entropy(model(**inputs)["logits"], labels, reduction="none") * weight).mean()


def twice(self, model, inputs, return_outputs=False, **_):
    inputs.pop("weight")
    return model(**inputs)["loss"] + model(**inputs)["logits"].square().mean()  # two draws of dropout


def positional(self, model, inputs, return_outputs=False, **_):
    return model(inputs["input_ids"], inputs["labels"])["loss"]


def without_the_model(self, model, inputs, return_outputs=False, **_):
    return model.forward(inputs["input_ids"], inputs["labels"])["loss"]  # nothing to be seen


class Stops(transformers.TrainerCallback):
    def __init__(self, error):
        self.error = error

    def on_step_end(self, args, state, control, **_):
        if self.error is not None and state.global_step == 2:
            raise self.error


DATA = (Rows, Stream)
COLLATORS = (SeededCollator, CountingCollator)
LOSSES = (None, weighted, twice, positional, without_the_model)
ENDS = (None, ZeroDivisionError("theirs"), KeyboardInterrupt(), SystemExit(3))
COMBINATIONS = list(itertools.product(DATA, COLLATORS, LOSSES, ENDS))


def outcome(tmp_path, data, collator, loss, end, callbacks):
    """Everything that a script leaves: weights, random states, its own objects' states, how it ended."""
    rows, collate = data(extra=loss is not None), collator()
    kind = type("Mine", (Trainer,), {} if loss is None else {"compute_loss": loss})
    torch.manual_seed(3)
    model = Net()
    arguments = TrainingArguments(
        str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=2, report_to="none", save_strategy="no",
        logging_steps=1, use_cpu=True, disable_tqdm=True, seed=4, remove_unused_columns=loss is None,
    )  # fmt: skip
    trainer = kind(
        model, arguments, train_dataset=rows, data_collator=collate, callbacks=[Stops(end), *callbacks]
    )
    ended = "finished"
    try:
        trainer.train()
    except BaseException as error:
        ended = repr(error)
    read_rows = rows.rows.read if isinstance(rows, Stream) else rows.read
    own = str(
        {k: v.get_state().tolist() if isinstance(v, torch.Generator) else v for k, v in vars(collate).items()}
    )
    weights = {name: value.tolist() for name, value in model.state_dict().items()}
    return weights, torch.get_rng_state().tolist(), read_rows, own, ended


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: getattr(loss, "__name__", "theirs"))
@pytest.mark.parametrize("data", DATA)
def test_a_script_of_any_kind_ends_as_it_would_alone(tmp_path, under_track, capsys, data, loss):
    for number, (collator, end) in enumerate(itertools.product(COLLATORS, ENDS), start=1):
        alone = outcome(tmp_path, data, collator, loss, end, [])
        assert alone == outcome(tmp_path, data, collator, loss, end, [AttachedCallback()])
        said = under_track()
        assert len(said) >= number
    tracked = loss is not without_the_model
    assert (tmp_path / "run").exists() == tracked
    assert all(("tracked in" in line) == tracked for line in said if line.startswith("training"))
    assert "__call__" not in vars(Net)


def test_there_are_enough_kinds_of_script():
    assert len(COMBINATIONS) >= 60


@pytest.mark.parametrize("workers", [0, 2])
def test_the_real_masking_collator_with_a_seed_masks_as_it_would_alone(tmp_path, under_track, workers):
    class Tokenizer(transformers.PreTrainedTokenizerFast):
        pass

    from tokenizers import Tokenizer as Words
    from tokenizers import models

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[MASK]", *(f"w{i}" for i in range(20))])}
    tokenizer = Tokenizer(
        tokenizer_object=Words(models.WordLevel(words, unk_token="[UNK]")), pad_token="[PAD]", mask_token="[MASK]",
        unk_token="[UNK]",
    )  # fmt: skip
    rows = [{"input_ids": [3 + (i + j) % 20 for j in range(8)]} for i in range(16)]
    found = []
    for callbacks in ([], [AttachedCallback()]):
        torch.manual_seed(0)
        shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        model = BertForMaskedLM(BertConfig(vocab_size=len(words), max_position_embeddings=8, **shape))
        arguments = TrainingArguments(
            str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=4, report_to="none", use_cpu=True,
            save_strategy="no", disable_tqdm=True, dataloader_num_workers=workers,
        )  # fmt: skip
        collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.4, seed=7)
        Trainer(model, arguments, train_dataset=rows, data_collator=collator, callbacks=callbacks).train()
        found.append({name: value.tolist() for name, value in model.state_dict().items()})
    assert found[0] == found[1]
    assert under_track() == [f"tracked in {tmp_path / 'run'}"]
    assert (load_runs(tmp_path / "run").fisher.trace > 0).any()


# -- an exception at every line ------------------------------------------------------------------------------------

OURS = Path(fishlens.tracking.__file__).parent
INSIDE = {"account", "attach", "attached", "bare_loop", "callback", "calls", "clock", "destinations", "explosion",
          "fed", "guard", "instrument", "kept_examples", "languages", "late", "measurement", "plain", "probe_record",
          "probe_set", "prober", "processes", "progress", "repeats", "resumption", "run_place", "scores", "settings",
          "texts", "tracker"}  # fmt: skip
"""The files that run inside somebody's program: `test_every_file_is_known` holds the list against the folder."""
OUTSIDE = {
    "overview",
    "__init__",
    "check",
    "memory",
    "reporters",
    "thaw",
    "unfreeze_callback",
    "unfreezing",
    "watch",
}
"""Those that run where they are asked for: a command of ours, a schedule, whose errors its user must hear; reporters
have a guard of their own (test_reporters.py)."""
MOST_LINES = 12
"""So many lines of each file and scenario are struck, evenly; all of them with a large number (some 1,500)."""


def last_resort(file):
    """Lines of the guard itself, outside of its `try`, and those that call it: nothing stands behind them, so they only
    pass calls on."""
    tree = ast.parse(Path(file).read_text())
    found = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "shielded"
        for line in span([node])
    }
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if function.name in ("safe", "shielded", "both", "__call__", "__enter__", "__exit__"):
            caught = (line for part in function.body if isinstance(part, ast.Try) for line in span(part.body))
            found |= set(span(function.body)) - set(caught)
    return found


def span(statements):
    return range(statements[0].lineno, statements[-1].end_lineno + 1)


LAST_RESORT = {
    (str(OURS / f"{n}.py"), line)
    for n in ("attach", "bare_loop", "calls", "guard")
    for line in last_resort(OURS / f"{n}.py")
}


class Script:
    """A training of two updates as a script has it; `run` is what it does, and gives all that it leaves. `files`: the
    ones of ours that are struck here, where another script strikes the others."""

    files = INSIDE

    def __init__(self, folder):
        self.folder = folder

    def update(self, model, optimizer, number):
        rows = torch.rand(4, 4, generator=torch.Generator().manual_seed(number))
        model(rows, labels=torch.tensor([0, 1, 2, 0]))["loss"].backward()
        return optimizer

    def run(self, ours):
        torch.manual_seed(0)
        calls._ignoring = (
            0  # an exception while it is set back leaves us deaf; the next training is not to suffer from it
        )
        model = type("Net", (Net,), {})()  # nor from a class that could not be left as it was
        self.train(model, torch.optim.SGD(model.parameters(), lr=0.1), ours)
        weights = {name: value.tolist() for name, value in model.state_dict().items()}
        return weights, torch.get_rng_state().tolist(), sorted(vars(model))


class Trained(Script):
    """The events of a training as transformers' Trainer orders them."""

    resumed, tokenizer = False, None

    def train(self, model, optimizer, ours):
        state = SimpleNamespace(
            global_step=2 if self.resumed else 0, max_steps=4 if self.resumed else 2, is_world_process_zero=True,
            best_metric=None, best_global_step=None,
        )  # fmt: skip
        args = SimpleNamespace(
            output_dir=str(self.folder), resume_from_checkpoint=None, seed=0, data_seed=None, bf16=False, fp16=False,
            metric_for_best_model=None, greater_is_better=None, per_device_train_batch_size=2,
        )  # fmt: skip
        callback = AttachedCallback() if ours else None

        def event(name, **more):
            if callback is not None:
                getattr(callback, name)(args, state, None, model=model, **more)

        event("on_train_begin", processing_class=self.tokenizer)
        model.train()
        for number in range(2):
            event("on_step_begin")
            self.update(model, optimizer, number)
            event("on_pre_optimizer_step")
            optimizer.step()
            optimizer.zero_grad()
            state.global_step += 1
            event("on_step_end")
            event("on_log", logs={"loss": 1.0})
        event("on_evaluate", metrics={"eval_de_runtime": 1.0, "eval_de_accuracy": 0.5})
        if not self.resumed:
            (self.folder / f"checkpoint-{state.global_step}").mkdir(exist_ok=True)
            event("on_save")
        event("on_epoch_end")
        event("on_train_end")
        event("on_predict", metrics={"test_runtime": 1.0, "test_f1": 50.0})


class Resumed(Trained):
    resumed = True


class WithTexts(Trained):
    """A training beside whose source the texts of another language are measured."""

    files = {"attached", "callback", "languages", "prober", "texts"}  # noqa: RUF012

    @property
    def tokenizer(self):
        from tokenizers import Tokenizer, models, pre_tokenizers

        words = Tokenizer(models.WordLevel({"u": 0, "a": 1, "b": 2}, unk_token="u"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        return transformers.PreTrainedTokenizerFast(tokenizer_object=words, unk_token="u")

    def train(self, model, optimizer, ours):
        stored, before = self.folder / "languages.json", dict(os.environ)
        texts = {"texts": ["a b a a", "b b a a", "a b b u"], "names": ["1", "2", "3"], "source": "de.txt"}
        stored.write_text(json.dumps({"de": texts}))
        os.environ[VARIABLE] = json.dumps({**json.loads(before[VARIABLE]), "languages": str(stored)})
        try:
            super().train(model, optimizer, ours)
        finally:  # an exception while the environment is put back leaves it changed, as above
            os.environ.clear()
            os.environ.update(before)


class Watched(Script):
    """A loop of one's own."""

    def train(self, model, optimizer, ours):
        around = (
            watching(model, every=1, examples=4, blocks="module", run=free(self.folder)) if ours else None
        )
        if around is not None:
            around.__enter__()
        for number in range(2):
            self.update(model, optimizer, number).step()
            optimizer.zero_grad()
        if around is not None:
            around.__exit__(None, None, None)


def free(folder):
    return next(place for n in itertools.count() if not (place := folder / f"watched-{n}").exists())


class Attached(Script):
    """A program that imports the Trainer's module, and ends."""

    def train(self, model, optimizer, ours):
        account = Path(json.loads(os.environ[VARIABLE])["account"])
        (self.folder / "their_trainer.py").write_text("DEFAULT_CALLBACKS = ['theirs']\n")
        finders = list(sys.meta_path)
        if ours:
            attach.attach()
        try:
            module = importlib.import_module("their_trainer")
        finally:
            sys.modules.pop("their_trainer", None)
            sys.meta_path[:] = finders
        assert module.DEFAULT_CALLBACKS[0] == "theirs" and module.__spec__.name == "their_trainer"
        if ours:
            guard.shielded(attach.end, account)
            account.touch()


SCRIPTS = (Trained, Resumed, WithTexts, Watched, Attached)


def traced(where, action):
    """Runs `action`; at each line of ours `where(file, line)` is called, and may raise."""

    def local(frame, kind, _):
        if kind == "line":
            where(frame.f_code.co_filename, frame.f_lineno)
        return local

    def start(frame, kind, _):
        return local if frame.f_code.co_filename in files else None

    files = {str(OURS / f"{name}.py") for name in INSIDE}
    before = sys.gettrace()
    sys.settrace(start)
    try:
        return action()
    finally:
        sys.settrace(before)


def evenly(places, most):
    return places[:: max(1, -(-len(places) // most))]


@pytest.fixture
def scripted(tmp_path, monkeypatch, under_track):
    """What the scripts need: nothing of them is left at the exit of the tests, and a checkpoint to go on from."""
    monkeypatch.setattr("atexit.register", lambda *_: None)
    monkeypatch.setattr(attach, "_TRAINER", "their_trainer")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def lines_of_ours(script):
    """The lines that a script leads through, in order, and whether they changed what it leaves."""
    alone, seen = script.run(False), []
    same = traced(lambda *at: seen.append(at), lambda: script.run(True)) == alone
    return alone, [at for at in dict.fromkeys(seen) if at not in LAST_RESORT], same


@pytest.mark.parametrize("kind", SCRIPTS)
def test_an_exception_at_any_line_of_ours_leaves_a_program_as_it_was(scripted, kind):
    if kind is Resumed:
        Trained(scripted).run(True)  # leaves a checkpoint, and the examples of its probes
        shutil.copytree(scripted / "run", scripted / "kept")
    script = kind(scripted)
    alone, met, same = lines_of_ours(script)
    assert same
    for file in {file for file, _ in met if Path(file).stem in kind.files}:
        for at in evenly([at for at in met if at[0] == file], MOST_LINES):
            armed = [True]

            def strike(*here, at=at, armed=armed):
                if here == at and armed[0]:
                    armed[0] = False
                    raise RuntimeError("struck")

            if kind is Resumed:  # a run that has gone further is not gone on with from this checkpoint
                (scripted / "run").rename(scripted / f"gone-{len(list(scripted.glob('gone-*')))}")
                shutil.copytree(scripted / "kept", scripted / "run")
            assert traced(strike, lambda: script.run(True)) == alone, at
            assert not armed[0], at


PASSES_ON = {
    "try:", "return None", "return result", "result = theirs(*args)", "return theirs(*args)", "return both",
    "return action(*args)", "except Exception as error:", "return shielded(self.failed, error)",
    "if self.strict and isinstance(error, InputError):", "raise", "return self", "self._begin()",
    "self._end(kind, error)", "return own(self, *args, **kwargs)", "if own is not None:", "listener(args, kwargs)",
    "for listener in shielded(_heard_by, self) or ():", "shielded(ours, *args)",
    "if type(self) is kind and not torch.compiler.is_compiling():",
    "return super(kind, self).__call__(*args, **kwargs)  # type: ignore[misc, arg-type]",
    "with contextlib.suppress(Exception):", 'say(f"NOT TRACKED, because {reason(error)}")',
}  # fmt: skip


def test_what_stands_outside_of_every_try_only_passes_a_call_on():
    """The lines that no strike can stand behind: each is one of a few that cannot fail by themselves."""
    found = set()
    for name in ("bare_loop", "calls", "guard"):
        lines = (OURS / f"{name}.py").read_text().splitlines()
        tree = ast.parse("\n".join(lines))
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            if function.name in ("safe", "shielded", "both", "__call__", "__enter__", "__exit__"):
                body = function.body[1:] if ast.get_docstring(function) else function.body
                caught = {line for part in body if isinstance(part, ast.Try) for line in span(part.body)}
                found |= {lines[line - 1].strip() for line in set(span(body)) - caught}
    assert found <= PASSES_ON, found - PASSES_ON


def test_every_file_that_runs_inside_a_program_is_struck(scripted):
    assert {file.stem for file in OURS.glob("*.py")} == INSIDE | OUTSIDE
    met = set()
    for kind in SCRIPTS:
        met |= {Path(file).stem for file, _ in lines_of_ours(kind(scripted))[1]}
    assert met == INSIDE
    languages = load_runs(list(scripted.glob("run*"))).fisher_series.language
    assert set(languages) == {"de"}  # the script with texts is tracked in both


def test_without_the_guard_the_same_exception_ends_the_program(scripted, monkeypatch):
    """That the test above can fail."""
    monkeypatch.setattr(AttachedCallback, "begin", lambda *_: 1 / 0)
    script = Trained(scripted)
    script.run(True)  # behind the guard
    monkeypatch.setattr(AttachedCallback, "on_train_begin", AttachedCallback.on_train_begin.__wrapped__)
    with pytest.raises(ZeroDivisionError):
        script.run(True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_meant_to_end_a_program_passes_the_guard(scripted, monkeypatch, error):
    def ends(*_):
        raise error

    monkeypatch.setattr(AttachedCallback, "begin", ends)
    with pytest.raises(error):
        Trained(scripted).run(True)
