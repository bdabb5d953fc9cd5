"""Token embeddings that already agree across languages: a truncated SVD of PPMI(token × parallel sentence).

Tokens that occur in the same sentences, whatever the language, get neighbouring vectors (Levy et al. 2017, "A strong
baseline for learning cross-lingual word embeddings from sentence alignments": the sentence id is the only feature).
Where masked-LM alone does not align languages, start from these.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from fishlens.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def ppmi(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Positive pointwise mutual information of a table of counts [tokens, sentences], cell by cell."""
    cells = sparse.coo_matrix(counts, dtype=np.float64)
    rows = np.asarray(cells.sum(1)).ravel()
    columns = np.asarray(cells.sum(0)).ravel()
    values = np.log(cells.data * cells.sum() / (rows[cells.row] * columns[cells.col]))
    positive = values > 0
    kept = (values[positive], (cells.row[positive], cells.col[positive]))
    return sparse.csr_matrix(kept, shape=cells.shape)


def aligned_embeddings(
    tokenizer: "PreTrainedTokenizerBase",
    parallel: Mapping[str, Sequence[str]],
    dimensions: int,
    *,
    scale: float,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Vectors for the tokens of line-aligned text.

    Args:
        parallel: language → lines; line i says the same in every language.
        scale: root mean square of the entries of the result (0.02 is what a Hugging Face encoder starts from).

    Returns:
        (vectors [V, dimensions] float32, known [V] bool): tokens that occur nowhere have a zero row and known False.
    """
    token, sentence = [], []
    for lines in parallel.values():
        encoded = tokenizer(list(lines), add_special_tokens=False, verbose=False)["input_ids"]
        for number, ids in enumerate(encoded):
            token += ids
            sentence += [number] * len(ids)
    width = max(sentence, default=-1) + 1
    if min(width, len(tokenizer)) <= dimensions:
        raise InputError(
            f"{dimensions} dimensions need more than {dimensions} parallel sentences and tokens, but there are"
            f" {width} sentences and {len(tokenizer)} tokens"
        )
    counts = sparse.csr_matrix((np.ones(len(token)), (token, sentence)), shape=(len(tokenizer), width))
    start = np.random.default_rng(seed).normal(size=min(counts.shape))
    left, singular, _ = svds(ppmi(counts), k=dimensions, v0=start)
    vectors = left * np.sqrt(singular)
    vectors *= np.sign(vectors.sum(0)) + (vectors.sum(0) == 0)  # the sign of a singular vector is arbitrary
    known = np.bincount(token, minlength=len(tokenizer)) > 0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.maximum(norms, 1e-12) * scale * np.sqrt(dimensions)
    return np.where(known[:, None], vectors, 0.0).astype(np.float32), known
