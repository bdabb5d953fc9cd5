"""`fishlens train-language-adapter` and `fishlens pretrain`: masked-LM on raw text."""

from collections.abc import Callable
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fishlens.cli.output import say
from fishlens.errors import InputError

if TYPE_CHECKING:
    from fishlens.pretraining.masked_lm import MaskedLMSettings


class Precision(str, Enum):
    fp32 = "fp32"
    bf16 = "bf16"


Steps = Annotated[int, typer.Option(min=1, help="Optimizer updates.")]
Batch = Annotated[int, typer.Option(min=1, help="Rows of text in an update.")]
MaxLength = Annotated[int, typer.Option(min=4, help="Longest row, in tokens.")]
LearningRate = Annotated[float, typer.Option(help="Peak learning rate; falls linearly to zero.")]
Warmup = Annotated[int, typer.Option(min=0, help="Steps of linear warmup.")]
MaskShare = Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of the tokens that are predicted.")]
Seed = Annotated[int, typer.Option(help="Seed of everything.")]
SaveEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints and held-out evaluations.")]
LogEvery = Annotated[int, typer.Option(min=1, help="Steps between lines of the curve.")]
ForwardPrecision = Annotated[Precision, typer.Option(help="Of the forward pass; weights stay float32.")]
Minutes = Annotated[float | None, typer.Option(help="End after so many minutes of training.")]
Join = Annotated[bool, typer.Option(help="Put consecutive lines into one row as long as they fit.")]


def train_language_adapter(
    model: Annotated[str, typer.Option(help="Folder or hub id of the base model, with its masked-LM head.")],
    language: Annotated[str, typer.Option(help="Name of the adapter: the language's code.")],
    text: Annotated[Path, typer.Option(help="Raw text, a sentence or more a line.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the adapter.")],
    heldout: Annotated[Path | None, typer.Option(help="Held-out text, for the perplexity.")] = None,
    config: Annotated[
        str, typer.Option(help="Configuration string of adapters.")
    ] = "seq_bn_inv[reduction_factor=2]",
    steps: Steps = 10_000,
    batch: Batch = 32,
    max_length: MaxLength = 128,
    learning_rate: LearningRate = 1e-4,
    warmup: Warmup = 0,
    mask_share: MaskShare = 0.15,
    seed: Seed = 0,
    log_every: LogEvery = 50,
    save_every: SaveEvery = 500,
    precision: ForwardPrecision = Precision.fp32,
    minutes: Minutes = None,
    join: Join = True,
) -> None:
    """Train a language adapter (MAD-X) on the frozen model. The same command resumes an interrupted one."""
    from fishlens.pretraining.language_adapter import train_language_adapter as train

    settings = _settings(locals())

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

    resumable(run, steps)


def pretrain(
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
    steps: Steps = 10_000,
    batch: Batch = 64,
    max_length: MaxLength = 128,
    learning_rate: LearningRate = 1e-3,
    warmup: Warmup = 100,
    mask_share: MaskShare = 0.15,
    seed: Seed = 0,
    log_every: LogEvery = 50,
    save_every: SaveEvery = 500,
    precision: ForwardPrecision = Precision.fp32,
    minutes: Minutes = None,
    join: Join = True,
) -> None:
    """Pretrain a small encoder of XLM-R's architecture from scratch, or go on with an existing one (--from). The same
    command resumes an interrupted one."""
    from fishlens.pretraining.encoder import EncoderShape, Vocabulary
    from fishlens.pretraining.encoder import pretrain as train

    settings = _settings(locals())
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
            EncoderShape(layers, hidden, heads, feed_forward, max_length, dropout)
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

    resumable(run, steps)


_SHAPE = ("tokenizer", "vocabulary", "layers", "hidden", "heads", "feed_forward", "dropout")


def _refuse_shape(context: typer.Context) -> None:
    """Raises `InputError` for an option that an existing encoder has decided already."""
    for name in _SHAPE:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise InputError(
                f"--{name.replace('_', '-')} is for a new encoder: --from keeps what that one has"
            )


def _settings(options: dict[str, Any]) -> "MaskedLMSettings":
    """The settings among a command's options, which have the same names."""
    from fishlens.pretraining.masked_lm import MaskedLMSettings

    named = {field.name: options[field.name] for field in fields(MaskedLMSettings) if field.name in options}
    return MaskedLMSettings(**{**named, "precision": options["precision"].value})


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
