"""MAD-X: pretrained encoder + language adapters + task adapter + head (Pfeiffer et al. 2020), by `adapters`.

Training runs through `Stack(source, task)`; evaluation swaps the language adapter, `Stack(target, task)`. Order
matters and is fragile (docs/training.md): `train_adapter(task)` first, the Stack after it, language adapters frozen by
hand, because a language adapter that is loaded later arrives trainable. So the set-up is asserted at every event.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import adapters
import torch
import transformers
from adapters import AutoAdapterModel
from adapters.composition import Stack
from adapters.utils import pull_from_hub

from fishlens.errors import InputError, first_line
from fishlens.files import writing_folder
from fishlens.fisher.blocks import find_blocks
from fishlens.recipe.paths import resolve_path
from fishlens.recipe.recipe import Recipe
from fishlens.training.assembly import (
    Assembly,
    check_languages,
    cut_at_positions,
    only_trainable,
    refuse_incomplete,
)
from fishlens.training.language_adapters import LanguageAdapters
from fishlens.training.tasks import Task
from fishlens.training.tokenizer import load_tokenizer

_LEGACY_ID = re.compile(r"[\w-]+/[\w-]+@[\w-]+")  # en/wiki@ukp


@dataclass(frozen=True)
class MadX(Assembly):
    """A model of `adapters`: a task adapter, or all weights, on top of language adapters if there are any."""

    language_adapters: LanguageAdapters

    def setup(self, language: str | None) -> Stack | None:
        """The adapters that a forward pass in `language` goes through, bottom to top; without language adapters the
        task adapter alone."""
        if self.adapter is None:
            return None
        if language is None or not self.languages:
            return Stack(self.adapter)
        if language not in self.languages:
            raise InputError(
                f"no language adapter for {language!r}: there are {', '.join(sorted(self.languages))}"
            )
        return Stack(language, self.adapter)

    def activate_language(self, language: str | None) -> None:
        setup = self.setup(language)
        if setup is not None:
            self._activate(setup)

    def _activate(self, setup: Any) -> None:
        """Go through these adapters from now on; the one of a language is read if it is not there, in the place of
        the one before."""
        names = stacked(setup)
        read = [name for name in names if self.language_adapters.bring(name)]
        self.model.set_active_adapters(setup)
        if read:
            self.language_adapters.leave(*names)

    def passing_parameters(self) -> Sequence[torch.nn.Parameter]:
        return self.language_adapters.passing()

    @contextmanager
    def in_language(self, language: str | None) -> Iterator[None]:
        before = self.model.active_adapters
        self.activate_language(language)
        try:
            yield
        finally:
            if before is not None and self.adapter is not None:
                self._activate(before)

    def check_setup(self, language: str | None) -> None:
        active, wanted = self.model.active_adapters, self.setup(language)
        if wanted is not None and stacked(active) != stacked(wanted):
            raise RuntimeError(f"the active adapters are {active}; expected {wanted}")

    def save(self, place: Path) -> None:
        if self.adapter is None:
            super().save(place)
        else:
            with writing_folder(place / "adapter") as folder:
                self.model.save_adapter(str(folder), self.adapter, with_head=True, use_safetensors=True)


def assemble_madx(recipe: Recipe, task: Task) -> MadX:
    """Load and put together what the recipe names; new weights are drawn with the recipe's seed.

    Afterwards every block is trainable (freezing comes after the optimizer was made), nothing else is.
    Raises `InputError` for a model or adapter that cannot be loaded or does not fit, or a language without one.
    """
    check_languages(recipe)
    if recipe.adapter is not None and recipe.language_adapters is not None and task.name in recipe.languages:
        raise InputError(
            f"{task.name!r} is a language and the task, and both would name an adapter: give the language another code"
        )
    model, tokenizer = load_encoder(recipe.model)
    torch.manual_seed(recipe.seed)
    name = None
    if recipe.adapter is not None:
        name = task.name
        add_task_adapter(model, name, recipe.adapter)
    task.add_head(model, task.name)
    languages = recipe.languages if recipe.language_adapters is not None else []
    places = {language: str(recipe.language_adapter(language)) for language in languages}
    adapters_of = LanguageAdapters(model, places, recipe.data.source, load_language_adapter)
    for language in languages:  # each is read once, so that one that does not fit is refused before training
        adapters_of.bring(language)
        adapters_of.leave(language)
    if name is not None:
        with _quiet():
            model.train_adapter(name)
        blocks = find_blocks(model, by="adapter", adapter=name)
        if languages:
            model.set_active_adapters(Stack(recipe.data.source, name))
    else:
        blocks = find_blocks(model, by="layer", embeddings=True)
    model.active_head = task.name
    only_trainable(model, blocks)
    return MadX(model, tokenizer, blocks, name, frozenset(languages), adapters_of)


def load_encoder(name: str) -> tuple[Any, Any]:
    """(model for adapters, tokenizer) from a folder, a hub id or `package://…`. No remote code, ever.

    Raises `InputError` if there is nothing to load, or weights of the encoder are missing in it (libraries would draw
    them at random and only say so in their log).
    """
    place = resolve_path(name)
    try:
        with _quiet():
            model, report = AutoAdapterModel.from_pretrained(
                place, trust_remote_code=False, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"model {name!r} cannot be loaded: {first_line(error)}") from error
    tokenizer = load_tokenizer(place, name)
    # heads are made anew for the task, and its head does not use the pooler
    lacking = [k for k in report["missing_keys"] if not k.startswith("heads.") and ".pooler." not in k]
    refuse_incomplete(model, name, lacking)
    cut_at_positions(tokenizer, model)
    return model, tokenizer


def add_task_adapter(model: Any, name: str, config: str) -> None:
    try:
        model.add_adapter(name, config=adapters.AdapterConfig.load(config))
    except Exception as error:  # the parser of configuration strings raises of every kind
        raise InputError(
            f"adapter {config!r} is not an adapter configuration: {first_line(error)}"
        ) from error


def load_language_adapter(model: Any, language: str, place: str) -> None:
    """Load the adapter as `language`; it arrives trainable.

    place: folder, hub id (the legacy `en/wiki@ukp` form too) or `package://…`. Raises `InputError` if it cannot be
    loaded or is made for another model.
    """
    info: dict[str, Any] = {}
    path = resolve_path(place)
    try:
        if _LEGACY_ID.fullmatch(path):
            # the old hub's index is kept under the model's bare name, whoever's hub id or folder it came from
            path = pull_from_hub(path, model.config.name_or_path.rstrip("/").rpartition("/")[2])
        model.load_adapter(path, load_as=language, with_head=False, loading_info=info, use_safetensors=True)
    except (OSError, ValueError, TypeError) as error:
        known = "" if Path(path).exists() else " (neither a folder here nor found on the hub)"
        raise InputError(
            f"the language adapter {place!r} for {language!r} cannot be loaded{known}: {first_line(error)}"
        ) from error
    except RuntimeError as error:  # shapes that differ
        raise InputError(
            f"the language adapter {place!r} for {language!r} does not fit the model: {first_line(error, 1)}"
        ) from error
    # a deeper model's adapter loads without an error, less its upper layers
    unused = [key for key in info.get("unexpected_keys", ()) if f".{language}." in key]
    wrong = [*info.get("missing_keys", ()), *unused]
    if wrong:
        raise InputError(
            f"the language adapter {place!r} for {language!r} does not fit the model: {len(wrong)} weights have no "
            f"counterpart, {wrong[0]} among them"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' notices about heads and set-ups that are only passed through."""
    verbosity, logger = transformers.logging.get_verbosity(), logging.getLogger("adapters")
    level = logger.level
    transformers.logging.set_verbosity_error()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        logger.setLevel(level)


def stacked(setup: Any) -> list[str]:
    """Names of the adapters of a set-up in the order they are gone through (its own `flatten` loses the order)."""
    if setup is None:
        return []
    return (
        [setup] if isinstance(setup, str) else [name for child in setup.children for name in stacked(child)]
    )
