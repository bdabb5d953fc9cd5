"""Blocks: named, disjoint groups of parameters, from the bottom of the network to the top."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from fishlens.errors import InputError
from fishlens.fisher.anatomy import (
    adapter_names,
    choose_adapter,
    embeddings_of,
    head_of,
    inserted_parameters,
    is_peft,
    layers_of,
    unwrapped,
)

HEAD = "head"
EMBEDDINGS = "embeddings"


@dataclass(frozen=True)
class Block:
    """Parameters that are measured, and thawed, together.

    `parameters` maps the names of `model.named_parameters()` to the parameters themselves; `layer` is the
    index of the layer the block lies in (None for the head, the embeddings and blocks that are no layer);
    `defined_by` says how the grouping was made and travels with every number.
    """

    name: str
    parameters: Mapping[str, nn.Parameter] = field(repr=False)
    layer: int | None = None
    defined_by: str = "caller"

    @property
    def size(self) -> int:
        """Number of scalar parameters."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def trainable(self) -> bool:
        """Whether any parameter of the block requires a gradient at this moment."""
        return any(parameter.requires_grad for parameter in self.parameters.values())


BlockOf = Callable[[str, nn.Parameter], str | None]


def find_blocks(
    model: nn.Module,
    by: str | BlockOf = "auto",
    *,
    adapter: str | None = None,
    head: bool = True,
    embeddings: bool = False,
) -> list[Block]:
    """The blocks of `model`, bottom to top.

    `by`:
      - `"auto"`: `"adapter"` if the model carries an adapter (of `adapters` or `peft`), else `"layer"`;
      - `"adapter"`: per layer, all parameters of the adapter called `adapter`: a task adapter of `adapters`
        (bottleneck or LoRA), or a `peft` adapter. Without `adapter`, the last one of the active set-up (the
        task adapter of `Stack(language, task)`), or the only one there is;
      - `"layer"`: one block per encoder layer, without the adapters inside it;
      - `"module"`: one block per module that holds parameters of its own;
      - any other string: a pattern over parameter names. A regular expression, written `"re:…"`, names the
        block by its first group (the whole match without one); a glob (`*`, `?`, `[…]`) is one block of all
        it matches;
      - a callable `(parameter name, parameter) -> block name or None`.

    `head` adds the prediction head as the block `head` at the top, `embeddings` the embeddings as
    `embeddings` at the bottom (both for `"adapter"` and `"layer"` only). A language adapter's invertible
    layers and other parameters outside the layers form the block `outside` at the bottom if the named
    adapter has any.

    Raises `InputError` if nothing is found, or the adapter does not exist (and lists what does).
    """
    model = unwrapped(model)
    if callable(by):
        return _checked(_group(model, by, "callable"))
    if by == "auto":
        by = "adapter" if adapter_names(model) else "layer"
    if by == "adapter":
        found = _adapter_blocks(model, choose_adapter(model, adapter))
    elif adapter is not None:
        raise InputError(f"adapter={adapter!r} was given with by={by!r}; expected by='adapter'")
    elif by == "layer":
        found = _layer_blocks(model)
    elif by == "module":
        return _checked(_group(model, lambda name, _: name.rpartition(".")[0] or "model", "module"))
    else:
        return _checked(_group(model, _pattern(by), f"pattern {by}"))
    defined_by = found[0].defined_by
    taken = {id(p) for block in found for p in block.parameters.values()}
    if embeddings:
        bottom = {n: p for n, p in embeddings_of(model).items() if id(p) not in taken}
        found.insert(0, Block(EMBEDDINGS, bottom, None, defined_by))
    if head:
        top = {n: p for n, p in head_of(model).items() if id(p) not in taken}
        if top:
            found.append(Block(HEAD, top, None, defined_by))
    return _checked(found)


def check_blocks(blocks: Iterable[Block]) -> list[Block]:
    """The blocks as a list; `InputError` if there are none, one is empty, or two share a name or a
    parameter."""
    return _checked(list(blocks))


