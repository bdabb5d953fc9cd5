"""Rows chosen by index, as the experts of a mixture get them: which example does each belong to?

The gradient of a row tells it. Every example's cotangent is multiplied by a weight, zero or a power of two; the
gradient of a row must come back multiplied by the weight of its example, exactly. With few examples one such pass
tells all of them apart; with more, each further pass is one more digit of the example's number. A row that comes
back as no such multiple belongs to several examples, and its module's parameters are measured one example at a time.
"""

from collections.abc import Iterator

import numpy as np
import torch
from backpack import backpack
from torch import Tensor

from fishlens.fisher.outputs import BatchLogits
from fishlens.fisher.taps import Places, Taps, gradient_of

EXACT = 2.0**-8
"""How far a row may be from a multiple of itself, relative to its largest number: half precision rounds."""


def place_rows(taps: Taps, prediction: BatchLogits, powers: int) -> frozenset[str]:
    """Finds out whose the rows of all routed calls of this batch are; the names of parameters for which it cannot."""
    calls = [tapped for tapped in taps.tapped if tapped.chosen]
    if not calls:
        return frozenset()
    logits, cotangent = prediction.logits, random_cotangent(prediction)
    edges = [tapped.edge for tapped in calls]
    base = powers + 1
    numbers = torch.arange(taps.examples, device=logits.device)
    with backpack(retain_graph=True):
        plain = gradient_of(logits, edges, cotangent, retain_graph=True)
        whose = [None if g is None else torch.zeros(len(g), dtype=torch.long, device=g.device) for g in plain]
        clear = [torch.ones((), dtype=torch.bool, device=logits.device) for _ in plain]
        for value in _digits(taps.examples, base):
            digit = numbers // value % base
            weights = torch.where(digit > 0, torch.exp2(digit.float() - 1), 0.0).view(-1, 1, 1)
            after = gradient_of(logits, edges, cotangent * weights.to(cotangent), retain_graph=True)
            for n, (before, now) in enumerate(zip(plain, after, strict=True)):
                found = whose[n]
                if before is not None and now is not None and found is not None:
                    told, exact = _told(before, now, base)
                    found += value * told
                    clear[n] &= exact
    flags = torch.stack(clear).tolist()
    lost: set[str] = set()
    for tapped, rows, flag in zip(calls, whose, flags, strict=True):
        if rows is None:
            rows = torch.zeros(tapped.shape[0], dtype=torch.long, device=logits.device)
        if flag and bool((rows < taps.examples).all()):
            taps.places[id(tapped.call)] = _places(rows, taps.examples)
        else:
            taps.places[id(tapped.call)] = _places(torch.zeros_like(rows), taps.examples)
            lost |= set(tapped.names.values())
    return frozenset(lost)


def _digits(examples: int, base: int) -> Iterator[int]:
    value = 1
    while value < examples:
        yield value
        value *= base


def _told(before: Tensor, now: Tensor, base: int) -> tuple[Tensor, Tensor]:
    """(the digit of every row's example, whether every row is a multiple of what it was)"""
    size, grown = before.abs().amax(1).float(), now.abs().amax(1).float()
    there = size > 0
    ratio = torch.where(there & (grown > 0), grown / torch.where(there, size, 1.0), 0.0)
    power = torch.where(ratio > 0, torch.log2(torch.where(ratio > 0, ratio, 1.0)).round(), -1.0)
    digit = (power + 1).long()
    weight = torch.where(digit > 0, torch.exp2(power), 0.0)
    gap = (now - weight.unsqueeze(1).to(now) * before).abs().amax(1).float()
    exact = (gap <= EXACT * weight * size) & (digit >= 0)
    return digit.clamp(0, base - 1), (exact & (digit < base) | ~there).all()


def _places(rows: Tensor, examples: int) -> Places:
    """Every row's place among those of its example, in the order in which they came."""
    order = torch.argsort(rows, stable=True)
    counts = torch.bincount(rows, minlength=examples)
    starts = counts.cumsum(0) - counts
    within = torch.empty_like(rows)
    within[order] = torch.arange(len(rows), device=rows.device) - starts[rows[order]]
    width = int(counts.max())
    return Places(rows * width + within, width)


def random_cotangent(prediction: BatchLogits) -> Tensor:
    """A random cotangent, zero where nothing is scored."""
    count, variables, classes = prediction.logits.shape
    draw = np.random.Generator(np.random.Philox(key=1, counter=[0, 0, 0, count]))
    rows = draw.standard_normal((count, variables))
    columns = draw.standard_normal(classes)
    device = prediction.logits.device
    left = torch.from_numpy(rows.astype(np.float32)).to(device) * prediction.scored
    right = torch.from_numpy(columns.astype(np.float32)).to(device)
    return left.unsqueeze(-1) * right
