"""Ten sampled orders of unfreezing for twelve layers.

Section 5.2 of the paper samples ten permutations of the twelve adapter blocks and does not print them. These are
ours: drawn one after the other by `sample_permutations(12)`, i.e. with Python's `random.Random(2024)`.
"""

import random

SEED = 2024

SAMPLED_12: tuple[tuple[int, ...], ...] = (
    (0, 6, 8, 1, 10, 11, 5, 3, 4, 9, 2, 7),
    (1, 9, 10, 0, 2, 11, 7, 4, 3, 8, 6, 5),
    (4, 1, 5, 9, 0, 10, 6, 3, 8, 2, 7, 11),
    (0, 3, 4, 8, 10, 11, 9, 6, 5, 2, 1, 7),
    (7, 2, 4, 11, 8, 0, 1, 10, 6, 3, 9, 5),
    (2, 3, 0, 8, 4, 7, 10, 5, 1, 11, 6, 9),
    (0, 9, 6, 10, 1, 8, 4, 7, 11, 3, 2, 5),
    (6, 8, 3, 10, 0, 4, 1, 11, 9, 2, 7, 5),
    (6, 10, 4, 8, 11, 1, 0, 9, 5, 3, 7, 2),
    (11, 2, 10, 0, 1, 3, 5, 6, 8, 7, 4, 9),
)


def sample_permutations(blocks: int, count: int = 10) -> tuple[tuple[int, ...], ...]:
    """`count` different orders of 0 … blocks−1 (fewer where fewer exist), the same on every machine."""
    generator = random.Random(SEED)
    found: list[tuple[int, ...]] = []
    possible = 1
    for n in range(1, blocks + 1):
        possible = min(possible * n, count)
    while len(found) < possible:
        order = list(range(blocks))
        generator.shuffle(order)
        if tuple(order) not in found:
            found.append(tuple(order))
    return tuple(found)
