"""Signals wait while a model is not as it was: Ctrl-C stops a probe where it can stop, never within the restoring."""

import signal
import threading
from _signal import getsignal  # type: ignore[import-not-found]  # signal's makes a member of an enumeration first
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PATIENCE = 3
_SIGNALS = sorted(signal.valid_signals(), key=lambda number: number != signal.SIGINT)


class Deferral:
    """Holds signals back until `stop` or the end; after `PATIENCE` of them the next goes through at once (but not
    while `restoring`)."""

    def __init__(self) -> None:
        self.handlers: dict[int, Any] = {}
        self.pending: tuple[int, FrameType | None] | None = None
        self.restoring = False
        self.waited = 0

    def install(self) -> None:
        """Takes the place of every handler that is Python code; SIGINT's first."""
        for number in _SIGNALS:
            handler = getsignal(number)
            if callable(handler):
                self.handlers[number] = handler
                signal.signal(number, self._note)

    def remove(self) -> None:
        """Puts the handlers back, SIGINT's last."""
        for number in reversed(list(self.handlers)):
            signal.signal(number, self.handlers[number])

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.pending, self.waited = (number, frame), self.waited + 1
        if self.waited > PATIENCE and not self.restoring:
            self.stop()  # somebody insists

    def stop(self) -> None:
        """Hands a signal that waits to its handler (which raises KeyboardInterrupt, for Ctrl-C)."""
        if self.pending is not None:
            (number, frame), self.pending = self.pending, None
            self.handlers[number](number, frame)


_active: Deferral | None = None


@contextmanager
def deferred_signals() -> Iterator[Deferral]:
    """Inside, no handler of a signal runs but where `stop_if_interrupted` is called, and at the end.

    Only the main thread gets signals; in another one nothing is done. Inside of another such context, neither.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield _active or Deferral()
        return
    deferral = Deferral()
    deferral.install()
    _active = deferral
    try:
        yield deferral
    finally:
        _active = None
        deferral.remove()
        deferral.stop()


def stop_if_interrupted() -> None:
    """A place where a probe can stop."""
    if _active is None or _active.pending is None:
        return
    if threading.current_thread() is threading.main_thread():
        _active.stop()
