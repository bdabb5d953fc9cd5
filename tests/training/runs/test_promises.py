"""Measuring never changes training, and how a batch is split does not matter."""

import pytest
import torch
from safetensors.torch import load_file

from fishlens.errors import InputError
from fishlens.journal import read_run
from fishlens.training.checkpoint import list_checkpoints
from fishlens.training.run import train


def last_weights(place) -> dict[str, torch.Tensor]:
    there = list_checkpoints(place / "checkpoints")
    return load_file(there[max(there)] / "weights.safetensors")


def same_bits(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_with_tracking_on_or_off_the_weights_are_the_same_bits(recipe, tmp_path):
    train(recipe, tmp_path / "off")
    train({**recipe, "tracking": {"every": 1, "examples": 24, "labels": "mc"}}, tmp_path / "on")
    assert len([r for r in read_run(tmp_path / "on").records if r["kind"] == "fisher"]) == 9
    assert same_bits(last_weights(tmp_path / "off"), last_weights(tmp_path / "on"))


def test_fun_trains_as_the_same_order_given_beforehand_would(recipe, tmp_path):
    train({**recipe, "schedule": {"name": "fun", "every": 2, "first": "select"}}, tmp_path / "fun")
    order = [
        block
        for r in read_run(tmp_path / "fun").records
        if r["kind"] == "unfreeze"
        for block in r["chosen"]
    ]
    train({**recipe, "schedule": {"name": "fixed", "every": 2, "order": order}}, tmp_path / "fixed")
    assert same_bits(last_weights(tmp_path / "fun"), last_weights(tmp_path / "fixed"))


@pytest.fixture
def tagging(recipe, tmp_path, encoder_without_dropout):
    """Sentences of one to six words: parts of a batch have different numbers of scored tokens."""
    folder = tmp_path / "data" / "ud"
    folder.mkdir(parents=True)
    tags = ["NOUN", "VERB", "ADJ"]
    for split in ("train", "dev", "test"):
        lines = []
        for sentence in range(18):
            for word in range(1 + sentence % 6):
                tag = tags[(sentence + word) % 3]
                lines.append(f"{word + 1}\t{tag[:2].lower()}{word}\t_\t{tag}\t_\t_\t_\t_\t_\t_")
            lines.append("")
        text = "\n".join(lines) + "\n"
        (folder / f"en_ewt-ud-{split}.conllu").write_text(text, encoding="utf-8")
    return {
        **recipe,
        "model": str(encoder_without_dropout),
        "language_adapters": None,
        "task": {"name": "pos"},
        "data": {"root": str(tmp_path / "data"), "targets": []},
    }


@pytest.mark.parametrize("task", ["topic", "pos"])
def test_accumulation_changes_nothing_but_rounding(task, recipe, tagging, encoder_without_dropout, tmp_path):
    settings = tagging if task == "pos" else {**recipe, "model": str(encoder_without_dropout)}
    settings["train"] = {"steps": 8, "batch_size": 7, "learning_rate": 1e-3, "log_every": 1}
    losses = []
    for accumulate in (1, 3):
        settings["train"]["accumulate"] = accumulate
        train(settings, tmp_path / str(accumulate))
        records = read_run(tmp_path / str(accumulate)).records
        losses.append([r["loss"] for r in records if r["kind"] == "train"])
    one, other = last_weights(tmp_path / "1"), last_weights(tmp_path / "3")
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-3, atol=1e-5, msg=name)


def test_bf16_is_of_the_forward_pass_alone(recipe, tmp_path):
    recipe["train"]["precision"] = "bf16"
    assert train(recipe, tmp_path / "bf16").status == "finished"
    assert {w.dtype for w in last_weights(tmp_path / "bf16").values()} == {torch.float32}
    recipe["train"]["precision"] = "fp32"
    train(recipe, tmp_path / "fp32")  # the precision of one run is not that of the next in the same process
    assert not same_bits(last_weights(tmp_path / "bf16"), last_weights(tmp_path / "fp32"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU can do fp16")
def test_fp16_without_a_gpu_is_refused(recipe, tmp_path):
    recipe["train"]["precision"] = "fp16"
    with pytest.raises(InputError, match=r"train.precision is 'fp16', which needs a GPU: use bf16 or fp32"):
        train(recipe, tmp_path / "run")


def test_a_diverged_run_fails_instead_of_being_scored(recipe, tmp_path):
    """Weights that are no numbers predict the first class everywhere, which is a score like any other."""
    settings = {**recipe["train"], "learning_rate": 1e30, "max_gradient_norm": None, "log_every": 1}
    changed = {**recipe, "train": settings, "schedule": {"name": "standard"}, "tracking": {"every": None}}
    with pytest.raises(InputError, match=r"the training loss is nan at step \d+; .* lower train.learning_rate"):
        train(changed, tmp_path / "run")
    assert read_run(tmp_path / "run").end["status"] == "failed" and not (tmp_path / "run" / "results.json").exists()
