"""Reading recipes: bundled name, file or dict → variants → overrides → validated `Recipe`; and writing one back."""

import copy
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from fishlens.errors import InputError
from fishlens.recipe.content import is_place
from fishlens.recipe.old_fields import present, with_present_names
from fishlens.recipe.paths import SCHEME, resolve_path
from fishlens.recipe.recipe import Recipe
from fishlens.recipe.yaml_text import parse_yaml, read_yaml

Tree = dict[str, Any]


def load_recipe(recipe: "str | Path | Mapping[str, Any] | Recipe", overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of this name, file or dict, with overrides like `"train.steps=100"` applied.

    A recipe file may have `variants`, a list of `{when: {field: value}, set: {field: value}}`: settings that depend
    on other settings (the paper's k depends on the schedule). They are applied in order after the overrides are
    known, and an override always wins.

    Raises `InputError` naming the field for whatever is not as expected.
    """
    if isinstance(recipe, Recipe):
        tree, origin = recipe.model_dump(), "recipe"
    elif isinstance(recipe, Mapping):
        tree, origin = copy.deepcopy(dict(recipe)), "recipe"
    else:
        path = find_recipe(str(recipe))
        tree, origin = read_yaml(path, "recipe"), str(path)
    assignments = [_override(s) for s in ([overrides] if isinstance(overrides, str) else overrides)]
    variants = tree.pop("variants", None) or []
    with_present_names(tree)
    _apply(tree, assignments)
    for variant in _check_variants(variants, origin):
        if all(_matches(tree, path, value) for path, value in variant["when"].items()):
            _apply(tree, (present(path, value) for path, value in variant["set"].items()))
    _apply(tree, assignments)
    return _checked(_validated(tree, origin))


def bundled_recipes() -> dict[str, Path]:
    """{name: file} of the recipes that are shipped."""
    folder = Path(str(files("fishlens.recipe"))) / "bundled"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str) -> Path:
    """The file of a bundled recipe, or `name` itself if it is a file; `package://` works too."""
    bundled = bundled_recipes()
    if name in bundled:
        return bundled[name]
    path = Path(resolve_path(name))
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return path / "recipe.yaml"
    if not path.is_file():
        raise InputError(f"no recipe {name!r}; expected a YAML file or one of {', '.join(bundled)}")
    return path


def recipe_text(recipe: Recipe) -> str:
    """The recipe as YAML, every field with its value."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)


def describe_fields() -> Iterator[tuple[str, str, str, str]]:
    """(path, type, default, description) of every field, in order: the recipe reference."""
    yield from _describe(Recipe, "")


def first_difference(one: Recipe, other: Recipe, moved: bool = False) -> str | None:
    """The path of the first field in which two recipes differ, with both values; None if they are equal.

    Two paths are equal if they lead to the same place from here. `moved`: places are not compared at all, because their
    content is (`content.changed`).
    """
    for path, first, second in differences(one, other):
        if is_place(path) and (moved or _same_place(first, second)):
            continue
        return f"{path} is {second!r} instead of {first!r}"
    return None


def differences(one: Recipe, other: Recipe) -> Iterator[tuple[str, Any, Any]]:
    """(path, value, other value) of every field in which two recipes differ."""
    a, b = dict(_leaves(one.model_dump())), dict(_leaves(other.model_dump()))
    for path in dict.fromkeys([*a, *b]):
        if a.get(path) != b.get(path):
            yield path, a.get(path), b.get(path)


def _same_place(one: Any, other: Any) -> bool:
    if not isinstance(one, str) or not isinstance(other, str) or SCHEME in one + other:
        return bool(one == other)
    here = Path(one).expanduser().resolve() == Path(other).expanduser().resolve()
    return one == other or here


def _override(setting: str) -> tuple[str, Any]:
    path, separator, value = setting.partition("=")
    if not separator or not path.strip() or any(not word for word in path.split(".")):
        raise InputError(f"override {setting!r}; expected field=value, for instance train.steps=100")
    try:
        return present(path.strip(), parse_yaml(value))
    except yaml.YAMLError as error:
        raise InputError(f"override {setting!r}: the value is not valid YAML") from error


def _apply(tree: Tree, settings: Any) -> None:
    for path, value in settings:
        *outer, last = path.split(".")
        node = tree
        for word in outer:
            if not isinstance(node.get(word), dict):
                node[word] = {}
            node = node[word]
        node[last] = value
        if path in ("train.steps", "train.epochs") and value is not None:  # they exclude each other
            node["epochs" if last == "steps" else "steps"] = None


def _check_variants(variants: Any, origin: str) -> list[Tree]:
    for variant in variants if isinstance(variants, list) else [None]:
        if not isinstance(variant, dict) or {*variant} != {"when", "set"}:
            raise InputError(f"{origin}: variants is a list of {{when: …, set: …}}, got {variant!r:.100}")
        for part, fields in variant.items():
            if not isinstance(fields, dict) or not all(isinstance(path, str) for path in fields):
                raise InputError(f"{origin}: variants: {part} is {fields!r:.100}; expected fields and values")
    return variants


def _matches(tree: Tree, path: str, wanted: Any) -> bool:
    node: Any = tree
    for word in path.split("."):
        node = node.get(word) if isinstance(node, dict) else None
    return node in wanted if isinstance(wanted, list) else bool(node == wanted)


def _validated(tree: Tree, origin: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        details = error.errors(include_url=False)
        more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
        own = [d for d in details if d["type"] == "value_error" and d["loc"][:1] == details[0]["loc"][:1]]
        raise InputError(f"{origin}: {_sentence((own or details)[0])}{more}") from error


def _sentence(detail: Any) -> str:
    words = [str(word) for word in detail["loc"] if not _is_union_member(str(word))]
    path = ".".join(words)
    if detail["type"] == "extra_forbidden":
        return f"there is no field {path}{_suggestion(path)}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        colon = "" if message.startswith("is ") else ":"
        return f"{path}{colon} {message}" if path else message
    return f"{path} is {detail['input']!r}: {message[0].lower()}{message[1:]}"


def _is_union_member(word: str) -> bool:
    """pydantic puts the tried member of a union (`str`, `dict[str,str]`) into the location."""
    return word in ("str", "int", "[key]") or word.startswith(("dict[", "list[", "function-"))


_ASKED_FOR = {
    "stopping": "training ends after train.steps; what is tested is the best step on validation, see evaluate.every",
    "patience": "training ends after train.steps; what is tested is the best step on validation, see evaluate.every",
    "class_weight": "the loss has no class weights; task.headline=macro_f1 chooses by rare classes too",
    "optimizer": "it is AdamW",
    "max_steps": "it is called train.steps",
}
"""Part of the name of what people look for here and do not find -> what there is."""


def _suggestion(path: str) -> str:
    name = path.rpartition(".")[2]
    if told := next((there for part, there in _ASKED_FOR.items() if part in name), None):
        return f": {told}"
    fields = [field for field, *_ in describe_fields()]
    known = [*fields, *dict.fromkeys(field.partition(".")[0] for field in fields)]
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _checked(recipe: Recipe) -> Recipe:
    """Paths stay as they are written; raises `InputError` for one that cannot be meant."""
    pattern = recipe.language_adapters
    if isinstance(pattern, str) and "{language}" not in pattern:
        raise InputError(f"language_adapters is {pattern!r}: put {{language}} where the language stands")
    for place in (recipe.model, recipe.data.root, *_named(pattern)):
        if place.startswith(SCHEME) and "{language}" not in place:
            resolve_path(place)
    return recipe


def _named(adapters: str | dict[str, str] | None) -> list[str]:
    return list(adapters.values()) if isinstance(adapters, dict) else [adapters] if adapters else []


def _describe(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        path = f"{prefix}{name}"
        optional = _optional_section(kind)
        if optional is not None:
            yield path, "section | null", f"default {json.dumps(field.default)}", field.description or ""
            yield from _describe(optional, f"{path}.")
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _describe(kind, f"{path}.")
        else:
            default = "required" if field.is_required() else f"default {json.dumps(field.default)}"
            yield path, _type_name(kind), default, field.description or ""


def _optional_section(kind: Any) -> type[BaseModel] | None:
    """The section in `Section | None`."""
    members = [member for member in get_args(kind) if member is not type(None)]
    section = members[0] if len(members) == 1 and len(get_args(kind)) == 2 else None
    return section if isinstance(section, type) and issubclass(section, BaseModel) else None


def _type_name(kind: Any) -> str:
    """A field's type as a reader of YAML says it: `int | null`, `linear | constant`."""
    if kind is type(None):
        return "null"
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_name(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, UnionType):
        return " | ".join(_type_name(member) for member in inner)
    if origin is list:
        return f"list of {_type_name(inner[0])}"
    if origin is dict:
        return "map of " + " to ".join(_type_name(member) for member in inner)
    return {"str": "text", "bool": "true | false", "float": "number", "int": "whole number"}[kind.__name__]


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
