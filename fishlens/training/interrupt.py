"""Ctrl-C and SIGTERM end a run at the next step boundary, with a checkpoint; a second Ctrl-C ends it at once.

A cluster may signal every process of a job, and the sweep then signals its runs once more: SIGTERM, which never ends a
run at once, whatever came before it.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch

from fishlens.training.distributed import sum_over_processes


class Interruption:
    """Was the run asked to stop?"""

    def __init__(self) -> None:
        self.asked = False

    def everywhere(self, device: torch.device) -> bool:
        """Asked in any process: all of them have to stop at the same step."""
        return sum_over_processes(float(self.asked), device) > 0


@contextmanager
def watch_for_interruption() -> Iterator[Interruption]:
    """Within this context SIGTERM and the first SIGINT only set `asked`. Outside of the main thread signals cannot be
    caught and it does nothing."""
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return

    pressed = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if number == signal.SIGINT and pressed:
            raise KeyboardInterrupt
        pressed = pressed or number == signal.SIGINT
        interruption.asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
