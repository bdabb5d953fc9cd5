"""How much memory an action takes at most, on top of what was there before it."""

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def peak_of(action: Callable[[], Any], device: torch.device) -> int | None:
    """Bytes; of the device's allocator, or on the CPU of the process (Linux; None where the system does not tell).

    What earlier actions have freed is given back to the system first, so that it is not mistaken for free room.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not _give_back() or not _forget_peak():
        action()
        return None
    start = _status("VmRSS")
    action()
    peak = _status("VmHWM")
    return None if start is None or peak is None else max(peak - start, 0)


def _give_back() -> bool:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        return False
    return True


def _forget_peak() -> bool:
    try:
        _CLEAR.write_text("5")  # the kernel's way to begin its high-water mark anew
    except OSError:
        return False
    return True


def _status(name: str) -> int | None:
    try:
        found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
