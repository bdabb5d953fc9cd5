"""Every operation on the tracker's files fails once, in three ways: the training ends as it would have, what is lost is
said, and what has a name can be read."""

import errno
import json
import os
import warnings
from types import SimpleNamespace

import pytest
import torch
from faultydisk import Disk, chosen
from safetensors.torch import load_file
from torch import nn

from fishlens import FisherCallback, load_runs
from fishlens.errors import InputError
from fishlens.journal import attempts, read_run
from fishlens.tracking import kept_examples, prober
from fishlens.tracking.attached import AttachedCallback
from fishlens.tracking.settings import VARIABLE

pytestmark = pytest.mark.usefixtures("cheap_collections", "versions_read_once")
SOME = 8
NATIVE = ((prober, "save_file", 1), (kept_examples, "save_file", 1), (kept_examples, "safe_open", 0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, input_ids, labels=None):
        return {"logits": self.head(torch.tanh(self.body(input_ids)))}


def training(folder, tracked, updates=(0, 1), kind=AttachedCallback):
    """The events of a training with a checkpoint after its second update; gives the weights at the end."""
    arguments = {"resume_from_checkpoint": None, "seed": 0, "data_seed": None, "bf16": False, "fp16": False,
                 "metric_for_best_model": None, "greater_is_better": None}  # fmt: skip
    args = SimpleNamespace(output_dir=str(folder), **arguments)
    state = SimpleNamespace(
        global_step=updates[0], max_steps=updates[-1] + 1, is_world_process_zero=True, best_metric=None,
        best_global_step=None,
    )  # fmt: skip
    callback, model = kind() if tracked else None, Net()

    def event(name, **more):
        if callback is not None:
            getattr(callback, name)(args, state, None, model=model, **more)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    event("on_train_begin")
    for number in updates:
        event("on_step_begin")
        rows = torch.rand(4, 4, generator=torch.Generator().manual_seed(number))
        loss = nn.functional.cross_entropy(model(rows)["logits"], torch.tensor([0, 1, 2, 0]))
        loss.backward()
        event("on_pre_optimizer_step")
        optimizer.step()
        optimizer.zero_grad()
        state.global_step += 1
        event("on_step_end")
        event("on_log", logs={"loss": 1.0})
    event("on_evaluate", metrics={"eval_de_runtime": 1.0, "eval_de_accuracy": 0.5})
    event("on_save")
    event("on_train_end")
    return [parameter.tolist() for parameter in model.parameters()]


@pytest.fixture
def folder(tmp_path, monkeypatch, under_track):
    monkeypatch.setattr("atexit.register", lambda *_: None)
    settings = json.loads(os.environ[VARIABLE])

    def fresh(name):
        place = tmp_path / str(name)
        for step in (2, 4):  # the script's own
            (place / f"checkpoint-{step}").mkdir(parents=True)
        content = {**settings, "run": str(place / "run"), "every": "1", "diagonals": [1]}
        monkeypatch.setenv(VARIABLE, json.dumps(content))
        return place

    return fresh


def read_or_said(place, said, steps):
    """Everything with a name can be read; steps that have no probe are accounted for in words."""
    for path in place.rglob("*.safetensors"):
        load_file(path)
    for path in place.rglob("fishlens.json"):
        json.loads(path.read_text())
    assert not [path for path in place.rglob("*") if path.suffix == ".writing"]
    probed = set()
    if attempts(place / "run"):
        try:
            probed = {
                r["step"] for r in read_run(place / "run").records if r["kind"] == "fisher" and r["trace"]
            }
        except InputError as error:
            assert "\n" not in str(error)
    assert probed >= steps or "fishlens:" in said


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES], ids=errno.errorcode.get)
def test_a_disk_that_refuses_the_tracker_leaves_the_training_as_it_was(folder, capsys, number):
    alone = training(folder("alone"), tracked=False)
    place = folder("whole")
    disk = Disk(place, native=NATIVE)
    with disk.watched():
        assert training(place, tracked=True) == alone
    assert {o.split()[0] for o in disk.done} >= {"open", "write", "save_file", "replace", "mkdir"}
    read_or_said(place, "", {0, 1, 2})
    capsys.readouterr()
    for refused in chosen(disk.done, SOME):
        place = folder(refused)
        with warnings.catch_warnings(), Disk(place, refused, number, NATIVE).watched():
            warnings.simplefilter("ignore")
            assert training(place, tracked=True) == alone, disk.done[refused]
        read_or_said(place, capsys.readouterr().err, {0, 1, 2})


def test_a_disk_that_refuses_a_resumed_tracker_leaves_the_training_as_it_was(folder, capsys, monkeypatch):
    alone = training(folder("alone"), tracked=False, updates=(2, 3))
    operations = []
    for refused in [None, *range(100)]:
        if refused is not None and refused not in chosen(operations, SOME):
            continue
        place = folder(f"r{refused}")
        training(place, tracked=True)
        disk = Disk(place, refused, errno.EIO, NATIVE)
        with warnings.catch_warnings(), disk.watched():
            warnings.simplefilter("ignore")
            assert training(place, tracked=True, updates=(2, 3)) == alone
        operations = operations or disk.done
        read_or_said(place, capsys.readouterr().err, {0, 1})
    assert {o.split()[0] for o in operations} >= {"open", "read", "safe_open", "write"}


def test_a_resumed_callback_without_a_name_goes_on_in_its_run_and_says_which(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "out"
    for step in (2, 4):
        (place / f"checkpoint-{step}").mkdir(parents=True)

    def mine():
        return FisherCallback(every=1, blocks="module", examples=4)

    training(place, tracked=True, kind=mine)
    assert "fishlens" not in capsys.readouterr().err
    training(place, tracked=True, updates=(2, 3), kind=mine)
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["out"]
    assert sorted(set(load_runs("runs").fisher.step)) == [0, 1, 2, 3, 4]
    said = capsys.readouterr().err
    assert said.count("fishlens:") == 1 and "tracked in" in said and "runs/out, from step 2 on" in said
    (place / "checkpoint-2" / "fishlens.json").unlink()
    training(place, tracked=True, updates=(2, 3), kind=mine)
    said = capsys.readouterr().err
    assert "a run of its own, runs/out-2: no run is known that the checkpoint belongs to" in said
