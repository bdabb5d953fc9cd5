"""Examples out of named columns: of a file in any common format, or of any data set on the hub.

What a user says of the data is one table of fields, in the recipe:

    columns   which column is which: {text: sentence, label: topic}; {language} may stand in a column's name
    header    the columns of a TSV or CSV file that does not name them itself
    quoting   does a TSV or CSV file quote as CSV does (true), or are quotation marks text (false)
    delimiter what stands between the columns of a TSV or CSV file, where that is not a tab or a comma
    hub       a data set's id, or {dataset, config, splits, revision}; or such a thing for each split
    metrics   what is computed, the first is the headline unless `headline` says otherwise
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from fishlens.errors import InputError
from fishlens.training.data.fields import check_text
from fishlens.training.data.hub import HubPlace
from fishlens.training.data.table import read_table
from fishlens.training.metrics.choose import Metric, choose_metrics, points
from fishlens.training.tasks.base import Prediction, Split, Task
from fishlens.training.tasks.layout import LANGUAGE, SPLITS, Layout, Place

LAYOUT = Layout(
    {
        "train": [Place("train-{language}.*")],
        "validation": [Place("validation-{language}.*"), Place("dev-{language}.*")],
        "test": [Place("test-{language}.*")],
    }
)
HUB_FIELDS = ("dataset", "config", "split", "splits", "revision")


class ColumnTask(Task):
    """A task whose examples are rows with named columns. Subclasses say which, and make an example of a row."""

    fields: ClassVar[tuple[str, ...]]
    """What an example needs."""
    optional: ClassVar[tuple[str, ...]] = ("id",)
    offered: ClassVar[Mapping[str, Metric]]
    """The metrics that go with this task."""
    default_metrics: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        files: Mapping[str, Any] | None = None,
        *,
        layout: Layout = LAYOUT,
        columns: Mapping[str, str] | None = None,
        header: Sequence[str] | None = None,
        quoting: bool = True,
        delimiter: str | None = None,
        hub: str | Mapping[str, Any] | None = None,
        metrics: Sequence[str] | str | None = None,
        headline: str | None = None,
    ) -> None:
        super().__init__(layout, files)
        self.columns = self._columns(columns or {})
        if header is not None and not _are_names(header):
            raise InputError(f"header is {header!r}; expected the list of the file's columns")
        if not isinstance(quoting, bool):
            raise InputError(f"quoting is {quoting!r:.100}; expected true or false")
        if delimiter is not None and not (
            isinstance(delimiter, str) and len(delimiter) == 1 and delimiter not in '\r\n" '
        ):
            raise InputError(f"delimiter is {delimiter!r:.100}; expected one character, as ';' or '|'")
        self.header, self.quoting, self.delimiter = header, quoting, delimiter
        if hub is not None:
            self.hub = hub_places(
                hub, named_by_language=any(LANGUAGE in name for name in self.columns.values())
            )
        default = self.default_metrics
        if isinstance(headline, str) and headline in self.offered:
            default = tuple(dict.fromkeys((*default, headline)))  # asked for, so it is computed
        self.metrics = choose_metrics(self.name, self.offered, metrics, default)
        if headline is not None and not isinstance(headline, str):
            raise InputError(
                f"headline is {headline!r:.100}; expected one of the metrics {', '.join(self.metrics)}"
            )
        # (module:function is called by its function's name)
        self.headline = (headline or next(iter(self.metrics))).rpartition(":")[2]  # type: ignore[misc]
        if self.headline not in self.metrics:
            raise InputError(
                f"headline is {headline!r}; expected one of the metrics {', '.join(self.metrics)}: add it to metrics"
            )

    def _columns(self, given: Mapping[str, str]) -> dict[str, str]:
        known = (*self.fields, *self.optional)
        if not isinstance(given, Mapping):
            raise InputError(f"columns is {given!r}; expected {{{known[0]}: name of its column, …}}")
        for field, column in given.items():
            if field not in known:
                raise InputError(f"columns: task {self.name!r} has no {field!r}; it has {', '.join(known)}")
            if not isinstance(column, str) or not column:
                raise InputError(f"columns: {field} is {column!r}; expected the name of a column")
        return {**{field: field for field in self.fields}, **given}

    def read(self, path: Path, language: str) -> Iterator[Any]:
        columns = {field: name.replace(LANGUAGE, language) for field, name in self.columns.items()}
        rows = read_table(
            path,
            tuple(columns.values()),
            header=self.header,
            quoting=self.quoting,
            delimiter=self.delimiter,
        )
        for where, name, row in rows:
            yield self._example(where, name, row, columns, language)

    def from_hub(self, where: str, name: str, row: Mapping[str, Any], language: str) -> Any:
        columns = {field: column.replace(LANGUAGE, language) for field, column in self.columns.items()}
        return self._example(where, name, row, columns, language)

    def _example(self, where: str, name: str, row: Any, columns: Mapping[str, str], language: str) -> Any:
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: expected an object with columns, got {type(row).__name__}")
        values = {}
        for field, column in columns.items():
            if column not in row:
                raise InputError(f"{where}: no {column!r}; there is {', '.join(map(repr, row)) or 'nothing'}")
            values[field] = row[column]
        name = as_text(where, columns["id"], values["id"]) if "id" in columns else name
        return self.example(where, name, values, columns, language)

    @abstractmethod
    def example(
        self, where: str, name: str, values: Mapping[str, Any], columns: Mapping[str, str], language: str
    ) -> Any:
        """The example with this id, of {field: value}; `columns` names the fields' columns in messages."""

    def score(self, split: Split, predictions: Sequence[Prediction]) -> dict[str, float]:
        return points(self.metrics, [p.gold for p in predictions], [p.predicted for p in predictions])


