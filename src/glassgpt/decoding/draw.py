"""From logits to a token: the draw itself, the log-probability that comes with it, and the checks at the door."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Integral
from typing import NamedTuple

import numpy as np

from glassgpt.decoding.processors import Temperature, apply
from glassgpt.errors import UsageError
from glassgpt.interface import LogitsProcessor, as_contexts
from glassgpt.numerics import log_softmax

Ends = int | Collection[int] | None  # the token or tokens after which a text ends


class Drawn(NamedTuple):
    """A token, and the natural logarithm of its probability under the model itself, before any processor."""

    token: int
    logprob: float


class Sampler:
    """Processors and a draw: how the next token of each text is taken from a model's logits.

    At temperature 0 nothing is drawn and nothing sorted: the likeliest token is taken, the lowest id among equals, and
    what would come after `Temperature(0)` is left out, since one token leaves nothing to choose.
    """

    def __init__(self, processors: Sequence[LogitsProcessor], window: int) -> None:
        places = (i for i, one in enumerate(processors) if isinstance(one, Temperature) and one.temperature == 0)
        greedy_at = next(places, None)
        self.is_greedy = greedy_at is not None
        self.processors = tuple(processors[:greedy_at])
        self.window = window

    def __call__(self, contexts: np.ndarray, logits: np.ndarray, rngs: Sequence[np.random.Generator]) -> list[Drawn]:
        """One token for each row of contexts (batch, time) and raw logits (batch, vocab_size), row i from rngs[i]."""
        shaped = apply(self.processors, contexts, logits, self.window) if self.processors else logits
        if self.is_greedy:
            tokens = [int(token) for token in np.argmax(shaped, axis=-1)]
        else:
            tokens = [sample(row, rng) for row, rng in zip(shaped, rngs, strict=True)]
        return [Drawn(token, logprob_of(row, token)) for row, token in zip(logits, tokens, strict=True)]


def sample(logits: np.ndarray, rng: np.random.Generator) -> int:
    """Draw one token from the softmax of `logits` (vocab_size,). A token at -inf is never drawn.

    Excluded tokens are taken out *before* the draw instead of being given probability 0 in it: samplers that keep them
    have drawn them (PyTorch issues 192812 and 192577). One uniform number of 53 bits is compared with the cumulative
    sum in float64, so a token rarer than about 1e-16 is never drawn, although the chain counts it.
    """
    logits = np.asarray(logits, dtype=np.float64)
    top = np.max(logits)
    if not np.isfinite(top):
        log_softmax(logits)  # raises the NumericalError that says what is wrong: NaN, inf, or nothing allowed
    excluded = np.isneginf(logits)
    if not excluded.any():
        return draw(np.exp(logits - top), rng)
    allowed = np.flatnonzero(~excluded)
    return int(allowed[draw(np.exp(logits[allowed] - top), rng)])


def draw(probs: np.ndarray, rng: np.random.Generator) -> int:
    """Draw an index with probability proportional to `probs` (n,), float64, at least one of them above 0."""
    cumulative = np.cumsum(probs)
    drawn = np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")
    return min(int(drawn), len(probs) - 1)


def logprob_of(logits: np.ndarray, token: int) -> float:
    """The log-probability of one token under the softmax of `logits` (vocab_size,).

    Raises NumericalError where `log_softmax` does. The powers are taken in the logits' own precision, which is four
    times as fast for float32 and errs by less than the logits do, and are summed in float64.
    """
    return float(logprobs_of(logits[None], np.array([token]))[0])


def logprobs_of(logits: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """`logprob_of` row by row: logits (rows, vocab_size) and tokens (rows,) to float64 (rows,)."""
    logits = np.asarray(logits)
    logits = logits.astype(np.promote_types(logits.dtype, np.float32), copy=False)
    top = np.max(logits, axis=-1, keepdims=True)
    if not np.isfinite(top).all():
        log_softmax(logits)  # raises the error that says what is wrong
    total = np.sum(np.exp(logits - top), axis=-1, dtype=np.float64)
    chosen = np.take_along_axis(logits, np.asarray(tokens)[:, None], axis=-1)[:, 0].astype(np.float64)
    return chosen - top[:, 0] - np.log(total)


def as_prompt(tokens: Sequence[int] | np.ndarray, vocab_size: int) -> np.ndarray:
    """A prompt as an int64 array (1, time). Raises UsageError unless it is a row of at least one token id."""
    try:
        prompt = np.asarray(tokens)
    except ValueError:
        raise UsageError("expected a prompt of token ids, got lists of unequal length") from None
    if prompt.ndim != 1 or len(prompt) == 0:
        raise UsageError(f"expected a prompt of at least one token id, got shape {prompt.shape}")
    return as_contexts(prompt[None, :], vocab_size)


def as_ends(end_token: Ends, vocab_size: int) -> frozenset[int]:
    """The tokens that end a text. Raises UsageError for one outside the vocabulary: it would never end anything."""
    if end_token is None:
        return frozenset()
    ends = list(end_token) if isinstance(end_token, Collection) else [end_token]
    for token in ends:
        if not isinstance(token, Integral) or not 0 <= token < vocab_size:
            raise UsageError(f"the end token must be an id from 0 to {vocab_size - 1}, got {token!r}")
    return frozenset(int(token) for token in ends)


def as_count(value: int, name: str, least: int = 0) -> int:
    """`value` if it is a whole number of `least` or more, else UsageError."""
    if not isinstance(value, Integral) or value < least:
        raise UsageError(f"{name} must be {least} or more, a whole number, got {value}")
    return int(value)


def as_rng(seed: int) -> np.random.Generator:
    if not isinstance(seed, Integral) or seed < 0:
        raise UsageError(f"the seed must be 0 or more, a whole number, got {seed}")
    return np.random.default_rng(int(seed))


def is_a_number(value: float) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value)
