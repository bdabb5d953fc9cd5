"""State that a forward keeps outside of tensors, wherever Python can keep it: a probe leaves it as it was, and a
training with probes ends in the same bits as one without."""

import array
import collections
import dataclasses
import functools
import itertools
import random
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from fishlens import InputError, Tracker, estimate_fisher, find_blocks
from fishlens.fisher import kept

calls = 0
table = {"losses": [], "deep": {"n": 0}}
generator = torch.Generator()
by_model = weakref.WeakKeyDictionary()
by_name = collections.UserDict(n=0)
of_thread = threading.local()
numbers, flags = array.array("d", [0.0]), bytearray(1)


def helper():
    helper.calls += 1
    return helper.calls


class Slotted:
    __slots__ = ("n",)


@dataclasses.dataclass
class Record:
    n: int = 0
    inner: dict = dataclasses.field(default_factory=lambda: {"a": [1]})


owner = Record()
"""What a model has but a weak reference to."""


class Schedule:
    def __init__(self):
        self.n = 0

    def __call__(self):
        self.n += 1
        return self.n


class Model(nn.Module):
    """A model whose output depends on how often, or with which draws, it was run."""

    seen = []  # noqa: RUF012
    count = 0

    def __init__(self, keeps):
        super().__init__()
        self.first, self.last, self.keeps = nn.Linear(4, 6), nn.Linear(6, 3), keeps
        globals().update(calls=0)
        Model.count, Model.seen[:], helper.calls = 0, [], 0
        table["losses"].clear()
        table["deep"]["n"] = 0
        Model.defaults.__defaults__[0].clear()
        generator.manual_seed(1)
        owner.n = of_thread.n = by_name["n"] = flags[0] = numbers[0] = 0
        self.owner = weakref.ref(owner)
        self.nested = {"list": [0], "dict": {"n": 0}}
        self.counter, self.lists = collections.Counter(), collections.defaultdict(list)
        self.own = torch.Generator().manual_seed(2)
        self.numbers, self.older, self.python = (
            np.random.default_rng(3),
            np.random.RandomState(3),
            random.Random(3),
        )
        self.array, self.slotted, self.record = np.zeros(2), Slotted(), Record()
        self.slotted.n = 0
        self.space, self.schedule = types.SimpleNamespace(record=Record()), Schedule()
        self.teacher = [nn.Linear(4, 4)]
        self.teacher[0].n = 0
        self.items = iter([0.1 * i for i in range(1000)])
        enclosed = 0

        def closure():
            nonlocal enclosed
            enclosed += 1
            return enclosed

        self.closure = closure
        if keeps == "forward hook":
            self.first.register_forward_hook(lambda module, given, result: result * (1 + 0.01 * closure()))

    def defaults(self, cache={}):  # noqa: B006
        cache["n"] = cache.get("n", 0) + 1
        return cache["n"]

    @functools.cached_property
    def drawn_once(self):
        return torch.rand(())

    def number(self, x):
        global calls
        keeps = self.keeps
        if keeps == "nested containers":
            self.nested["list"].append(1)
            self.nested["dict"]["n"] += 1
            return len(self.nested["list"]) + self.nested["dict"]["n"]
        if keeps == "counter and defaultdict":
            self.counter["n"] += 1
            self.lists["k"].append(1)
            return self.counter["n"] + len(self.lists["k"])
        if keeps == "class attributes":
            type(self).count += 1
            self.seen.append(1)
            return Model.count + len(Model.seen)
        if keeps == "global names":
            calls += 1
            table["losses"].append(1)
            table["deep"]["n"] += 1
            return calls + len(table["losses"]) + table["deep"]["n"]
        if keeps == "attribute of a function":
            return helper()
        if keeps == "enclosed variable":
            return self.closure()
        if keeps == "default of an argument":
            return self.defaults()
        if keeps == "generators of its own":
            draws = torch.rand((), generator=self.own) + torch.rand((), generator=generator)
            return float(draws) + self.numbers.random() + self.older.rand() + self.python.random()
        if keeps == "array":
            self.array[0] += 1
            return self.array[0]
        if keeps == "slots":
            self.slotted.n += 1
            return self.slotted.n
        if keeps == "objects in objects":
            self.record.inner["a"].append(1)
            self.space.record.n += 1
            return len(self.record.inner["a"]) + self.space.record.n
        if keeps == "object that is called":
            return self.schedule()
        if keeps == "module in a list":
            teacher = self.teacher[0]
            teacher.n += 1
            with torch.no_grad():
                teacher.weight.mul_(0.9).add_(self.first.weight[:4])
            return teacher(x).detach().mean() + teacher.n
        if keeps == "iterator":
            return next(self.items)
        if keeps == "behind a weak reference":
            self.owner().n += 1
            return self.owner().n
        if keeps == "mappings that are no dict":
            by_model[self] = by_model.get(self, 0) + 1
            by_name["n"] += 1
            return by_model[self] + by_name["n"]
        if keeps == "the thread's":
            of_thread.n += 1
            return of_thread.n
        if keeps == "bytes and numbers":
            flags[0] += 1
            numbers[0] += 1
            return flags[0] + numbers[0]
        if keeps == "drawn once":
            return self.drawn_once
        return 0

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)) * (1 + 0.05 * self.number(x)))


