"""Everybody who takes part in benchmarks/fisher.py: how each is prepared, and what one call of it is.

Peers measure the empirical Fisher (the data's labels) of the adapter's blocks, so that their traces can be
compared. A contender that changes the model works on a copy of it, made before the clock starts.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from fishlens import Block, estimate_fisher, find_blocks
from fishlens.fisher import Plan

Traces = dict[str, float] | None
Call = Callable[[], Traces]


@dataclass(frozen=True)
class Setup:
    """A model whose adapter is trainable and whose base is frozen, a batch with labels, and the adapter's
    blocks."""

    model: nn.Module
    batch: dict[str, torch.Tensor]
    blocks: list[Block]

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        return {key: value for key, value in self.batch.items() if key != "labels"}

    def loss(self, model: nn.Module, reduction: str = "sum") -> torch.Tensor:
        return functional.cross_entropy(
            model(**self.inputs).logits, self.batch["labels"], reduction=reduction
        )


@dataclass(frozen=True)
class Contender:
    """`against` names the row that its ratio refers to; `slow` ones are measured once, and their memory is
    not."""

    prepare: Callable[[Setup], AbstractContextManager[Call]]
    against: str = "plain"
    slow: bool = False
    same_quantity: bool = False

    @property
    def is_baseline(self) -> bool:
        return self.prepare in (plain, plain_all_weights)


def traces_of(setup: Setup, squares: Callable[[str], torch.Tensor]) -> Traces:
    """Traces of the blocks from a function that gives each parameter's Σ_n s_n² (in any shape)."""
    count = len(setup.batch["labels"])
    return {b.name: sum(float(squares(n).sum()) for n in b.parameters) / count for b in setup.blocks}


@contextmanager
def plain(setup: Setup) -> Iterator[Call]:
    """Forward and backward for the adapter (and the head), as training does it."""

    def call() -> Traces:
        setup.loss(setup.model, "mean").backward()
        return None

    yield call
    setup.model.zero_grad(set_to_none=True)


@contextmanager
def plain_all_weights(setup: Setup) -> Iterator[Call]:
    """The same with nothing frozen."""
    flags = [(p, p.requires_grad) for p in setup.model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(True)
    with plain(setup) as call:
        yield call
    for parameter, flag in flags:
        parameter.requires_grad_(flag)


def fishlens(by: str = "adapter", **options: object) -> Callable[[Setup], AbstractContextManager[Call]]:
    plan = Plan()  # as a tracker keeps one: what the first probe (the warm-up) proved is not proved again

    @contextmanager
    def prepare(setup: Setup) -> Iterator[Call]:
        blocks = setup.blocks if by == "adapter" else find_blocks(setup.model, by=by, head=False)
        yield lambda: estimate_fisher(setup.model, setup.batch, blocks=blocks, plan=plan, **options).trace

    return prepare


@contextmanager
def one_example_loop(setup: Setup) -> Iterator[Call]:
    """Plain autograd, one example at a time."""
    named = dict(setup.model.named_parameters())
    parameters = [named[name] for block in setup.blocks for name in block.parameters]

    def call() -> Traces:
        total = {block.name: 0.0 for block in setup.blocks}
        owners = [block.name for block in setup.blocks for _ in block.parameters]
        for n in range(len(setup.batch["labels"])):
            one = Setup(setup.model, {k: v[n : n + 1] for k, v in setup.batch.items()}, setup.blocks)
            for owner, g in zip(owners, torch.autograd.grad(one.loss(setup.model), parameters), strict=True):
                total[owner] += float(g.square().sum())
        return {block: value / len(setup.batch["labels"]) for block, value in total.items()}

    yield call


def backpack_stock(
    extension: str, opt_einsum: bool = True
) -> Callable[[Setup], AbstractContextManager[Call]]:
    """BackPACK's own extensions on the adapter's linear leaves (the whole model cannot be extended).

    They are einsums of four operands. BackPACK does not ask for the package opt_einsum, without which torch contracts
    from left to right; the row without it switches it off even where it is installed.
    """

    @contextmanager
    def prepare(setup: Setup) -> Iterator[Call]:
        import backpack
        from backpack import extensions

        model = copy.deepcopy(setup.model)
        wanted = {name.rpartition(".")[0] for block in setup.blocks for name in block.parameters}
        for name, module in model.named_modules():
            if name in wanted:
                if type(module) is not nn.Linear:
                    raise NotImplementedError(
                        f"no rule for {type(module).__name__} with parameters of its own"
                    )
                backpack.extend(module)
        named = dict(model.named_parameters())
        chosen = getattr(extensions, extension)()
        field = chosen.savefield
        available = torch.backends.opt_einsum.is_available()
        if opt_einsum and not available:
            raise ModuleNotFoundError("opt_einsum is not installed")

        def call() -> Traces:
            loss = setup.loss(model)
            with backpack.backpack(chosen), torch.backends.opt_einsum.flags(enabled=opt_einsum and available):
                loss.backward()
            return traces_of(setup, lambda name: getattr(named[name], field))

        yield call
        backpack.CTX.remove_hooks()

    return prepare


@contextmanager
def opacus_gradients(setup: Setup) -> Iterator[Call]:
    """Every per-example gradient, materialised."""
    from opacus.grad_sample import GradSampleModule

    model = _only_blocks(setup)
    wrapped = GradSampleModule(model, loss_reduction="sum")
    named = dict(model.named_parameters())

    def call() -> Traces:
        setup.loss(wrapped).backward()
        return traces_of(setup, lambda name: named[name].grad_sample.square())

    yield call


@contextmanager
def opacus_ghost_norms(setup: Setup) -> Iterator[Call]:
    """Per-example norms without the gradients (no diagonal)."""
    from opacus.grad_sample import GradSampleModuleFastGradientClipping

    model = _only_blocks(setup)
    wrapped = GradSampleModuleFastGradientClipping(
        model, loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True
    )
    named = dict(model.named_parameters())

    def call() -> Traces:
        setup.loss(wrapped).backward()
        return traces_of(setup, lambda name: named[name]._norm_sample.square())

    yield call


def _only_blocks(setup: Setup) -> nn.Module:
    """A copy in which only the blocks are trainable, their leaves in train mode: Opacus watches no others."""
    model = copy.deepcopy(setup.model)
    wanted = {name for block in setup.blocks for name in block.parameters}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in wanted)
        if name in wanted:
            model.get_submodule(name.rpartition(".")[0]).train()
    return model


