"""Two machines, three sweeps, one run: through the journal's own `open`, at any interleaving of their file operations.

Every process is a thread, of which one runs at a time: each operation on a file is a moment at which another may go on,
or at which a process is killed and leaves everything as it lies. Time, host names, process ids and heartbeats are the
world's; files, journals, leases and checkpoints are the real ones.
"""

import os
import random
import socket
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from fishlens.journal import JournalWriter, RunHeld, begun, lease, read_run, records, standing, writer
from fishlens.sweep.plan import Status, state_of
from fishlens.training.checkpoint import (
    Snapshot,
    begin_checkpoint,
    finish_checkpoint,
    list_checkpoints,
    read_checkpoint,
    write_random_state,
)

STEPS, EVERY = 8, 3  # updates of the run; a checkpoint after every third


class Killed(BaseException):
    """What ends a process: nothing of it is caught by the code under test."""


class Process(threading.Thread):
    """One sweep on one machine, which trains the run when nobody is at it, until it has finished."""

    def __init__(self, world, host, pid):
        super().__init__(daemon=True)
        self.world, self.host, self.pid = world, host, pid
        self.go = threading.Semaphore(0)
        self.sleeps_until = self.waits_until = self.stopped_until = 0.0
        self.killed = self.ended = False
        self.failure = None
        self.beats = []  # (heartbeat, when it is due, its number)
        self.writer = None  # while it trains

    def run(self):
        self.go.acquire()
        try:
            if not self.killed:
                self.world.job(self)
        except Killed:
            pass
        except BaseException as error:
            self.failure = error
        self.ended, self.writer = True, None
        self.world.back.release()

    def pause(self):
        """Another may go on here. A process that was killed does nothing any more."""
        if self.killed:
            raise Killed
        self.world.back.release()
        self.go.acquire()
        if self.killed:
            raise Killed

    def sleep(self, seconds):
        self.sleeps_until = self.world.now + seconds
        self.pause()
        self.sleeps_until = 0.0


