"""A run that is followed: what a look reads is what is new, and what it shows is what a reader finds."""

import json
import math
import random

from fishlens.journal import JournalWriter, read_run
from fishlens.journal.follow import Follower
from fishlens.journal.kinds import identity
from fishlens.tracking.overview import Curve, Overview

START = b'{"kind":"start","format":1,"minor":1,"attempt":1,"resumed_from_step":null,"blocks":{"low":1,"high":1}}\n'


def probe(step, value=1.0):
    values = {"low": value, "high": 2 * value}
    return json.dumps({"kind": "fisher", "step": step, "trace": values, "stderr": values}).encode() + b"\n"


class Merged:
    """The records as a follower gives them, those written twice once."""

    def __init__(self):
        self.records, self.lines = {}, []

    def begin(self, start):
        pass

    def take(self, record):
        self.records[identity(record)] = record

    def damaged(self, text):
        self.lines.append(text)


def test_a_long_journal_costs_what_is_new_in_it(tmp_path):
    journal = tmp_path / "journal-1.jsonl"
    journal.write_bytes(START + b"".join(probe(step) for step in range(50_000)))
    follower = Follower(tmp_path, lambda: Overview(tmp_path))
    seen = follower.look()
    assert seen.last_step == 49_999 and follower.bytes_read == journal.stat().st_size
    kept = [len(curve.values()) for curve in seen.probes.curves.values()]
    assert max(kept) <= Curve.BINS, "as much is kept of it as of a short one"
    for step in range(50_000, 50_010):
        before, new = follower.bytes_read, probe(step)
        with journal.open("ab") as file:
            file.write(new)
        assert follower.look().last_step == step and follower.bytes_read - before == len(new)
    before = follower.bytes_read
    follower.look()
    assert follower.bytes_read == before, "nothing is new"


def test_a_record_that_is_half_written_is_read_when_it_is_whole_and_once(tmp_path):
    journal = tmp_path / "journal-1.jsonl"
    journal.write_bytes(START)
    follower = Follower(tmp_path, lambda: Overview(tmp_path))
    text = b"".join(probe(step, float(step)) for step in range(1, 8))
    for i in range(0, len(text), 17):
        with journal.open("ab") as file:
            file.write(text[i : i + 17])
        seen = follower.look()
    assert seen.probes.curves["low"].values() == [1, 2, 3, 4, 5, 6, 7] and not seen.notes


def test_what_is_followed_is_what_is_read_whatever_happens_to_the_run(tmp_path):
    for case in range(20):
        chance, place = random.Random(case), tmp_path / str(case)
        follower, step, resumed = Follower(place, Merged), 0, None
        for _ in range(chance.randint(1, 4)):
            with JournalWriter.open(place, {"blocks": {"low": 1}}, resumed) as journal:
                for step in range(resumed or 0, (resumed or 0) + chance.randint(1, 9)):
                    journal.write("fisher", step, trace={"low": chance.random()}, purpose="track")
                    journal.write("note", step, level="info", text="same")
                    if chance.random() < 0.3:
                        follower.look()
                if chance.random() < 0.5:
                    journal.write("end", step, status="interrupted")
            if chance.random() < 0.2:  # a sync tool puts the same file there anew
                copy = journal.path.with_suffix(".copy")
                copy.write_bytes(journal.path.read_bytes())
                copy.replace(journal.path)
            if chance.random() < 0.2:
                with journal.path.open("ab") as file:
                    file.write(b'{"kind":"fisher"\n')
            resumed = chance.randint(0, step)
        run, seen = read_run(place), follower.look()
        assert sorted(seen.records.values(), key=str) == sorted(
            ({k: v for k, v in record.items() if k != "attempt"} for record in run.records), key=str
        ), f"case {case}"
        assert seen.lines == run.damaged


def test_a_curve_of_any_length_is_its_values_means():
    values = [random.Random(0).random() for _ in range(10_000)]
    values[7] = math.nan
    curve = Curve()
    for step, value in enumerate(values):
        curve.put(step, value)
    curve.put(9_999, values[-1])  # the same step again
    found, per = curve.values(), 32  # 512 bins would hold 10,000 values only by 32
    assert len(found) == math.ceil(len(values) / per)
    for i, mean in enumerate(found):
        part = [value for value in values[i * per : (i + 1) * per] if math.isfinite(value)]
        assert math.isclose(mean, math.fsum(part) / len(part), rel_tol=1e-12)
