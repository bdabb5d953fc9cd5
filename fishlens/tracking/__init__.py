"""Measuring while somebody trains: the tracker, callbacks for transformers' Trainer, attaching to a script.

Parts are imported when they are used: watching a run needs no torch.
"""

from importlib import import_module
from typing import Any

# public name -> module that defines it
_PUBLIC = {
    "FisherCallback": "fishlens.tracking.callback",
    "Tracker": "fishlens.tracking.tracker",
    "UnfreezeCallback": "fishlens.tracking.unfreeze_callback",
    "make_reporters": "fishlens.tracking.reporters",
    "watching": "fishlens.tracking.bare_loop",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'fishlens.tracking' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
