"""A small multilingual encoder from scratch: tokenizer, embeddings that may start aligned, masked LM.

The result is a standard Hugging Face folder with XLM-R's architecture.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fishlens.errors import InputError
from fishlens.files import write_file, writing_folder
from fishlens.pretraining.masked_lm import CURVE, Note, refuse_files_of_others, train_masked_lm
from fishlens.pretraining.raw_text import (
    Batches,
    Rows,
    encode_lines,
    encode_pairs,
    language_weights,
    read_lines,
    read_parallel,
)
from fishlens.pretraining.settings import MaskedLMSettings
from fishlens.training.place import with_disk_errors_in_words

Paths = Mapping[str, str | Path]


@dataclass(frozen=True)
class EncoderShape:
    """XLM-R's architecture in small. `positions` is the longest row, special tokens included."""

    layers: int = 6
    hidden: int = 128
    heads: int = 4
    feed_forward: int = 512
    positions: int = 256
    dropout: float = 0.0


@dataclass(frozen=True)
class Vocabulary:
    """How the tokenizer is made: `kind` is word or unigram; `also` are words that get a token in any case."""

    kind: str = "unigram"
    size: int = 16_000
    also: tuple[str, ...] = ()


@with_disk_errors_in_words("output")
def pretrain(
    texts: Paths,
    output: str | Path,
    start: "EncoderShape | str | Path",
    vocabulary: Vocabulary | None,
    settings: MaskedLMSettings,
    *,
    heldout: Paths | None = None,
    parallel: Paths | None = None,
    align: bool = False,
    translation_share: float = 0.0,
    smoothing: float = 0.3,
    join: bool = True,
    freeze_embeddings: bool = False,
    note: Note = print,
) -> Path:
    """Pretrain on raw text of several languages; returns the model's folder, `output`/model.

    Args:
        texts, heldout: language → raw text file.
        start: the shape of a new encoder, or the folder or hub id of one whose training goes on: its vocabulary is
            kept, and it gets a new masked-LM head if it has none.
        vocabulary: of a new encoder's tokenizer; None with an existing encoder.
        freeze_embeddings: leave the table of token embeddings as it is.
        parallel: language → file; line i says the same in all of them.
        align: start the token embeddings from an SVD of PPMI(token × parallel sentence).
        translation_share: share of the rows that are a line of the first parallel language beside its translation.
        smoothing: languages are drawn ∝ (their number of rows) ** smoothing.
        join: put consecutive lines into one row as long as they fit.

    Raises:
        InputError: a file cannot be read, parallel text is wanted and not given, or sizes do not fit.
        Interrupted: Ctrl-C; the same call goes on.
    """
    output = Path(output)
    if (align or translation_share) and (parallel is None or len(parallel) < 2):
        raise InputError(
            "aligned embeddings and translation rows need parallel text of at least two languages"
        )
    if isinstance(start, EncoderShape) and vocabulary is None:
        raise InputError("a new encoder needs a vocabulary")
    if not isinstance(start, EncoderShape) and (vocabulary is not None or align):
        raise InputError(
            "an existing encoder keeps its vocabulary and its embeddings: leave vocabulary and align out"
        )
    refuse_files_of_others(output, ("model", "training.json", CURVE))
    lines = {language: read_lines(path) for language, path in texts.items()}
    aligned = read_parallel(parallel) if parallel else {}
    if isinstance(start, EncoderShape):
        assert vocabulary is not None
        tokenizer = _tokenizer(output, lines, vocabulary, note)
        model = new_encoder(tokenizer, start, settings.seed)
        tokenizer.model_max_length = start.positions
    else:
        model, tokenizer = _existing(start, settings.seed, note)
    if settings.max_length > tokenizer.model_max_length:
        raise InputError(
            f"max_length is {settings.max_length}, but the encoder has {tokenizer.model_max_length} positions"
        )
    if freeze_embeddings:
        model.get_input_embeddings().weight.requires_grad_(False)
    rows = {
        language: encode_lines(tokenizer, found, settings.max_length, join=join)
        for language, found in lines.items()
    }
    weights = language_weights(rows, smoothing)
    if translation_share:
        pairs = _translations(tokenizer, aligned, settings.max_length)
        rest = sum(weights.values()) * translation_share / (1 - translation_share)
        rows |= pairs
        weights |= dict.fromkeys(pairs, rest / len(pairs))
    held = {
        language: encode_lines(tokenizer, read_lines(path), settings.max_length, join=join)
        for language, path in (heldout or {}).items()
    }
    if align:
        _align(model, tokenizer, aligned, settings.seed, note)
    batches = Batches(rows, weights, settings.batch, settings.seed)
    curve = train_masked_lm(model, tokenizer, batches, settings, output, held, note)
    with writing_folder(output / "model") as folder:
        model.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    summary = {
        "languages": sorted(texts),
        "rows": {name: len(found) for name, found in rows.items()},
        "from": None if isinstance(start, EncoderShape) else str(start),
        "shape": asdict(start) if isinstance(start, EncoderShape) else None,
        "vocabulary": {"kind": None if vocabulary is None else vocabulary.kind, "size": len(tokenizer)},
        "freeze_embeddings": freeze_embeddings,
        "align": align,
        "translation_share": translation_share,
        "smoothing": smoothing,
        "settings": asdict(settings),
        "last": curve[-1],
    }
    write_file(output / "training.json", json.dumps(summary, indent=1) + "\n")
    return output / "model"


