"""Our loop against AdapterTrainer, and what freezing saves: seconds per update, as ratios measured in one process.

    OMP_NUM_THREADS=2 python benchmarks/training.py               a model of XLM-R-base shape (minutes on a CPU)
    OMP_NUM_THREADS=1 python benchmarks/training.py --layers 2 --width 32 --steps 6 --rounds 1       does it run?

Both train the same randomly initialised encoder with the same adapter on the same rows in batches of the same size;
rounds are interleaved and the median over all updates is compared, so that a slow moment of the machine hits both.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import torch
from adapters import AdapterTrainer, AutoAdapterModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainingArguments, XLMRobertaConfig

from fishlens.journal import load_runs
from fishlens.training.run import train
from fishlens.training.tasks import make_task

TOPICS = ("entertainment", "geography", "health", "politics", "science/technology", "sports", "travel")
WORDS = [f"w{i}" for i in range(500)]


def write_model(place: Path, layers: int, width: int) -> None:
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(WORDS) + 5, hidden_size=width, num_hidden_layers=layers, intermediate_size=4 * width,
        num_attention_heads=max(1, width // 64), max_position_embeddings=140, pad_token_id=1, type_vocab_size=1,
    )  # fmt: skip
    AutoAdapterModel.from_config(config).save_pretrained(place)
    vocabulary = {t: i for i, t in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=128, bos_token="<s>", pad_token="<pad>", eos_token="</s>",
        unk_token="<unk>", mask_token="<mask>",
    ).save_pretrained(place)  # fmt: skip


def write_data(root: Path, rows: int, tokens: int) -> None:
    """Rows of equal length, so that both loops pad alike whatever their order."""
    generator = random.Random(0)
    folder = root / "sib200" / "eng_Latn"
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("dev", 2), ("test", 2)):
        lines = ["index_id\tcategory\ttext"]
        for i in range(count):
            lines.append(f"{i}\t{TOPICS[i % 7]}\t{' '.join(generator.choices(WORDS, k=tokens - 2))}")
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def recipe_of(place: Path, name: str, schedule: dict, steps: int, batch: int) -> dict:
    return {
        "name": name,
        "model": str(place / "model"),
        "task": {"name": "topic"},
        "data": {"root": str(place), "test_source": False},
        "train": {"steps": steps, "batch_size": batch, "learning_rate": 1e-4, "lr_schedule": "constant"},
        "schedule": schedule,
        "tracking": {"every": None, "examples": 32},
        "evaluate": {"every": steps},
    }


def time_ours(recipe: dict, place: Path) -> list[float]:
    """Seconds between the ends of successive updates; everything in between counts."""
    ends: list[float] = []
    train(recipe, place, progress=False, on_step=lambda step: ends.append(time.perf_counter()))
    return [b - a for a, b in pairwise(ends[:-1])]  # the last one includes validation


class Stopwatch(TrainerCallback):
    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, *_, **__):
        self.ends.append(time.perf_counter())


def time_theirs(place: Path, steps: int, batch: int) -> list[float]:
    model = AutoAdapterModel.from_pretrained(place / "model")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(place / "model")
    task = make_task("topic")
    rows = task.encode(task.load(place, "train", "en"), tokenizer, train=True)
    model.add_adapter("topic", config="seq_bn")
    task.add_head(model, "topic")
    model.train_adapter("topic")
    watch = Stopwatch()
    arguments = TrainingArguments(
        output_dir=str(place / "theirs"), max_steps=steps, per_device_train_batch_size=batch, learning_rate=1e-4,
        lr_scheduler_type="constant", save_strategy="no", report_to=[], disable_tqdm=True, logging_steps=10,
        remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    AdapterTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=lambda features: task.collate(features, tokenizer),
        callbacks=[watch],
    ).train()
    return [b - a for a, b in pairwise(watch.ends[:-1])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("layers", 12),
        ("width", 768),
        ("steps", 40),
        ("batch", 8),
        ("tokens", 64),
        ("rounds", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_model(place / "model", options.layers, options.width)
        write_data(place, rows=options.steps * options.batch, tokens=options.tokens)
        print(json.dumps(measure(place, options), indent=1))


def measure(place: Path, options: argparse.Namespace) -> dict:
    every = max(1, options.steps // options.layers)
    schedules = {
        "standard": {"name": "standard"},
        "gu": {"name": "gu", "every": every},
        "fun": {"name": "fun", "every": every, "first": "select"},
    }
    ours: dict[str, list[float]] = {name: [] for name in schedules}
    theirs: list[float] = []
    probes = []
    for number in range(options.rounds):
        theirs += time_theirs(place, options.steps, options.batch)
        for name, schedule in schedules.items():
            run = place / f"{name}-{number}"
            recipe = recipe_of(place, name, schedule, options.steps, options.batch)
            ours[name] += time_ours(recipe, run)
            if name == "fun":
                runs = load_runs(run)
                seconds = [r["seconds"] for r in _fisher_records(run)]
                probes.append(sum(seconds) / runs.training.seconds.iloc[-1])
    per_step = {name: statistics.median(times) for name, times in ours.items()}
    mean = {name: statistics.mean(times) for name, times in ours.items()}
    return {
        "shape": {k: getattr(options, k) for k in ("layers", "width", "batch", "tokens", "steps", "rounds")},
        "threads": torch.get_num_threads(),
        "seconds per step": {"AdapterTrainer": statistics.median(theirs), **per_step},
        "steps per second, ours over AdapterTrainer's (median)": statistics.median(theirs)
        / per_step["standard"],
        "time of gu over standard, whole run, probes none": mean["gu"] / mean["standard"],
        "time of fun over standard, whole run, probes included": mean["fun"] / mean["standard"],
        "probes of fun over its training time": statistics.mean(probes),
    }


def _fisher_records(run: Path) -> list[dict]:
    from fishlens.journal import read_run

    return [record for record in read_run(run).records if record["kind"] == "fisher"]


if __name__ == "__main__":
    main()
