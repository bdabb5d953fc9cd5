"""A callback measures inside somebody else's Trainer, and the Trainer never notices."""

import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from fishlens import (
    FisherCallback,
    InputError,
    Tracker,
    UnfreezeCallback,
    estimate_fisher,
    find_blocks,
    load_runs,
)
from fishlens.schedules import RELATIVE_GRADIENT, TRACE, Event, Schedule


class StateAtTheEnd(TrainerCallback):
    """Everything that training has left: weights, optimizer, random states."""

    def on_train_end(self, args, state, control, model=None, optimizer=None, **_):
        self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        self.optimizer = optimizer.state_dict()
        self.random = (random.getstate(), np.random.get_state(), torch.get_rng_state())  # noqa: NPY002


def assert_same_bits(one: StateAtTheEnd, other: StateAtTheEnd):
    assert one.weights.keys() == other.weights.keys()
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name]), name
    mine, theirs = one.optimizer["state"], other.optimizer["state"]
    assert mine.keys() == theirs.keys() and len(mine) > 0
    for index, entries in mine.items():
        for quantity, value in entries.items():
            assert torch.equal(value, theirs[index][quantity]), (index, quantity)
    assert one.random[0] == other.random[0] and torch.equal(one.random[2], other.random[2])
    assert all(np.array_equal(a, b) for a, b in zip(one.random[1], other.random[1], strict=True))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dataloader_num_workers": 2},
        {"gradient_checkpointing": True},
        {"bf16": True},
        {"eval_strategy": "steps", "eval_steps": 4, "load_best_model_at_end": True, "save_strategy": "best",
         "metric_for_best_model": "loss"},
    ],
    ids=lambda arguments: next(iter(arguments), "plain"),
)  # fmt: skip
def test_tracked_and_untracked_training_end_in_the_same_bits(tmp_path, make_model, make_trainer, arguments):
    ends = []
    for tracked in (False, True):
        end = StateAtTheEnd()
        callbacks = [end]
        if tracked:
            callbacks.append(
                FisherCallback(every=2, run=tmp_path / "run", examples=16, noise_scale=True, diagonals=[2])
            )
        make_trainer(make_model(), callbacks, output=f"out-{tracked}", **arguments).train()
        ends.append(end)
    assert_same_bits(*ends)
    fisher = load_runs(tmp_path / "run").fisher
    assert sorted(set(fisher.step)) == [0, 2, 4, 6, 8] and set(fisher.block) == {
        "layer.0", "layer.1", "layer.2", "head",
    }  # fmt: skip


def test_the_journal_of_a_trainer_has_losses_scores_and_the_end(tmp_path, make_model, make_trainer):
    trainer = make_trainer(
        make_model(), [FisherCallback(every=4, run=tmp_path / "run", factors={"task": "toy"})],
        eval_strategy="steps", eval_steps=4, metric_for_best_model="loss",
    )  # fmt: skip
    trainer.train()
    trainer.evaluate()  # as scripts do, after training
    runs = load_runs(tmp_path / "run")
    (run,) = runs.runs.to_dict("records")
    assert run["status"] == "finished" and run["steps"] == 8 and run["task"] == "toy" and run["seed"] == 5
    assert run["estimator_labels"] == "exact" and run["estimator_examples"] == 128
    # fewer are fed in the first updates; after an epoch of 64 rows there are no others
    probed = runs.fisher.drop_duplicates("step")
    assert probed.step.tolist() == [0, 4, 8] and probed.examples.tolist() == [8, 32, 64]
    assert runs.training.step.tolist() == [2, 4, 6, 8] and runs.training.loss.notna().all()
    assert (runs.training.learning_rate > 0).all() and (runs.training.gradient_norm > 0).all()
    losses = runs.evaluation[runs.evaluation.metric == "loss"]
    assert losses.step.tolist() == [4, 8, 8] and losses.headline.all() and set(losses.split) == {"validation"}
    assert not set(runs.evaluation.metric) & {"runtime", "samples_per_second", "epoch"}


