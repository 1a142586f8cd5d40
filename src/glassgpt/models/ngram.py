"""The n-gram model: the simplest function from a context to a distribution, and the test double for everything."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import Array, LanguageModel, as_contexts
from glassgpt.numerics import count_windows


class NGram(LanguageModel):
    """P(next | last n-1 tokens) = (count + smoothing) / (total + smoothing * vocab_size).

    `n` counts the predicted token too, so a bigram (n = 2) looks back one token and `context_length` is n - 1. A
    context shorter than that is answered from the counts of its own length, so every prompt has an answer. With
    `smoothing` 0 what was never seen is impossible, and a context that was never seen is uniform: there is nothing to
    say about it. Add-`smoothing` is Lidstone's rule (Laplace's at 1).

    >>> model = NGram([0, 1, 0, 1, 1], vocab_size=2, n=2, smoothing=0.0)
    >>> np.exp(model.next_token_logits([[0], [1]]))  # 0 was always followed by 1; 1 by 0 and by 1, once each
    array([[0. , 1. ],
           [0.5, 0.5]])
    """

    def __init__(self, tokens: Sequence[int] | np.ndarray, vocab_size: int, n: int, smoothing: float = 1.0) -> None:
        if n < 2:
            raise UsageError(f"an n-gram needs n >= 2 (one token of context and the one it predicts), got n = {n}")
        if not 0 <= smoothing < np.inf:
            raise UsageError(f"smoothing must be a number of 0 or more, got {smoothing}")
        self.vocab_size = vocab_size
        self.context_length = n - 1
        text = as_contexts(np.asarray(tokens).reshape(1, -1), vocab_size)[0]
        self._logits = [log_rows(count_windows(text, vocab_size, k), smoothing) for k in range(1, n)]

    def next_token_logits(self, contexts: Array) -> np.ndarray:
        contexts = as_contexts(contexts, self.vocab_size)[:, -self.context_length :]
        length = contexts.shape[1]
        codes = contexts @ self.vocab_size ** np.arange(length - 1, -1, -1, dtype=np.int64)
        return self._logits[length - 1][codes]


def log_rows(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Rows of counts as log-probabilities; a row that counts nothing is uniform."""
    smoothed = counts + smoothing
    smoothed = np.where(smoothed.sum(axis=1, keepdims=True) > 0, smoothed, 1.0)
    with np.errstate(divide="ignore"):
        return np.log(smoothed / smoothed.sum(axis=1, keepdims=True))
