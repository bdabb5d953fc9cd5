"""One run, several machines on one folder: nobody trains it twice at once, and no run is lost."""

import random

import pytest

from fishlens.journal import JournalWriter, RunHeld, attempts, lease, read_run
from fishlens.journal.lease import Watch, alive_file

HERE = {"host": "elsewhere", "pid": 1, "began": None}


class Host:
    """A machine that goes on with the run when nobody is at it, in steps that interleave with another's.

    It looks, waits, takes over by creating the next journal, and gives signs of life while it writes; it may crash at
    any moment and come back much later.
    """

    def __init__(self, name, place, clock):
        self.name, self.place, self.clock = name, place, clock
        self.watch = self.attempt = self.journal = None
        self.beats = 0
        self.down_until = 0

    def crash(self, until):
        self.watch = self.journal = None
        self.down_until = until

    def step(self, log):
        if self.clock.now < self.down_until:
            return
        if self.journal is not None:
            self.work(log)
            return
        there = attempts(self.place)
        number, last = there[-1]
        if b'"kind":"end"' in last.read_bytes():
            return
        if self.watch is None or self.attempt != number:
            process = {"host": f"not this machine, but {self.name}'s neighbour", "pid": 1}
            self.watch, self.attempt = Watch(last, process, self.clock.now), number
        verdict = self.watch.verdict(self.clock.now)
        if verdict is True:
            self.watch = None  # it lives: look again later
        elif verdict is False:
            self.take(number + 1)

    def take(self, number):
        path = self.place / f"journal-{number}.jsonl"
        try:
            with path.open("x") as file:
                file.write(
                    f'{{"kind":"start","format":1,"minor":1,"attempt":{number},"resumed_from_step":0}}\n'
                )
        except FileExistsError:
            self.watch = None
            return
        self.journal, self.left = path, 12

    def work(self, log):
        if lease.next_journal(self.journal).exists():
            self.journal = self.watch = None  # taken over while it slept
            return
        log.append((self.clock.now, self.name, self.journal.name))
        self.beats += 1
        alive_file(self.journal).write_text(f"{self.name} {self.beats}")
        self.left -= 1
        if self.left == 0:
            with self.journal.open("a") as file:
                file.write('{"kind":"end","step":12,"status":"finished"}\n')
            self.journal = self.watch = None


class Clock:
    now = 0.0


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_two_machines_and_crashes_in_any_order_finish_the_run_once_and_never_work_at_once(tmp_path, first):
    for case in range(first, first + 50):
        chance, clock = random.Random(case), Clock()
        place = tmp_path / str(case)
        place.mkdir()
        (place / "journal-1.jsonl").write_text(
            '{"kind":"start","format":1,"minor":1,"attempt":1,"resumed_from_step":null}\n'
        )
        hosts, log, crashes = [Host("a", place, clock), Host("b", place, clock)], [], 0
        for _ in range(4000):
            clock.now += chance.uniform(1, lease.BEAT)
            order = hosts if chance.random() < 0.5 else hosts[::-1]
            for host in order:
                if crashes < 3 and chance.random() < 0.03:
                    host.crash(clock.now + chance.uniform(0, 5 * lease.PATIENCE))
                    crashes += 1
                host.step(log)
            assert (
                sum(
                    host.journal is not None and not lease.next_journal(host.journal).exists()
                    for host in hosts
                )
                <= 1
            )
            if b'"kind":"end"' in attempts(place)[-1][1].read_bytes():
                break
        ended = [path for _, path in attempts(place) if b'"kind":"end"' in path.read_bytes()]
        assert len(ended) == 1 and read_run(place).status == "finished", f"case {case}"
        journals = [name for _, _, name in log]
        assert journals == sorted(journals, key=lambda name: int(name[8:-6])), (
            "an earlier one worked after a later one"
        )


def test_a_sleeper_that_was_taken_over_stops_before_it_writes_a_checkpoint(tmp_path):
    sleeper = JournalWriter.open(tmp_path / "a", {})
    JournalWriter.open(
        tmp_path / "a", {}, resumed_from_step=0
    )  # the same process may: as another machine, here
    with pytest.raises(RunHeld, match="was taken over by another process"):
        sleeper.check_place()


def test_a_run_on_another_machine_is_refused_while_it_gives_signs_of_life(tmp_path):
    journal = JournalWriter.open(tmp_path / "a", {})
    now, told, closed = [0.0], [], []

    def sleep(seconds):
        now[0] += seconds
        told.append(seconds)
        if len(told) == 5 and not closed:
            journal._heartbeat.beat(7)

    with pytest.raises(RunHeld, match="by process 1 on elsewhere"):
        lease.wait_until_gone(journal.path, HERE, True, sleep, lambda: now[0])
    told.clear()
    now[0] = 0.0
    journal.close()
    closed.append(True)
    lease.wait_until_gone(journal.path, HERE, True, sleep, lambda: now[0])
    assert sum(told) >= lease.PATIENCE


def test_whoever_went_on_while_a_checkpoint_was_read_goes_first(tmp_path):
    JournalWriter.open(tmp_path / "a", {}).close("interrupted")
    JournalWriter.open(tmp_path / "a", {}, resumed_from_step=0, after=1).close("interrupted")
    with pytest.raises(RunHeld, match="has begun attempt 2"):
        JournalWriter.open(tmp_path / "a", {}, resumed_from_step=0, after=1)


def test_a_process_id_of_another_start_of_the_system_says_nothing(tmp_path):
    from fishlens.journal.records import is_alive, this_process

    me = this_process()
    assert is_alive(me) is True and is_alive({**me, "system": "another boot"}) is None
