"""Fine-tune a text classifier with transformers' Trainer, on local files. It knows nothing of fishlens.

    python examples/run_classification.py --model_name_or_path my-model --train_file train.tsv \
        --validation_file dev.tsv --output_dir out --do_train --do_eval --max_steps 200

    fishlens track examples/run_classification.py --model_name_or_path … (the same arguments)

The files are .csv or .tsv with a header; the columns `label`, `text` and, for sentence pairs, `text_pair` are used.
With --adapter seq_bn it trains a bottleneck adapter (library `adapters`) instead of all weights.
"""

import csv
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch.utils.data import Dataset
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    HfArgumentParser,
    Trainer,
    TrainingArguments,
    set_seed,
)

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    model_name_or_path: str = field(metadata={"help": "Folder of a pretrained model."})
    adapter: str | None = field(default=None, metadata={"help": "Train an adapter of this configuration."})


@dataclass
class DataArguments:
    train_file: str | None = field(default=None, metadata={"help": "A .csv or .tsv file with a header."})
    validation_file: str | None = field(default=None, metadata={"help": "A .csv or .tsv file with a header."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut."})


class Rows(Dataset):
    """Tokenized rows of a file."""

    def __init__(self, file, tokenizer, label_ids, max_length):
        self.encodings = [
            {
                **tokenizer(row["text"], row.get("text_pair"), truncation=True, max_length=max_length),
                "label": label_ids[row["label"]],
            }
            for row in read_rows(file)
        ]

    def __len__(self):
        return len(self.encodings)

    def __getitem__(self, index):
        return self.encodings[index]


def read_rows(file):
    delimiter = "\t" if Path(file).suffix == ".tsv" else ","
    with open(file, encoding="utf-8", newline="") as stream:  # noqa: PTH123
        return list(csv.DictReader(stream, delimiter=delimiter))


def main():
    parser = HfArgumentParser((ModelArguments, DataArguments, TrainingArguments))
    model_args, data_args, training_args = parser.parse_args_into_dataclasses()
    logging.basicConfig(
        format="%(levelname)s %(name)s %(message)s", handlers=[logging.StreamHandler(sys.stderr)]
    )
    logger.setLevel(training_args.get_process_log_level())
    set_seed(training_args.seed)

    labels = sorted({row["label"] for row in read_rows(data_args.train_file or data_args.validation_file)})
    label_ids = {label: number for number, label in enumerate(labels)}
    config = AutoConfig.from_pretrained(
        model_args.model_name_or_path,
        num_labels=len(labels),
        label2id=label_ids,
        id2label=dict(enumerate(labels)),
    )
    tokenizer = AutoTokenizer.from_pretrained(model_args.model_name_or_path)
    model = AutoModelForSequenceClassification.from_pretrained(model_args.model_name_or_path, config=config)
    trainer_class = Trainer
    if model_args.adapter is not None:
        import adapters

        adapters.init(model)
        model.add_adapter("task", config=model_args.adapter)
        model.train_adapter("task")
        trainer_class = adapters.AdapterTrainer

    def dataset(file):
        return Rows(file, tokenizer, label_ids, data_args.max_seq_length)

    def accuracy(prediction):
        return {
            "accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())
        }

    trainer = trainer_class(
        model=model,
        args=training_args,
        train_dataset=dataset(data_args.train_file) if training_args.do_train else None,
        eval_dataset=dataset(data_args.validation_file) if training_args.do_eval else None,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        processing_class=tokenizer,
    )
    if training_args.do_train:
        result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
        trainer.save_model()
        trainer.save_state()
        trainer.log_metrics("train", result.metrics)
        trainer.save_metrics("train", result.metrics)
    if training_args.do_eval:
        metrics = trainer.evaluate()
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)


if __name__ == "__main__":
    main()
