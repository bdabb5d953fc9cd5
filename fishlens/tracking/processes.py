"""Several processes, one decision: what the first one computes, all of them get."""

import json
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist


def several_processes() -> bool:
    """Is this one of several processes that train together?"""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def from_first(compute: Callable[[], Any], device: torch.device) -> Any:
    """What `compute` returns in the first process, in every process. Its result must be plain JSON values.

    An exception in the first process is raised there and becomes a `RuntimeError` in the others, which would
    otherwise wait for ever. Travels as JSON: floats come out bit by bit as they went in, and nothing is pickled.
    """
    if not several_processes():
        return compute()
    failure: Exception | None = None
    message = ""
    if dist.get_rank() == 0:
        try:
            message = json.dumps({"value": compute()})
        except Exception as error:
            failure, message = error, json.dumps({"error": f"{type(error).__name__}: {error}"})
    encoded = message.encode()
    length = torch.tensor([len(encoded)], device=device)
    dist.broadcast(length, src=0)
    content = torch.zeros(int(length), dtype=torch.uint8, device=device)
    if dist.get_rank() == 0:
        content.copy_(torch.frombuffer(bytearray(encoded), dtype=torch.uint8))
    dist.broadcast(content, src=0)
    if failure is not None:
        raise failure
    received = json.loads(bytes(content.tolist()).decode())
    if "error" in received:
        raise RuntimeError(f"the first process failed: {received['error']}")
    return received["value"]


def rank() -> int:
    """This process's number among those that train together; launchers tell it before the processes meet."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    told = os.environ.get("RANK", "0")
    return int(told) if told.isdecimal() else 0
