"""The live view of a run in a terminal: one curve per block, loss, score, what was thawed, what it cost.

Everything comes from the journal, so it works beside the run or over ssh, on a run that goes on, has ended or has died.
Names out of a journal are shown as plain text: never as markup, and never as control sequences of the terminal.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fishlens.errors import InputError
from fishlens.journal import attempts
from fishlens.journal.follow import Follower
from fishlens.journal.records import number
from fishlens.tracking.overview import Overview, binned

BARS = "▁▂▃▄▅▆▇█"
STYLES = {"running": "green", "finished": "blue", "interrupted": "yellow", "failed": "red", "died": "red"}


def watch(run_dir: Path, console: Console, *, every: float = 2.0, once: bool = False) -> None:
    """Show the run until it ends (or once). Raises `InputError` if there is no run."""
    if not attempts(run_dir):
        raise InputError(f"{run_dir} holds no run; expected a directory with a journal-1.jsonl")
    follower = Follower(run_dir, lambda: Overview(run_dir))
    run = follower.look()
    if once or run.status != "running":
        console.print(view(run, console.width))
        return
    with Live(
        view(run, console.width), console=console, auto_refresh=False, screen=console.is_terminal
    ) as live:
        while run.status == "running":
            time.sleep(every)
            run = follower.look()
            live.update(view(run, console.width), refresh=True)
    console.print(view(run, console.width))  # what stays on the screen


def view(run: Overview, width: int = 100) -> RenderableType:
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
        values = list(binned(values, width))
    top = max((value for value in values if math.isfinite(value)), default=0.0)
    return "".join(_bar(value, top) for value in values)


def _bar(value: float, top: float) -> str:
    if not math.isfinite(value):
        return " "
    return BARS[min(int(value / top * len(BARS)), len(BARS) - 1) if top > 0 and value > 0 else 0]


def _headline(run: Overview) -> Text:
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


def _progress(run: Overview) -> Text:
    line = Text(f"step {run.last_step}")
    train = run.latest.get("train")
    if train is not None:
        line.append(f"   loss {number(train.get('loss')):.4g}  ")
        line.append(sparkline(run.loss.values(), 20), style="magenta")
    last = run.latest.get("headline") or run.latest.get("eval")
    if last is not None:
        of = " ".join(plain(last[key]) for key in ("split", "language", "metric") if last.get(key))
        line.append(f"   {of} {number(last.get('value')):.4g}")
    if "overhead" in run.latest:
        line.append(f"   probes cost {100 * number(run.latest['overhead']['overhead']):.2f}% of training")
    return line


def _blocks(run: Overview, width: int) -> RenderableType:
    probes = run.probes
    last = probes.last
    if last is None:
        return Text("no probe yet", style="dim")
    table = Table(box=None, pad_edge=False)
    table.add_column("block")
    table.add_column(f"tr(F), steps {probes.first} to {last['step']}")
    for name in ("now", "± stderr", ""):
        table.add_column(name, justify="right", no_wrap=True)
    names = [*run.blocks, *(name for name in last["trace"] if name not in run.blocks)]
    longest = max(len(plain(name)) for name in names)
    room = max(10, width - longest - 36)
    for name in reversed(names):
        curve = probes.curves[name].values() if name in probes.curves else []
        trains = bool((last.get("trainable") or {}).get(name))
        table.add_row(
            Text(plain(name)),
            Text(sparkline(curve, room), style="green" if trains else "blue"),
            Text(f"{number(last['trace'].get(name)):.3g}"),
            Text(f"{number((last.get('stderr') or {}).get(name)):.1g}"),
            Text("trains" if trains else "frozen", style="green" if trains else "dim"),
        )
    return table


def _unfreezing(run: Overview) -> Text | None:
    events = list(run.events.values())
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


def _notes(run: Overview) -> list[Text]:
    styles = {"warning": "yellow", "error": "red"}
    return [
        Text(f"step {step}: {plain(text)}", style=styles.get(level, "dim")) for step, text, level in run.notes
    ]
