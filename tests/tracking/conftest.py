"""Models small enough to train in a test, and a way to train them that is somebody else's: transformers' Trainer."""

import functools
import gc
import json

import pytest
import torch
import transformers
from accelerate.state import AcceleratorState
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from fishlens.journal import writer
from fishlens.tracking.account import lines, read
from fishlens.tracking.settings import VARIABLE

try:
    import adapters
except ImportError:  # the same tests with peft's LoRA and transformers' own Trainer
    adapters = None

VOCABULARY, CLASSES, LENGTH = 60, 3, 6


@pytest.fixture(autouse=True)
def quiet_and_single_threaded(monkeypatch):
    monkeypatch.delenv(
        "ACCELERATE_MIXED_PRECISION", raising=False
    )  # TrainingArguments(bf16=True) leaves it behind
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    yield
    AcceleratorState._reset_state(True)  # accelerate keeps the first precision for the whole process


@pytest.fixture
def make_model():
    """(layers, adapter configuration) -> an adapter model with dropout, the same weights each time."""

    def make(layers=3, adapter="seq_bn", dropout=0.1):
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=layers, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=LENGTH + 2, hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )  # fmt: skip
        if adapters is None:
            return peft_model(config)
        model = adapters.BertAdapterModel(config)
        model.add_adapter("task", config=adapters.AdapterConfig.load(adapter, reduction_factor=4))
        model.add_classification_head("task", num_labels=CLASSES)
        model.train_adapter("task")
        return model

    return make


def peft_model(config):
    """A model of transformers with peft's LoRA in every layer, and its head."""
    from peft import LoraConfig, get_peft_model

    config.num_labels = CLASSES
    lora = LoraConfig(r=4, task_type="SEQ_CLS", target_modules=["query", "value"])
    return get_peft_model(BertForSequenceClassification(config), lora)


@pytest.fixture
def rows():
    """64 rows of a task that can be learnt: the label is told by the first token."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, VOCABULARY, (64, LENGTH), generator=generator)
    return [{"input_ids": row, "labels": row[0] % CLASSES} for row in tokens]


@pytest.fixture
def batches(rows):
    """The rows in batches of eight."""
    return [
        {key: torch.stack([row[key] for row in rows[i : i + 8]]) for key in rows[0]}
        for i in range(0, len(rows), 8)
    ]


@pytest.fixture
def make_trainer(tmp_path, rows):
    """(model, callbacks, arguments) -> an AdapterTrainer with dropout, accumulation and a decaying learning rate."""

    def make(model, callbacks=(), output="out", **arguments):
        defaults = {
            "max_steps": 8, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-2,
            "report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 2,
            "use_cpu": True, "seed": 5,
        }  # fmt: skip
        trainer = (Trainer if adapters is None else adapters.AdapterTrainer)(
            model=model,
            args=TrainingArguments(str(tmp_path / output), **{**defaults, **arguments}),
            train_dataset=rows,
            eval_dataset=rows[:16],
            callbacks=list(callbacks),
        )
        trainer.model_accepts_loss_kwargs = False
        return trainer

    return make


@pytest.fixture(scope="module")
def cheap_collections():
    """accelerate collects garbage after every training, and we look for wrappers among all objects: only among those of
    these tests."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def versions_read_once(monkeypatch):
    monkeypatch.setattr(writer, "installed_versions", functools.cache(writer.installed_versions))


@pytest.fixture
def under_track(tmp_path, monkeypatch):
    """This process as `fishlens track` would have made it; gives what it would say at the end."""
    account = tmp_path / "account.jsonl"
    account.touch()
    settings = {
        "run": str(tmp_path / "run"),
        "every": "2",
        "blocks": "module",
        "examples": 4,
        "process": -1,
        "account": str(account),
    }
    monkeypatch.setenv(VARIABLE, json.dumps(settings))
    return lambda: lines(read(account))
