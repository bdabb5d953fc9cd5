"""The callback that `fishlens track` gives to every Trainer of a script; its settings come from the environment."""

from typing import Any

from fishlens.tracking.callback import FisherCallback
from fishlens.tracking.guard import guarded, guarded_beginning
from fishlens.tracking.settings import settings_from_environment


class AttachedCallback(FisherCallback):
    """Tracks a Trainer whose script knows nothing of it, so it never stops that script, not even for an `InputError`.
    Gives way where the script has a `FisherCallback` of its own."""

    strict = False
    gives_way = True
    _made = False

    @guarded
    def __init__(self) -> None:
        settings = settings_from_environment()
        super().__init__(**{k: v for k, v in settings.items() if k not in ("account", "process")})
        self._made = True

    @guarded_beginning
    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if self._made:
            self.begin(args, state, model)
