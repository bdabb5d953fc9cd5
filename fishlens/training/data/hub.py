"""Data sets from the Hugging Face hub, through the optional `datasets` library."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fishlens.errors import InputError, first_line

CONVERTED = "refs/convert/parquet"
"""The branch in which the hub keeps a Parquet copy, `<config>/<split>/*.parquet`, of scripts too."""
FLORES_CODE = re.compile(r"[a-z]{3}_[A-Z][a-z]{3}")


@dataclass(frozen=True)
class HubPlace:
    """Where a split lies on the hub.

    dataset: its id. config and split: as `datasets.load_dataset` takes them; ``{language}`` in the config stands for
    the language. languages: those that it has; None where whoever names the place vouches for them. codes: what stands
    for a language in the config, where it is not the language itself. revision: branch, tag or commit.
    """

    dataset: str
    config: str | None
    split: str
    languages: tuple[str, ...] | None = None
    codes: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None

    def has(self, language: str) -> bool:
        """Is there data in this language, by its usual code or by the data set's own?"""
        if self.languages is None or language in self.languages or language in self.codes.values():
            return True
        return bool(self.codes) and FLORES_CODE.fullmatch(language) is not None

    def in_language(self, language: str) -> "HubPlace":
        """The place of one language: its config is filled in."""
        code = self.codes.get(language, language)
        config = self.config.replace("{language}", code) if self.config else None
        return replace(self, config=config, languages=(language,))

    def __str__(self) -> str:
        return f"hub:{self.dataset}" + (f"/{self.config}" if self.config else "") + f"/{self.split}"


def hub_rows(place: HubPlace) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 0, columns), class numbers replaced by their names.

    A data set that is a script, which `datasets` no longer runs, is read from its converted copy.

    Raises:
        InputError: `datasets` is not installed, or the data set cannot be loaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"{place} needs the datasets library: pip install 'fishlens[hub]'") from error
    try:
        try:
            loaded = _load(datasets, place)
        except RuntimeError as error:
            if place.revision is not None or "scripts are no longer supported" not in str(error):
                raise
            loaded = _load(datasets, replace(place, revision=CONVERTED))
    except Exception as error:  # the hub, the network and the data set's own errors have no common base class
        raise InputError(f"{place} cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    names = {column: _class_names(feature) for column, feature in loaded.features.items()}
    for number, row in enumerate(loaded):
        yield number, {column: _named(value, names[column]) for column, value in row.items()}


def _load(datasets: Any, place: HubPlace) -> Any:
    if place.revision != CONVERTED:
        more = {"revision": place.revision} if place.revision else {}
        return datasets.load_dataset(place.dataset, place.config, split=place.split, **more)
    # the converted branch has no card, hence no configs: its folders are named instead
    files = {place.split: f"{place.config or 'default'}/{place.split}/*.parquet"}
    return datasets.load_dataset(place.dataset, data_files=files, split=place.split, revision=CONVERTED)


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
