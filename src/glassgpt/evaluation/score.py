"""How surprised a model is by a text: the log-probability of each token given those before it, and what follows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, Tokenizer, as_contexts
from glassgpt.numerics import LN2, log_softmax

LOGITS_AT_ONCE = 1 << 26  # 256 MiB of float32; more are asked for piece by piece
ROWS_AT_ONCE = 1 << 20  # logits taken to float64 at once


@dataclass(frozen=True)
class Score:
    """`logprobs[i]`: the natural log-probability of `tokens[i]` given the tokens before it; None where it has none.

    The first token has none, since nothing precedes it, unless a start token was given.
    """

    tokens: list[int]
    logprobs: list[float | None]

    @property
    def scored(self) -> list[float]:
        return [logprob for logprob in self.logprobs if logprob is not None]

    @property
    def bits(self) -> float:
        """The surprise of all scored tokens, in bits; inf if one of them was impossible."""
        return -math.fsum(self.scored) / LN2 if math.isfinite(min(self.scored, default=0.0)) else math.inf

    @property
    def perplexity(self) -> float:
        """exp of the mean surprise of a scored token in nats: among how many equals the model seems to choose."""
        if not self.scored:
            raise UsageError("no token was scored: give at least two, or a start token")
        mean = self.bits * LN2 / len(self.scored)
        return math.exp(mean) if mean < math.log(np.finfo(np.float64).max) else math.inf


def score(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    *,
    stride: int | None = None,
    start_token: int | None = None,
) -> Score:
    """The log-probability of each of `tokens` (ids, at least one) given those before it.

    Exact for a text that fits the context window. A longer one is read in overlapping windows of `context_length`
    tokens, `stride` apart: a token past the first window is given at least context_length - stride + 1 of the tokens
    before it. `stride` 1 is exact, each token given all that the window holds, at one window a token; the default,
    half of `context_length`, costs about two readings of the text.

    `start_token` (an end-of-text token, say) is put before the text, so that the first token has a probability too,
    and isn't scored itself. Memory stays bounded: at most about 2^26 logits exist at once, if the model's session
    computes no more than it is asked for.
    """
    text = np.asarray(tokens)
    if text.ndim != 1 or len(text) == 0:
        raise UsageError(f"expected a text of at least one token id, got shape {text.shape}")
    width = model.context_length
    stride = max(1, width // 2) if stride is None else stride
    if not isinstance(stride, int | np.integer) or not 1 <= stride <= width:
        raise UsageError(f"the stride must be a whole number from 1 to the context length, {width}, got {stride}")
    text = as_contexts(text[None], model.vocab_size)[0]
    if start_token is not None:
        text = np.concatenate([as_contexts(np.array([[start_token]]), model.vocab_size)[0], text])
    logprobs = np.full(len(text), np.nan)
    for starts, first, read in windows(len(text), width, stride, max(1, LOGITS_AT_ONCE // (width * model.vocab_size))):
        places = np.array(starts)[:, None] + np.arange(first, read) + 1  # of the tokens that are predicted
        inputs = text[np.array(starts)[:, None] + np.arange(read)]
        logprobs[places] = window_logprobs(model, inputs, text[places])
    kept = logprobs[0 if start_token is None else 1 :]
    return Score(
        [int(token) for token in text[len(text) - len(kept) :]],
        [None if np.isnan(logprob) else float(logprob) for logprob in kept],
    )


def windows(n: int, width: int, stride: int, at_once: int) -> Iterator[tuple[list[int], int, int]]:
    """How a text of `n` tokens is read: (starts, first, read), where windows of `read` tokens begin.

    A window predicts what follows its tokens from its place `first` on. Windows of one size come together, at most
    `at_once` of them; every token but the first is predicted exactly once.

    >>> list(windows(9, width=4, stride=2, at_once=9))
    [([0], 0, 4), ([2, 4], 2, 4)]
    """
    last = n - 1  # the last token only has to be predicted
    if last < 1:
        return
    yield [0], 0, min(width, last)
    n_full = max(0, last - width) // stride
    full = [stride * i for i in range(1, n_full + 1)]
    for i in range(0, n_full, at_once):
        yield full[i : i + at_once], width - stride, width
    if left := max(0, last - width) % stride:
        yield [last - width], width - left, width


def window_logprobs(model: LanguageModel, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Log-probabilities of `targets` (batch, k), which follow the last k tokens of `inputs` (batch, time)."""
    first = inputs.shape[1] - targets.shape[1]
    blocks = []
    at = 0
    for logits in blocks_of_logits(model, inputs, first):
        blocks.append(logprobs_of(logits, targets[:, at : at + logits.shape[1]]))
        at += logits.shape[1]
    return np.concatenate(blocks, axis=1)


def blocks_of_logits(model: LanguageModel, inputs: np.ndarray, first: int) -> Iterator[np.ndarray]:
    """The logits after the tokens of `inputs` (batch, time) from place `first` on, (batch, places, V), bounded.

    All at once if they are few: every model is fast at that. Else a session is fed piece by piece.
    """
    batch, time = inputs.shape
    if first == time - 1:
        yield np.asarray(model.next_token_logits(inputs))[:, None]
        return
    if batch * time * model.vocab_size <= LOGITS_AT_ONCE:
        yield np.asarray(model.sequence_logits(inputs))[:, first:]
        return
    session = model.session(batch)
    if first:
        session.feed(inputs[:, :first])
    places = max(1, LOGITS_AT_ONCE // (batch * model.vocab_size))
    for start in range(first, time, places):
        yield session.feed_each(inputs[:, start : start + places])


def logprobs_of(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The float64 log-probabilities of `targets` (batch, time) under `logits` (batch, time, V)."""
    flat, wanted = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    found = np.empty(len(wanted))
    rows = max(1, ROWS_AT_ONCE // logits.shape[-1])
    for start in range(0, len(wanted), rows):
        part = slice(start, start + rows)
        found[part] = np.take_along_axis(log_softmax(flat[part]), wanted[part, None], axis=-1)[:, 0]
    return found.reshape(targets.shape)


def bits_per_byte(scored: Score, tokenizer: Tokenizer) -> float:
    """The surprise of the scored tokens in bits, for each byte that they stand for: comparable between tokenizers.

    The bytes are the tokens' own (`token_bytes`), not those of a text that was encoded: a token without a probability
    counts neither way, and a special token adds its surprise and no byte. Raises UsageError if there is no byte.
    """
    pairs = zip(scored.tokens, scored.logprobs, strict=True)
    n_bytes = sum(len(tokenizer.token_bytes(token)) for token, logprob in pairs if logprob is not None)
    if n_bytes == 0:
        raise UsageError("the scored tokens stand for no byte: there is nothing to divide their surprise by")
    return scored.bits / n_bytes
