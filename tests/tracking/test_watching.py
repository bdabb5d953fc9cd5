"""A loop of one's own, watched: the same bits, the numbers of what the model was fed, and how it ended."""

import argparse
import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.optim import optimizer as optimizers

from fishlens import InputError, Tracker, estimate_fisher, find_blocks, load_runs, watching

pytestmark = pytest.mark.usefixtures("cheap_collections", "versions_read_once")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.drop, self.head = nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.drop(torch.tanh(self.body(x))))


def loop(model, updates=3, batches=None, at_end=None):
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    torch.manual_seed(1)
    for number in range(updates):
        x = torch.rand(4, 4)
        if batches is not None:
            batches.append((x, {name: value.clone() for name, value in model.state_dict().items()}))
        nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
        if at_end is not None and number == updates - 1:
            raise at_end
    return [*model.state_dict().values(), torch.get_rng_state()]


def test_a_watched_loop_ends_in_the_same_bits(tmp_path):
    alone, model = loop(Net()), Net()
    before = [
        dict(hooks)
        for hooks in (optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks)
    ]
    with watching(model, every=1, examples=8, blocks="module", run=tmp_path / "run") as watched:
        ended = loop(model)
    assert all(torch.equal(one, other) for one, other in zip(alone, ended, strict=True))
    assert watched.updates == 3 and "__call__" not in vars(Net) and not model._forward_hooks
    after = [
        dict(hooks)
        for hooks in (optimizers._global_optimizer_pre_hooks, optimizers._global_optimizer_post_hooks)
    ]
    assert after == before


def test_what_is_measured_is_what_the_model_was_fed_at_the_weights_of_the_step(tmp_path):
    model, fed = Net(), []
    with watching(model, every=1, examples=8, blocks="module", run=tmp_path / "run"):
        loop(model, batches=fed)
    frame = load_runs(tmp_path / "run").fisher
    assert sorted(set(frame.step)) == [0, 1, 2, 3]
    for step, count in ((0, 1), (1, 2), (2, 2)):  # of what was fed so far, until there are eight examples
        fresh = Net()
        fresh.load_state_dict(fed[step][1])
        blocks = find_blocks(fresh, by="module")
        expected = estimate_fisher(
            fresh, iter([x for x, _ in fed[:count]]), blocks=blocks, output="classification", diagonal=True
        )
        rows = frame[frame.step == step].set_index("block")
        assert rows.trace.to_dict() == pytest.approx(expected.trace, rel=1e-6)
        assert set(rows.examples) == {4 * count}


@pytest.mark.parametrize(
    ("error", "status"), [(KeyboardInterrupt, "interrupted"), (ZeroDivisionError, "failed")]
)
def test_how_a_watched_loop_ended_is_in_the_journal(tmp_path, error, status):
    model = Net()
    with pytest.raises(error), watching(model, every=2, blocks="module", run=tmp_path / "run"):
        loop(model, at_end=error())
    (run,) = load_runs(tmp_path / "run").runs.to_dict("records")
    assert run["status"] == status and run["steps"] == 3


def test_a_loop_that_cannot_be_watched_goes_on_and_is_said_to_be_untracked(tmp_path, capsys):
    model = Net()
    with watching(model, blocks="module", run=tmp_path / "run"):
        pass
    assert "NOT TRACKED, because no optimizer has made a step" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with watching(model, blocks="module", run=tmp_path / "run"):
        loop(model)
    with pytest.raises(InputError, match="already holds a run"):
        watching(model, blocks="module", run=tmp_path / "run")


def test_another_model_s_optimizer_does_not_count(tmp_path):
    model, other = Net(), Net()
    with watching(model, every=1, blocks="module", run=tmp_path / "run") as watched:
        loop(other)
        loop(model, updates=2)
    assert watched.updates == 2
    assert sorted(set(load_runs(tmp_path / "run").fisher.step)) == [0, 1, 2]


