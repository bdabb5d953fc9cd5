"""Where a parameter lies in a model: in the embeddings, a layer, a final norm, the head. Read off the tree of modules.

A *stack* is a list of layers: an `nn.ModuleList` (or `nn.Sequential`) whose modules each hold several modules with
parameters. A model may have several (encoder and decoder, two towers); each then has a label, the words in which its
path differs from the others'. What lies in no layer belongs to the stack with which its path has most in common, and
lies below or above the layers by the order of registration, unless its name says what it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from fishlens.errors import InputError

HEAD = "head"
EMBEDDINGS = "embeddings"
RELATIVE_POSITIONS = "relative_positions"
FINAL_NORM = "final_norm"
PROMPT = "prompt"

COMPOUND = 4
"""A layer holds at least so many modules with parameters of their own; one of several classifiers does not."""

_RELATIVE = re.compile(r"(^|_)rel(ative)?(_|$)")
_FINAL = re.compile(r"final|post|^ln_?f$|^norm(_f)?$")
_BELOW = re.compile(r"emb|^pre")
_HEAD_WORDS = re.compile(
    r"^(.*classifi(er|cation).*|pooler|.*head|heads|score|cls|qa_outputs|proj(ect)?_out)$"
)
_PROMPT_WORDS = re.compile(r"prompt|prefix")


_WRAPPERS = ("DeepSpeedEngine", "_FabricModule")


def unwrapped(model: nn.Module) -> nn.Module:
    """The module itself, out of `torch.compile`, `DataParallel`, `DistributedDataParallel`, DeepSpeed's engine and
    Fabric's wrapper, in any order."""
    while True:
        inside = vars(model).get("_modules")
        if isinstance(inside, dict) and "_orig_mod" in inside:
            model = inside["_orig_mod"]
        elif _wraps(model):
            model = model.module  # type: ignore[assignment]
        else:
            return model


def _wraps(model: nn.Module) -> bool:
    wrapper = isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel))
    return wrapper or any(kind.__name__ in _WRAPPERS for kind in type(model).__mro__)


@dataclass(frozen=True)
class Stack:
    """The layers of a model, bottom to top.

    `path` of the list of layers; `layers[i]` are the paths of the modules that make up layer i (several in XLM, which
    keeps a list for every part of a layer); `root` is the path of the base model around it, the model without its
    head. `label` is empty for the only stack of a model.
    """

    path: str
    layers: tuple[tuple[str, ...], ...]
    root: str
    label: str = ""

    def called(self, name: str) -> str:
        return f"{self.label}.{name}" if self.label else name


@dataclass(frozen=True, order=True)
class Place:
    """Where a parameter lies: the block of that place and, in a stack, the layer. Sorts from bottom to top."""

    order: tuple[int, int, int]
    block: str
    layer: int | None = None


TOP = Place((1 << 30, 0, 0), HEAD)


def places_of(model: nn.Module) -> dict[str, Place]:
    """The place of every parameter, by its name in `model.named_parameters()`.

    A table that is both embedding and output layer (tied weights) is the head's where it trains, because the head
    always trains; where it is frozen it lies in the embeddings. Raises `InputError` if the model has no stack.
    """
    stacks = stacks_of(model)
    if not stacks:
        raise InputError(
            f"{type(model).__name__} has no list of layers; expected an nn.ModuleList of equal modules "
            "(use by='module', a pattern or a callable)"
        )
    tree = _Tree(model, stacks)
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, Place] = {}
    for alias, parameter in model.named_parameters(remove_duplicate=False):
        if "original_module" in alias.split("."):
            continue  # the copy of peft's `modules_to_save` that is not in use
        place, name = tree.place(alias), names[id(parameter)]
        tied = place == TOP and parameter.requires_grad and name in found and found[name].layer is None
        if tied or name not in found:
            found[name] = place
    return found


def stacks_of(model: nn.Module) -> list[Stack]:
    """The stacks of a model in order of registration; without lists of compound modules, the longest list of equal
    modules there is."""
    modules = dict(model.named_modules())
    lists = [path for path, module in modules.items() if _is_list_of_layers(module)]
    found = _outermost(modules, lists)
    if not found:
        simple = [path for path, module in modules.items() if _is_list_of_equals(module)]
        outer = [p for p in simple if not any(p.startswith(f"{other}.") for other in simple)]
        found = [max(outer, key=lambda path: len(modules[path]))] if outer else []  # type: ignore[arg-type]
    stacks = [Stack(path, _layers(modules, path), _root(modules, path)) for path in found]
    labels = _labels([stack.path for stack in stacks])
    return [replace(stack, label=label) for stack, label in zip(stacks, labels, strict=True)]


