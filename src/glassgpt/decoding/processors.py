"""Processors that reshape a distribution before a token is drawn from it.

Each is a function (contexts, logits) -> logits that gives -inf to what it excludes, and says how it settles ties, since
every number of the chain depends on it. They are written against the array API standard and compute in float64: on
NumPy arrays on a laptop, on torch tensors where they lie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

from glassgpt.errors import UsageError
from glassgpt.interface import Array, LogitsProcessor

SMALLEST_TEMPERATURE = 1e-100  # dividing logits by less would overflow, and greedy is what is meant
LARGEST_PENALTY = 1e100  # beyond it, or below its inverse, logits would overflow


@dataclass(frozen=True)
class RepetitionPenalty:
    """Make the tokens that the context holds less likely: their logits are divided if positive, else multiplied.

    Once per token, however often it occurs; 1 changes nothing, less than 1 invites repetition. From CTRL (Keskar et
    al., arXiv 1909.05858), applied before temperature, as transformers does; but only the last `context_length` tokens
    count here, so that the model stays a Markov chain. It is a rule about raw logits, which softmax would let anyone
    shift: a model whose logits are all shifted by a constant is penalised differently.
    """

    penalty: float

    def __post_init__(self) -> None:
        if not 1 / LARGEST_PENALTY <= self.penalty <= LARGEST_PENALTY:
            raise UsageError(
                f"the repetition penalty must be a number from {1 / LARGEST_PENALTY:g} to {LARGEST_PENALTY:g} "
                f"(1 changes nothing), got {self.penalty}"
            )

    def __call__(self, contexts: Array, logits: Array) -> Array:
        xp = array_namespace(logits)
        penalised = xp.clip(logits, min=0.0) / self.penalty + xp.clip(logits, max=0.0) * self.penalty
        return xp.where(occurs(contexts, logits), penalised, logits)


@dataclass(frozen=True)
class Temperature:
    """Divide the logits by `temperature`. At 0 only the likeliest token stays, the lowest id among equals."""

    temperature: float

    def __post_init__(self) -> None:
        if not (self.temperature == 0 or SMALLEST_TEMPERATURE <= self.temperature < math.inf):
            raise UsageError(
                f"temperature must be 0 (greedy) or a number from {SMALLEST_TEMPERATURE:g} up, got {self.temperature}"
            )

    def __call__(self, contexts: Array, logits: Array) -> Array:
        xp = array_namespace(logits)
        if self.temperature > 0:
            return logits / self.temperature
        best = xp.argmax(logits, axis=-1, keepdims=True)  # the first, hence the lowest id
        return exclude(logits, xp.arange(logits.shape[-1]) != best)


@dataclass(frozen=True)
class TopK:
    """Keep the `k` likeliest tokens: exactly k of them, lower ids first among equals (nanoGPT keeps all equals)."""

    k: int

    def __post_init__(self) -> None:
        if not isinstance(self.k, Integral) or self.k < 1:
            raise UsageError(f"top-k must keep at least one token, a whole number of them, got {self.k}")

    def __call__(self, contexts: Array, logits: Array) -> Array:
        xp = array_namespace(logits)
        if self.k >= logits.shape[-1]:
            return logits
        rising = xp.sort(logits, axis=-1, stable=False)
        return exclude(logits, ~likeliest(logits, rising[..., -self.k, None], self.k))


@dataclass(frozen=True)
class TopP:
    """Keep the smallest set of likeliest tokens that holds at least `p` of the mass.

    A token stays if the tokens before it, in order of falling probability and lower ids first among equals, hold less
    than `p`: so the likeliest always stays. Holtzman et al. (arXiv 1904.09751), who leave ties open.
    """

    p: float

    def __post_init__(self) -> None:
        if not 0 < self.p <= 1:
            raise UsageError(f"top-p must be in (0, 1], got {self.p}")

    def __call__(self, contexts: Array, logits: Array) -> Array:
        if self.p == 1:  # everything: a rounded cumulative sum must not cut the far tail
            return logits
        xp = array_namespace(logits)
        falling = xp.flip(xp.sort(logits, axis=-1, stable=False), axis=-1)
        n_possible = int(xp.max(xp.count_nonzero(falling > -math.inf, axis=-1)))  # few of them after top-k
        held = xp.cumulative_sum(softmax(falling[..., : max(n_possible, 1)]), axis=-1)
        n_kept = 1 + xp.count_nonzero(held[..., :-1] < self.p, axis=-1, keepdims=True)
        return exclude(logits, ~likeliest(logits, xp.take_along_axis(falling, n_kept - 1, axis=-1), n_kept))


@dataclass(frozen=True)
class MinP:
    """Keep the tokens at least `p` times as likely as the likeliest (arXiv 2407.01082); equals stay together."""

    p: float

    def __post_init__(self) -> None:
        if not 0 <= self.p <= 1:
            raise UsageError(f"min-p must be in [0, 1], got {self.p}")

    def __call__(self, contexts: Array, logits: Array) -> Array:
        xp = array_namespace(logits)
        if self.p == 0:
            return logits
        return exclude(logits, logits < xp.max(logits, axis=-1, keepdims=True) + math.log(self.p))


def processors(
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
) -> list[LogitsProcessor]:
    """The usual five in the order in which they apply: repetition penalty, temperature, top-k, top-p, min-p.

    Idle ones are left out.
    """
    chosen: list[LogitsProcessor] = []
    if repetition_penalty is not None and repetition_penalty != 1.0:
        chosen.append(RepetitionPenalty(repetition_penalty))
    if temperature != 1.0:
        chosen.append(Temperature(temperature))
    if top_k is not None:
        chosen.append(TopK(top_k))
    if top_p is not None:
        chosen.append(TopP(top_p))
    if min_p is not None:
        chosen.append(MinP(min_p))
    return chosen


def apply(chosen: Sequence[LogitsProcessor], contexts: Array, logits: Array, window: int) -> Array:
    """What processors, in order, make of the logits (batch, vocab_size) that follow `contexts`; float64.

    They see the last `window` tokens of each context, as the model does.
    """
    xp = array_namespace(logits)
    logits = xp.astype(logits, xp.float64)
    for processor in chosen:
        logits = processor(contexts[:, -window:], logits)
    return logits


def exclude(logits: Array, excluded: Array) -> Array:
    """-inf for what is excluded. NaN stays: a draw from what the others say would hide that the model is broken."""
    xp = array_namespace(logits)
    return xp.where(excluded & ~xp.isnan(logits), xp.asarray(-math.inf, dtype=logits.dtype), logits)


def likeliest(values: Array, threshold: Array, n: int | Array) -> Array:
    """Which are the `n` largest of each row: exactly n of them, lower ids first among equals.

    `threshold` (batch, 1) is the n-th largest of the row: whatever lies above it stays, and the first of its equals as
    far as there is room. One sort of the values finds it; sorting the ids as well would take ten times as long.
    """
    xp = array_namespace(values)
    at_least = values >= threshold
    if xp.all(xp.count_nonzero(at_least, axis=-1, keepdims=True) == n):  # no equals at the border, as is usual
        return at_least
    above = values > threshold
    room = n - xp.count_nonzero(above, axis=-1, keepdims=True)
    level = xp.astype(values == threshold, xp.int64)
    return above | ((level == 1) & (xp.cumulative_sum(level, axis=-1) <= room))


def occurs(contexts: Array, logits: Array) -> Array:
    """Which tokens of the vocabulary each context holds: (batch, time) to bool (batch, vocab_size)."""
    ids = np.asarray(contexts.cpu() if is_torch_array(contexts) else contexts)
    held = np.zeros(logits.shape, dtype=np.bool_)  # in NumPy: the standard has no scatter, and a mask is soon carried
    np.put_along_axis(held, ids, True, axis=-1)
    return array_namespace(logits).asarray(held, device=device(logits))


def softmax(logits: Array) -> Array:
    xp = array_namespace(logits)
    powers = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)
