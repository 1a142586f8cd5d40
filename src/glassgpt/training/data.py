"""The training text as windows: a context of tokens, each with the token that follows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.text.character import CharacterTokenizer
from glassgpt.training.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Windows:
    """`inputs` and `targets`, int64 (windows, context_length): targets are the inputs one token later."""

    tokens: np.ndarray
    inputs: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs)

    def tokens_in_a_batch(self, batch_size: int | None) -> int:
        """How many tokens a step sees."""
        return min(len(self), batch_size or len(self)) * self.inputs.shape[1]

    def batch(self, step: int, batch_size: int | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The windows of one step: all of them, or a draw that depends on seed and step alone, so that a run which
        goes on later draws the same."""
        if batch_size is None or batch_size >= len(self):
            return self.inputs, self.targets
        chosen = np.random.default_rng([seed, step]).choice(len(self), batch_size, replace=False)
        return self.inputs[chosen], self.targets[chosen]


def tokenizer_for(recipe: Recipe) -> CharacterTokenizer:
    """The vocabulary of a recipe: one character a token. Raises UsageError if it doesn't have vocab_size symbols."""
    size = recipe.model.vocab_size
    if recipe.data.symbols is None:
        return CharacterTokenizer.of_size(size)
    if len(recipe.data.symbols) != size:
        raise UsageError(f"data.symbols names {len(recipe.data.symbols)} tokens, and model.vocab_size is {size}")
    return CharacterTokenizer(recipe.data.symbols)


def windows_of(recipe: Recipe, tokenizer: CharacterTokenizer) -> Windows:
    """Every window of the recipe's sequence. Raises UsageError if it has none, or symbols outside the vocabulary."""
    T = recipe.model.context_length
    tokens = np.array(tokenizer.encode(recipe.data.sequence), dtype=np.int64)
    if len(tokens) <= T:
        raise UsageError(
            f"the sequence has {len(tokens)} tokens and the context {T}: it must be at least one token longer, "
            "so that there is something to predict"
        )
    windows = np.lib.stride_tricks.sliding_window_view(tokens, T + 1)
    return Windows(tokens, windows[:, :-1].copy(), windows[:, 1:].copy())
