"""Exact match and token F1 of one predicted answer against the gold answers: what SQuAD and MLQA have in common.

They differ in how an answer is normalised (squad.py, mlqa.py). A normalised answer is split at spaces; F1 is over the
multisets of tokens. The best gold answer counts.
"""

from collections import Counter
from collections.abc import Callable, Sequence

Normalise = Callable[[str], str]


def token_f1(predicted: str, gold: str, normalise: Normalise) -> float:
    """F1 in [0, 1]; 0 if nothing is shared, also where both are empty, as the official scripts have it."""
    predicted_tokens, gold_tokens = normalise(predicted).split(), normalise(gold).split()
    shared = (Counter(predicted_tokens) & Counter(gold_tokens)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted_tokens), shared / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def exact_match(predicted: str, gold: str, normalise: Normalise) -> bool:
    """Are both the same after normalisation? Two that are empty after it are."""
    return normalise(predicted) == normalise(gold)


def answer_scores(
    predicted: Sequence[str | None], gold: Sequence[Sequence[str]], normalise: Normalise
) -> dict[str, float]:
    """Points (0-100): mean `f1` and `exact_match`, each against the gold answer that is best for it.

    predicted: None where there is no prediction, which scores 0. gold: the answers of each question, at least one.
    """
    if not gold:
        raise ValueError("no score of nothing: no questions")
    f1 = matches = 0.0
    for answer, golds in zip(predicted, gold, strict=True):
        if answer is None:
            continue
        f1 += max(token_f1(answer, one, normalise) for one in golds)
        matches += max(exact_match(answer, one, normalise) for one in golds)
    return {"f1": 100.0 * f1 / len(gold), "exact_match": 100.0 * matches / len(gold)}