def is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


class _Tree:
    """A model's modules and stacks, to place one parameter after the other."""

    def __init__(self, model: nn.Module, stacks: Sequence[Stack]) -> None:
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.stacks = list(stacks)
        self.rank = {name: i for i, (name, _) in enumerate(model.named_parameters(remove_duplicate=False))}
        self.first = [
            min(i for name, i in self.rank.items() if _within(name, stack.layers[0])) for stack in stacks
        ]

    def place(self, name: str) -> Place:
        for number, stack in enumerate(self.stacks):
            for index, paths in enumerate(stack.layers):
                if _within(name, paths):
                    if self._shared_by_all_layers(name, stack, index):
                        return self._relative(number)
                    return Place((number, 2, index), stack.called(f"layer.{index}"), index)
        return self._outside(name)

    def _shared_by_all_layers(self, name: str, stack: Stack, index: int) -> bool:
        """T5 keeps the relative positions of all layers in its first: a table that no other layer has."""
        owner = name.rpartition(".")[0]
        if index or not isinstance(self.modules.get(owner), nn.Embedding):
            return False
        start = next(path for path in stack.layers[0] if name.startswith(f"{path}."))
        rest, which = name[len(start) :], stack.layers[0].index(start)
        if len(stack.layers) == 1:
            return _RELATIVE.search(owner.rpartition(".")[2]) is not None
        return not any(f"{layer[which]}{rest}" in self.rank for layer in stack.layers[1:])

    def _outside(self, name: str) -> Place:
        owner, module = self._owner(name)
        words, parent, own = [*owner.split("."), "weight"], owner.rpartition(".")[0], name.rpartition(".")[2]
        number, alone = self._nearest(words)
        stack = self.stacks[number]
        in_base = not stack.root or name.startswith(f"{stack.root}.")
        inner = words[len(stack.root.split(".")) if stack.root and in_base else 0 :]
        if _PROMPT_WORDS.search(own):
            return Place((-1, 1, 0), PROMPT)
        if any(_HEAD_WORDS.match(word) for word in inner[:2]) or not in_base:
            plain = not isinstance(self.modules[stack.root], PreTrainedModel)
            below = plain and self.rank[name] < min(self.first) and not _HEAD_WORDS.match(inner[0])
            return Place((-1, 0, 0), EMBEDDINGS) if below else TOP
        if any(_RELATIVE.search(word) for word in inner) or self._norm_of_relative_table(
            module, parent, stack
        ):
            return self._relative(number)
        before, around = self.rank[name] < self.first[number], _around(parent, stack)
        if is_norm(module) and around:
            called = owner.rpartition(".")[2].lower()
            if _FINAL.search(called) or not (before or _BELOW.search(called)):
                return Place((number, 4, 0), stack.called(FINAL_NORM))
            before = True
        if before or (around and _BELOW.search(owner.rpartition(".")[2])):
            return self._embeddings(number, alone)
        beside = stack.path.rpartition(".")[0]
        if beside != stack.root and name.startswith(f"{beside}."):
            part = name[len(beside) + 1 :].split(".")[0]
            return Place((number, 3, 0), stack.called(part))
        if not alone and number + 1 < len(self.stacks) and self.rank[name] < self.first[-1]:
            shared = _common(words, stack.path.split("."))
            return Place((number, 5, self.rank[name]), words[shared])
        return TOP

    def _owner(self, name: str) -> tuple[str, nn.Module]:
        """The module of a parameter; of one that peft keeps in a wrapper, the wrapper's place and what it wraps."""
        owner = name.rpartition(".")[0]
        words = owner.split(".")
        for end in range(1, len(words) + 1):
            path = ".".join(words[:end])
            inside = self.modules[path]._modules
            wrapped = inside.get("original_module", inside.get("base_layer"))
            if wrapped is not None:
                return path, wrapped
        return owner, self.modules[owner]

    def _nearest(self, words: Sequence[str]) -> tuple[int, bool]:
        """The stack whose path begins with most of these words, and whether it is the only one."""
        common = [_common(words, stack.path.split(".")) for stack in self.stacks]
        return common.index(max(common)), common.count(max(common)) == 1

    def _relative(self, number: int) -> Place:
        return Place((number, 1, 0), self.stacks[number].called(RELATIVE_POSITIONS))

    def _embeddings(self, number: int, alone: bool) -> Place:
        if not alone:
            return Place((-1, 0, 0), EMBEDDINGS)
        return Place((number, 0, 0), self.stacks[number].called(EMBEDDINGS))

    def _norm_of_relative_table(self, module: nn.Module, parent: str, stack: Stack) -> bool:
        """DeBERTa-v2 normalises its relative positions with the norm beside them."""
        beside = stack.path.rpartition(".")[0]
        return (
            is_norm(module)
            and parent == beside != stack.root
            and any(
                isinstance(child, nn.Embedding) and _RELATIVE.search(called)
                for called, child in self.modules[beside].named_children()
            )
        )


