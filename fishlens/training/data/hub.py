"""Data sets from the Hugging Face hub, through the optional `datasets` library."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fishlens.errors import InputError


@dataclass(frozen=True)
class HubPlace:
    """Where a split lies on the hub.

    dataset: its id. config and split: as `datasets.load_dataset` takes them; ``{language}`` in the config stands for
    the language. languages: those that it has. codes: what stands for a language in the config, where it is not the
    language itself.
    """

    dataset: str
    config: str | None
    split: str
    languages: tuple[str, ...]
    codes: Mapping[str, str] = field(default_factory=dict)

    def in_language(self, language: str) -> "HubPlace":
        """The place of one language: its config is filled in."""
        code = self.codes.get(language, language)
        config = self.config.replace("{language}", code) if self.config else None
        return HubPlace(self.dataset, config, self.split, (language,))

    def __str__(self) -> str:
        return f"hub:{self.dataset}" + (f"/{self.config}" if self.config else "") + f"/{self.split}"


def hub_rows(place: HubPlace) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 0, columns), class numbers replaced by their names.

    Raises:
        InputError: `datasets` is not installed, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{place} needs the datasets library: pip install 'fishlens[hub]'") from error
    try:
        loaded = datasets.load_dataset(place.dataset, place.config, split=place.split)
    except Exception as error:  # the hub, the network and the data set's own errors have no common base class
        raise InputError(
            f"{place} cannot be loaded: {type(error).__name__}: {error}".split("\n")[0]
        ) from error
    names = {column: _class_names(feature) for column, feature in loaded.features.items()}
    for number, row in enumerate(loaded):
        yield number, {column: _named(value, names[column]) for column, value in row.items()}


def _class_names(feature: Any) -> list[str] | None:
    """The names of a column of classes or of lists of classes, None for other columns."""
    return getattr(feature, "names", None) or getattr(getattr(feature, "feature", None), "names", None)


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or value is None:
        return value
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    # -1 is how the hub's data sets say that a label is withheld
    return names[value] if 0 <= value < len(names) else None
