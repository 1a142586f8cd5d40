"""The whole idea in one file: a sequence of token ids goes in, a distribution over the next id comes out.

`LanguageModel` is that function, `Session` is the same function fed token by token, `Tokenizer` joins ids to text, and
`LogitsProcessor` reshapes the distribution. Everything else makes such a function (training), walks it (decoding), or
looks at it (chain, figures), and needs to know no more of a model than this file says.

Arrays are NumPy arrays here. A model may also accept its own kind of array and then answers in kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, Self

import numpy as np

from glassgpt.errors import UsageError

Array = Any  # an array of any library that follows the array API standard: NumPy, torch, JAX

ROWS_AT_ONCE = 1 << 14  # contexts evaluated in one call where all of them are wanted


class LanguageModel(ABC):
    """A function from a context of tokens to a distribution over the next token.

    A subclass sets `vocab_size` and `context_length` and defines `next_token_logits`; the rest follows from it, slowly
    and correctly, and may be replaced by faster equals. `glassgpt.check_model` compares the two.
    """

    vocab_size: int
    context_length: int

    @abstractmethod
    def next_token_logits(self, contexts: Array) -> Array:
        """The logits of the token that follows each context.

        `contexts`: int array (batch, time) of ids in [0, vocab_size), oldest first, time >= 1. Only the last
        `context_length` tokens count: that is what a context length means, and what makes the model a Markov chain.
        Returns a float array (batch, vocab_size); softmax over its last axis gives probabilities, and -inf marks a
        token that cannot follow.
        """

    def sequence_logits(self, tokens: Array) -> np.ndarray:
        """The logits after every prefix: int array (batch, time) to float array (batch, time, vocab_size).

        Position t holds what follows tokens[:, :t+1], seen through the last `context_length` of them.
        """
        tokens = as_contexts(tokens, self.vocab_size)
        logits = [
            np.asarray(self.next_token_logits(tokens[:, max(0, t - self.context_length) : t]))
            for t in range(1, tokens.shape[1] + 1)
        ]
        return np.stack(logits, axis=1)

    def session(self, batch_size: int = 1) -> Session:
        """An empty session of `batch_size` texts that grow together."""
        return RecomputingSession(self, batch_size)

    def context_table(self, length: int | None = None) -> np.ndarray:
        """The logits after *every* context of `length` tokens (default `context_length`), each a row.

        Float array (vocab_size**length, vocab_size). Row `code` belongs to the context whose tokens are the
        base-vocab_size digits of `code`, the oldest token the most significant. This is how the chain enumerates a
        model without knowing what it is.
        """
        length = self.context_length if length is None else length
        blocks = [np.asarray(self.next_token_logits(block)) for block in every_context(self.vocab_size, length)]
        return np.concatenate(blocks)


class Session(ABC):
    """A model fed token by token: what a KV cache makes fast and what recomputation defines.

    Past `context_length` a session must answer as the model does for the cropped window. A cache that merely slides is
    another function: its keys still carry tokens that have left the window.
    """

    @property
    @abstractmethod
    def length(self) -> int:
        """How many tokens each text holds."""

    @abstractmethod
    def feed(self, tokens: Array) -> np.ndarray:
        """Append int array (batch, time) and return the logits of what follows: float array (batch, vocab_size)."""

    def feed_each(self, tokens: Array) -> np.ndarray:
        """As `feed`, with the logits after each of the fed tokens: float array (batch, time, vocab_size)."""
        tokens = np.asarray(tokens)
        return np.stack([self.feed(tokens[:, t : t + 1]) for t in range(tokens.shape[1])], axis=1)

    @abstractmethod
    def fork(self) -> Self:
        """An independent copy: feeding one leaves the other as it was."""

    @abstractmethod
    def rewind(self, n: int) -> None:
        """Forget the last `n` tokens of every text."""

    @abstractmethod
    def reorder(self, rows: Sequence[int] | np.ndarray) -> None:
        """Let text i continue from what was text `rows[i]`; rows may repeat or drop texts (as beam search does)."""


class RecomputingSession(Session):
    """The definition of a session: it keeps the tokens and asks the model afresh."""

    def __init__(self, model: LanguageModel, batch_size: int = 1) -> None:
        self.model = model
        self.tokens = np.empty((batch_size, 0), dtype=np.int64)

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def feed(self, tokens: Array) -> np.ndarray:
        tokens = as_contexts(tokens, self.model.vocab_size)
        if len(tokens) != len(self.tokens):
            raise UsageError(f"this session holds {len(self.tokens)} texts, and tokens for {len(tokens)} were fed")
        self.tokens = np.concatenate([self.tokens, tokens], axis=1)
        return np.asarray(self.model.next_token_logits(self.tokens[:, -self.model.context_length :]))

    def fork(self) -> Self:
        copy = type(self)(self.model, len(self.tokens))
        copy.tokens = self.tokens
        return copy

    def rewind(self, n: int) -> None:
        if not 0 <= n <= self.length:
            raise UsageError(f"cannot rewind {n} tokens of a text that holds {self.length}")
        self.tokens = self.tokens[:, : self.length - n]

    def reorder(self, rows: Sequence[int] | np.ndarray) -> None:
        self.tokens = self.tokens[np.asarray(rows, dtype=np.int64)]


class Tokenizer(ABC):
    """Text to token ids and back, without loss."""

    vocab_size: int
    special: dict[str, int]
    """Names of tokens that stand for no text (end of text, say) and their ids. They never come out of `encode`."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text. Text that spells a special token's name is encoded as the ordinary text it is."""

    @abstractmethod
    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for; empty for a special one."""

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """The text of ids. Bytes that are no whole UTF-8 character become U+FFFD."""
        return b"".join(self.token_bytes(int(token)) for token in tokens).decode("utf-8", errors="replace")


class LogitsProcessor(Protocol):
    """A function that reshapes logits: (contexts (batch, time), logits (batch, vocab_size)) -> logits.

    An excluded token gets -inf. Written against the array API standard, so that it works where the logits lie.
    """

    def __call__(self, contexts: Array, logits: Array, /) -> Array: ...


def as_contexts(tokens: Array, vocab_size: int) -> np.ndarray:
    """`tokens` as an int64 array (batch, time), checked at the door: raises UsageError for anything else."""
    try:
        array = np.asarray(tokens)
    except ValueError:
        raise UsageError("expected token ids of shape (batch, time), got texts of unequal length") from None
    if array.ndim != 2 or array.shape[1] == 0:
        raise UsageError(
            f"expected token ids of shape (batch, time) with time >= 1, got shape {array.shape}: "
            "wrap a single context in a list, [[1, 0, 1]]"
        )
    if not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"expected integer token ids, got {array.dtype}: encode text with a tokenizer first")
    if array.size and not (array.min() >= 0 and array.max() < vocab_size):
        wrong = array[(array < 0) | (array >= vocab_size)][0]
        raise UsageError(
            f"token id {wrong} is outside this model's vocabulary of {vocab_size} (ids 0 to {vocab_size - 1})"
        )
    return array.astype(np.int64, copy=False)


def every_context(vocab_size: int, length: int, rows: int = ROWS_AT_ONCE) -> Iterator[np.ndarray]:
    """All vocab_size**length contexts in the order of their codes, in blocks of int64 (at most `rows`, length).

    >>> [block.tolist() for block in every_context(2, 2)]
    [[[0, 0], [0, 1], [1, 0], [1, 1]]]
    """
    if length < 1:
        raise UsageError(f"expected a context of at least one token, got length {length}")
    place_values = vocab_size ** np.arange(length - 1, -1, -1, dtype=np.int64)
    for start in range(0, vocab_size**length, rows):
        codes = np.arange(start, min(start + rows, vocab_size**length), dtype=np.int64)
        yield codes[:, None] // place_values % vocab_size