def _within(name: str, paths: Sequence[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)


def _around(path: str, stack: Stack) -> bool:
    return not path or stack.path == path or stack.path.startswith(f"{path}.")


def _common(words: Sequence[str], others: Sequence[str]) -> int:
    count = 0
    for word, other in zip(words, others, strict=False):
        if word != other:
            break
        count += 1
    return count


def _parts(module: nn.Module) -> int:
    """How many modules in it hold parameters of their own."""
    return sum(any(p is not None for p in m._parameters.values()) for m in module.modules())


def _is_list_of_layers(module: nn.Module) -> bool:
    """A list of compound modules, of one class or of several (a decoder that alternates attention and state space)."""
    several = isinstance(module, nn.ModuleList) and len(module) > 0
    return (several or _is_list_of_equals(module)) and all(_parts(m) >= COMPOUND for m in module)  # type: ignore[attr-defined]


def _is_list_of_equal_layers(module: nn.Module) -> bool:
    return _is_list_of_equals(module) and _is_list_of_layers(module)


def _is_list_of_equals(module: Any) -> bool:
    """By the class's name: adapters gives every layer a class of its own, all of one name."""
    if not isinstance(module, (nn.ModuleList, nn.Sequential)) or len(module) == 0:
        return False
    return len({type(m).__name__ for m in module}) == 1 and any(True for _ in module.parameters())


def _outermost(modules: dict[str, Any], lists: Sequence[str]) -> list[str]:
    """Lists that are in no other list; of a list of whole models (two towers), the lists in each."""
    towers = [path for path in lists if any(_is_tower(child) for child in modules[path])]
    layers = [path for path in lists if path not in towers]
    return [path for path in layers if not any(path.startswith(f"{other}.") for other in layers)]


def _is_tower(module: nn.Module) -> bool:
    inner = [m for m in module.modules() if m is not module]
    return any(map(_is_list_of_equal_layers, inner)) and any(isinstance(m, nn.Embedding) for m in inner)


def _layers(modules: dict[str, Any], path: str) -> tuple[tuple[str, ...], ...]:
    own = [f"{path}.{name}" for name, _ in modules[path].named_children()]
    inner = [_whole_inner_list(modules[one]) for one in own]
    if all(inner):  # groups of layers: ALBERT, Funnel
        return tuple(
            (f"{one}.{inside}.{name}",) if inside != "." else (f"{one}.{name}",)
            for one, inside in zip(own, inner, strict=True)
            for name, _ in modules[one if inside == "." else f"{one}.{inside}"].named_children()
        )
    parent = path.rpartition(".")[0]
    beside = [
        f"{parent}.{name}" if parent else name
        for name, module in modules[parent].named_children()
        if isinstance(module, nn.ModuleList) and len(module) == len(own) and not _is_list_of_layers(module)
    ]
    return tuple((one, *(f"{other}.{i}" for other in beside)) for i, one in enumerate(own))


def _whole_inner_list(module: Any) -> str | None:
    """The path of the list of layers that holds all parameters of `module`, "." if it is that list itself."""
    everything = {id(p) for p in module.parameters()}
    for name, inner in module.named_modules():
        if _is_list_of_equal_layers(inner) and {id(p) for p in inner.parameters()} == everything:
            return name or "."
    return None


def _root(modules: dict[str, Any], path: str) -> str:
    """The outermost base model of transformers around the stack; else the module that holds the stack."""
    words = path.split(".")
    for end in range(len(words)):
        outer = ".".join(words[:end])
        module = modules[outer]
        if isinstance(module, PreTrainedModel) and module.base_model is module:
            return outer
    return ".".join(words[:-1])


def _labels(paths: Sequence[str]) -> list[str]:
    """The words in which every path differs from the others: those at which the paths fork."""
    split = [path.split(".") for path in paths]
    labels = []
    for words in split:
        forks = []
        for depth, word in enumerate(words):
            same = [other for other in split if other[:depth] == words[:depth]]
            if len({tuple(other[depth : depth + 1]) for other in same}) > 1:
                forks.append(word)
        labels.append(".".join(forks))
    return labels
