"""What is said of two diagonals, held against independent computations and cases with known answers."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon

from fishlens.fisher import comparison
from fishlens.fisher.comparison import drift, jensen_shannon, log_histograms, overlap, rank_overlap

PARAMETERS = {"layer.0": ("a", "b"), "head": ("c",)}


@pytest.fixture
def diagonals():
    generator = torch.Generator().manual_seed(0)
    shapes = {"a": (3, 4), "b": (5,), "c": (7,)}

    def draw():
        return {
            name: torch.rand(shape, generator=generator, dtype=torch.float64) ** 8
            for name, shape in shapes.items()
        }

    return draw(), draw()


def flat(diagonal, block):
    return np.concatenate([diagonal[name].numpy().ravel() for name in PARAMETERS[block]])


def test_overlap_is_the_cosine_of_the_square_roots(diagonals):
    found = overlap(*diagonals, PARAMETERS)
    for block in PARAMETERS:
        a, b = (np.sqrt(flat(d, block)) for d in diagonals)
        assert found[block] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)


def test_overlap_does_not_see_size_and_is_zero_without_common_parameters(diagonals):
    one, _ = diagonals
    larger = {name: 1e-9 * values for name, values in one.items()}
    assert overlap(one, larger, PARAMETERS) == pytest.approx(dict.fromkeys(PARAMETERS, 1.0), rel=1e-12)
    apart = {"x": torch.tensor([1.0, 0.0])}, {"x": torch.tensor([0.0, 3.0])}
    assert overlap(*apart, {"block": ("x",)}) == {"block": 0.0}


def test_a_diagonal_of_zeros_overlaps_with_nothing_that_could_be_said(diagonals):
    one, _ = diagonals
    nothing = {name: torch.zeros_like(values) for name, values in one.items()}
    for measure in (overlap, rank_overlap):
        assert all(math.isnan(value) for value in measure(one, nothing, PARAMETERS).values())


@pytest.mark.parametrize("ties", [False, True])
def test_rank_overlap_is_spearman_s_correlation(diagonals, ties):
    if ties:
        diagonals = tuple({n: (4 * v).round() / 4 for n, v in d.items()} for d in diagonals)
    found = rank_overlap(*diagonals, PARAMETERS)
    for block in PARAMETERS:
        expected = stats.spearmanr(*(flat(d, block) for d in diagonals)).statistic
        assert found[block] == pytest.approx(expected, rel=1e-12)


def test_large_blocks_are_ranked_by_an_evenly_spaced_choice(diagonals, monkeypatch):
    monkeypatch.setattr(comparison, "MOST_RANKED", 6)
    found = rank_overlap(*diagonals, PARAMETERS)
    expected = stats.spearmanr(*(flat(d, "layer.0")[::3] for d in diagonals)).statistic
    assert found["layer.0"] == pytest.approx(expected, rel=1e-12)


def test_every_entry_is_in_one_bin_of_a_quarter_decade(diagonals):
    one, _ = diagonals
    one["c"] = torch.tensor([0.0, 1e-30, 1e-24, 1.0, 1.7, 10.0, 1e30], dtype=torch.float64)
    counts = log_histograms(one, PARAMETERS)
    assert counts["layer.0"].sum() == 17 and counts["head"].sum() == 7
    assert counts["head"].nonzero().flatten().tolist() == [0, 1, 97, 101, comparison.BINS - 1]
    assert counts["head"][[0, 97]].tolist() == [2, 2]  # zero and 1e-30; 1.0 and 1.7


def test_drift_is_the_jensen_shannon_divergence_in_bits(diagonals):
    before, after = (log_histograms(d, PARAMETERS) for d in diagonals)
    found = drift(before, after)
    for block in PARAMETERS:
        expected = jensenshannon(before[block].numpy(), after[block].numpy(), base=2) ** 2
        assert found[block] == pytest.approx(expected, rel=1e-9)
    assert drift(before, before) == dict.fromkeys(PARAMETERS, 0.0)


def test_histograms_without_a_common_bin_are_one_bit_apart():
    both = jensen_shannon(np.array([[3, 0], [0, 0]]), np.array([[0, 5], [1, 1]]))
    assert both[0] == pytest.approx(1.0) and math.isnan(both[1])
