"""Log-softmax, entropy, divergences and counts in float64: the few formulas that every room must agree on.

Logarithms are natural (nats). A probability of exactly 0 contributes 0 to an entropy, by continuity.
"""

from __future__ import annotations

import numpy as np

from glassgpt.errors import NumericalError

LN2 = float(np.log(2.0))
LN10 = float(np.log(10.0))


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis, in float64; -inf stays -inf.

    Raises NumericalError for NaN, for +inf, and for a row in which no token is allowed.

    >>> np.exp(log_softmax(np.array([0.0, np.log(3.0)]))).round(12)
    array([0.25, 0.75])
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.shape[-1] == 0:
        raise NumericalError("every token is excluded: at least one must stay possible")
    top = np.max(logits, axis=-1, keepdims=True)  # NaN if any is NaN
    if not np.all(np.isfinite(top)):
        raise NumericalError(_what_is_wrong(logits, top))
    shifted = logits - top
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def _what_is_wrong(logits: np.ndarray, top: np.ndarray) -> str:
    row = int(np.flatnonzero(~np.isfinite(top.reshape(-1)))[0])
    if np.isnan(logits).any():
        return f"the logits of row {row} hold NaN: the model's weights are damaged, or its training diverged"
    if np.isposinf(logits).any():
        return f"the logits of row {row} hold +inf: the model's weights have overflowed"
    return f"row {row} excludes every token: at least one must stay possible"


def entropy(logprobs: np.ndarray) -> np.ndarray:
    """Shannon entropy -sum p ln p along the last axis, in nats.

    >>> float(entropy(np.log([0.5, 0.5])))  # ln 2
    0.6931471805599453
    """
    return -np.sum(np.exp(logprobs) * np.where(np.isneginf(logprobs), 0.0, logprobs), axis=-1)


def kl_divergence(p_logprobs: np.ndarray, q_logprobs: np.ndarray) -> np.ndarray:
    """KL(p || q) = sum p (ln p - ln q) along the last axis, in nats; inf where p allows what q excludes."""
    p_logprobs, q_logprobs = np.broadcast_arrays(p_logprobs, q_logprobs)
    possible = ~np.isneginf(p_logprobs)
    difference = np.zeros(p_logprobs.shape)
    np.subtract(p_logprobs, q_logprobs, out=difference, where=possible)
    return np.sum(np.exp(p_logprobs) * difference, axis=-1)


def total_variation(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Half the L1 distance of two distributions along the last axis, in [0, 1].

    >>> float(total_variation(np.array([1.0, 0.0]), np.array([0.25, 0.75])))
    0.75
    """
    difference = np.subtract(p, q)
    return 0.5 * np.sum(np.abs(difference, out=difference), axis=-1)


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence along the last axis, in nats, in [0, ln 2]; finite whatever the supports."""
    with np.errstate(divide="ignore"):
        middle = np.log(p + q) - LN2  # halving could lose the smallest of floats
        return 0.5 * kl_divergence(np.log(p), middle) + 0.5 * kl_divergence(np.log(q), middle)


def count_windows(text: np.ndarray, vocab_size: int, length: int) -> np.ndarray:
    """How often each token follows each context of `length` tokens: float64 (vocab_size**length, vocab_size).

    >>> count_windows(np.array([0, 1, 0, 1, 1]), vocab_size=2, length=1)
    array([[0., 2.],
           [1., 1.]])
    """
    counts = np.zeros(vocab_size ** (length + 1))
    if len(text) > length:
        windows = np.lib.stride_tricks.sliding_window_view(text, length + 1)
        codes = windows @ vocab_size ** np.arange(length, -1, -1, dtype=np.int64)
        counts += np.bincount(codes, minlength=len(counts))
    return counts.reshape(-1, vocab_size)


def spelled(log10: float) -> str:
    """A probability in a table, from its decimal logarithm: in four digits, and never 0 or 1 unless it is.

    >>> [spelled(float(np.log10(p))) for p in (0.25, 1.0, 0.99999, 0.00002)], spelled(-np.inf), spelled(-3000.2)
    (['0.2500', '1', '>0.9999', '2.0e-05'], '0', '10^-3000.2')
    """
    if log10 in (0.0, -np.inf):
        return "1" if log10 == 0.0 else "0"
    if log10 < -300:
        return f"10^{log10:.6g}"
    probability = 10.0**log10
    if probability < 0.001:
        return f"{probability:.1e}"
    return f"{probability:.4f}" if probability < 0.99995 else ">0.9999"
