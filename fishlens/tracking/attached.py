"""The callback that `fishlens track` gives to every Trainer of a script; its settings come from the environment."""

import json
from pathlib import Path
from typing import Any

from fishlens.tracking.callback import FisherCallback
from fishlens.tracking.guard import guarded, guarded_beginning
from fishlens.tracking.settings import settings_from_environment
from fishlens.tracking.texts import Texts


class AttachedCallback(FisherCallback):
    """Tracks a Trainer whose script knows nothing of it, so it never stops that script, not even for an `InputError`.
    Gives way where the script has a `FisherCallback` of its own."""

    strict = False
    gives_way = True
    _made = False

    @guarded
    def __init__(self) -> None:
        settings = settings_from_environment()
        if "languages" in settings:
            settings["languages"] = _languages(Path(settings["languages"]))
        super().__init__(**{k: v for k, v in settings.items() if k not in ("account", "process")})
        self._made = True

    @guarded_beginning
    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, processing_class: Any = None, **_: Any
    ) -> None:
        if self._made:
            self.begin(args, state, model, processing_class)


def _languages(place: Path) -> dict[str, Texts]:
    """What `fishlens track` has read of every language, from the file in which `attach.environment` left it."""
    stored = json.loads(place.read_text(encoding="utf-8"))
    return {
        language: Texts(
            tuple(tuple(text) if isinstance(text, list) else text for text in content["texts"]),
            tuple(content["names"]),
            content["source"],
        )
        for language, content in stored.items()
    }
