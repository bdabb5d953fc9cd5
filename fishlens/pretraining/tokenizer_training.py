"""A tokenizer made from raw text: whole words, or Unigram pieces as XLM-R has them. Special tokens are XLM-R's."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from fishlens.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


def train_tokenizer(
    lines: Iterable[str], kind: str = "unigram", size: int = 16_000, also: Sequence[str] = ()
) -> "PreTrainedTokenizerFast":
    """A fast tokenizer with character offsets.

    Args:
        lines: the text of all languages.
        kind: "word" (the `size` most frequent words and marks; the same text gives the same file) or "unigram".
        size: number of tokens, the special ones included.
        also: words that get a token in any case ("word" only).
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    if size <= len(SPECIAL):
        raise InputError(f"a tokenizer of {size} tokens has no room beside its {len(SPECIAL)} special tokens")
    if kind == "word":
        splitter = pre_tokenizers.Whitespace()
        counts = Counter(word for line in lines for word, _ in splitter.pre_tokenize_str(line))
        ranked = [word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
        words = list(dict.fromkeys([*SPECIAL, *also, *ranked]))[:size]
        tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = splitter
    elif kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.normalizer = normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=size, special_tokens=list(SPECIAL), unk_token="<unk>", show_progress=False
        )
        tokenizer.train_from_iterator(lines, trainer)
    else:
        raise InputError(f'unknown kind of tokenizer "{kind}"; expected word or unigram')
    first, last = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", first), ("</s>", last)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )
