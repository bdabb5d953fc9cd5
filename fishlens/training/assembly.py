"""Assembly: a model, its tokenizer and its blocks, ready to train, whichever library's adapters it carries.

Two families: `training/madx.py` (adapters: language adapters under a task adapter, or all weights) and
`training/peft_adapter.py` (peft: LoRA and DoRA on any model of transformers, decoders too). Each library is imported
only where a recipe asks for it.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fishlens.errors import InputError
from fishlens.files import writing_folder
from fishlens.fisher.blocks import HEAD, Block
from fishlens.recipe.recipe import Recipe
from fishlens.tracking.texts import longest_row
from fishlens.tracking.thaw import check_trainable


@dataclass(frozen=True)
class Assembly(ABC):
    """A model that is ready to train.

    blocks: all that can ever train, bottom to top, the head last. adapter: name of the task adapter, None where the
    model's own weights train. languages: those that have a language adapter.
    """

    model: Any
    tokenizer: Any
    blocks: Sequence[Block]
    adapter: str | None
    languages: frozenset[str]

    @property
    def thawable(self) -> list[str]:
        """Names of the blocks that a schedule decides on: all but the head."""
        return [block.name for block in self.blocks if block.name != HEAD]

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """All that can ever train, by name."""
        return {name: p for block in self.blocks for name, p in block.parameters.items()}

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Give every parameter that can ever train the value of its name in `weights`."""
        with torch.no_grad():
            for name, parameter in self.parameters().items():
                parameter.copy_(weights[name])

    @abstractmethod
    def activate_language(self, language: str | None) -> None:
        """Swap to the adapters of `language`."""

    def passing_parameters(self) -> Sequence[torch.nn.Parameter]:
        """Those that come and go with the language, and that training never changes."""
        return ()

    @contextmanager
    def in_language(self, language: str | None) -> Iterator[None]:
        """Inside, the adapters of `language` are active; afterwards those that were before, whatever happened."""
        self.activate_language(language)
        yield

    def check(self, language: str | None, thawed: Collection[str]) -> None:
        """Raises `RuntimeError` unless the active set-up is that of `language` and exactly the head and the blocks
        in `thawed` are trainable."""
        self.check_setup(language)
        train = {n for b in self.blocks if b.name in {HEAD, *thawed} for n in b.parameters}
        check_trainable(self.model.named_parameters(), train)

    @abstractmethod
    def check_setup(self, language: str | None) -> None:
        """Raises `RuntimeError` unless the adapters of `language` are active."""

    def save(self, place: Path) -> None:
        """The weights in the library's own format: `adapter/` with its head, or the whole `model/`."""
        with writing_folder(place / "model") as folder:
            self.model.save_pretrained(folder, safe_serialization=True)
            self.tokenizer.save_pretrained(folder)


def needs(library: str, what: str, extra: str) -> None:
    """Raises `InputError` with the command that installs `library`, if it is not there."""
    if library not in sys.modules and find_spec(library) is None:
        raise InputError(
            f"{what} needs the library {library}, which is not installed: pip install 'fishlens[{extra}]'"
        )


def refuse_incomplete(model: Any, name: str, lacking: Sequence[str]) -> None:
    """Raises `InputError` if weights of the pretrained part are `lacking`: libraries would draw them at random."""
    if lacking:
        raise InputError(
            f"model {name!r} lacks {len(lacking)} weights of its encoder, {lacking[0]} among them; expected a whole "
            f"checkpoint of a {model.config.model_type} model"
        )


def only_trainable(model: Any, blocks: Sequence[Block]) -> None:
    """Every parameter of the blocks requires a gradient, no other does."""
    mine = {id(p) for block in blocks for p in block.parameters.values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in mine)


def check_languages(recipe: Recipe) -> None:
    """Raises `InputError` naming the first language that has no adapter in a recipe that uses language adapters."""
    if recipe.language_adapters is None:
        return
    for language in recipe.languages:
        if recipe.language_adapter(language) is None:
            have = ", ".join(recipe.language_adapters) if isinstance(recipe.language_adapters, dict) else ""
            field = "data.targets" if language in recipe.data.targets else "tracking.languages"
            raise InputError(
                f"language_adapters has none for {language!r} (it has {have}): add one, leave {language!r} out of "
                f"{field}, or set language_adapters=null"
            )


def cut_at_positions(tokenizer: Any, model: Any) -> None:
    """Many tokenizers name no limit; the tasks cut rows at this one."""
    positions = longest_row(model)
    if positions is not None:
        tokenizer.model_max_length = min(tokenizer.model_max_length, positions)