def test_a_process_other_than_the_first_is_silent(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    tracker = Tracker(Net(), (torch.rand(4, 4),), run=tmp_path / "run", blocks="module", every=1)
    assert tracker.step(0) is None
    tracker.close()
    model = Net()
    with watching(model, every=1, blocks="module", run=tmp_path / "watched"):
        loop(model)
    assert not list(tmp_path.iterdir()) and not capsys.readouterr().err


def test_factors_may_be_a_namespace(tmp_path):
    factors = {"args": argparse.Namespace(lr=0.1, place=tmp_path, also=nn.Tanh), "task": "toy"}
    data = {"x": torch.rand(4, 4)}
    with Tracker(Net(), data, run=tmp_path / "run", blocks="module", factors=factors) as tracker:
        tracker.step(0)
    (run,) = load_runs(tmp_path / "run").runs.to_dict("records")
    assert run["task"] == "toy" and "0.1" in str(run) and str(tmp_path) in str(run)


class Words(nn.Module):
    """Sentences padded to the longest of their batch, and a switch as patched models have it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words, self.head = nn.Embedding(50, 4, padding_idx=0), nn.Linear(4, 50)

    def forward(self, input_ids, attention_mask, **switches):
        hidden = self.words(input_ids) * attention_mask[..., None]
        if switches.pop("fused_head", False):
            return {"loss": self.head(hidden).logsumexp(-1).mean(), "logits": None}
        return {"logits": self.head(hidden)[:, -1]}


def sentences_in_batches(order, last=False):
    """Ten sentences of 1 to 10 tokens in batches of three, without the last, smaller batch unless it is asked for."""
    for start in range(0, 10 if last else 9, 3):
        lengths = [i + 1 for i in order[start : start + 3]]
        ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            ids[row, -length:] = torch.arange(length) + length
        yield {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.mark.parametrize("last", [False, True])
def test_a_second_epoch_brings_only_the_examples_that_were_not_fed_in_the_first(tmp_path, last):
    model = Words()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watching(model, every=1, blocks="module", run=tmp_path / "run", output="classification") as watched:
        for epoch in range(4):
            order = torch.randperm(10, generator=torch.Generator().manual_seed(epoch)).tolist()
            for batch in sentences_in_batches(order, last):
                model(**batch)["logits"].square().mean().backward()
                optimizer.step()
    lengths = [int(n) for b in watched.tracker.probe_set.batches for n in b.inputs["attention_mask"].sum(1)]
    assert len(lengths) == len(set(lengths)) == (10 if last else 9)
    seen = load_runs(tmp_path / "run").fisher.groupby("step").examples.first()
    assert list(seen[:3]) == [3, 6, 9] and seen.iloc[-1] == len(lengths)


def test_a_switch_of_a_patched_forward_does_not_keep_a_model_from_being_measured(tmp_path):
    model = Words()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watching(model, every=1, blocks="module", run=tmp_path / "run", output="classification"):
        for batch in sentences_in_batches(range(9)):
            model(**batch, fused_head=True)["loss"].backward()
            optimizer.step()
    assert (load_runs(tmp_path / "run").fisher.trace > 0).any()


def test_a_model_that_is_called_with_a_mapping_is_watched_over_several_updates(tmp_path):
    class Taking(Net):
        def forward(self, batch):
            return super().forward(batch["x"])

    model = Taking()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watching(model, every=1, examples=12, blocks="module", run=tmp_path / "run"):
        for _ in range(4):
            model({"x": torch.rand(4, 4)}).square().mean().backward()
            optimizer.step()
    assert load_runs(tmp_path / "run").fisher.groupby("step").examples.first().tolist() == [4, 8, 12, 12, 12]


def test_a_watched_model_may_be_traced_copied_and_saved(tmp_path):
    model, x = Net().eval(), torch.rand(4, 4)
    with watching(model, every=1, blocks="module", run=tmp_path / "run"):
        assert torch.equal(torch.jit.trace(model, x)(x), model(x))
        torch.save(copy.deepcopy(model).state_dict(), tmp_path / "weights.pt")
        model.train()
        loop(model)
    assert sorted(set(load_runs(tmp_path / "run").fisher.step)) == [0, 1, 2, 3]


def test_a_model_inside_of_vmap_is_said_to_be_untracked_and_trains_on(tmp_path, capsys):
    func = torch.func

    def train(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for seed in range(3):
            x = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))

            def loss(weights, row):
                return func.functional_call(model, weights, (row[None],)).square().sum()

            weights = {name: p.detach() for name, p in model.named_parameters()}
            gradients = func.vmap(func.grad(loss), in_dims=(None, 0))(weights, x)
            for name, parameter in model.named_parameters():
                parameter.grad = gradients[name].mean(0)
            optimizer.step()
        return list(model.parameters())

    model = Net()
    model.drop.p = 0.0
    plain = train(copy.deepcopy(model))
    with watching(model, every=1, blocks="module", run=tmp_path / "run"):
        tracked = train(model)
    assert all(torch.equal(a, b) for a, b in zip(plain, tracked, strict=True))
    assert "NOT TRACKED, because the model is called inside torch.vmap" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Adam", "LBFGS"])
def test_the_first_weights_are_measured_also_where_the_optimizers_closure_feeds_the_model(tmp_path, kind):
    def train(run):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.2), nn.Tanh(), nn.Linear(6, 3))
        optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(5, 8, 4, generator=generator), torch.randint(0, 3, (5, 8), generator=generator)
        first = copy.deepcopy(model)
        with (
            watching(model, every=1, run=run, blocks="module", examples=8, output="classification")
            if run
            else contextlib.nullcontext()
        ):
            for each, labels in zip(x, y, strict=True):

                def closure(each=each, labels=labels):
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(each), labels)
                    loss.backward()
                    return loss

                optimizer.step(closure)
        return first, model, x[0]

    first, tracked, x = train(tmp_path / "run")
    _, plain, _ = train(None)
    assert all(torch.equal(a, b) for a, b in zip(tracked.parameters(), plain.parameters(), strict=True))
    table = load_runs(tmp_path / "run").fisher
    assert sorted(set(table.step)) == [0, 1, 2, 3, 4, 5]
    at_start = table[table.step == 0]
    right = estimate_fisher(first, x, blocks=find_blocks(first, by="module"), output="classification").trace
    assert dict(zip(at_start.block, at_start.trace, strict=True)) == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("kind", ["watching", "Tracker"])
def test_an_error_that_cannot_be_said_leaves_the_loop_as_it_is(tmp_path, kind):
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    batch = {"x": torch.randn(2, 4), "labels": torch.tensor([0, 1])}
    with pytest.raises(Unspeakable):
        if kind == "watching":
            followed = watching(Net(), run=tmp_path / "run", blocks="module")
        else:
            followed = Tracker(Net(), (batch["x"], batch["labels"]), run=tmp_path / "run", blocks="module")
        with followed:
            raise Unspeakable