class World:
    def __init__(self, place, case):
        self.place, self.chance = place, random.Random(case)
        self.now, self.back, self.current = 0.0, threading.Semaphore(0), None
        self.processes, self.pids, self.trained, self.journals = [], 0, [], []

    def begin(self, host):
        self.pids += 1
        self.processes.append(Process(self, host, self.pids))
        self.processes[-1].start()

    def lets(self, process):
        """One process goes on to its next operation."""
        self.current = process
        process.go.release()
        self.back.acquire()
        self.current = None
        if process.failure is not None:
            raise process.failure

    def kill(self, process):
        process.killed = True
        self.lets(process)

    def living(self):
        return [process for process in self.processes if not process.ended]

    def awake(self):
        return [p for p in self.living() if max(p.sleeps_until, p.waits_until, p.stopped_until) <= self.now]

    def at_work(self):
        """Who trains and was not taken over; whoever was, and has not noticed yet, was stopped for a while."""
        training = [process for process in self.living() if process.writer is not None]
        taken = [process for process in training if lease.next_journal(process.writer.path).exists()]
        assert all(process.stopped_until > 0 for process in taken)
        return [process for process in training if process not in taken]

    def goes_on(self, crashes):
        """Until everybody has seen that the run has finished: at each moment one of those awake goes on to its next
        operation, waits for a slow disk, is killed (and begun anew later), or is stopped while it trains, as a laptop
        that is closed."""
        later = []
        while self.living() or later:
            for host in [host for host, when in later if when <= self.now]:
                self.begin(host)
            later = [(host, when) for host, when in later if when > self.now]
            self.beat()
            awake = self.awake()
            if not awake:
                self.now += 0.5
                continue
            process = self.chance.choice(awake)
            dice = self.chance.random()
            if crashes and dice < 0.01:
                crashes -= 1
                self.kill(process)
                later.append((process.host, self.now + self.chance.uniform(0, 3 * lease.PATIENCE)))
            elif dice < 0.015 and process.writer is not None and process.sleeps_until:
                process.stopped_until = self.now + self.chance.uniform(0, 3 * lease.PATIENCE)
            elif dice < 0.06:
                process.waits_until = self.now + self.chance.uniform(0, 2 * lease.BEAT)
            else:
                self.lets(process)
            self.now += self.chance.uniform(0, 0.1)
            assert len(self.at_work()) <= 1, "two processes train the run at once"
            assert self.now < 20_000, "nobody goes on"

    def is_alive(self, pid):
        return any(p.pid == pid and p.host == self.current.host for p in self.living())

    def beat(self):
        for process in [one for one in self.living() if one.stopped_until <= self.now]:
            self.current = process
            for one in process.beats:
                if one[1] <= self.now and not one[0]._stopped.is_set():
                    one[1], one[2] = self.now + lease.BEAT, one[2] + 1
                    one[0].beat(one[2])
        self.current = None

    def job(self, process):
        """What `fishlens sweep` does with a run, without the training."""
        while state_of(self.place)[0] is not Status.FINISHED:
            try:
                self.train(process)
            except RunHeld:
                process.writer = None
            process.sleep(self.chance.uniform(1, lease.PATIENCE))

    def train(self, process):
        seen = standing(self.place)
        if state_of(self.place)[0] is Status.FINISHED:
            return
        there = list_checkpoints(self.place / "checkpoints")
        step = read_checkpoint(there[max(there)]).step if there else 0
        again = begun(self.place)
        journal = JournalWriter.open(self.place, {}, step if again else None, after=seen)
        process.writer = journal
        self.journals.append(journal)
        while step < STEPS:
            process.sleep(self.chance.choice((1.0, lease.BEAT, 1.5 * lease.PATIENCE)))
            step += 1
            self.trained.append((journal.path.name, step))
            journal.write("train", step, loss=float(step))
            if step % EVERY == 0 or step == STEPS:
                journal.check_place()
                checkpoint = begin_checkpoint(self.place / "checkpoints", step)
                journal.check_place()
                tensors = {"a": torch.full((1,), float(step))}
                write_random_state(checkpoint, 0, tensors)
                finish_checkpoint(checkpoint, Snapshot(step, tensors, tensors, {}, {}))
        journal.check_place()
        process.writer = None
        journal.close("finished", step=step)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """`world(case)`: all that the code asks of its machine is asked of the world."""
    now = SimpleNamespace(world=None)

    def here():
        return now.world.current if now.world is not None else None

    def stopping(name):
        real = getattr(os, name)

        def operation(*arguments, **options):
            if (process := here()) is threading.current_thread():
                process.pause()
            return real(*arguments, **options)

        return operation

    def kill(pid, signal):
        if not now.world.is_alive(pid):
            raise ProcessLookupError

    class Beats:
        def __init__(self, target, **_):
            self.heartbeat = target.__self__

        def start(self):
            here().beats.append([self.heartbeat, now.world.now + lease.BEAT, 0])

    for name in ("open", "write", "listdir", "link", "unlink", "rename", "replace", "mkdir", "rmdir"):
        monkeypatch.setattr(os, name, stopping(name))
    monkeypatch.setattr(os, "kill", kill)
    monkeypatch.setattr(os, "getpid", lambda: here().pid)
    monkeypatch.setattr(socket, "gethostname", lambda: here().host)
    monkeypatch.setattr(records, "running_system", lambda: here().host)
    monkeypatch.setattr(records, "process_began", lambda pid: str(pid) if now.world.is_alive(pid) else None)
    monkeypatch.setattr(lease, "threading", SimpleNamespace(Event=threading.Event, Thread=Beats))
    monkeypatch.setattr(
        writer,
        "wait_until_gone",
        partial(lease.wait_until_gone, sleep=lambda s: here().sleep(s), clock=lambda: now.world.now),
    )
    for name, value in (("git_state", None), ("installed_versions", {}), ("user_name", "somebody")):
        monkeypatch.setattr(writer, name, lambda value=value: value)
    monkeypatch.setattr("fishlens.training.checkpoint.os.fsync", lambda descriptor: None)

    def made(case):
        now.world = World(tmp_path / str(case), case)
        return now.world

    return made


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_two_hosts_and_crashes_anywhere_finish_the_run_once_and_never_train_it_at_once(world, first):
    for case in range(first, first + 50):
        here = world(case)
        for host in ("a", "b", "b")[: 2 + case % 2]:
            here.begin(host)
        here.goes_on(crashes=case % 5)
        run = read_run(here.place, strict=True)
        assert run.status == "finished" and run.last_step == STEPS, f"case {case}"
        steps = [record["step"] for record in run.records if record["kind"] == "train"]
        assert steps == list(range(1, STEPS + 1)), f"case {case}: {steps}"
        ends = [path for path in here.place.glob("journal-*.jsonl") if b'"finished"' in path.read_bytes()]
        assert len(ends) == 1, f"case {case}"
        for journal in here.journals:
            if journal._descriptor is not None:  # its process was killed
                os.close(journal._descriptor)
