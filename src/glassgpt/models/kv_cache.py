"""A GPT fed token by token without doing the old tokens' work again: their keys and values are kept.

The cache holds the keys and values of the first `length` tokens of each text, never of a window that slid: a key made
deep in the network still carries tokens that have left the window, so a sliding cache is another function than the
model, and no Markov chain over its contexts. Past `context_length` every token costs a forward pass of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from glassgpt.errors import UsageError
from glassgpt.interface import Array, LanguageModel, Session, as_contexts
from glassgpt.models.threads import threads_for

if TYPE_CHECKING:
    from glassgpt.models.gpt_torch import GPT

SMALLEST = 64  # positions allocated at first; doubled when they are full
WINDOWS_AT_ONCE = 16  # texts past the window, evaluated in one batch


class LayerCache:
    """One layer's keys and values (B, K, capacity, D), of which the first `length` positions hold something."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, K, T, D) and return all that there are, (B, K, length, D)."""
        end = self.length + k.shape[2]
        if end > self.keys.shape[2]:
            self.grow(end)
        self.keys[:, :, self.length : end] = k
        self.values[:, :, self.length : end] = v
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def grow(self, least: int) -> None:
        B, K, capacity, D = self.keys.shape
        larger = max(least, 2 * capacity, SMALLEST)
        for name in ("keys", "values"):
            old: Tensor = getattr(self, name)
            new = old.new_empty((B, K, larger, D))
            new[:, :, : self.length] = old[:, :, : self.length]
            setattr(self, name, new)

    def of_rows(self, rows: Tensor) -> LayerCache:
        """The texts `rows` as a cache of their own, with as much room."""
        copy = LayerCache(*(side.new_empty((len(rows), *side.shape[1:])) for side in (self.keys, self.values)))
        copy.length = self.length
        for there, here in ((copy.keys, self.keys), (copy.values, self.values)):
            there[:, :, : self.length] = here[:, :, : self.length].index_select(0, rows)
        return copy


class Cache(Protocol):
    """What a session keeps of its texts so as not to do their work again: the first `length` tokens of each."""

    @property
    def length(self) -> int: ...

    def keep(self, length: int) -> None:
        """Forget all but the first `length` tokens, if there are more."""

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> Cache:
        """The texts `rows` as a cache of their own."""

    def advance(self, tokens: np.ndarray, n: int) -> np.ndarray:
        """Add int64 tokens (B, T) and return the logits after the last `n` of them, (B, n, V)."""


class KVCache:
    """Keys and values of every layer, as torch tensors; all layers hold the same tokens."""

    def __init__(self, model: GPT, layers: list[LayerCache]) -> None:
        self.model, self.layers = model, layers

    @classmethod
    def empty(cls, model: GPT, batch_size: int) -> KVCache:
        config = model.config
        nothing = model.wte.weight.new_empty((batch_size, config.kv_heads, 0, config.head_width)).detach()
        return cls(model, [LayerCache(nothing, nothing) for _ in range(config.n_layer)])

    @property
    def length(self) -> int:
        return self.layers[0].length

    def keep(self, length: int) -> None:
        for layer in self.layers:
            layer.length = min(layer.length, length)

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> KVCache:
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64), device=self.layers[0].keys.device)
        return KVCache(self.model, [layer.of_rows(index) for layer in self.layers])

    def advance(self, tokens: np.ndarray, n: int) -> np.ndarray:
        ids = torch.as_tensor(tokens, device=self.model.wte.weight.device)
        with torch.inference_mode(), threads_for(ids.numel() * self.model.config.hidden_width):
            hidden = self.model.hidden(ids, self)
            logits = self.model.lm_head(hidden[:, hidden.shape[1] - n :])
            return (logits.float() if logits.itemsize < 4 else logits).cpu().numpy()


class CachedSession(Session):
    """A session over a cache, which may hold fewer tokens than the text does: what is missing is fed again."""

    def __init__(self, model: LanguageModel, cache: Cache, tokens: np.ndarray) -> None:
        self.model, self.cache, self.tokens = model, cache, tokens

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def feed(self, tokens: Array) -> np.ndarray:
        self._append(tokens)
        if self.length > self.model.context_length:
            return np.asarray(self.model.next_token_logits(self.tokens[:, -self.model.context_length :]))
        return self.cache.advance(self.tokens[:, self.cache.length :], 1)[:, -1]

    def feed_each(self, tokens: Array) -> np.ndarray:
        before, T = self.length, self.model.context_length
        self._append(tokens)
        logits = []
        if (inside := min(self.length, T) - before) > 0:
            logits.append(self.cache.advance(self.tokens[:, self.cache.length : before + inside], inside))
        for start in range(max(before, T), self.length, WINDOWS_AT_ONCE):
            ends = range(start + 1, min(start + WINDOWS_AT_ONCE, self.length) + 1)
            windows = np.stack([self.tokens[:, end - T : end] for end in ends], axis=1)  # (B, windows, T)
            flat = np.asarray(self.model.next_token_logits(windows.reshape(-1, T)))
            logits.append(flat.reshape(*windows.shape[:2], -1))
        return np.concatenate(logits, axis=1)

    def fork(self) -> Self:
        return type(self)(self.model, self.cache.of_rows(range(len(self.tokens))), self.tokens)

    def rewind(self, n: int) -> None:
        if not 0 <= n <= self.length:
            raise UsageError(f"cannot rewind {n} tokens of a text that holds {self.length}")
        self.tokens = self.tokens[:, : self.length - n]
        self.cache.keep(self.length)

    def reorder(self, rows: Sequence[int] | np.ndarray) -> None:
        self.tokens = self.tokens[np.asarray(rows, dtype=np.int64)]
        self.cache = self.cache.of_rows(rows)

    def _append(self, tokens: Array) -> None:
        tokens = as_contexts(tokens, self.model.vocab_size)
        if len(tokens) != len(self.tokens):
            raise UsageError(f"this session holds {len(self.tokens)} texts, and tokens for {len(tokens)} were fed")
        self.tokens = np.concatenate([self.tokens, tokens], axis=1)
