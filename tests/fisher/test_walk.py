"""Between probes a model changes, and what is kept of it is looked over, not believed; nothing is left for the garbage
collector."""

import gc
import sys
import types
import weakref
from collections import OrderedDict
from typing import ClassVar
from unittest.mock import Mock

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from transformers import BertConfig, BertForSequenceClassification

from fishlens import Tracker, estimate_fisher, find_blocks
from fishlens.errors import InputError
from fishlens.fisher import Plan, reference_fisher, state, walk
from fishlens.fisher.kept import Search

from .architectures import tiny


@pytest.fixture
def walks(monkeypatch):
    made, walk_through = [], walk._named_modules

    def counted(module):
        made.append(type(module).__name__)
        return walk_through(module)

    monkeypatch.setattr(walk, "_named_modules", counted)
    return made


def small():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def measured(model, plan, x=None):
    blocks = find_blocks(model, by="module")
    x = torch.ones(6, 4) if x is None else x
    return estimate_fisher(model, x, blocks=blocks, labels="exact", diagonal=True, plan=plan)


def test_a_model_is_walked_for_the_first_probe_alone(walks):
    model, plan = small(), Plan()
    measured(model, plan)
    assert "Sequential" in walks
    blocks = find_blocks(model, by="module")
    walks.clear()
    estimate_fisher(model, torch.ones(6, 4), blocks=blocks, labels="exact", plan=plan)
    assert walks == []


def test_a_tracker_walks_no_modules_at_a_probe(walks, tmp_path):
    tracker = Tracker(
        small(), torch.ones(6, 4), run=tmp_path / "run", every=1, labels="exact", blocks="module"
    )
    tracker.step(0)
    walks.clear()
    assert tracker.step(1) is not None
    assert walks == []


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.add_module("more", nn.Linear(3, 3)),
        lambda model: setattr(model[0], "weight", nn.Parameter(torch.full((5, 4), 0.3))),
        lambda model: model.__setitem__(1, nn.Sigmoid()),
        lambda model: model[0].register_buffer("scale", torch.ones(())),
        lambda model: setattr(model[2], "bias", None),
        lambda model: setattr(model[0], "training", False),
        lambda model: vars(model[1]).update(seen=[1, 2]),
        lambda model: model[0].weight.requires_grad_(False),
    ],
)
def test_whatever_changes_between_two_probes_is_seen(change):
    torch.manual_seed(0)
    kept, anew, plan = small(), small(), Plan()
    anew.load_state_dict(kept.state_dict())
    measured(kept, plan)
    for model in (kept, anew):
        torch.manual_seed(1)
        change(model)
    one, other = measured(kept, plan), measured(anew, Plan())
    assert one.trace == other.trace
    assert one.meta["unmeasured"] == other.meta["unmeasured"]


def doubled(self, x):
    return 2 * nn.functional.linear(x, self.weight, self.bias)


class Own(nn.Linear):
    pass


