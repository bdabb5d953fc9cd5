"""The progress bar: on a terminal only, on standard error."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Show = Callable[[int, str], None]


@contextmanager
def progress_bar(title: str, steps: int, wanted: bool) -> Iterator[Show]:
    """Yields `show(step, text)`."""
    console = Console(stderr=True)
    if not (wanted and console.is_terminal):
        yield lambda step, text: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=steps, text="")
        yield lambda step, text: bar.update(task, completed=step, text=text)
