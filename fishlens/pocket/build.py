"""Everything that ships with the package, rebuilt from seeds: languages, tasks, encoder, language adapters.

    fishlens pocket build -o folder

leaves in the folder what `fishlens/pocket/` ships (`model/`, `adapters/<language>/`, `data/`, `family.json`), and in
`work/` the raw text and the runs it was made with. What is finished is not made again, so an interrupted build goes on.
"""

import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.files import own_folder
from fishlens.pocket.formats import write_tasks
from fishlens.pocket.languages import DISTANCE_WEIGHTS, Family, make_family
from fishlens.pocket.meanings import World
from fishlens.pocket.text import parallel_lines, raw_lines
from fishlens.pretraining.encoder import EncoderShape, Vocabulary, pretrain
from fishlens.pretraining.masked_lm import Note
from fishlens.pretraining.settings import MaskedLMSettings

PACKAGE = Path(__file__).parent
# words of the templates that tasks put around texts (COPA's questions): never in pocket text, but not unknown either
TEMPLATE_WORDS = ("What", "was", "the", "cause", "happened", "as", "a", "result", "effect")
SHAPE = EncoderShape(feed_forward=256, positions=64)


@dataclass(frozen=True)
class BuildPlan:
    """What is built. `documents` are the raw text of each language."""

    seed: int = 0
    documents: int = 24_000
    heldout: int = 300
    parallel: int = 0
    translation_share: float = 0.0
    align: bool = False
    shape: EncoderShape = SHAPE
    encoder_steps: int = 4200
    adapter_steps: int = 100
    adapter_config: str = "seq_bn_inv[reduction_factor=8]"


QUICK = BuildPlan(
    documents=200,
    heldout=40,
    encoder_steps=30,
    adapter_steps=5,
    shape=replace(SHAPE, hidden=32, feed_forward=64),
)


def build(output: str | Path, plan: BuildPlan, note: Note = print) -> None:
    """Make all of it; the same plan makes the same files (on one thread of the same processor type)."""
    output = Path(output)
    if output.exists() and not output.is_dir():
        raise InputError(f"{output} is a file; expected a folder, or a new one")
    if plan.seed < 0:
        raise InputError(f"seed is {plan.seed}; expected 0 or more")
    own_folder(output)
    family, world = make_family(plan.seed), World(plan.seed)
    write_family(output / "family.json", family, plan)
    write_tasks(output / "data", family, world, plan.seed)
    note(f"languages and tasks are in {output}")
    text = output / "work" / "text"
    write_text(text, family, world, plan)
    codes = [language.code for language in family.languages]
    words = {word: None for language in family.languages for word in language.words()}
    run = output / "work" / "encoder"
    if not (output / "model" / "model.safetensors").exists():
        made = pretrain(
            {code: text / "rawtext" / f"{code}.txt" for code in codes},
            run,
            plan.shape,
            Vocabulary("word", 100_000, (*TEMPLATE_WORDS, *sorted(words))),
            _settings(plan, plan.encoder_steps, learning_rate=2e-3, batch=64),
            heldout={code: text / "rawtext" / "heldout" / f"{code}.txt" for code in codes},
            parallel={code: text / "parallel" / f"{code}.txt" for code in codes} if plan.parallel else None,
            align=plan.align,
            translation_share=plan.translation_share,
            join=True,
            note=note,
        )
        shutil.copytree(made, output / "model", dirs_exist_ok=True)
        shutil.copy(run / "curve.jsonl", output / "model" / "curve.jsonl")
        shutil.copy(run / "training.json", output / "model" / "training.json")
    for code in codes:
        _language_adapter(output, code, text, plan, note)
    note(f"built: {output}; what ships is {_megabytes(shipped(output)):.1f} MB")


def _settings(plan: BuildPlan, steps: int, *, learning_rate: float, batch: int) -> MaskedLMSettings:
    return MaskedLMSettings(
        steps=steps,
        batch=batch,
        max_length=plan.shape.positions,
        learning_rate=learning_rate,
        warmup=min(100, steps // 10),
        mask_share=0.2,
        seed=plan.seed,
        log_every=min(50, steps),
        save_every=min(500, steps),
    )


def _language_adapter(output: Path, code: str, text: Path, plan: BuildPlan, note: Note) -> None:
    from fishlens.pretraining.language_adapter import WEIGHTS, train_language_adapter

    place = output / "adapters" / code
    if (place / WEIGHTS).exists():
        return
    run = output / "work" / "adapters" / code
    if not (run / WEIGHTS).exists():
        note(f"language adapter {code}")
        train_language_adapter(
            output / "model",
            code,
            text / "rawtext" / f"{code}.txt",
            run,
            _settings(plan, plan.adapter_steps, learning_rate=2e-3, batch=64),
            heldout=text / "rawtext" / "heldout" / f"{code}.txt",
            config=plan.adapter_config,
            join=True,
            note=note,
        )
    shutil.copytree(run, place, dirs_exist_ok=True)


def write_text(folder: Path, family: Family, world: World, plan: BuildPlan) -> None:
    """Raw text, held-out lines (drawn apart; what the training text has too is left out) and parallel text."""
    for language in family.languages:
        lines = raw_lines(world, language, plan.documents, plan.seed)
        seen = set(lines)
        held = [
            line for line in raw_lines(world, language, 3 * plan.heldout, plan.seed + 1) if line not in seen
        ]
        _write_lines(folder / "rawtext" / f"{language.code}.txt", lines)
        _write_lines(folder / "rawtext" / "heldout" / f"{language.code}.txt", held[: plan.heldout])
    if plan.parallel:
        for code, lines in parallel_lines(world, list(family.languages), plan.parallel, plan.seed).items():
            _write_lines(folder / "parallel" / f"{code}.txt", lines)


def write_family(path: Path, family: Family, plan: BuildPlan) -> None:
    """Codes, names, grammars, shares of cognates, distances, and the plan."""
    languages: list[dict[str, Any]] = [
        {
            "code": language.code,
            "name": language.name,
            "distance": round(family.distance(language.code), 4),
            "cognates": round(language.cognates, 4),
            "grammar": asdict(language.grammar),
        }
        for language in family.languages
    ]
    content = {
        "source": family.source.code,
        "distance_weights": DISTANCE_WEIGHTS,
        "languages": languages,
        "plan": asdict(plan),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def shipped(folder: Path) -> list[Path]:
    """The files of a build that the package ships."""
    parts = [folder / name for name in ("model", "adapters", "data")]
    return [folder / "family.json", *sorted(p for part in parts for p in part.rglob("*") if p.is_file())]


def _megabytes(files: Iterable[Path]) -> float:
    return sum(path.stat().st_size for path in files) / 1e6


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
