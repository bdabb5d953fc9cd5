"""For the reference: `name: what it is` in a docstring becomes an item of a list if the name is a parameter or member.

Docstrings are written to be read in the code; on a page a paragraph of thirty parameters is a wall.
"""

import re
from typing import Any

import griffe

NAMES = r"`?[a-z_][\w]*`?(?:, `?[a-z_][\w]*`?)*"
ITEM = re.compile(rf"(?:^|(?<=[.;?!)]) )({NAMES}): (?=\S)", re.MULTILINE)


class Parameters(griffe.Extension):
    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        _list_in(func, {parameter.name for parameter in func.parameters})

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        made = cls.members.get("__init__")
        of_init = {p.name for p in made.parameters} if isinstance(made, griffe.Function) else set()
        _list_in(cls, {*cls.members, *of_init})


def _list_in(obj: griffe.Object, known: set[str]) -> None:
    if obj.docstring is not None:
        obj.docstring.value = listed(obj.docstring.value, known)


def listed(text: str, known: set[str]) -> str:
    """The text with what it says of `known` names as a list; a paragraph ends it, and code (indented) stays."""
    return "\n\n".join(_paragraph(part, known) for part in text.split("\n\n"))


def _paragraph(text: str, known: set[str]) -> str:
    if text.startswith("    ") or not any(_is_known(found[1], known) for found in ITEM.finditer(text)):
        return text
    unwrapped = re.sub(r"\n +|(?<=,)\n", " ", text)
    marked = ITEM.sub(
        lambda found: f"\n- **{found[1]}**: " if _is_known(found[1], known) else found[0], unwrapped
    )
    before, _, items = marked.partition("\n- ")
    return f"{before.rstrip()}\n\n- {items}".lstrip("\n")


def _is_known(names: str, known: set[str]) -> bool:
    return all(name.strip("` ") in known for name in names.split(","))
