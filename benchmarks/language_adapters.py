"""What the language adapters do: finished runs tested again with the target's own, with none, and with the source's.

    python benchmarks/language_adapters.py runs/quickstart [more runs]

The task adapter of the best step stays as it is; only what lies under it is exchanged. Prints a row per run and
language and the means over the targets, as CSV.
"""

import sys
from pathlib import Path
from statistics import mean

from fishlens.recipe.loading import load_recipe
from fishlens.recipe.recipe import Recipe
from fishlens.training.checkpoint import list_checkpoints, read_weights
from fishlens.training.evaluation import Prepared, evaluate
from fishlens.training.model import assemble
from fishlens.training.preparation import languages_to_test, load_split, make_accelerator, prepare_task
from fishlens.training.results import read_results


def scores(run: Path, recipe: Recipe) -> dict[str, list[float]]:
    """{language: [with its own adapter, with none, with the source's]}, in points of the headline metric."""
    task = prepare_task(recipe)
    assembly = assemble(recipe, task)
    results = read_results(run)
    assembly.set_weights(read_weights(list_checkpoints(run / "checkpoints")[results.best_step]))
    accelerator = make_accelerator(recipe)
    found = {}
    for language in languages_to_test(recipe):
        split = load_split(recipe, task, "test", language)
        rows = task.encode(split, assembly.tokenizer, max_length=recipe.train.max_length, train=False)
        found[language] = [
            evaluate(
                assembly, task, Prepared(split, rows), accelerator, language=spoken, batch_size=64
            ).scores[task.headline]
            for spoken in (language, None, recipe.data.source)
        ]
    return found


def main() -> None:
    print("run,language,own,none,source's")
    for run in map(Path, sys.argv[1:]):
        recipe = load_recipe(run / "recipe.yaml")
        found = scores(run, recipe)
        for language, row in found.items():
            print(f"{run.name},{language},{','.join(f'{value:.2f}' for value in row)}")
        targets = [row for language, row in found.items() if language != recipe.data.source]
        means = ",".join(f"{mean(column):.2f}" for column in zip(*targets, strict=True))
        print(f"{run.name},mean of targets,{means}")


if __name__ == "__main__":
    main()
