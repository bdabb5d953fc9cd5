"""How rows are run through a model to be scored: small batches of like length on a CPU, the order as it was."""

from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator

from fishlens.training.evaluation import CPU_ROWS, _rows


class Sums(torch.nn.Module):
    """Notes the shape of every batch."""

    def __init__(self):
        super().__init__()
        self.shapes: list[tuple[int, int]] = []

    def forward(self, input_ids):
        self.shapes.append(tuple(input_ids.shape))
        return input_ids.sum(1)


def collate(features, tokenizer):
    longest = max(len(one["input_ids"]) for one in features)
    return {
        "input_ids": torch.tensor(
            [one["input_ids"] + [0] * (longest - len(one["input_ids"])) for one in features]
        )
    }


def test_a_cpu_scores_a_few_rows_of_like_length_at_a_time_whatever_the_batch_size():
    lengths = np.random.default_rng(0).permutation(np.arange(1, 2 * CPU_ROWS + 6))
    features = [{"input_ids": [int(n)] * int(n)} for n in lengths]
    task = SimpleNamespace(collate=collate, rows=lambda outputs, batch: list(outputs.numpy()))
    for size, batches in ((256, 3), (CPU_ROWS // 2, 5)):
        model = Sums()
        rows = _rows(
            SimpleNamespace(model=model, tokenizer=None), task, features, Accelerator(cpu=True), size
        )
        assert rows == [n * n for n in lengths]
        assert len(model.shapes) == batches and max(count for count, _ in model.shapes) == min(size, CPU_ROWS)
        assert sum(count * length for count, length in model.shapes) < 0.8 * len(features) * max(lengths)
