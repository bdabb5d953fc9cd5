"""The live view of a run in a terminal: one curve per block, loss, score, what was thawed, what it cost.

Everything comes from the journal, so it works beside the run or over ssh, on a run that goes on, has ended or has died.
Names out of a journal are shown as plain text: never as markup, and never as control sequences of the terminal.
"""

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fishlens.errors import InputError
from fishlens.journal import Run, attempts, read_run
from fishlens.journal.records import number

BARS = "▁▂▃▄▅▆▇█"
STYLES = {"running": "green", "finished": "blue", "interrupted": "yellow", "failed": "red", "died": "red"}


def watch(run_dir: Path, console: Console, *, every: float = 2.0, once: bool = False) -> None:
    """Show the run until it ends (or once). Raises `InputError` if there is no run."""
    if not attempts(run_dir):
        raise InputError(f"{run_dir} holds no run: expected a directory with a journal-1.jsonl")
    run = read_run(run_dir)
    if once or run.status != "running":
        console.print(view(run, console.width))
        return
    with Live(
        view(run, console.width), console=console, auto_refresh=False, screen=console.is_terminal
    ) as live:
        while run.status == "running":
            time.sleep(every)
            run = read_run(run_dir)
            live.update(view(run, console.width), refresh=True)
    console.print(view(run, console.width))  # what stays on the screen


def view(run: Run, width: int = 100) -> RenderableType:
    """Everything about a run that fits a screen."""
    parts: list[RenderableType] = [_headline(run), _progress(run), Text(""), _blocks(run, width)]
    parts += [line for line in (_unfreezing(run), *_notes(run)) if line is not None]
    return Group(*parts)


def plain(text: object) -> str:
    """A name as it may be shown: one line, and what is not printable as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as bars between 0 and the largest of them, averaged down to `width`; a gap where one is not finite."""
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [_mean(values[a:b]) for a, b in pairwise(edges)]
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    return "".join(_bar(value, top) for value in values)


def _bar(value: float, top: float) -> str:
    if not math.isfinite(value):
        return " "
    return BARS[min(int(value / top * len(BARS)), len(BARS) - 1) if top > 0 and value > 0 else 0]


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan


def _headline(run: Run) -> Text:
    factors = run.start.get("factors") or {}
    shown = [
        f"{key}={plain(factors[key])}"
        for key in ("task", "schedule", "seed", "model", "script")
        if factors.get(key) is not None
    ]
    line = Text(plain(run.path.name), style="bold")
    line.append(f"  {plain(run.status)}", style=STYLES.get(run.status, "yellow"))
    if run.attempts > 1:
        line.append(f"  attempt {run.attempts}")
    return line.append("  " + "  ".join(shown), style="dim")


def _progress(run: Run) -> Text:
    line = Text(f"step {run.last_step}")
    train = [record for record in run.records if record["kind"] == "train"]
    if train:
        line.append(f"   loss {number(train[-1].get('loss')):.4g}  ")
        line.append(sparkline([number(record.get("loss")) for record in train], 20), style="magenta")
    evaluations = [r for r in run.records if r["kind"] == "eval" and r.get("split") != "targets"]
    scores = [r for r in evaluations if r.get("headline")] or evaluations
    if scores:
        last = scores[-1]
        of = " ".join(plain(last[key]) for key in ("split", "language", "metric") if last.get(key))
        line.append(f"   {of} {number(last.get('value')):.4g}")
    overhead = [r["overhead"] for r in run.records if r["kind"] == "fisher" and r.get("overhead") is not None]
    if overhead:
        line.append(f"   probes cost {100 * number(overhead[-1]):.2f}% of training")
    return line


def _blocks(run: Run, width: int) -> RenderableType:
    probes = [
        r
        for r in run.records
        if r["kind"] == "fisher" and r.get("trace") and r.get("language") is None and r.get("series") is None
    ]
    tracked = [r for r in probes if r.get("purpose") != "select"] or probes
    if not tracked:
        return Text("no probe yet", style="dim")
    last = tracked[-1]
    table = Table(box=None, pad_edge=False)
    table.add_column("block")
    table.add_column(f"tr(F), steps {tracked[0]['step']} to {last['step']}")
    for name in ("now", "± stderr", ""):
        table.add_column(name, justify="right", no_wrap=True)
    names = [*run.blocks, *(name for name in last["trace"] if name not in run.blocks)]
    longest = max(len(plain(name)) for name in names)
    room = max(10, width - longest - 36)
    for name in reversed(names):
        curve = [number(record["trace"].get(name)) for record in tracked]
        trains = bool((last.get("trainable") or {}).get(name))
        table.add_row(
            Text(plain(name)),
            Text(sparkline(curve, room), style="green" if trains else "blue"),
            Text(f"{curve[-1]:.3g}"),
            Text(f"{number((last.get('stderr') or {}).get(name)):.1g}"),
            Text("trains" if trains else "frozen", style="green" if trains else "dim"),
        )
    return table


def _unfreezing(run: Run) -> Text | None:
    events = [record for record in run.records if record["kind"] == "unfreeze" and record.get("chosen")]
    if not events:
        return None
    line = Text("\nunfroze ")
    for event in events:
        line.append(", ".join(map(plain, event["chosen"])), style="bold")
        margin = event.get("margin")
        lead = (
            f", leads {plain(event.get('runner_up'))} by {number(margin):.1f} s.e."
            if margin is not None
            else ""
        )
        line.append(f" (step {event['step']}{lead})  ", style="dim")
    return line


def _of(record: dict[str, Any]) -> str:
    """In which target language, if it was one."""
    return f" in {plain(record['language'])}" if record.get("language") else ""


def _notes(run: Run) -> list[Text]:
    notes: dict[str, tuple[int, Any]] = {}  # each once: a resumed attempt says again what still holds
    for r in run.records:
        if r["kind"] == "note":
            notes.setdefault(plain(r.get("text", "")), (r["step"], r.get("level")))
    found = [(step, text, level) for text, (step, level) in notes.items()]
    found += [
        (r["step"], f"probe lost{_of(r)}: {plain(r['lost'])}", "warning")
        for r in run.records
        if r["kind"] == "fisher" and r.get("lost")
    ]
    found += [(run.last_step, plain(line), "error") for line in run.damaged]
    error = (run.end or {}).get("error")
    if error:
        found.append((run.last_step, plain(error), "error"))
    styles = {"warning": "yellow", "error": "red"}
    return [
        Text(f"step {step}: {text}", style=styles.get(str(level), "dim")) for step, text, level in found[-4:]
    ]