def test_measured_values_are_those_of_the_weights_of_that_step(tmp_path, make_model, make_trainer, batches):
    """The trace at step 4 is what a fresh estimate on the weights after four updates gives."""
    seen = {}

    class Keep(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            seen[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}

    fisher = FisherCallback(every=4, run=tmp_path / "run", data=batches[:2])
    make_trainer(make_model(), [fisher, Keep()]).train()
    model = make_model()
    model.load_state_dict(seen[4])
    expected = Tracker(model, batches[:2]).step(0)
    frame = load_runs(tmp_path / "run").fisher
    at_four = frame[frame.step == 4].set_index("block")
    for block, trace in expected.trace.items():
        assert at_four.trace[block] == trace and at_four.stderr[block] == expected.stderr[block]


def test_the_same_examples_are_probed_at_every_step_and_in_every_run(
    tmp_path, make_model, make_trainer, rows
):
    drawn = []
    for name in ("a", "b"):
        callback = FisherCallback(every=4, run=tmp_path / name, examples=16, seed=3)
        make_trainer(make_model(), [callback], output=name).train()
        drawn.append(torch.cat([batch.inputs["input_ids"] for batch in callback.tracker.probe_set.batches]))
    assert torch.equal(*drawn) and len(drawn[0]) == 16
    known = [row["input_ids"].tolist() for row in rows]
    assert len({tuple(row) for row in drawn[0].tolist()}) == 16
    assert all(
        row in known for row in drawn[0].tolist()
    )  # rows of the training set, as the model was fed them


def test_resumed_training_is_tracked_on_in_the_same_run(tmp_path, make_model, make_trainer):
    arguments = {"save_strategy": "steps", "save_steps": 3}
    make_trainer(make_model(), [FisherCallback(every=2, run=tmp_path / "straight")], **arguments).train()

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(
            make_model(), [FisherCallback(every=2, run=tmp_path / "run"), Stop()], output="cut", **arguments
        ).train()
    # the name of the run is found beside the checkpoint
    callback = FisherCallback(every=2)
    make_trainer(make_model(), [callback], output="cut", **arguments).train(resume_from_checkpoint=True)
    straight, resumed = load_runs(tmp_path / "straight"), load_runs(tmp_path / "run")
    assert resumed.runs.attempts[0] == 2 and resumed.runs.status[0] == "finished"
    columns = ["step", "block", "trace", "stderr", "trainable", "effective_dimension", "weight_norm"]
    assert resumed.fisher[columns].equals(straight.fisher[columns])
    # the Trainer's own mean loss restarts with the attempt, so that the first one after the checkpoint differs
    assert resumed.training.step.tolist() == straight.training.step.tolist()
    assert resumed.training.loss.tolist()[2:] == straight.training.loss.tolist()[2:]


def test_two_trainings_of_one_output_directory_are_two_runs(tmp_path, monkeypatch, make_model, make_trainer):
    monkeypatch.chdir(tmp_path)
    trainer = make_trainer(make_model(), [FisherCallback(every=4)], output="mine")
    trainer.train()
    trainer.train()
    assert load_runs("runs").runs.run.tolist() == ["mine", "mine-2"]
    assert set(load_runs("runs").runs.status) == {"finished"}


def test_a_callback_of_an_interrupted_training_measures_the_model_of_the_next_one(
    tmp_path, monkeypatch, make_model, make_trainer
):
    """A notebook whose cells are run again."""

    class Stop(TrainerCallback):
        def on_step_end(self, *_, **__):
            raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    mine = FisherCallback(every=4)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(make_model(), [mine, Stop()], output="first").train()
    model = make_model(layers=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    make_trainer(model, [mine], output="second").train()
    table = load_runs(tmp_path / "runs" / "second").fisher
    assert set(table.block) == {"layer.0", "layer.1", "head"}
    alone = make_model(layers=2)
    alone.load_state_dict(before)
    make_trainer(alone, [FisherCallback(every=4)], output="third").train()
    expected = load_runs(tmp_path / "runs" / "third").fisher
    assert table.trace.tolist() == expected.trace.tolist()


def test_what_cannot_be_right_is_said_before_training(tmp_path, make_model, make_trainer):
    with pytest.raises(InputError, match="zebra"):
        FisherCallback(zebra=1)
    with pytest.raises(InputError, match="every is '2x'"):
        FisherCallback(every="2x")
    FisherCallback(run=tmp_path / "run")
    make_trainer(make_model(), [FisherCallback(run=tmp_path / "run", examples=8)]).train()
    with pytest.raises(InputError, match="already holds a run"):
        make_trainer(make_model(), [FisherCallback(run=tmp_path / "run", examples=8)]).train()
    with pytest.raises(InputError, match="labels='zebra'"):
        make_trainer(make_model(), [FisherCallback(run=tmp_path / "new", labels="zebra")]).train()
    with pytest.raises(InputError, match="no-such"):
        make_trainer(make_model(), [FisherCallback(run=tmp_path / "new", blocks="no-such*")]).train()
    assert not (tmp_path / "new").exists()


# -- unfreezing ----------------------------------------------------------------------------------------------------


class Watch(TrainerCallback):
    """What requires a gradient, has one, and has moved, at every update."""

    def __init__(self):
        self.trainable, self.moved, self.before = {}, {}, {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        self.trainable[state.global_step] = {
            layer_of(n) for n, p in model.named_parameters() if p.requires_grad
        }
        assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
        self.before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def on_optimizer_step(self, args, state, control, model=None, **_):
        moved = {layer_of(n) for n, p in model.named_parameters() if not torch.equal(p, self.before[n])}
        self.moved[state.global_step] = moved


def layer_of(name):
    words = name.split(".")
    return f"layer.{words[words.index('layer') + 1]}" if "layer" in words else "head"


class RatesInATrainer(Schedule):
    name = "own-rates"
    sets_learning_rates = True

    def choose(self, step, state, scores):
        return Event(step, ())


class ByGradient(RatesInATrainer):
    name = "by-gradient"
    sets_learning_rates = False
    scores_by = RELATIVE_GRADIENT


class Hungry(RatesInATrainer):
    """Asks for more examples than a probe has."""

    name = "hungry"
    sets_learning_rates = False
    scores_by = TRACE
    most_examples = 48
    seen = []  # noqa: RUF012

    def needs_scores(self, step, state):
        return step == 6

    def wants_more(self, step, state, scores):
        return scores.examples < self.most_examples

    def choose(self, step, state, scores):
        if scores is not None:
            self.seen.append(scores.examples)
        return Event(step, tuple(self.frozen(state)))


@pytest.fixture
def mine(monkeypatch):
    """A module of a user's own with these schedules."""
    classes = {cls.__name__: cls for cls in (RatesInATrainer, ByGradient, Hungry)}
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(**classes))


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("auto-rgn", "sets learning rates, which belong to the Trainer"),
        ("mine:RatesInATrainer", "sets learning rates, which belong to the Trainer"),
        ("mine:ByGradient", "relative gradient norms, which are not measured inside a Trainer"),
    ],
)
def test_what_a_schedule_declares_decides_whether_a_trainer_can_run_it(schedule, why, mine):
    with pytest.raises(InputError, match=why):
        UnfreezeCallback(schedule, every=2)


