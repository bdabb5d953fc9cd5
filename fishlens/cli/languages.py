"""`fishlens train-language-adapter` and `fishlens pretrain`: masked-LM on raw text."""

import inspect
from collections.abc import Callable
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fishlens.cli.output import say
from fishlens.errors import InputError

if TYPE_CHECKING:
    from fishlens.pretraining.settings import MaskedLMSettings


class Precision(str, Enum):
    fp32 = "fp32"
    bf16 = "bf16"


Join = Annotated[bool, typer.Option(help="Put consecutive lines into one row as long as they fit.")]

# fields of MaskedLMSettings: name → (type and help, default)
_SETTINGS: dict[str, tuple[Any, Any]] = {
    "steps": (Annotated[int, typer.Option(min=1, help="Optimizer updates.")], 10_000),
    "batch": (Annotated[int, typer.Option(min=1, help="Rows of text in an update.")], 32),
    "max_length": (Annotated[int, typer.Option(min=4, help="Longest row, in tokens.")], 128),
    "learning_rate": (
        Annotated[float, typer.Option(help="Peak learning rate; falls linearly to zero.")],
        1e-4,
    ),
    "warmup": (Annotated[int, typer.Option(min=0, help="Steps of linear warmup.")], 0),
    "mask_share": (
        Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of the tokens that are predicted.")],
        0.15,
    ),
    "seed": (Annotated[int, typer.Option(help="Seed of everything.")], 0),
    "log_every": (Annotated[int, typer.Option(min=1, help="Steps between lines of the curve.")], 50),
    "save_every": (
        Annotated[int, typer.Option(min=1, help="Steps between checkpoints and held-out evaluations.")],
        500,
    ),
    "precision": (
        Annotated[Precision, typer.Option(help="Of the forward pass; weights stay float32.")],
        Precision.fp32,
    ),
    "minutes": (Annotated[float | None, typer.Option(help="End after so many minutes of training.")], None),
}


def _with_settings(**defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of masked-LM training, some with other defaults; it gets them as `settings`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_options(**given: Any) -> None:
            from fishlens.pretraining.settings import MaskedLMSettings

            told = {name: given.pop(name) for name in _SETTINGS}
            command(settings=MaskedLMSettings(**{**told, "precision": told["precision"].value}), **given)

        own = [p for name, p in inspect.signature(command).parameters.items() if name != "settings"]
        ours = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name, default), annotation=kind
            )
            for name, (kind, default) in _SETTINGS.items()
        ]
        with_options.__signature__ = inspect.Signature([*own, *ours])  # type: ignore[attr-defined]
        with_options.__annotations__ = {p.name: p.annotation for p in (*own, *ours)}
        return with_options

    return decorate


@_with_settings()
def train_language_adapter(
    settings: "MaskedLMSettings",
    model: Annotated[str, typer.Option(help="Folder or hub id of the base model, with its masked-LM head.")],
    language: Annotated[str, typer.Option(help="Name of the adapter: the language's code.")],
    text: Annotated[Path, typer.Option(help="Raw text, a sentence or more a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the adapter.")],
    heldout: Annotated[Path | None, typer.Option(help="Held-out text, for the perplexity.")] = None,
    config: Annotated[
        str, typer.Option(help="Configuration string of adapters.")
    ] = "seq_bn_inv[reduction_factor=2]",
    join: Join = True,
) -> None:
    """Train a language adapter (MAD-X) on the frozen model. The same command resumes an interrupted one."""
    from fishlens.pretraining.language_adapter import train_language_adapter as train

    def run() -> str:
        summary = train(
            model,
            language,
            text,
            output,
            settings,
            heldout=heldout,
            config=config,
            join=join,
            note=say,
        )
        line = f"language adapter {language} is in {output}; loss {summary['loss']:.3f}"
        if summary["perplexity"]:
            before, after = summary["perplexity_without"], summary["perplexity"]
            line += f", held-out perplexity {before:.1f} without it, {after:.1f} with it"
        return line

    resumable(run, settings.steps)


