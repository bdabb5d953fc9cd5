"""Embeddings from parallel text put translations side by side."""

import numpy as np
import pytest
from scipy import sparse

from fishlens.errors import InputError
from fishlens.pretraining.alignment import aligned_embeddings, ppmi
from fishlens.pretraining.tokenizer_training import train_tokenizer


def test_ppmi_is_that_of_the_definition_cell_by_cell():
    counts = np.array([[3.0, 0, 1], [1, 2, 0], [0, 1, 4]])
    total = counts.sum()
    wanted = np.zeros_like(counts)
    for i in range(3):
        for j in range(3):
            if counts[i, j]:
                joint = counts[i, j] / total
                apart = counts[i].sum() / total * counts[:, j].sum() / total
                wanted[i, j] = max(0.0, np.log(joint / apart))
    np.testing.assert_allclose(ppmi(sparse.csr_matrix(counts)).toarray(), wanted, rtol=1e-12)


@pytest.fixture(scope="module")
def aligned():
    random = np.random.default_rng(0)
    meanings = [random.choice(30, size=4, replace=False) for _ in range(400)]
    parallel = {
        language: [" ".join(f"{language}{m}" for m in random.permutation(meaning)) for meaning in meanings]
        for language in ("x", "y", "z")
    }
    tokenizer = train_tokenizer([line for lines in parallel.values() for line in lines], "word", 200)
    return tokenizer, parallel


def test_the_nearest_word_of_another_language_is_the_translation(aligned):
    tokenizer, parallel = aligned
    vectors, known = aligned_embeddings(tokenizer, parallel, 16, scale=0.05)
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    ids = {word: i for word, i in tokenizer.get_vocab().items() if word[0] in "xyz"}
    for other in "yz":
        candidates = [f"{other}{m}" for m in range(30)]
        table = units[[ids[word] for word in candidates]]
        found = [candidates[int((table @ units[ids[f"x{m}"]]).argmax())] for m in range(30)]
        assert found == candidates
    assert known[list(ids.values())].all()
    assert not known[tokenizer.mask_token_id]
    assert not vectors[tokenizer.mask_token_id].any()


def test_known_rows_have_the_wanted_scale_and_the_result_is_the_same_each_time(aligned):
    tokenizer, parallel = aligned
    vectors, known = aligned_embeddings(tokenizer, parallel, 16, scale=0.05)
    rms = np.sqrt((vectors[known] ** 2).mean(1))
    np.testing.assert_allclose(rms, 0.05, rtol=1e-5)
    again, _ = aligned_embeddings(tokenizer, parallel, 16, scale=0.05)
    np.testing.assert_array_equal(vectors, again)


def test_too_little_parallel_text_is_refused(aligned):
    tokenizer, _ = aligned
    with pytest.raises(InputError, match="16 dimensions need more than 16 parallel sentences"):
        aligned_embeddings(tokenizer, {"x": ["x1 x2"], "y": ["y1 y2"]}, 16, scale=0.05)
