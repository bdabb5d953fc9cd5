"""Masked-LM models from a checkpoint: missing weights are named, never initialised without a word."""

from pathlib import Path
from typing import Any

from fishlens.errors import InputError, first_line


def load_masked_lm(place: str | Path, new_head: bool = False) -> tuple[Any, list[str]]:
    """(model, names of the weights of its head that the checkpoint lacks, drawn at random).

    Raises `InputError` if it cannot be loaded, lacks weights of its encoder, or (unless `new_head`) lacks its masked-LM
    head: `from_pretrained` would make a random one and only warn.
    """
    import transformers

    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        model, report = transformers.AutoModelForMaskedLM.from_pretrained(
            str(place), trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"the model {str(place)!r} cannot be loaded: {first_line(error)}") from None
    finally:
        transformers.logging.set_verbosity(verbosity)
    inside = f"{model.base_model_prefix}."
    missing = sorted(key for key in report["missing_keys"] if ".pooler." not in key)
    lost = [key for key in missing if key.startswith(inside)]
    if lost:
        raise InputError(
            f"the model {str(place)!r} lacks {len(lost)} weights of its encoder, {lost[0]} among them; expected a "
            f"whole checkpoint of a {model.config.model_type} model"
        )
    if missing and not new_head:
        raise InputError(
            f"the model {str(place)!r} has no masked-LM head ({missing[0]} is missing); expected a checkpoint that was "
            f"saved with it; `fishlens pretrain --from {place}` trains one"
        )
    return model, missing