def _are_names(given: Any) -> bool:
    return isinstance(given, list | tuple) and bool(given) and all(isinstance(name, str) for name in given)


def as_text(where: str, column: str, value: Any) -> str:
    """A label or an id as text: whole numbers as they are written, true and false in lower case."""
    if isinstance(value, str):
        check_text(where, column, value)
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    raise InputError(f"{where}: {column!r} is {value!r:.60}; expected text or a whole number")


def label_names(task: str, labels: Any) -> tuple[tuple[str, ...], dict[str, str]]:
    """(names in the order of the head's outputs, {what stands in the data: name}) of a list or a mapping.

    Raises:
        InputError: fewer than two labels, or one that is there twice.
    """
    if isinstance(labels, Mapping):
        pairs = [
            (as_text("labels", str(key), key), as_text("labels", str(key), v)) for key, v in labels.items()
        ]
    elif isinstance(labels, Sequence) and not isinstance(labels, str):
        pairs = [(text, text) for text in (as_text("labels", "labels", label) for label in labels)]
    else:
        raise InputError(
            f"task {task!r}: labels is {labels!r}; expected the list of its labels, [negative, positive]"
        )
    names = tuple(dict.fromkeys(name for _, name in pairs))
    if len({given for given, _ in pairs}) < len(pairs):
        raise InputError(f"task {task!r}: labels is {labels!r}; expected each label once")
    if len(names) < 2:
        raise InputError(f"task {task!r}: labels is {labels!r}; expected at least two")
    return names, dict(pairs)


def hub_places(hub: Any, named_by_language: bool = False) -> dict[str, list[HubPlace]]:
    """{split: its place} of what a recipe says of a data set on the hub.

    Raises:
        InputError: an unknown field, no data set, or a test split of which no part names the language.
    """
    if isinstance(hub, str):
        hub = {"dataset": hub}
    if not isinstance(hub, Mapping):
        raise InputError(
            f"hub is {hub!r}; expected a data set's id, or {{dataset: id, config: …, splits: …}}"
        )
    if hub and set(hub) <= set(SPLITS):
        places = {split: [_hub_place(split, place)] for split, place in hub.items()}
    else:
        splits = hub.get("splits") or {}
        if not isinstance(splits, Mapping) or not set(splits) <= set(SPLITS):
            raise InputError(
                f"hub: splits is {splits!r}; expected the data set's names of {', '.join(SPLITS)}"
            )
        whole = {key: value for key, value in hub.items() if key != "splits"}
        places = {
            split: [_hub_place(split, {**whole, "split": splits.get(split, split)})] for split in SPLITS
        }
    for place in places.get("test", ()):
        if not named_by_language and LANGUAGE not in f"{place.config}{place.split}":
            raise InputError(
                f"hub: {place} is the same for every language: put {LANGUAGE} where the language stands, in config, "
                "splits or columns"
            )
    return places


def _hub_place(split: str, place: Any) -> HubPlace:
    if isinstance(place, str):
        place = {"dataset": place}
    if not isinstance(place, Mapping):
        raise InputError(f"hub: {split} is {place!r}; expected {{dataset: id, config: …, split: …}}")
    for key, value in place.items():
        if key not in HUB_FIELDS:
            raise InputError(f"hub has no {key!r}; expected {', '.join(HUB_FIELDS)}")
        if value is not None and not isinstance(value, str):
            raise InputError(f"hub: {key} is {value!r}; expected text")
    if not place.get("dataset"):
        raise InputError("hub: dataset is missing, the id of a data set such as facebook/xnli")
    return HubPlace(
        place["dataset"], place.get("config"), place.get("split") or split, revision=place.get("revision")
    )
