"""A language adapter (MAD-X): masked-LM on one language's raw text, the base model and its head frozen."""

import json
import math
import re
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from fishlens.errors import InputError
from fishlens.files import write_file, writing
from fishlens.journal.records import installed_versions
from fishlens.pretraining.masked_lm import CURVE, Note, refuse_files_of_others, train_masked_lm
from fishlens.pretraining.masked_lm_model import load_masked_lm
from fishlens.pretraining.masking import MaskedLMLoss, heldout_loss
from fishlens.pretraining.raw_text import Batches, encode_lines, read_lines
from fishlens.pretraining.settings import MaskedLMSettings
from fishlens.recipe.content import fingerprint
from fishlens.training.checkpoint import CHECKPOINTS, remove_all_checkpoints
from fishlens.training.place import with_disk_errors_in_words

WEIGHTS = "adapter.safetensors"  # what adapters names them
TRAINING = "training.json"


@with_disk_errors_in_words("output")
def train_language_adapter(
    model: str | Path,
    language: str,
    text: str | Path,
    output: str | Path,
    settings: MaskedLMSettings,
    *,
    heldout: str | Path | None = None,
    config: str = "seq_bn_inv[reduction_factor=2]",
    join: bool = True,
    note: Note = print,
) -> dict[str, Any]:
    """Train an adapter named `language` and save it in `output`, as `adapters` loads it.

    Args:
        model: a folder or hub id with a masked-LM head.
        text, heldout: raw text, a sentence or more a line; held-out lines give the perplexity before and after.
        config: any configuration string of `adapters`; MAD-X's is the default.
        join: put consecutive lines into one row as long as they fit.

    Returns:
        What `training.json` beside the adapter says: settings, rows, losses, perplexities, and what it was made from:
        names and fingerprints of model and texts (null: not on this disk), versions of the libraries.

    Raises:
        InputError: `output` holds a finished adapter, or the model has no masked-LM head or no fast tokenizer.
        Interrupted: Ctrl-C; the same call goes on.
    """
    from fishlens.training.tokenizer import load_tokenizer

    output = Path(output)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", language):
        raise InputError(
            f"language is {language!r}; expected letters, digits, - and _ (it names the adapter)"
        )
    if (output / WEIGHTS).exists():
        raise InputError(f"{output} already holds a finished adapter: give another folder")
    refuse_files_of_others(output, ("adapter_config.json", TRAINING, CURVE))
    tokenizer = load_tokenizer(str(model), str(model))
    rows = encode_lines(tokenizer, read_lines(text), settings.max_length, join=join)
    held = encode_lines(tokenizer, read_lines(heldout), settings.max_length, join=join) if heldout else []
    learner = load_masked_lm(model)[0].to(Accelerator().device)
    before = math.exp(heldout_loss(MaskedLMLoss(learner, tokenizer, settings), held)) if held else None
    _add_adapter(learner, language, config, settings.seed)
    batches = Batches({language: rows}, {language: 1.0}, settings.batch, settings.seed)
    curve = train_masked_lm(
        learner, tokenizer, batches, settings, output, {language: held} if held else None, note
    )
    summary = {
        "language": language,
        "config": config,
        "rows": len(rows),
        "heldout_rows": len(held),
        "loss": curve[-1]["loss"],
        "perplexity_without": before,
        "perplexity": math.exp(curve[-1][f"heldout/{language}"]) if held else None,
        "settings": asdict(settings),
        "model": _name_of(model),
        "text": Path(text).name,
        "heldout_text": Path(heldout).name if heldout else None,
        "fingerprints": {
            what: fingerprint(Path(place))
            for what, place in (("model", model), ("text", text), ("heldout_text", heldout))
            if place is not None
        },
        "versions": installed_versions(),
    }
    save_adapter(learner, language, output)
    write_file(output / TRAINING, json.dumps(summary, indent=1) + "\n")
    remove_all_checkpoints(output / CHECKPOINTS)
    return summary


def _name_of(model: str | Path) -> str:
    """A hub id as it is, of a folder its name: where it lay says nothing to anybody else."""
    return Path(model).resolve().name if Path(model).is_dir() else str(model)


def _add_adapter(learner: Any, language: str, config: str, seed: int) -> None:
    """Give the model a fresh adapter that alone is trainable and is active."""
    import adapters
    import torch

    adapters.init(learner)
    torch.manual_seed(seed)
    try:
        learner.add_adapter(language, config=config)
    except Exception as error:  # the parser of configuration strings raises of every kind
        raise InputError(f"config {config!r} is not an adapter configuration: {error}") from None
    learner.train_adapter(language)
    own = {id(p) for p in _adapter_parameters(learner, language)}
    for parameter in learner.parameters():
        parameter.requires_grad_(id(parameter) in own)  # train_adapter leaves the head trainable


def _adapter_parameters(model: Any, name: str) -> list[Any]:
    modules = [module for layer in model.get_adapter(name).values() for module in layer.values()]
    inverse = model.base_model.invertible_adapters
    if name in inverse:
        modules.append(inverse[name])
    return [parameter for module in modules for parameter in module.parameters()]


def save_adapter(model: Any, name: str, folder: Path) -> None:
    """In safetensors, and without the path of the model it was trained on."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as beside:
        made = Path(beside)
        model.save_adapter(str(made), name, use_safetensors=True, with_head=False)
        config = made / "adapter_config.json"
        content = json.loads(config.read_text(encoding="utf-8"))
        content["model_name"] = Path(content.get("model_name") or "").name or None
        config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        # the weights last: an adapter that has them is whole
        for file in sorted(made.iterdir(), key=lambda path: path.name == WEIGHTS):
            with writing(folder / file.name) as place:
                shutil.copyfile(file, place)