def _checked(blocks: list[Block]) -> list[Block]:
    if not blocks:
        raise InputError("no block was given; expected at least one")
    names: set[str] = set()
    owner: dict[int, tuple[str, str]] = {}
    for block in blocks:
        if not isinstance(block, Block):
            raise InputError(
                f"blocks has {block!r}, a {type(block).__name__}; expected blocks from find_blocks"
            )
        if block.name in names:
            raise InputError(f"two blocks are called {block.name!r}; expected every name once")
        names.add(block.name)
        if not block.parameters:
            raise InputError(f"block {block.name!r} has no parameters; expected at least one")
        for name, parameter in block.parameters.items():
            if id(parameter) in owner:
                other, alias = owner[id(parameter)]
                also = "" if alias == name else f" (there called {alias!r})"
                raise InputError(
                    f"parameter {name!r} is in block {block.name!r} and in block {other!r}{also}; "
                    "expected disjoint blocks"
                )
            owner[id(parameter)] = (block.name, name)
    return blocks


def _group(model: nn.Module, block_of: BlockOf, defined_by: str) -> list[Block]:
    groups: dict[str, dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        block = block_of(name, parameter)
        if block is not None:
            groups.setdefault(block, {})[name] = parameter
    if not groups:
        raise InputError(f"{defined_by} matches no parameter of {type(model).__name__}; {_some_names(model)}")
    return [Block(name, parameters, None, defined_by) for name, parameters in groups.items()]


def _some_names(model: nn.Module) -> str:
    names = [name for name, _ in model.named_parameters()]
    shown = ", ".join(names[:4])
    return f"its {len(names)} parameters are {shown}{', …' if len(names) > 4 else ''}"


def _pattern(pattern: str) -> BlockOf:
    if pattern.startswith("re:"):
        try:
            expression = re.compile(pattern[3:])
        except re.error as error:
            raise InputError(f"by={pattern!r} is not a regular expression: {error}") from None

        def named_by_match(name: str, _: nn.Parameter) -> str | None:
            match = expression.search(name)
            return match and (match[1] if expression.groups else match[0])

        return named_by_match
    if not any(mark in pattern for mark in "*?["):
        raise InputError(
            f"by={pattern!r} is unknown; expected 'auto', 'adapter', 'layer', 'module', a glob like "
            "'*.attention.*', a regular expression like 're:layer\\.(\\d+)', or a callable"
        )
    return lambda name, _: pattern if fnmatchcase(name, pattern) else None


_LAYER_INDEX = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|block)\.(\d+)\.")


def _adapter_blocks(model: Any, name: str) -> list[Block]:
    if is_peft(model):
        return _peft_blocks(model, name)
    names = {id(p): n for n, p in model.named_parameters()}
    blocks = []
    defined_by = f"adapter {name}"
    for layer, places in sorted(model.get_adapter(name).items()):
        mine = {id(p) for module in places.values() for p in module.parameters()}
        parameters = {n: p for n, p in model.named_parameters() if id(p) in mine}
        if missing := mine - names.keys():
            raise InputError(f"adapter {name!r} has {len(missing)} parameters that the model does not list")
        if parameters:
            label = "outside" if layer < 0 else f"layer.{layer}"
            blocks.append(Block(label, parameters, layer if layer >= 0 else None, defined_by))
    if not blocks:
        raise InputError(f"adapter {name!r} has no parameters in the model; expected some in every layer")
    return blocks


def _peft_blocks(model: Any, name: str) -> list[Block]:
    """peft keeps an adapter's parameters in containers keyed by its name: `…lora_A.<name>.weight`."""
    by_layer: dict[int, dict[str, nn.Parameter]] = {}
    for parameter_name, parameter in model.named_parameters():
        words = parameter_name.split(".")
        if name not in words or not any(word.startswith("lora_") for word in words):
            continue
        index = _LAYER_INDEX.search(parameter_name)
        by_layer.setdefault(int(index[1]) if index else -1, {})[parameter_name] = parameter
    if not by_layer:
        raise InputError(f"peft adapter {name!r} has no LoRA parameters in the model; expected some")
    return [
        Block(
            "outside" if layer < 0 else f"layer.{layer}",
            parameters,
            layer if layer >= 0 else None,
            f"adapter {name}",
        )
        for layer, parameters in sorted(by_layer.items())
    ]


def _layer_blocks(model: Any) -> list[Block]:
    prefix, layers = layers_of(model)
    skip = inserted_parameters(model)
    blocks = []
    for index in range(len(layers)):
        start = f"{prefix}{index}."
        parameters = {n: p for n, p in model.named_parameters() if n.startswith(start) and id(p) not in skip}
        blocks.append(Block(f"layer.{index}", parameters, index, "layer"))
    return blocks
