"""Reading YAML that may be a stranger's: every key once, and nothing that grows when it is read."""

import re
from pathlib import Path
from typing import Any

import yaml

from fishlens.errors import InputError

_MOST_VALUES = 100_000  # with every alias written out


class _Loader(yaml.SafeLoader):
    """YAML's safe subset without duplicate keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen if isinstance(key, yaml.ScalarNode) else False:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands there twice", key.start_mark
                )
            if isinstance(key, yaml.ScalarNode):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


# YAML 1.1 takes no, yes, on and off for truth values; `targets: [sv, no]` means Norwegian, as in YAML 1.2
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises `yaml.YAMLError` for what is not YAML, has a key twice or grows without end."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES:,} values")
        return loader.construct_document(node)
    except (RecursionError, ValueError, OverflowError) as error:
        raise yaml.YAMLError(str(error) or type(error).__name__) from None
    finally:
        loader.dispose()


def read_yaml(path: Path, what: str) -> dict[Any, Any]:
    """The mapping in a YAML file. `what` it should be ("recipe"). Raises `InputError` naming the file."""
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the {what} {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a {what}; expected fields and values, got {type(tree).__name__}")
    return tree


def _size(node: Any, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases written out; a node inside itself has no end."""
    if id(node) in known:
        if known[id(node)] == 0:
            raise yaml.YAMLError("an alias stands inside what it names")
        return known[id(node)]
    known[id(node)] = 0
    if isinstance(node, yaml.MappingNode):
        size = 1 + sum(_size(part, known) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        size = 1 + sum(_size(part, known) for part in node.value)
    else:
        size = 1
    known[id(node)] = size
    return size