@contextmanager
def curvlinops_ggn(setup: Setup) -> Iterator[Call]:
    """One product of the blocks' GGN with a vector. A trace takes many of them.

    Forward-mode differentiation has no rule for fused attention: torch is told to compute it step by step.
    """
    from curvlinops import GGNLinearOperator

    model = copy.deepcopy(setup.model)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, X: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.inner(**X).logits

    wrapped = Logits()
    named = dict(model.named_parameters())
    parameters = [named[name] for block in setup.blocks for name in block.parameters]

    def call() -> Traces:
        operator = GGNLinearOperator(
            wrapped,
            nn.CrossEntropyLoss(),
            parameters,
            [(setup.inputs, setup.batch["labels"])],
            check_deterministic=False,
            batch_size_fn=lambda X: len(X["input_ids"]),
        )
        with sdpa_kernel(SDPBackend.MATH):
            operator @ torch.randn(operator.shape[1], device=setup.batch["labels"].device)
        return None

    yield call


@contextmanager
def nngeometry_diagonal(setup: Setup) -> Iterator[Call]:
    """The diagonal of the Fisher from nngeometry's hooks on the adapter's linear leaves."""
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object import PMatDiag
    from torch.utils.data import DataLoader, TensorDataset

    model = copy.deepcopy(setup.model)
    wanted = {name.rpartition(".")[0] for block in setup.blocks for name in block.parameters}
    layers = LayerCollection()
    for name, module in model.named_modules():
        if name in wanted:
            if type(module) is not nn.Linear:
                raise NotImplementedError(f"no layer kind for {type(module).__name__}")
            layers.add_layer_from_model(model, module)
    mask = setup.batch["attention_mask"]
    # it differentiates with respect to its inputs, which token ids do not allow
    embedded = model.get_input_embeddings()(setup.batch["input_ids"]).detach()

    def call() -> Traces:
        FIM(
            model,
            DataLoader(TensorDataset(embedded), batch_size=len(embedded)),
            PMatDiag,
            variant="classif_logits",
            function=lambda *d: model(inputs_embeds=d[0], attention_mask=mask).logits,
            layer_collection=layers,
            device=str(mask.device),
        )
        return None

    yield call


@contextmanager
def published_procedure(setup: Setup) -> Iterator[Call]:
    """A deep copy of the model, then 41 batches of squared batch-mean gradients."""

    def call() -> Traces:
        model = copy.deepcopy(setup.model).eval()
        named = dict(model.named_parameters())
        sums = {name: torch.zeros_like(named[name]) for block in setup.blocks for name in block.parameters}
        for _ in range(41):
            model.zero_grad()
            logits = model(**setup.inputs).logits
            functional.cross_entropy(logits, logits.argmax(-1).detach()).backward()
            for name, total in sums.items():
                total += named[name].grad ** 2 / len(logits)
        return {b.name: sum(float(sums[n].sum()) for n in b.parameters) for b in setup.blocks}

    yield call


CONTENDERS: dict[str, Contender] = {
    "plain": Contender(plain),
    "plain, all weights": Contender(plain_all_weights, against="plain, all weights"),
    "fishlens, empirical, trace": Contender(fishlens(labels="empirical"), same_quantity=True),
    "fishlens, mc, trace": Contender(fishlens(labels="mc")),
    "fishlens, mc, trace + diagonal": Contender(fishlens(labels="mc", diagonal=True)),
    "fishlens, exact (3 classes), trace + diagonal": Contender(fishlens(labels="exact", diagonal=True)),
    "fishlens, mc, traces of all layers (Gram)": Contender(
        fishlens(by="layer", labels="mc"), against="plain, all weights"
    ),
    "one example at a time": Contender(one_example_loop, slow=True, same_quantity=True),
    "BackPACK BatchL2Grad (trace)": Contender(
        backpack_stock("BatchL2Grad", False), slow=True, same_quantity=True
    ),
    "BackPACK BatchL2Grad, with opt_einsum": Contender(backpack_stock("BatchL2Grad"), same_quantity=True),
    "BackPACK SumGradSquared (diagonal)": Contender(
        backpack_stock("SumGradSquared", False), slow=True, same_quantity=True
    ),
    "BackPACK SumGradSquared, with opt_einsum": Contender(
        backpack_stock("SumGradSquared"), same_quantity=True
    ),
    "Opacus GradSampleModule": Contender(opacus_gradients, same_quantity=True),
    "Opacus ghost norms (trace)": Contender(opacus_ghost_norms, same_quantity=True),
    "curvlinops GGN, one vector": Contender(curvlinops_ggn, slow=True),
    "nngeometry FIM, PMatDiag": Contender(nngeometry_diagonal),
    "published procedure, 41 batches": Contender(published_procedure, slow=True),
}
