"""Entity-level precision, recall and F1, as the CoNLL-2000 evaluation script and seqeval's default mode count them."""

from collections.abc import Iterator, Sequence

Entity = tuple[str, int, int]
"""type, first word, last word"""


def entities(tags: Sequence[str]) -> Iterator[Entity]:
    """The entities in one sentence's B-/I-/O tags.

    An entity begins at every B-, and at an I- whose word before is outside or of another type: so IOB1, IOB2 and
    what a model predicts without regard to either are all read, and a type change splits.
    """
    begin = None
    for i, tag in enumerate([*tags, "O"]):
        before = tags[i - 1] if i else "O"
        continues = tag.startswith("I-") and before != "O" and before[2:] == tag[2:]
        if begin is not None and not continues:
            yield before[2:], begin, i - 1
            begin = None
        if tag != "O" and not continues:
            begin = i


def entity_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Points (0-100): micro-averaged `f1`, `precision` and `recall`; 0 where there is nothing to divide by.

    gold, predicted: the tags of each sentence. Raises ValueError if the lengths differ.
    """
    right = there = found = 0
    for gold_tags, predicted_tags in zip(gold, predicted, strict=True):
        if len(gold_tags) != len(predicted_tags):
            raise ValueError(f"a sentence of {len(gold_tags)} words has {len(predicted_tags)} predicted tags")
        gold_entities, predicted_entities = set(entities(gold_tags)), set(entities(predicted_tags))
        right += len(gold_entities & predicted_entities)
        there += len(gold_entities)
        found += len(predicted_entities)
    precision = 100.0 * right / found if found else 0.0
    recall = 100.0 * right / there if there else 0.0
    f1 = 200.0 * right / (there + found) if there + found else 0.0
    return {"f1": f1, "precision": precision, "recall": recall}
