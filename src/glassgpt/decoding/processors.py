"""Processors that reshape a distribution before a token is drawn from it.

Each is a function (contexts, logits) -> logits that gives -inf to what it excludes, and says how it settles ties, since
every number of the chain depends on it. They are written against the array API standard and compute in float64: on
NumPy arrays on a laptop, on torch tensors where they lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from array_api_compat import array_namespace

from glassgpt.errors import UsageError
from glassgpt.interface import Array, LogitsProcessor

SMALLEST_TEMPERATURE = 1e-100  # dividing logits by less would overflow, and greedy is what is meant


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
        if self.k < 1:
            raise UsageError(f"top-k must keep at least one token, got {self.k}")

    def __call__(self, contexts: Array, logits: Array) -> Array:
        return exclude(logits, likelihood_rank(logits) >= self.k)


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
        probs = softmax(logits)
        order = xp.argsort(-probs, axis=-1, stable=True)
        in_order = xp.take_along_axis(probs, order, axis=-1)
        before = xp.cumulative_sum(in_order, axis=-1) - in_order
        place = xp.argsort(order, axis=-1, stable=True)
        return exclude(logits, xp.take_along_axis(before, place, axis=-1) >= self.p)


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
    temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> list[LogitsProcessor]:
    """The usual four in the order in which they apply: temperature, top-k, top-p, min-p. Idle ones are left out."""
    chosen: list[LogitsProcessor] = []
    if temperature != 1.0:
        chosen.append(Temperature(temperature))
    if top_k is not None:
        chosen.append(TopK(top_k))
    if top_p is not None:
        chosen.append(TopP(top_p))
    if min_p is not None:
        chosen.append(MinP(min_p))
    return chosen


def exclude(logits: Array, excluded: Array) -> Array:
    """-inf for what is excluded. NaN stays: a draw from what the others say would hide that the model is broken."""
    xp = array_namespace(logits)
    return xp.where(excluded & ~xp.isnan(logits), xp.asarray(-math.inf, dtype=logits.dtype), logits)


def likelihood_rank(logits: Array) -> Array:
    """0 for the likeliest token of each row, 1 for the next...; lower ids first among equals."""
    xp = array_namespace(logits)
    return xp.argsort(xp.argsort(-logits, axis=-1, stable=True), axis=-1, stable=True)


def softmax(logits: Array) -> Array:
    xp = array_namespace(logits)
    powers = xp.exp(logits - xp.max(logits, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)
