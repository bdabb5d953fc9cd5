"""What commands print: every word of it goes through here.

Names come out of journals, recipes and folders, which may be strangers'. Nothing of them reaches the terminal but
printable text: no control sequence, no mark that turns the text around. Colours are rich's own, added afterwards.
"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any

import typer

from fishlens.errors import InputError
from fishlens.names import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from fishlens.journal import LeftOut

Trust = typer.Option("--trust", help="What is named as module:Class is code: run it.")


def say(text: object = "", *, err: bool = False, end: str = "\n") -> None:
    """A line on standard output, or with `err` on standard error."""
    typer.echo(printable(text) + end, err=err, nl=False)


def allow_code(named: dict[str, str], trusted: bool) -> None:
    """Before a command runs code that a recipe names: say so, or refuse it. `named`: field → `module:Class`.

    Raises `InputError` where there is such code and the user has not trusted it.
    """
    from fishlens import own_code

    if not named:
        return
    listed = ", ".join(f"{field} is {name}" for field, name in named.items())
    if not trusted:
        raise InputError(
            f"{listed}: that is code, and nothing of it was run; add --trust if you know where it comes from"
        )
    say(f"running code that was named: {listed}", err=True)
    own_code.trust({name.partition(":")[0] for name in named.values()})


def name_left_out(left_out: Iterable[LeftOut]) -> None:
    """What was asked for and is not among the runs, on standard error, each with its reason."""
    for one in left_out:
        say(f"left out: {one.path} ({one.reason})", err=True)


def screen(**settings: Any) -> Console:
    """A console of rich's for tables and live views: whatever is put on it is made printable before it is shown."""
    from rich.console import Console

    console = Console(**settings)
    console.push_render_hook(_PrintableHook())  # type: ignore[arg-type]
    return console


def quiet_streams() -> None:
    """Warnings and log lines of libraries, which may quote names too, as printable text."""

    def show(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        target = file if file is not None else sys.stderr
        if target is not None:
            target.write(printable(warnings.formatwarning(message, category, filename, lineno, line)))

    warnings.showwarning = show
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PrintableFormatter())


class _PrintableFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _PrintableHook:
    """rich asks it what to render; every renderable comes back wrapped."""

    def process_renderables(self, renderables: list[Any]) -> list[Any]:
        return [_Printable(one) for one in renderables]


class _Printable:
    """A renderable whose text is printable; styles and cursor movements are rich's own and stay."""

    def __init__(self, inner: Any):
        self.inner = inner

    def __rich_console__(self, console: Any, options: Any) -> Any:
        from rich.control import Control

        if isinstance(self.inner, Control):
            yield self.inner
            return
        for segment in console.render(self.inner, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.measure import Measurement

        return Measurement.get(console, options, self.inner)