@_with_settings(batch=64, learning_rate=1e-3, warmup=100)
def pretrain(
    settings: "MaskedLMSettings",
    context: typer.Context,
    text: Annotated[
        Path, typer.Option(help="Folder with one file a language: xx.txt, a sentence or more a line.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; the model is in its model/.")
    ],
    heldout: Annotated[
        Path | None, typer.Option(help="Folder with held-out files of the same names.")
    ] = None,
    parallel: Annotated[
        Path | None, typer.Option(help="Folder with line-aligned files of the same names.")
    ] = None,
    language: Annotated[list[str] | None, typer.Option(help="Only this language (repeatable).")] = None,
    pivot: Annotated[
        str | None, typer.Option(help="Language whose lines stand beside their translations.")
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Go on with this encoder (folder or hub id) and its vocabulary."),
    ] = None,
    freeze_embeddings: Annotated[bool, typer.Option(help="Leave the token embeddings as they are.")] = False,
    align: Annotated[bool, typer.Option(help="Start embeddings from an SVD over the parallel text.")] = False,
    translation_share: Annotated[
        float, typer.Option(min=0, max=0.95, help="Share of rows that are translation pairs.")
    ] = 0.0,
    smoothing: Annotated[float, typer.Option(help="Languages are drawn by (rows) ** smoothing.")] = 0.3,
    tokenizer: Annotated[str, typer.Option(help="unigram or word.")] = "unigram",
    vocabulary: Annotated[int, typer.Option(help="Tokens.")] = 16_000,
    layers: Annotated[int, typer.Option(min=1)] = 6,
    hidden: Annotated[int, typer.Option(min=4)] = 128,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    feed_forward: Annotated[int, typer.Option(min=4)] = 512,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.0,
    join: Join = True,
) -> None:
    """Pretrain a small encoder of XLM-R's architecture from scratch, or go on with an existing one (--from). The same
    command resumes an interrupted one."""
    from fishlens.pretraining.encoder import EncoderShape, Vocabulary
    from fishlens.pretraining.encoder import pretrain as train

    if from_ is not None:
        _refuse_shape(context)
    texts = _files(text, language)
    beside = _files(parallel, language) if parallel else None
    if beside and pivot:
        if pivot not in beside:
            raise InputError(
                f"pivot language {pivot} has no file in {parallel}: there are {', '.join(beside)}"
            )
        beside = {pivot: beside[pivot], **beside}

    def run() -> str:
        folder = train(
            texts,
            output,
            EncoderShape(layers, hidden, heads, feed_forward, settings.max_length, dropout)
            if from_ is None
            else from_,
            Vocabulary(tokenizer, vocabulary) if from_ is None else None,
            settings,
            heldout=_files(heldout, list(texts)) if heldout else None,
            parallel=beside,
            align=align,
            translation_share=translation_share,
            smoothing=smoothing,
            join=join,
            freeze_embeddings=freeze_embeddings,
            note=say,
        )
        return f"encoder of {len(texts)} languages is in {folder}"

    resumable(run, settings.steps)


_SHAPE = ("tokenizer", "vocabulary", "layers", "hidden", "heads", "feed_forward", "dropout")


def _refuse_shape(context: typer.Context) -> None:
    """Raises `InputError` for an option that an existing encoder has decided already."""
    for name in _SHAPE:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"--{name.replace('_', '-')} is for a new encoder: --from keeps what that one has"
            )


def resumable(run: Callable[[], str], steps: int) -> None:
    """Run, print the closing line; an interruption is one line and exit status 130."""
    from fishlens.pretraining.masked_lm import Interrupted

    try:
        say(run())
    except Interrupted as stop:
        say(f"interrupted after step {stop.step} of {steps}; the same command goes on from there", err=True)
        raise typer.Exit(130) from None


def _files(folder: Path, languages: list[str] | None) -> dict[str, Path]:
    """language → file of a folder of xx.txt."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one with a file xx.txt for each language")
    there = {path.stem: path for path in sorted(folder.glob("*.txt"))}
    if not there:
        raise InputError(f"{folder} has no file xx.txt in it")
    missing = [code for code in languages or [] if code not in there]
    if missing:
        raise InputError(f"{folder} has no file for {', '.join(missing)}: there are {', '.join(there)}")
    return {code: there[code] for code in languages} if languages else there
