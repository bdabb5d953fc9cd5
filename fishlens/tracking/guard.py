"""The guard: whatever goes wrong inside somebody else's program is said, and that program goes on.

Everything that Python or a library calls of ours there (the start-up file, callbacks, hooks, functions at exit) is
`guarded`. An `Exception` ends the tracking and never the training; `KeyboardInterrupt` and `SystemExit` pass. Nothing
here imports anything but the standard library, and nothing here may fail.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from fishlens.errors import InputError, first_line

Method = TypeVar("Method", bound=Callable[..., Any])


def say(text: str) -> None:
    """One line on standard error: directly, because a script may have silenced warnings or turned them into errors.
    Nothing where a script has none: printing to None is printing to standard output."""
    with contextlib.suppress(Exception):
        if sys.stderr is not None:
            print(f"fishlens: {text}", file=sys.stderr, flush=True)  # noqa: T201


def reason(error: BaseException) -> str:
    """Why, in one line: our own sentences as they are, other errors with their kind and our line that met them."""
    if isinstance(error, InputError):
        return first_line(error)
    return f"{type(error).__name__}: {first_line(error)}{_where(error.__traceback__)}"


def guarded(method: Method) -> Method:
    """A method that does not raise: an exception goes to its object's `failed`, and the method returns None.

    Once the object says that it is `off`, the method does nothing.
    """

    @functools.wraps(method)
    def safe(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return None if self.off else method(self, *args, **kwargs)
        except Exception as error:
            return shielded(self.failed, error)

    return safe  # type: ignore[return-value]


def guarded_beginning(method: Method) -> Method:
    """The same for a method that begins anew, off or not. An object that is `strict` lets an `InputError` pass: its
    user asked for what cannot be, and nothing has begun yet."""

    @functools.wraps(method)
    def safe(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except Exception as error:
            if self.strict and isinstance(error, InputError):
                raise
            return shielded(self.failed, error)

    return safe  # type: ignore[return-value]


def shielded(action: Callable[..., Any], *args: Any) -> Any:
    """What `action` returns, or None and a line on standard error where it fails."""
    try:
        return action(*args)
    except Exception as error:
        with contextlib.suppress(Exception):
            say(f"NOT TRACKED, because {reason(error)}")
        return None


def before(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """`theirs`, with `ours` called first with the same arguments, guarded."""

    def both(*args: Any) -> Any:
        shielded(ours, *args)
        return theirs(*args)

    return both


def after(theirs: Callable[..., Any], ours: Callable[..., Any]) -> Callable[..., Any]:
    """`theirs`, with `ours` called afterwards with the same arguments, guarded, unless `theirs` has raised."""

    def both(*args: Any) -> Any:
        result = theirs(*args)
        shielded(ours, *args)
        return result

    return both


def _where(trace: TracebackType | None) -> str:
    """Our line that was running, for a report of the error."""
    found = ""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "fishlens" in path.parts:
            found = f" ({path.parent.name}/{path.name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found
