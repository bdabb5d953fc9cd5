"""The callback that `fishlens track` gives to every Trainer of a script; its settings come from the environment."""

import warnings
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.journal import attempts
from fishlens.tracking.attach import settings_from_environment
from fishlens.tracking.callback import STATE_FILE, FisherCallback, callback_of, free_name, read_state


class AttachedCallback(FisherCallback):
    """Tracks a Trainer whose script knows nothing of it, so it never stops that script: what cannot be tracked is a
    warning. Stands back where the script has a `FisherCallback` of its own."""

    def __init__(self) -> None:
        settings = settings_from_environment()
        settings.pop("process", None)
        super().__init__(**settings)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **_: Any
    ) -> None:
        if callback_of(model) not in (self, None):
            return
        try:
            self.begin(args, state, model, train_dataloader)
        except InputError as error:
            warnings.warn(f"fishlens: this training is NOT TRACKED: {error}", stacklevel=2)

    def _place(self, args: Any, state: Any) -> tuple[Path, int | None]:
        stored = read_state(args, state, STATE_FILE)
        if stored is not None and attempts(stored["run"]):
            return Path(stored["run"]), state.global_step
        assert self.run is not None
        return free_name(Path(self.run)), state.global_step or None
