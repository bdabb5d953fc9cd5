"""Blocks: named, disjoint groups of parameters, from the bottom of the network to the top."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import compress
from operator import attrgetter

from torch import nn

from fishlens.errors import InputError
from fishlens.fisher.anatomy import EMBEDDINGS, HEAD, TOP, Place, places_of, stacks_of, unwrapped
from fishlens.fisher.inserted import (
    OUTSIDE,
    adapter_names,
    carriers,
    choose_adapter,
    idle_heads,
    inserted_parameters,
    own_adapters,
    parameters_of,
)
from fishlens.fisher.walk import named_modules, named_parameters, settled
from fishlens.fisher.walk import parameters_of as all_of


@dataclass(frozen=True)
class Block:
    """Parameters that are measured, and thawed, together.

    `parameters` maps the names of `model.named_parameters()` to the parameters themselves; `layer` is the
    index of the layer the block lies in (None for the head, the embeddings and blocks that are not a layer);
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
    embeddings: bool | None = None,
) -> list[Block]:
    """The blocks of `model`, bottom to top.

    `by`:
      - `"auto"`: `"adapter"` if the model carries an adapter (of `adapters` or `peft`), else `"layer"`;
      - `"adapter"`: per layer, all parameters of the adapter called `adapter`: a task adapter of `adapters`
        (bottleneck or LoRA), or a `peft` adapter with what it trains beside it. Without `adapter`, the last
        one of the active set-up (the task adapter of `Stack(language, task)`, the weights of a fusion), or
        the only one there is;
      - `"layer"`: one block per layer, without the adapters inside it;
      - `"module"`: one block per module that holds parameters of its own;
      - any other string: a pattern over parameter names. A regular expression, written `"re:…"`, names the
        block by its first group (the whole match without one); a glob (`*`, `?`, `[…]`) is one block of all
        it matches;
      - a callable `(parameter name, parameter) -> block name or None`.

    Layers are called `layer.<i>`; where a model has several lists of them, `encoder.layer.<i>`,
    `decoder.layer.<i>`, and so on by path. Beside the layers there may be `relative_positions` that all
    layers share, a `final_norm`, and parts named as the model names them. `outside` holds what an adapter
    has outside the layers (invertible layers, prompts), `prefix` the prefixes of all layers, which are made
    from the same parameters.

    `head` adds the prediction head as the block `head` at the top: of what lies above the layers the part
    that trains, or all of it if none does. `embeddings` adds what lies below the layers as `embeddings` at
    the bottom: by default the part that trains, if any does; all of it with True, nothing with False.

    Raises `InputError` if nothing is found, or the adapter does not exist (and lists what does).
    """
    model = unwrapped(model)
    if callable(by):
        return _checked(_group(model, by, "callable"))
    if by == "auto":
        by = "adapter" if adapter_names(model) else "layer"
    if adapter is not None and by != "adapter":
        raise InputError(f"adapter={adapter!r} was given with by={by!r}; expected by='adapter'")
    if by == "adapter":
        return _checked(_adapter_blocks(model, adapter, head, embeddings))
    if by == "layer":
        return _checked(_layer_blocks(model, head, embeddings))
    if by == "module":
        fixed = _fixed_tables(model)
        return _checked(_group(model, lambda name, p: None if id(p) in fixed else _owner(name), "module"))
    return _checked(_group(model, _pattern(by), f"pattern {by}"))


def unmeasured(model: nn.Module, blocks: Iterable[Block]) -> list[str]:
    """Names of the parameters that train and lie in none of `blocks`, but for heads that are not in use."""
    model = unwrapped(model)
    known = {id(p) for block in blocks for p in block.parameters.values()}
    training = compress(named_parameters(model), map(attrgetter("requires_grad"), all_of(model)))
    left = [(name, p) for name, p in training if id(p) not in known]
    idle = settled(model, "idle heads", lambda: idle_heads(model)) if left else set()
    return [name for name, p in left if id(p) not in idle]


def not_measured(names: Sequence[str]) -> str:
    """One sentence about parameters that train and lie in no block."""
    shown = f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
    return f"some parameters train and lie in no block, so that nothing measures them: {shown}"


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


def _owner(name: str) -> str:
    return name.rpartition(".")[0] or "model"


def _fixed_tables(model: nn.Module) -> set[int]:
    """Identities of sinusoids, which transformers keeps as parameters that never train and that no gradient reaches."""
    return {
        id(parameter)
        for _, module in named_modules(model)
        if "Sinusoidal" in type(module).__name__
        for parameter in module._parameters.values()
        if parameter is not None and not parameter.requires_grad
    }


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


def _layer_blocks(model: nn.Module, head: bool, embeddings: bool | None) -> list[Block]:
    skip = inserted_parameters(model) | idle_heads(model) | _fixed_tables(model)
    places = places_of(model)
    own = {n: p for n, p in model.named_parameters() if id(p) not in skip and n in places}
    return _by_place({name: (places[name], p) for name, p in own.items()}, "layer", head, embeddings)


def _adapter_blocks(
    model: nn.Module, adapter: str | None, head: bool, embeddings: bool | None
) -> list[Block]:
    there = carriers(model)
    if not there:
        raise InputError(f"{type(model).__name__} has no adapter; expected one (by='layer' needs none)")
    named = [carrier for _, carrier in there if adapter in own_adapters(carrier)]
    of_adapter: dict[int, str | None] = {}
    chosen = []
    for carrier in named or [carrier for _, carrier in there]:
        name = choose_adapter(carrier, adapter)
        mine = parameters_of(carrier, name)
        if not mine:
            raise InputError(f"adapter {name!r} has no parameters in the model; expected some")
        of_adapter |= mine
        chosen.append(f"adapter {name}")
    skip = inserted_parameters(model) | idle_heads(model) | _fixed_tables(model)
    places = places_of(model) if stacks_of(model) else {}
    found: dict[str, tuple[Place, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        place = places.get(name)
        if id(parameter) in of_adapter:
            found[name] = _place_in_adapter(of_adapter[id(parameter)], place), parameter
        elif place is not None and id(parameter) not in skip and (place == TOP or _in_embeddings(place)):
            found[name] = place, parameter
    return _by_place(found, ", ".join(dict.fromkeys(chosen)), head, embeddings)


def _place_in_adapter(block: str | None, place: Place | None) -> Place:
    """Where it lies, unless its library says otherwise; `outside` only counts where it lies in no layer."""
    if place is None or (block == OUTSIDE and place.layer is None) or block not in (OUTSIDE, None):
        block = block or OUTSIDE
        return Place((-1, 2 if block == OUTSIDE else 3, 0), block)
    return place


def _in_embeddings(place: Place) -> bool:
    return place.block.rpartition(".")[2] == EMBEDDINGS


def _by_place(
    found: Mapping[str, tuple[Place, nn.Parameter]], defined_by: str, head: bool, embeddings: bool | None
) -> list[Block]:
    groups: dict[str, dict[str, nn.Parameter]] = {}
    places: dict[str, Place] = {}
    for name, (place, parameter) in found.items():
        groups.setdefault(place.block, {})[name] = parameter
        places[place.block] = min(place, places.get(place.block, place))
    blocks = []
    for block in sorted(groups, key=lambda block: places[block].order):
        parameters, place = groups[block], places[block]
        trains = {name: p for name, p in parameters.items() if p.requires_grad}
        if block == HEAD:
            parameters = (trains or parameters) if head else {}
        elif _in_embeddings(place) and not embeddings:
            parameters = trains if embeddings is None else {}
        if parameters:
            blocks.append(Block(block, parameters, place.layer, defined_by))
    return blocks
