"""On a model of twelve layers, every schedule trains exactly the blocks that Algorithm 1 says, bit for bit."""

import pytest
import torch

from fishlens.journal import read_run
from fishlens.schedules.permutations import SAMPLED_12
from fishlens.tracking.thaw import BlockDidNotMove
from fishlens.training import loop
from fishlens.training.run import train

L, K = 12, 2
STEPS = K * L + 2
OPTIONS = {"fixed": {"permutation": 7}, "surgical": {"subset": [0, 5, -1]}, "fun": {"first": "select"}}


def expected_blocks(name: str, step: int, chosen_so_far: list[int]) -> set[int]:
    """Which blocks train in update `step`: by hand, for each schedule; fun and random as recorded."""
    events = min(step // K + 1, L)
    everything = set(range(L))
    if name in ("standard", "auto-rgn", "full"):
        return everything
    if name == "gu":
        return set(range(L - events, L))
    if name == "gu-reverse":
        return set(range(events))
    if name == "lpft":
        return everything if step >= K else set()
    if name == "fixed":
        return set(SAMPLED_12[7][:events])
    if name == "surgical":
        return {0, 5, 11}
    return set(chosen_so_far[:events])


@pytest.mark.parametrize(
    "name",
    [
        "standard",
        "gu",
        "gu-reverse",
        "lpft",
        "random",
        "fixed",
        "fun",
        "surgical",
        "auto-rgn",
        "full",
    ],
)
def test_exactly_the_thawed_blocks_move(name, recipe, encoder_12, watched, tmp_path):
    full = name == "full"
    train(
        {
            **recipe,
            "model": str(encoder_12),
            "adapter": None if full else "seq_bn",
            "language_adapters": None,
            "train": {
                "steps": STEPS,
                "batch_size": 4,
                "learning_rate": 1e-2,
                "weight_decay": 0.1,
                "lr_schedule": "constant",
            },
            "schedule": {"name": name, "every": K, **OPTIONS.get(name, {})},
            "evaluate": {"every": STEPS, "examples": 2, "test_examples": 2},
            "data": {**recipe["data"], "targets": []},
        },
        tmp_path / "run",
    )
    records = [r for r in read_run(tmp_path / "run").records if r["kind"] == "unfreeze"]
    chosen = [int(b.rpartition(".")[2]) for r in records for b in r["chosen"] if b.startswith("layer.")]
    assert len(watched) == STEPS
    thawed_ever = set()
    for step, seen in enumerate(watched):
        blocks = {f"layer.{i}" for i in expected_blocks(name, step, chosen)} | {"head"}
        if full:
            blocks.add("embeddings")
        assert seen["moved"] == blocks, f"update {step}"
        assert seen["gradient"] == blocks, f"update {step}"
        thawed_ever |= blocks
        assert seen["state"] == thawed_ever, f"update {step}"
    if name in ("random", "fun"):
        assert sorted(chosen) == list(range(L))
        assert [r["step"] for r in records] == [K * i for i in range(L)]


def test_fun_thaws_the_frozen_block_with_the_largest_trace(recipe, tmp_path):
    train({**recipe, "schedule": {"name": "fun", "every": 2, "first": "select"}}, tmp_path / "run")
    records = [r for r in read_run(tmp_path / "run").records if r["kind"] == "unfreeze"]
    thawed = []
    for record in records:
        frozen = {b: t for b, t in record["scores"].items() if b != "head" and b not in thawed}
        ranked = sorted(frozen, key=frozen.get, reverse=True)
        assert record["chosen"] == ranked[:1]
        assert record["runner_up"] == (ranked[1] if len(ranked) > 1 else None)
        assert record["trainable"] == [b for b in record["scores"] if b in [*thawed, ranked[0], "head"]]
        assert (record["margin"] is None) == (len(ranked) == 1)
        thawed += ranked[:1]
    assert len(thawed) == 4


def test_confident_fun_measures_more_examples_only_where_the_lead_is_small(recipe, tmp_path):
    schedule = {
        "name": "fun",
        "every": 2,
        "first": "select",
        "confident": True,
        "margin": 1e6,
        "max_examples": 32,
    }
    train({**recipe, "schedule": schedule}, tmp_path / "never-sure")
    records = [r for r in read_run(tmp_path / "never-sure").records if r["kind"] == "unfreeze"]
    assert [r["examples"] for r in records[:3]] == [32, 32, 32]
    train({**recipe, "schedule": {**schedule, "margin": 1e-6}}, tmp_path / "sure")
    records = [r for r in read_run(tmp_path / "sure").records if r["kind"] == "unfreeze"]
    assert [r["examples"] for r in records] == [16] * 4  # 8 were asked for; a probe takes whole batches


def test_auto_rgn_gives_each_block_its_share_of_the_learning_rate(recipe, tmp_path, monkeypatch):
    rates = []
    real_update = loop.update

    def update(job):
        norm = real_update(job)
        rates.append(({g["name"]: g["lr"] for g in job.optimizer.param_groups}, job.unfreezing.state))
        return norm

    monkeypatch.setattr(loop, "update", update)
    recipe["train"]["lr_schedule"] = "constant"
    train({**recipe, "schedule": {"name": "auto-rgn", "every": 3}}, tmp_path / "run")
    for by_block, state in rates:
        weights = state.learning_rate_weights
        assert max(weights.values()) == 1.0 and min(weights.values()) < 1.0
        assert by_block == {**{b: 1e-2 * w for b, w in weights.items()}, "head": 1e-2}
    assert rates[0][1].learning_rate_weights != rates[7][1].learning_rate_weights


def test_a_thawed_block_that_cannot_move_stops_the_run(recipe, tmp_path, monkeypatch):
    from fishlens.training import job

    def forgetful(blocks, settings):
        """An optimizer that never got one of the blocks: what a schedule that silently trains nothing looks like."""
        return torch.optim.AdamW(
            [
                {"params": list(b.parameters.values()), "name": b.name}
                for b in blocks
                if b.name != "layer.2"
            ],
            lr=1e-2,
        )

    monkeypatch.setattr(job, "make_optimizer", forgetful)
    with pytest.raises(BlockDidNotMove, match=r"'layer.2' was thawed but update 3 left all"):
        train(recipe, tmp_path / "run")
    end = read_run(tmp_path / "run").end
    assert end["status"] == "failed" and "layer.2" in end["error"]


def test_a_learning_rate_of_zero_moves_nothing_and_is_no_mistake(recipe, tmp_path):
    recipe["train"]["learning_rate"] = 0.0
    assert train(recipe, tmp_path / "run").status == "finished"


def test_lora_trains_as_a_block_though_its_first_gradients_are_partly_zero(recipe, tmp_path, watched):
    train({**recipe, "adapter": "lora"}, tmp_path / "run")
    assert [len(seen["moved"]) for seen in watched] == [2, 2, 3, 3, 4, 4, 5, 5]


def test_an_interval_too_long_for_the_run_is_noted_with_the_numbers(recipe, tmp_path):
    result = train({**recipe, "schedule": {"name": "gu", "every": 3}}, tmp_path / "run")
    (warning,) = result.warnings
    assert "every=3" in warning and "at step 9, but training ends after 8 steps" in warning
    notes = [r["text"] for r in read_run(tmp_path / "run").records if r["kind"] == "note"]
    assert notes == [warning]