KINDS = (
    "nested containers", "counter and defaultdict", "class attributes", "global names", "attribute of a function",
    "enclosed variable", "default of an argument", "generators of its own", "array", "slots", "objects in objects",
    "object that is called", "module in a list", "iterator", "drawn once", "forward hook",
    "behind a weak reference", "mappings that are no dict", "the thread's", "bytes and numbers",
)  # fmt: skip


def trained(keeps, *, tracked):
    torch.manual_seed(0)
    model = Model(keeps)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe, x, y = torch.randn(3, 4), torch.randn(4, 5, 4), torch.randint(0, 3, (4, 5))
    tracker = Tracker(model, probe, blocks="module", every=1, labels="exact") if tracked else None
    for step in range(4):
        if tracker is not None:
            assert tracker.step(step) is not None
        nn.functional.cross_entropy(model(x[step]), y[step]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return [p.detach().clone() for p in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("keeps", KINDS)
def test_a_probe_is_no_step_for_what_a_forward_keeps(keeps):
    assert same(trained(keeps, tracked=True), trained(keeps, tracked=False))


def test_what_is_not_looked_for_would_be_seen(monkeypatch):
    monkeypatch.setattr(kept.Search, "look", lambda *_: None)
    others = [
        keeps for keeps in KINDS if not same(trained(keeps, tracked=True), trained(keeps, tracked=False))
    ]
    assert set(KINDS) - set(others) <= {"class attributes", "drawn once"}


@pytest.mark.parametrize("draws", ["a count", "a generator"])
def test_an_iterator_that_cannot_be_turned_back_is_refused_by_name(draws):
    model = Model("nothing")
    numbers = itertools.count() if draws == "a count" else (0.1 * n for n in range(100))
    model.number = lambda x: next(numbers)
    with pytest.raises(InputError, match=r"draws from an iterator .* \(a (itertools\.count|generator)\)"):
        estimate_fisher(model, torch.randn(3, 4), blocks=find_blocks(model, by="module"))
    assert next(numbers) > 0


# -- data that is read ------------------------------------------------------------------------------------------------


class Augmented(Dataset):
    """Rows with noise of its own, and a note of what was read."""

    def __init__(self):
        self.draw, self.read = np.random.default_rng(1), []

    def __len__(self):
        return 8

    def __getitem__(self, index):
        self.read.append(index)
        return torch.as_tensor(self.draw.random(4), dtype=torch.float32) + torch.rand(4), index % 3


class Remembering(Sampler):
    """A sampler that goes on where it stopped."""

    def __init__(self):
        self.at = 0

    def __len__(self):
        return 8

    def __iter__(self):
        for _ in range(8):
            self.at = (self.at + 3) % 8
            yield self.at


@pytest.mark.parametrize(
    "options", [{}, {"num_workers": 1, "persistent_workers": True}], ids=["here", "worker"]
)
def test_a_loader_that_is_given_as_probe_data_reads_the_same_afterwards(options):
    def epochs(*, tracked):
        torch.manual_seed(0)
        loader = DataLoader(Augmented(), batch_size=4, sampler=Remembering(), **options)
        model = nn.Sequential(nn.Linear(4, 3))
        if tracked:
            Tracker(model, loader, blocks="module", examples=4)
        return [x for _ in range(2) for x, _ in loader], loader.dataset.read, loader.sampler.at

    plain, read, at = epochs(tracked=False)
    tracked, read_then, at_then = epochs(tracked=True)
    assert same(plain, tracked) and read == read_then and at == at_then


def test_arrays_are_kept_up_to_a_bound_of_them_all(monkeypatch):
    monkeypatch.setattr(kept, "LARGEST", 100)
    held = types.SimpleNamespace(arrays=[np.zeros(10) for _ in range(5)])
    search = kept.Search()
    search.look(held, 0)
    assert len(search.places) == 1
