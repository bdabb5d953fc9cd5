"""The final test: the best step's weights on a language's test split, as scores, records and a table of predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fishlens.files import own_folder
from fishlens.recipe.recipe import Recipe
from fishlens.training.assembly import Assembly
from fishlens.training.evaluation import Evaluation, Prepared, evaluate
from fishlens.training.tasks import Split, Task, write_predictions


def score_language(
    recipe: Recipe, task: Task, assembly: Assembly, accelerator: Accelerator, split: Split
) -> Evaluation:
    """Score the model as it is on this split, through the adapters of its language."""
    rows = task.encode(split, assembly.tokenizer, max_length=recipe.train.max_length, train=False)
    return evaluate(
        assembly,
        task,
        Prepared(split, rows),
        accelerator,
        language=split.language,
        batch_size=recipe.evaluate.batch_size,
    )


def score_records(task: Task, split: Split, scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """The fields of the `eval` records of a test, one for each metric."""
    return [
        {
            "split": "test",
            "language": split.language,
            "metric": metric,
            "value": points,
            "headline": metric == task.headline,
            "examples": len(split),
            "best": True,
        }
        for metric, points in scores.items()
    ]


def save_predictions(run_dir: Path, split: Split, found: Evaluation, folder: str = "predictions") -> None:
    """`predictions/<language>.jsonl` in the run's directory."""
    place = own_folder(run_dir / folder)
    write_predictions(place / f"{split.language}.jsonl", found.predictions)
