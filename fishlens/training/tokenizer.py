"""The tokenizer of a model: its library raises of every kind where files of it are missing."""

from pathlib import Path
from typing import Any

from fishlens.errors import InputError, first_line


def load_tokenizer(place: str | Path, name: str) -> Any:
    """The tokenizer that lies beside the model `name`. No remote code, ever.

    Raises `InputError` where there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(place), trust_remote_code=False)
    except Exception as error:
        raise InputError(
            f"model {name!r} has no tokenizer that can be loaded: {type(error).__name__}: {first_line(error)}; "
            "expected its files beside the weights, as tokenizer.save_pretrained(folder) writes them"
        ) from error
