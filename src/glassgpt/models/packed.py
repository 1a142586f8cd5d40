"""A GPT for running: the steps of one text by the compiled engine (`native`), all else by torch.

Both hold the same numbers: where the engine's weights are rounded to 8 or 4 bits, torch's copy holds what they stand
for. The engine is for one text at a time, where reading the weights is all the work; whole prompts and batches are
matrix products, which torch does well. With int8 and int4 the engine also rounds activations, so that a step differs
from torch's forward pass by that rounding; in float32 the two agree as two orders of summation do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from glassgpt.interface import Array, LanguageModel, Session
from glassgpt.models import native
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.kv_cache import Cache, CachedSession, KVCache, LayerCache

LONGEST_BLOCK = 16  # tokens that the engine takes faster than a matrix product does


class PackedGPT(LanguageModel):
    """`torch` is the GPT for prompts and batches, `weights` the same for steps."""

    def __init__(self, torch_gpt: GPT, weights: native.Weights) -> None:
        self.torch, self.weights = torch_gpt, weights
        self.config = torch_gpt.config
        self.vocab_size = torch_gpt.vocab_size
        self.context_length = torch_gpt.context_length

    def next_token_logits(self, contexts: Array) -> Array:
        return self.torch.next_token_logits(contexts)

    def sequence_logits(self, tokens: Array) -> Array:
        return self.torch.sequence_logits(tokens)

    def context_table(self, length: int | None = None) -> np.ndarray:
        return self.torch.context_table(length)

    def session(self, batch_size: int = 1) -> Session:
        if batch_size != 1:
            return self.torch.session(batch_size)
        cache = NativeCache(self.torch, self.weights.cache())
        return CachedSession(self.torch, cache, np.empty((1, 0), dtype=np.int64))


class NativeCache:
    """One text in the engine's cache; a long stretch of new tokens goes through torch, whose keys are handed over."""

    def __init__(self, model: GPT, text: native.Cache) -> None:
        self.model, self.text = model, text

    @property
    def length(self) -> int:
        return self.text.length

    def keep(self, length: int) -> None:
        self.text.rewind(max(0, self.length - length))

    def of_rows(self, rows: Sequence[int] | np.ndarray) -> Cache:
        return NativeCache(self.model, self.text.fork()) if len(rows) == 1 else self._in_torch().of_rows(rows)

    def advance(self, tokens: np.ndarray, n: int) -> np.ndarray:
        if tokens.shape[1] <= LONGEST_BLOCK:
            return self.text.step(tokens[0], last_only=n == 1)[None, -n:]
        start, cache = self.length, self._in_torch()
        logits = cache.advance(tokens, n)
        new = [(layer.keys[0, :, start : layer.length], layer.values[0, :, start : layer.length])
               for layer in cache.layers]  # fmt: skip
        keys, values = (torch.stack(side).float().numpy() for side in zip(*new, strict=True))
        self.text.extend(keys, values)
        return logits.astype(np.float32)

    def _in_torch(self) -> KVCache:
        """The same text as torch keeps it."""
        kind = self.model.wte.weight.dtype
        layers = []
        for keys, values in zip(self.text.keys, self.text.values, strict=True):
            sides = (
                torch.from_numpy(side[None, :, : self.length].astype(np.float32)).to(kind) for side in (keys, values)
            )
            layers.append(LayerCache(*sides))
            layers[-1].length = self.length
        return KVCache(self.model, layers)
