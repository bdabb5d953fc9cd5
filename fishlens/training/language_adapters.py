"""Language adapters in a model, two at a time: the source's, and that of the language it was in last.

One is needed at a time, and a hundred of them take more memory than the encoder. So an adapter is read again when its
language comes up, into new modules that are frozen, on the model's device, of its type and in its mode; reading draws
no random number that training would miss.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fishlens.fisher.observe import random_states_kept


class LanguageAdapters:
    """places: where each language's adapter is. read: loads one into the model under the language's code."""

    def __init__(
        self,
        model: Any,
        places: Mapping[str, str],
        source: str,
        read: Callable[[Any, str, str], None],
    ):
        self._model, self._places, self._source, self._read = model, places, source, read
        self._modules: dict[str, list[nn.Module]] = {}  # of every adapter that is there now

    def bring(self, language: str) -> bool:
        """Have the adapter of `language` in the model. Whether it had to be read: then it is time to `leave` another,
        once that is not active any more."""
        if language in self._modules or language not in self._places:
            return False
        known = set(self._model.modules())
        with random_states_kept():
            self._read(self._model, language, self._places[language])
        new = [module for module in self._model.modules() if module not in known]
        first = next(self._model.parameters())
        for module in new:
            module.to(first.device, first.dtype)
            module.training = self._model.training
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)
        self._modules[language] = new
        return True

    def leave(self, *languages: str) -> None:
        """Delete all adapters but the source's and those of `languages`."""
        for language in list(self._modules):
            if language not in (self._source, *languages):
                self._model.delete_adapter(language)
                del self._modules[language]

    def passing(self) -> list[nn.Parameter]:
        """The parameters that come and go: those of the language that is not the source."""
        return [
            parameter
            for language, modules in self._modules.items()
            if language != self._source
            for module in modules
            for parameter in module.parameters(recurse=False)
        ]
