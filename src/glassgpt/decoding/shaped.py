"""A model and its processors are again a model: "GPT-2 at temperature 0.7 with top-40" is one more function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from array_api_compat import array_namespace, is_array_api_obj

from glassgpt.decoding.next_token import spelled
from glassgpt.decoding.processors import apply
from glassgpt.interface import Array, LanguageModel, LogitsProcessor, Session, every_context


class Shaped(LanguageModel):
    """`model` seen through `processors`, applied in order to float64 logits.

    Generation draws from exactly these logits, so the chain of a `Shaped` model is the chain of that sampler.
    """

    def __init__(self, model: LanguageModel, processors: Sequence[LogitsProcessor]) -> None:
        self.model = model
        self.processors = tuple(processors)
        self.vocab_size = model.vocab_size
        self.context_length = model.context_length

    def __repr__(self) -> str:
        return f"Shaped({type(self.model).__name__}: {spelled(self.processors)})"

    def next_token_logits(self, contexts: Array) -> Array:
        contexts = as_array(contexts)
        return self.shape(contexts, self.model.next_token_logits(contexts))

    def sequence_logits(self, tokens: Array) -> Array:
        tokens = as_array(tokens)
        logits = self.model.sequence_logits(tokens)
        return array_namespace(logits).stack(
            [self.shape(tokens[:, : t + 1], logits[:, t]) for t in range(tokens.shape[1])], axis=1
        )

    def session(self, batch_size: int = 1) -> Session:
        return ShapedSession(self, self.model.session(batch_size), np.empty((batch_size, 0), dtype=np.int64))

    def context_table(self, length: int | None = None) -> np.ndarray:
        length = self.context_length if length is None else length
        raw = self.model.context_table(length)
        if not self.processors:
            return raw
        table = np.empty(raw.shape)
        start = 0
        for contexts in every_context(self.vocab_size, length):
            stop = start + len(contexts)
            table[start:stop] = self.shape(contexts, raw[start:stop])
            start = stop
        return table

    def shape(self, contexts: Array, logits: Array) -> Array:
        """What the processors make of a model's logits for these contexts."""
        return apply(self.processors, contexts, logits, self.context_length)


def as_array(tokens: Array) -> Array:
    """An array of whatever library as it is; a list as a NumPy array."""
    return tokens if is_array_api_obj(tokens) else np.asarray(tokens)


class ShapedSession(Session):
    """The model's own session, with the processors applied to what it answers."""

    def __init__(self, shaped: Shaped, inner: Session, tokens: np.ndarray) -> None:
        self.shaped, self.inner, self.tokens = shaped, inner, tokens

    @property
    def length(self) -> int:
        return self.inner.length

    def feed(self, tokens: Array) -> np.ndarray:
        logits = self.inner.feed(tokens)
        self.tokens = np.concatenate([self.tokens, np.asarray(tokens)], axis=1)
        return self.shaped.shape(self.tokens, logits)

    def feed_each(self, tokens: Array) -> np.ndarray:
        before, logits = self.tokens.shape[1], self.inner.feed_each(tokens)
        self.tokens = np.concatenate([self.tokens, np.asarray(tokens)], axis=1)
        shaped = [self.shaped.shape(self.tokens[:, : before + t + 1], logits[:, t]) for t in range(logits.shape[1])]
        return np.stack(shaped, axis=1)

    def fork(self) -> Self:
        return type(self)(self.shaped, self.inner.fork(), self.tokens)

    def rewind(self, n: int) -> None:
        self.inner.rewind(n)
        self.tokens = self.tokens[:, : self.tokens.shape[1] - n]

    def reorder(self, rows: Sequence[int] | np.ndarray) -> None:
        self.inner.reorder(rows)
        self.tokens = self.tokens[np.asarray(rows, dtype=np.int64)]