def new_encoder(tokenizer: Any, shape: EncoderShape, seed: int) -> Any:
    """An untrained masked-LM model."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    if shape.hidden % shape.heads:
        raise InputError(f"hidden size {shape.hidden} is not a multiple of {shape.heads} heads")
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.positions + tokenizer.pad_token_id + 1,  # the first is after padding's
        type_vocab_size=1,
        hidden_dropout_prob=shape.dropout,
        attention_probs_dropout_prob=shape.dropout,
        layer_norm_eps=1e-5,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    return XLMRobertaForMaskedLM(config)


def _existing(place: str | Path, seed: int, note: Note) -> tuple[Any, Any]:
    """(model, tokenizer) of an encoder whose training goes on."""
    import torch

    from fishlens.pretraining.masked_lm_model import load_masked_lm
    from fishlens.training.assembly import cut_at_positions
    from fishlens.training.tokenizer import load_tokenizer

    torch.manual_seed(seed)
    model, missing = load_masked_lm(place, new_head=True)
    tokenizer = load_tokenizer(place, str(place))
    cut_at_positions(tokenizer, model)
    if missing:
        note(f"{place} has no masked-LM head: a new one is trained")
    return model, tokenizer


def _tokenizer(output: Path, lines: Mapping[str, Sequence[str]], vocabulary: Vocabulary, note: Note) -> Any:
    """Made once: a resumed run reads the one it began with (Unigram training may differ from run to run)."""
    from transformers import AutoTokenizer

    from fishlens.pretraining.tokenizer_training import train_tokenizer

    folder = output / "tokenizer"
    if not (folder / "tokenizer_config.json").exists():
        made = train_tokenizer(
            [line for found in lines.values() for line in found],
            vocabulary.kind,
            vocabulary.size,
            vocabulary.also,
        )
        with writing_folder(folder) as beside:
            made.save_pretrained(beside)
        note(f"tokenizer: {len(made)} {vocabulary.kind} tokens")
    return AutoTokenizer.from_pretrained(folder)


def _translations(tokenizer: Any, aligned: Mapping[str, Sequence[str]], max_length: int) -> dict[str, Rows]:
    pivot, *others = aligned
    pairs = {
        f"{pivot}-{other}": encode_pairs(tokenizer, aligned[pivot], aligned[other], max_length)
        for other in others
    }
    return {name: rows for name, rows in pairs.items() if rows}


def _align(model: Any, tokenizer: Any, aligned: Mapping[str, Sequence[str]], seed: int, note: Note) -> None:
    import torch

    from fishlens.pretraining.alignment import aligned_embeddings

    table = model.get_input_embeddings().weight
    vectors, known = aligned_embeddings(tokenizer, aligned, table.shape[1], scale=0.05, seed=seed)
    with torch.no_grad():
        table[torch.from_numpy(known)] = torch.from_numpy(vectors[known])
    note(f"embeddings of {int(known.sum())} of {len(known)} tokens start from parallel text")
