"""Probe sets in several languages: the source's first, then those of the targets, whose labels nobody looks at."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from fishlens.errors import InputError
from fishlens.fisher import FisherEstimate
from fishlens.names import check_file_name
from fishlens.tracking.probe_set import ProbeSet

InLanguage = Callable[[str], AbstractContextManager[Any]]
"""Makes the model ready for a language (its adapters active), and as it was again on the way out."""


def same_model(language: str) -> AbstractContextManager[Any]:
    """For a model that takes every language as it is."""
    return nullcontext()


def nothing_beside(language: str | None, estimate: FisherEstimate) -> dict[str, Any]:
    """No fields besides the Fisher information's own."""
    return {}


def split_by_language(
    data: Any, languages: Mapping[str, Any] | None = None
) -> tuple[str | None, Any, dict[str, Any]]:
    """(source, its data, {target: its data}); source is None where the data is of one language. `languages`: the
    targets, where `data` is the source's alone.

    Data by language is a mapping in whose values no tensor stands by itself: a batch has at least one that does.
    Raises `InputError` for data that is of neither kind, or of languages twice.
    """
    if languages is not None:
        _check_languages(data, languages)
        _check_names(languages)
        return None, data, dict(languages)
    if not isinstance(data, Mapping) or any(isinstance(value, Tensor) for value in data.values()):
        return None, data, {}
    if not data or not all(isinstance(language, str) for language in data):
        raise InputError(
            f"data is a mapping of {', '.join(map(repr, data)) or 'nothing'}; expected a batch with tensors, or "
            "{language: batches}, the source language first"
        )
    _check_names(data)
    source, *targets = data
    return source, data[source], {target: data[target] for target in targets}


def _check_names(languages: Iterable[str]) -> None:
    """They become parts of files' names and of columns."""
    for language in languages:
        try:
            check_file_name(language)
        except ValueError as error:
            raise InputError(f"the name of a language {error}") from None


def _check_languages(data: Any, languages: Any) -> None:
    if not isinstance(languages, Mapping) or not all(isinstance(name, str) for name in languages):
        raise InputError(f"languages is {type(languages).__name__}; expected {{language: batches}}")
    if any(isinstance(value, Tensor) for value in languages.values()):
        raise InputError(f"languages is a batch with {', '.join(languages)}; expected {{language: batches}}")
    if isinstance(data, Mapping) and not any(isinstance(value, Tensor) for value in data.values()):
        raise InputError(
            f"data is by language ({', '.join(map(str, data))}) and languages are given too; expected one of them"
        )


def check_targets_labels(targets: Iterable[str], labels: str, preset: str | None) -> None:
    """Raises `InputError` for labels that are not the model's own, where there are target languages."""
    if preset is None and labels not in ("empirical", "mode"):
        return
    if named := ", ".join(targets):
        what = f"preset={preset!r}" if preset is not None else f"labels={labels!r}"
        raise InputError(
            f"{what} cannot be measured in target languages ({named}); expected labels auto, exact or mc"
        )


def target_probe_sets(
    targets: Mapping[str, Any], examples: int | None, labels: str, preset: str | None
) -> dict[str, ProbeSet]:
    """The probe set of every target language.

    Raises `InputError` naming the language that has no example, or labels that are not the model's own.
    """
    check_targets_labels(targets, labels, preset)
    sets = {}
    for language, data in targets.items():
        try:
            sets[language] = ProbeSet.of(data, examples)
        except InputError as error:
            raise InputError(f"language {language!r}: {error}") from error
    return sets