class Mergeable(nn.Linear):
    """As peft's layers say it: by the length of a list."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.merged_adapters = []
        self.lora = nn.Linear(1, 1)

    @property
    def merged(self):
        return bool(self.merged_adapters)


@pytest.mark.parametrize("training", [False, True])
def test_a_forward_that_is_replaced_between_two_probes_is_measured_as_it_is(monkeypatch, training):
    torch.manual_seed(0)
    model = nn.Sequential(Own(4, 5), nn.Tanh(), Own(5, 3)).double().train(training)
    blocks, x, plan = find_blocks(model, by="module"), torch.randn(6, 4, dtype=torch.float64), Plan()

    def probe():
        found = estimate_fisher(model, x, blocks=blocks, labels="exact", plan=plan)
        expected = reference_fisher(model, x, blocks, labels="exact")
        assert found.trace == pytest.approx(expected.trace, rel=1e-9)

    for _ in range(3):
        probe()
    model[0].forward = types.MethodType(doubled, model[0])
    for _ in range(2):
        probe()
    del model[0].forward
    probe()
    monkeypatch.setattr(Own, "forward", doubled)
    for _ in range(2):
        probe()


def test_what_an_output_means_may_change_between_two_probes():
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=3,
    )
    model, plan = BertForSequenceClassification(config).eval(), Plan()
    batch, blocks = {"input_ids": torch.ones(2, 3, dtype=torch.long)}, find_blocks(model)
    kinds = {
        "single_label_classification": "classification",
        "multi_label_classification": "multilabel",
        "regression": "regression",
    }
    for problem in (*kinds, *kinds):
        model.config.problem_type = problem
        for _ in range(3):
            assert estimate_fisher(model, batch, blocks=blocks, plan=plan).meta["output"] == kinds[problem]


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, input_ids):
        return self.head(self.table(input_ids).mean(1))


def test_a_rule_that_stops_holding_between_two_probes_and_holds_again():
    """By the value of an attribute that was there before: gradients are divided by how often a row is read."""
    torch.manual_seed(0)
    model, plan = Pooled().double(), Plan()
    blocks, batch = find_blocks(model, by="module"), {"input_ids": torch.tensor([[1, 1, 1, 2], [3, 3, 4, 5]])}
    for by_frequency in (False, False, False, True, True, False, False):
        model.table.scale_grad_by_freq = by_frequency
        found = estimate_fisher(model, batch, blocks=blocks, labels="exact", plan=plan)
        expected = reference_fisher(model, batch, blocks, labels="exact")
        assert found.trace == pytest.approx(expected.trace, rel=1e-9)


def test_what_is_merged_between_two_probes_is_refused_at_the_next_and_not_after():
    model, plan = nn.Sequential(Mergeable(4, 3)), Plan()
    blocks = find_blocks(model, by="module")

    def probe():
        return estimate_fisher(model, torch.ones(6, 4), blocks=blocks, labels="exact", plan=plan).trace

    before = [probe() for _ in range(3)]
    model[0].merged_adapters.append("task")
    for _ in range(2):
        with pytest.raises(InputError, match="has merged its adapter"):
            probe()
    model[0].merged_adapters.clear()
    assert before == [probe() for _ in range(3)]


class Counting:
    """A hook that keeps something of every call."""

    def __init__(self):
        self.calls, self.seen = 0, []

    def __call__(self, *_):
        self.calls += 1
        self.seen.append(self.calls)


def replaced_hooks(module, hook):
    module._forward_hooks = OrderedDict()
    module.register_forward_hook(hook)


@pytest.mark.parametrize("new", [False, True])
@pytest.mark.parametrize(
    "register",
    [
        lambda module, hook: module.register_forward_hook(hook),
        lambda module, hook: module.register_forward_pre_hook(hook),
        lambda _, hook: register_module_forward_hook(hook),
        lambda _, hook: register_module_forward_pre_hook(hook),
        replaced_hooks,
    ],
)
def test_a_hook_that_is_registered_between_two_probes_keeps_nothing_of_the_next(register, new):
    model, plan, hook = small(), Plan(), Counting()
    for _ in range(0 if new else 3):
        measured(model, plan)
    handle = register(model[0], hook)
    for _ in range(3):
        measured(model, plan)
        assert (hook.calls, hook.seen) == (0, [])
    model(torch.ones(2, 4))
    calls = hook.calls
    assert calls >= 1
    measured(model, plan)
    assert (hook.calls, hook.seen) == (calls, list(range(1, calls + 1)))
    if handle is not None:
        handle.remove()


SEEN, BATCH = [], None


def note():
    SEEN.append(1)


class Slotted:
    __slots__ = ("seen",)

    def __init__(self):
        self.seen = []


def counter():
    seen = []

    def count():
        seen.append(1)

    def reset():
        nonlocal seen
        seen = []

    return count, reset, lambda: seen


class Noting(nn.Linear):
    table: ClassVar = []

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.slots, (self.count, self.reset, self.counted) = Slotted(), counter()

    def forward(self, x):
        note()
        self.table.append(1)
        self.slots.seen.append(1)
        self.count()
        return super().forward(x)

    def noted(self):
        return [len(seen) for seen in (SEEN, self.table, self.slots.seen, self.counted())]


ALSO = []


def other():
    ALSO.append(1)


def other_forward(self, x):
    ALSO.append(1)
    return nn.Linear.forward(self, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda noting, patch: patch(sys.modules[__name__], "SEEN", []),
        lambda noting, patch: patch(Noting, "table", []),
        lambda noting, patch: setattr(noting.slots, "seen", []),
        lambda noting, patch: noting.reset(),
        lambda noting, patch: patch(sys.modules[__name__], "note", other),
        lambda noting, patch: patch(Noting, "forward", other_forward),
    ],
)
def test_what_code_keeps_under_names_that_are_bound_anew_between_two_probes_is_as_before(monkeypatch, change):
    """Global names, attributes of classes, slots, variables of enclosing functions, and functions themselves."""
    for owner, name in ((sys.modules[__name__], "SEEN"), (sys.modules[__name__], "ALSO"), (Noting, "table")):
        monkeypatch.setattr(owner, name, [])
    model, plan = nn.Sequential(Noting(4, 3)), Plan()
    for _ in range(3):
        measured(model, plan)
    change(model[0], monkeypatch.setattr)
    for _ in range(3):
        measured(model, plan)
        assert model[0].noted() == [0, 0, 0, 0] and ALSO == []


class Masked(nn.Linear):
    def forward(self, x):
        return super().forward(x if BATCH is None else x * BATCH)


def test_a_number_or_tensor_that_is_bound_to_a_global_name_is_no_reason_to_search_again(monkeypatch):
    searched = []
    monkeypatch.setattr(state, "Search", lambda: searched.append(None) or Search())
    model, plan = nn.Sequential(Masked(4, 3)), Plan()
    measured(model, plan)
    before = len(searched)
    for value in (2.0, torch.ones(4), torch.ones(4), None):
        monkeypatch.setattr(sys.modules[__name__], "BATCH", value)
        measured(model, plan)
    assert len(searched) == before > 0


def test_a_tensor_under_a_global_name_is_not_held_on_to_by_a_plan(monkeypatch):
    model, plan = nn.Sequential(Masked(4, 3)), Plan()
    monkeypatch.setattr(sys.modules[__name__], "BATCH", torch.ones(4))
    gone = weakref.ref(BATCH)
    for _ in range(2):
        measured(model, plan)
    monkeypatch.undo()
    gc.collect()
    assert gone() is None


class Hooking(nn.Linear):
    """Registers another hook with every call, and never removes one."""

    def forward(self, x):
        self.register_forward_hook(lambda *_: None)
        return super().forward(x)


def test_a_hook_that_a_forward_registers_is_gone_after_a_probe():
    model, plan = nn.Sequential(Hooking(4, 3)), Plan()
    for _ in range(3):
        model(torch.ones(2, 4))
        before = list(model[0]._forward_hooks.items())
        measured(model, plan)
        assert list(model[0]._forward_hooks.items()) == before


def held():
    model = small()
    model[1].a, model[1].b, model[1].table = None, [1], {"x": 1.0}
    dicts = [*map(vars, model.modules()), model[1].table]
    return model, walk.Held(dicts, 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda module: setattr(module, "a", 0),
        lambda module: setattr(module, "b", [1]),  # an equal one
        lambda module: setattr(module, "more", None),
        lambda module: delattr(module, "a"),
        lambda module: (delattr(module, "a"), setattr(module, "c", None)),
        lambda module: setattr(module, "training", False),
        lambda module: setattr(module, "_forward_hooks", OrderedDict()),
        lambda module: vars(module).update(_parameters=dict(module._parameters)),
        lambda module: module.table.update(x=float("1")),
        lambda module: (module.table.pop("x"), module.table.update(y=1.0)),
        lambda module: module.table.clear(),
    ],
)
def test_every_change_of_an_attribute_is_seen_and_put_back(change):
    model, before = held()
    assert before.unchanged() and not before.restore()
    kept = [dict(held) for held in before.dicts]
    change(model[1])
    assert not before.unchanged() and before.restore() and before.unchanged()
    assert [dict(held) for held in before.dicts] == kept
    assert all(
        a is b
        for held, was in zip(before.dicts, kept, strict=True)
        for a, b in zip(held.values(), was.values(), strict=True)
    )


class Odd(dict):
    """Makes what is missing, as `defaultdict` does."""

    def __missing__(self, key):
        self[key] = None
        return


def test_dicts_of_a_class_of_their_own_are_not_asked_for_what_they_lack():
    attributes = Odd(a=None)
    before = walk.Held([attributes], 1)
    del attributes["a"]
    attributes["b"] = None
    assert not before.unchanged() and attributes == {"b": None}


def test_a_model_that_is_trained_and_evaluated_in_turns_is_searched_for_state_once(monkeypatch):
    searched = []
    monkeypatch.setattr(state, "Search", lambda: searched.append(None) or Search())
    model, plan = small(), Plan()
    measured(model, plan)
    first = len(searched)
    for training in (True, False, True, False):
        model.train(training)
        model[0].updates = 0
        measured(model, plan)
        model[0].updates = 1  # a number that changes, between probes
        measured(model, plan)
        assert all(module.training is training for module in model.modules())
    assert len(searched) == first + 1  # for the new attribute


class Remembering(nn.Linear):
    """From its third call on it writes down what it saw, in containers made after the first probe."""

    def forward(self, x):
        if hasattr(self, "seen"):
            self.seen.append(float(x.detach().sum()))
            self.holder.count += 1
            self.holder.last = x
            self.table["last"] = x
        return super().forward(x)


class Holder:
    count = 0


def test_containers_made_between_probes_are_as_before_them():
    model, plan = nn.Sequential(Remembering(4, 3)), Plan()
    measured(model, plan)
    model[0].seen, model[0].holder, model[0].table = [], Holder(), {}
    for _ in range(3):
        model(torch.zeros(2, 4))
        before = [*model[0].seen], model[0].holder.count, dict(model[0].table), model[0].holder.last
        measured(model, plan)
        after = [*model[0].seen], model[0].holder.count, dict(model[0].table), model[0].holder.last
        assert after == before


class Keeping(nn.Linear):
    def forward(self, x):
        self.activation = super().forward(x)
        return self.activation


def test_what_a_model_keeps_of_an_update_is_not_held_on_to_by_a_plan():
    model, plan = nn.Sequential(Keeping(4, 3)), Plan()
    for _ in range(3):
        model(torch.ones(2, 4))
        measured(model, plan)
    model(torch.ones(2, 4))
    gone = weakref.ref(model[0].activation)
    measured(model, plan)
    model(torch.ones(2, 4))
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("family", ["Bert", "Mixtral", "T5", "ModernBert"])
@pytest.mark.parametrize("plan", ["new", "kept"])
def test_a_probe_leaves_no_tensor_to_the_garbage_collector(family, plan):
    model = tiny(family)
    batch = {"input_ids": torch.cat([torch.randint(3, 60, (3, 6)), torch.ones(3, 1, dtype=torch.long)], 1)}
    blocks, kept = find_blocks(model), Plan()
    estimate_fisher(model, batch, blocks=blocks, labels="mc", diagonal=True, plan=kept)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        estimate_fisher(
            model, batch, blocks=blocks, labels="mc", diagonal=True, plan=kept if plan == "kept" else Plan()
        )
        gc.collect()
        left = [x for x in gc.garbage if isinstance(x, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == []


def test_the_collector_is_on_again_after_a_probe_and_stays_off_where_it_was():
    model, plan, on = small(), Plan(), Mock(return_value=None)
    model.register_forward_hook(lambda *_: on(gc.isenabled()))
    measured(model, plan)
    assert gc.isenabled() and {call.args for call in on.call_args_list} == {(False,)}
    gc.disable()
    try:
        measured(model, plan)
        assert not gc.isenabled()
    finally:
        gc.enable()
