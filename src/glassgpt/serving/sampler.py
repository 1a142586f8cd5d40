"""How a request shapes the distribution, and the model's own answer told with it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.decoding.beam import largest
from glassgpt.decoding.processors import SMALLEST_TEMPERATURE, processors
from glassgpt.interface import LogitsProcessor
from glassgpt.numerics import entropy, log_softmax
from glassgpt.serving.asked import Asked
from glassgpt.serving.names import Names
from glassgpt.serving.refusals import Refusal

HOTTEST = 1e6
MOST_TOP = 1000  # tokens in a list of the likeliest


@dataclass(frozen=True)
class Sampling:
    """`top_k` 0 and `top_p` 1 leave all tokens in; `temperature` 0 takes the likeliest."""

    temperature: float
    top_k: int
    top_p: float

    @classmethod
    def asked(cls, asked: Asked, vocab_size: int) -> Sampling:
        temperature = asked.number("temperature", 0, HOTTEST, 1)
        if 0 < temperature < SMALLEST_TEMPERATURE:
            raise Refusal("usage", f"temperature {temperature:g} is too small for a float's division", "ask for 0")
        top_p = asked.number("top_p", 0, 1, 1)
        if top_p == 0:
            raise Refusal("usage", "top_p must be above 0: no token would be left", "give 1 for all tokens")
        return cls(temperature, asked.whole("top_k", 0, 1 << 31, 0), top_p)

    def processors(self) -> list[LogitsProcessor]:
        return processors(self.temperature, self.top_k or None, self.top_p if self.top_p < 1 else None)


def likeliest(logits: np.ndarray, n: int, names: Names) -> dict[str, Any]:
    """The entropy of a model's own distribution in nats, and its `n` likeliest tokens: [id, logprob, text]."""
    logprobs = log_softmax(logits)
    top = [[token, float(logprobs[token]), names[token]] for token in largest_ids(logprobs, n)]
    return {"entropy": float(entropy(logprobs)), "top": top}


def largest_ids(values: np.ndarray, n: int) -> list[int]:
    """Where the `n` largest of `values` (V,) stand, falling, the lower id first among equals; -inf never."""
    return [int(token) for token in largest(values, n)] if n else []


def finite(value: float) -> float | None:
    """A number as JSON has it, null for infinity."""
    return value if math.isfinite(value) else None