def test_a_schedule_of_ones_own_gets_the_examples_that_it_declares(mine, make_model, make_trainer):
    """48 were fed when it looks at step 6; a probe takes 32 unless a schedule declares that it may ask for more."""
    Hungry.seen.clear()
    make_trainer(make_model(), [UnfreezeCallback("mine:Hungry", every=6)]).train()
    assert Hungry.seen == [48]


def test_gradual_unfreezing_thaws_top_down_and_only_what_is_thawed_moves(tmp_path, make_model, make_trainer):
    watch = Watch()
    callbacks = [
        FisherCallback(every=3, run=tmp_path / "run", examples=8),
        UnfreezeCallback("gu", every=2),
        watch,
    ]
    make_trainer(make_model(), callbacks, weight_decay=0.1).train()
    expected = {step: {"head", *(f"layer.{i}" for i in range(3) if i >= 2 - step // 2)} for step in range(8)}
    assert watch.trainable == expected and watch.moved == expected
    runs = load_runs(tmp_path / "run")
    assert list(zip(runs.unfreezing.step, runs.unfreezing.block, strict=True)) == [
        (0, "layer.2"), (2, "layer.1"), (4, "layer.0"),
    ]  # fmt: skip
    frozen = runs.fisher[(runs.fisher.step == 3) & ~runs.fisher.trainable]
    assert set(frozen.block) == {"layer.0"} and (frozen.trace > 0).all()  # frozen is not zero
    assert runs.runs.schedule[0] == "gu"


def test_fun_thaws_the_frozen_block_with_the_largest_trace(tmp_path, make_model, make_trainer):
    callbacks = [FisherCallback(every=2, run=tmp_path / "run", examples=16), UnfreezeCallback("fun", every=2)]
    make_trainer(make_model(layers=4), callbacks).train()
    runs = load_runs(tmp_path / "run")
    assert runs.unfreezing.block[0] == "layer.3" and len(runs.unfreezing) == 4
    thawed = {"layer.3", "head"}
    for row in runs.unfreezing.iloc[1:].itertuples():
        probe = runs.fisher[(runs.fisher.step == row.step) & (runs.fisher.purpose == "track")]
        frozen = probe[~probe.block.isin(thawed)]
        assert row.block == frozen.block[frozen.trace.idxmax()] and row.score == frozen.trace.max()
        thawed.add(row.block)
    # the weights of one step are measured once: the choice was made by the probe that was there
    assert not runs.fisher.duplicated(["step", "block"]).any()


def test_unfreezing_alone_measures_only_when_it_must(tmp_path, monkeypatch, make_model, make_trainer):
    monkeypatch.chdir(tmp_path)
    make_trainer(make_model(), [UnfreezeCallback("fun", every=3)]).train()
    runs = load_runs("runs")
    assert sorted(set(runs.fisher.step)) == [3, 6] and set(runs.fisher.purpose) == {"select"}
    assert len(runs.unfreezing) == 3 and runs.runs.status[0] == "finished" and len(runs.training) == 4


def test_a_warm_up_from_zero_is_no_reason_to_say_that_a_block_does_not_move(
    tmp_path, make_model, make_trainer
):
    callbacks = [FisherCallback(every=4, run=tmp_path / "run", examples=8), UnfreezeCallback("gu", every=2)]
    make_trainer(make_model(), callbacks, warmup_steps=3).train()


def test_a_block_that_is_frozen_behind_our_back_is_noticed(tmp_path, make_model, make_trainer):
    class Spoil(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            for name, parameter in model.named_parameters():
                if layer_of(name) == "layer.1":
                    parameter.requires_grad_(False)

    callbacks = [FisherCallback(run=tmp_path / "run", examples=8), UnfreezeCallback("gu", every=2), Spoil()]
    with pytest.raises(RuntimeError, match=r"block 'layer.1' was thawed but update 3"):
        make_trainer(make_model(), callbacks).train()


def test_a_block_that_the_optimizer_never_got_is_refused_before_training(tmp_path, make_model, make_trainer):
    model = make_model()
    for name, parameter in model.named_parameters():
        if layer_of(name) == "layer.0":
            parameter.requires_grad_(False)
    callbacks = [FisherCallback(run=tmp_path / "run", examples=8), UnfreezeCallback("gu", every=2)]
    with pytest.raises(
        InputError, match=r"block 'layer.0' has \d+ parameters that the optimizer does not hold"
    ):
        make_trainer(model, callbacks).train()


def test_two_schedules_for_one_model_are_refused_and_a_later_trainer_may_have_another(
    tmp_path, make_model, make_trainer
):
    model = make_model()
    with pytest.raises(
        InputError, match="two callbacks unfreeze one model, by 'fun' and by 'gu'; expected one"
    ):
        make_trainer(model, [UnfreezeCallback("fun", every=2), UnfreezeCallback("gu", every=2)])
    first = make_trainer(
        model, [FisherCallback(run=tmp_path / "a", examples=8), UnfreezeCallback("gu", every=2)]
    )
    first.train()
    again = [FisherCallback(run=tmp_path / "b", examples=8), UnfreezeCallback("fun", every=2)]
    for block in find_blocks(model):
        for parameter in block.parameters.values():
            parameter.requires_grad_(True)
    make_trainer(model, again).train()
    added = make_trainer(model, [UnfreezeCallback("gu", every=2)])
    added.add_callback(UnfreezeCallback("lpft", every=2))
    with pytest.raises(InputError, match="by 'gu' and by 'lpft'"):
        added.train()


@pytest.mark.parametrize("schedule", ["fun", "random"])
def test_resumed_unfreezing_ends_in_the_same_bits(tmp_path, make_model, make_trainer, schedule):
    arguments = {"save_strategy": "steps", "save_steps": 3}

    def callbacks(run):
        return [FisherCallback(every=4, run=tmp_path / run, examples=16), UnfreezeCallback(schedule, every=2)]

    ends = [StateAtTheEnd(), StateAtTheEnd()]
    make_trainer(make_model(), [*callbacks("straight"), ends[0]], output="straight", **arguments).train()

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(make_model(), [*callbacks("run"), Stop()], output="cut", **arguments).train()
    trainer = make_trainer(make_model(), [*callbacks("run"), ends[1]], output="cut", **arguments)
    trainer.train(resume_from_checkpoint=True)
    assert_same_bits(*ends)
    straight, resumed = load_runs(tmp_path / "straight"), load_runs(tmp_path / "run")
    columns = ["step", "event", "block", "score", "margin"]
    assert resumed.unfreezing[columns].equals(straight.unfreezing[columns])


def test_unfreezing_alone_goes_on_in_its_run_when_training_is_resumed(
    tmp_path, monkeypatch, make_model, make_trainer
):
    monkeypatch.chdir(tmp_path)
    arguments = {"save_strategy": "steps", "save_steps": 4}

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **_):
            if state.global_step == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_trainer(make_model(), [UnfreezeCallback("gu", every=3), Stop()], **arguments).train()
    make_trainer(make_model(), [UnfreezeCallback("gu", every=3)], **arguments).train(
        resume_from_checkpoint=True
    )
    runs = load_runs("runs")
    assert len(runs.runs) == 1 and runs.runs.attempts[0] == 2
    assert runs.unfreezing.step.tolist() == [0, 3, 6]


def test_a_checkpoint_without_schedule_state_cannot_be_resumed(tmp_path, make_model, make_trainer):
    make_trainer(make_model(), save_strategy="steps", save_steps=4).train()
    callbacks = [FisherCallback(run=tmp_path / "run", examples=8), UnfreezeCallback("gu", every=2)]
    trainer = make_trainer(make_model(), callbacks, max_steps=10)
    with pytest.raises(InputError, match=r"step 8, but its checkpoint has no fishlens-unfreezing.json"):
        trainer.train(resume_from_checkpoint=True)


def plain_bert():
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForSequenceClassification(BertConfig(vocab_size=60, num_labels=3, **shape))


def test_without_adapters_the_embeddings_are_the_lowest_block_and_frozen_until_their_turn(
    tmp_path, rows, make_trainer
):
    model = plain_bert()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    arguments = TrainingArguments(
        str(tmp_path / "out"), max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
    )
    Trainer(model, arguments, train_dataset=rows, callbacks=[UnfreezeCallback("gu", every=50)]).train()
    moved = {
        name.rpartition(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])
    }
    assert moved and all(
        name.startswith(("bert.encoder.layer.1.", "bert.pooler", "classifier")) for name in moved
    )


def test_unfreezing_does_not_start_while_something_trains_that_is_in_no_block(make_model, make_trainer):
    model = make_model()
    model.bert.encoder.layer[0].output.dense.weight.requires_grad_(True)
    with pytest.raises(
        InputError, match=r"some parameters train and lie in no block \(1, .*bert.encoder.layer.0"
    ):
        make_trainer(model, [UnfreezeCallback("gu", every=2)]).train()


def test_languages_are_measured_beside_what_the_model_is_fed(tmp_path, make_model, make_trainer, batches):
    """Unlabelled examples that the user gives: the same bits as without them, and the numbers of those weights."""
    unlabelled = [{name: value for name, value in batch.items() if name != "labels"} for batch in batches[:2]]
    seen, ends = {}, []

    class Keep(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            seen[state.global_step] = {name: value.clone() for name, value in model.state_dict().items()}

    for languages in (None, {"de": unlabelled, "sw": unlabelled[1]}):
        end = StateAtTheEnd()
        fisher = FisherCallback(every=4, run=tmp_path / f"run-{languages is None}", languages=languages)
        make_trainer(make_model(), [fisher, Keep(), end], output=f"out-{languages is None}").train()
        ends.append(end)
    assert_same_bits(*ends)
    runs = load_runs(tmp_path / "run-False")
    assert runs.runs["targets"].tolist() == ["de,sw"]
    model = make_model()
    model.load_state_dict(seen[4])
    expected = estimate_fisher(model, unlabelled, output="classification", diagonal=True).trace
    german = runs.fisher_series.query("language == 'de' and step == 4").set_index("block")["trace"]
    assert german.to_dict() == pytest.approx(expected, rel=1e-6)
    assert runs.fisher.step.unique().tolist() == [0, 4, 8]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"languages": ["de"]}, "languages is list; expected {language: batches}"),
        ({"languages": "batch"}, "languages is a batch with"),
        ({"languages": {"de": []}}, "language 'de': "),
        (
            {"languages": {"de": "batches"}, "data": {"en": "batches"}},
            "data is by language .* expected one of them",
        ),
    ],
)
def test_languages_that_cannot_be_measured_are_refused_before_training(
    tmp_path, make_model, make_trainer, batches, given, said
):
    options = {
        name: batches[0] if value == "batch" else value if not isinstance(value, dict)
        else {language: batches[:1] if data == "batches" else data for language, data in value.items()}
        for name, value in given.items()
    }  # fmt: skip
    with pytest.raises(InputError, match=said):
        make_trainer(make_model(), [FisherCallback(run=tmp_path / "run", **options)]).train()
    assert not (tmp_path / "run").exists()


def test_a_schedule_by_the_targets_needs_their_examples(tmp_path, make_model, make_trainer, batches):
    by_targets = {"scores": "targets", "until": "plateau", "tolerance": 0.99, "patience": 1}
    with pytest.raises(InputError, match=r"no language is measured: give FisherCallback\(languages="):
        make_trainer(make_model(), [UnfreezeCallback("gu", every=2, **by_targets)]).train()
    fisher = FisherCallback(every=4, run=tmp_path / "run", languages={"de": batches[:2]})
    make_trainer(make_model(), [fisher, UnfreezeCallback("gu", every=2, **by_targets)], output="with").train()
    events = load_runs(tmp_path / "run").unfreezing
    assert events.groupby("step").size().to_dict() == {0: 1, 2: 2}
