"""A model as what it is: a finite-state Markov chain whose states are contexts.

The chain is a row table, p(next token | context), and nothing more: the state after context b·r and token a is r·a, so
the transition matrix never needs to exist. Rows are kept as float64 log-probabilities beside a separate table of which
tokens are possible at all, so that "impossible" is never confused with "too small for a float".

The chain is the *ideal* one, of real numbers: a sampler that draws with 53 random bits never takes a step of
probability 1e-20, and the chain counts it all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log10

import numpy as np
import psutil

from glassgpt.chain.table import table
from glassgpt.display import Displayed
from glassgpt.errors import NumericalError, TooLargeError, UsageError
from glassgpt.interface import LanguageModel
from glassgpt.numerics import log_softmax

BYTES_PER_TRANSITION = 8 + 8 + 1 + 4  # log-probability, probability, possible or not, the model's own float32 logit
VECTORS = 4  # float64 vectors over the states that an analysis holds at a time
ROWS_AT_ONCE = 1 << 18
ROW_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class End:
    """What the end-of-text token does. Without one it is a token like any other ("free").

    `token` ends the text: generation stops there ("absorb"), or starts over from the context `restart`.
    """

    token: int
    restart: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Layer:
    """The rows of all contexts of one length, in code order (the oldest token the most significant digit)."""

    length: int
    logprobs: np.ndarray  # float64 (V**length, V)
    possible: np.ndarray  # bool (V**length, V)

    @cached_property
    def probs(self) -> np.ndarray:
        return np.exp(self.logprobs)

    @property
    def n_states(self) -> int:
        return len(self.logprobs)


@dataclass(frozen=True, eq=False)
class MarkovChain(Displayed):
    """States are the contexts of `context_length` tokens; with `every_length`, the shorter ones too.

    A shorter context grows by a token at each step, so it is visited at most once: it matters on the way from a short
    prompt, not in the long run. States are numbered with shorter contexts first and by code within a length.

    >>> chain = MarkovChain.from_probabilities(np.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> chain.transition_matrix()
    array([[0.9, 0.1],
           [0.5, 0.5]])
    """

    layers: tuple[Layer, ...]  # consecutive lengths, the last one context_length
    end: End | None = None

    def __post_init__(self) -> None:
        shapes = [(layer.length, layer.logprobs.shape[1]) for layer in self.layers]
        if not shapes or shapes != [(shapes[-1][0] - back, shapes[-1][1]) for back in range(len(shapes) - 1, -1, -1)]:
            raise UsageError(
                "expected one table for each length of context, consecutive and the shortest first, all of one "
                f"vocabulary; got (length, vocabulary): {shapes}"
            )
        if self.end is not None:
            if not 0 <= self.end.token < self.vocab_size:
                raise UsageError(f"end token {self.end.token} is outside the vocabulary of {self.vocab_size}")
            if self.end.restart is not None:
                self.index(self.end.restart)

    @classmethod
    def from_model(cls, model: LanguageModel, *, every_length: bool = False, end: End | None = None) -> MarkovChain:
        """The chain of a model: of a `Shaped` one, the chain of that sampler.

        Raises TooLargeError before allocating if the states don't fit in memory, NumericalError for NaN logits.
        """
        V, T = model.vocab_size, model.context_length
        refuse_if_too_large(V, T, every_length=every_length)
        lengths = range(1, T + 1) if every_length else [T]
        return cls(tuple(_layer_of_logits(length, model.context_table(length)) for length in lengths), end)

    @classmethod
    def from_probabilities(cls, *tables: np.ndarray, end: End | None = None) -> MarkovChain:
        """A chain of given rows: one table (V**length, V) for each length, consecutive and shortest first.

        Raises NumericalError for a row that is no distribution: it is never repaired in silence.
        """
        return cls(tuple(_layer_of_probabilities(np.asarray(table, dtype=np.float64)) for table in tables), end)

    def __repr__(self) -> str:
        return table(self)

    @property
    def full(self) -> Layer:
        """The rows of the full contexts."""
        return self.layers[-1]

    @property
    def vocab_size(self) -> int:
        return self.full.logprobs.shape[1]

    @property
    def context_length(self) -> int:
        return self.full.length

    @property
    def shortest(self) -> int:
        return self.layers[0].length

    @property
    def every_length(self) -> bool:
        return self.shortest == 1

    @property
    def n_states(self) -> int:
        return sum(layer.n_states for layer in self.layers)

    def offset(self, length: int) -> int:
        """The number of states that come before the contexts of `length` tokens."""
        return sum(layer.n_states for layer in self.layers if layer.length < length)

    def index(self, context: Sequence[int]) -> int:
        """The number of a state; only the last `context_length` tokens of `context` count.

        >>> uniform = MarkovChain.from_probabilities(np.full((8, 2), 0.5))
        >>> uniform.index([1, 0, 1])
        5
        """
        V = self.vocab_size
        tokens = tuple(int(token) for token in context)[-self.context_length :]
        if any(not 0 <= token < V for token in tokens):
            raise UsageError(f"context {list(tokens)} holds a token outside the vocabulary (ids 0 to {V - 1})")
        if len(tokens) < self.shortest:
            raise UsageError(
                f"context {list(tokens)} has {len(tokens)} tokens, and this chain's states have at least "
                f"{self.shortest}: give a longer context, or build the chain with every_length=True"
            )
        code = 0
        for token in tokens:
            code = code * V + token
        return self.offset(len(tokens)) + code

    def context(self, index: int) -> tuple[int, ...]:
        """The tokens of state number `index`, oldest first."""
        if not 0 <= index < self.n_states:
            raise UsageError(f"state {index} is not among the {self.n_states} of this chain")
        for layer in self.layers:
            if index < layer.n_states:
                return tuple(index // self.vocab_size**k % self.vocab_size for k in range(layer.length - 1, -1, -1))
            index -= layer.n_states
        raise AssertionError

    def row(self, index: int) -> np.ndarray:
        """The log-probabilities of the tokens that may follow state number `index`: float64 (V,)."""
        length = len(self.context(index))
        return self.layers[length - self.shortest].logprobs[index - self.offset(length)]

    @cached_property
    def probs(self) -> np.ndarray:
        """All rows as probabilities: float64 (n_states, V)."""
        return self.full.probs if len(self.layers) == 1 else np.concatenate([layer.probs for layer in self.layers])

    @cached_property
    def logprobs(self) -> np.ndarray:
        return self.full.logprobs if len(self.layers) == 1 else np.concatenate([x.logprobs for x in self.layers])

    @cached_property
    def possible(self) -> np.ndarray:
        return self.full.possible if len(self.layers) == 1 else np.concatenate([x.possible for x in self.layers])

    @cached_property
    def successors(self) -> np.ndarray:
        """The state that each token leads to, as if no token ended a text: int64 (n_states, V)."""
        tables = []
        for layer in self.layers:
            following = min(layer.length + 1, self.context_length)
            codes = np.arange(layer.n_states, dtype=np.int64)[:, None] * self.vocab_size + np.arange(self.vocab_size)
            tables.append(codes % self.vocab_size**following + self.offset(following))
        return np.concatenate(tables)

    def transition_matrix(self) -> np.ndarray:
        """The matrix P that other tools want: float64 (n_states, n_states), for chains small enough to have one.

        Where texts end and start over, the restart is a transition; where they stop, rows sum to less than 1.
        """
        if self.n_states > 1 << 13:
            raise TooLargeError(
                f"a matrix of {self.n_states} x {self.n_states} has no place here: no function of a chain needs it"
            )
        matrix = np.zeros((self.n_states, self.n_states))
        for token in range(self.vocab_size):
            targets = self.successors[:, token]
            if self.end is not None and token == self.end.token:
                if self.end.restart is None:
                    continue
                targets = np.full(self.n_states, self.index(self.end.restart))
            matrix[np.arange(self.n_states), targets] += self.probs[:, token]
        return matrix


def refuse_if_too_large(
    vocab_size: int, context_length: int, available_bytes: int | None = None, *, every_length: bool = False
) -> None:
    """Raise TooLargeError unless the chain of V**T states and its analyses fit in the memory that is free."""
    available = psutil.virtual_memory().available if available_bytes is None else available_bytes
    per_state = float(vocab_size * BYTES_PER_TRANSITION + 8 * VECTORS)
    if every_length:  # V + V^2 + ... + V^T states
        per_state *= vocab_size / (vocab_size - 1)
    size = context_length * log10(vocab_size) + log10(per_state)
    if size <= log10(available):
        return
    fitting = int((log10(available) - log10(per_state)) / log10(vocab_size))
    cure = (
        f"the longest context whose chain fits is {fitting} tokens ({vocab_size}^{fitting} states)"
        if fitting >= 1
        else "no context length fits with this vocabulary"
    )
    raise TooLargeError(
        f"the chain has {vocab_size}^{context_length} = {power_of_ten(context_length * log10(vocab_size))} states and "
        f"needs {power_of_ten(size)} bytes; {available / 1e9:.1f} GB are free, and {cure}"
    )


def refuse_vectors_too_large(automaton_states: int, chain_states: int, numbers: int = 1) -> None:
    """Raise TooLargeError unless vectors over the joint states fit in the memory that is free."""
    available = psutil.virtual_memory().available
    needed = automaton_states * chain_states * 8 * VECTORS * numbers
    if needed > available:
        raise TooLargeError(
            f"an automaton of {automaton_states} states beside a chain of {chain_states} needs {needed / 1e9:.1f} GB, "
            f"and {available / 1e9:.1f} GB are free: give shorter patterns, or fewer"
        )


def power_of_ten(exponent: float) -> str:
    """A number too large or too small for a float, from its decimal logarithm: 3.2e+4813."""
    mantissa, power = round(10 ** (exponent % 1), 1), int(exponent // 1)
    if mantissa == 10:
        mantissa, power = 1.0, power + 1
    return f"{mantissa:.1f}e{power:+d}"


def _layer_of_logits(length: int, logits: np.ndarray) -> Layer:
    logprobs = np.empty(logits.shape)
    possible = np.empty(logits.shape, dtype=bool)
    for start in range(0, len(logits), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        np.isneginf(logits[rows], out=possible[rows])
        logprobs[rows] = log_softmax(logits[rows])
    np.logical_not(possible, out=possible)
    return Layer(length, logprobs, possible)


def _layer_of_probabilities(table: np.ndarray) -> Layer:
    if table.ndim != 2 or table.shape[1] < 2:
        raise UsageError(f"expected a table of shape (contexts, vocab_size) with two tokens or more, got {table.shape}")
    V = table.shape[1]
    length = round(np.log(len(table)) / np.log(V))
    if V**length != len(table) or length < 1:
        raise UsageError(f"a table of {V} columns needs {V}, {V**2}, {V**3}... rows, one a context; got {len(table)}")
    wrong = ~(np.abs(table.sum(axis=1) - 1) <= ROW_SUM_TOLERANCE) | ~(table >= 0).all(axis=1)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        context = [row // V**k % V for k in range(length - 1, -1, -1)]
        raise NumericalError(
            f"the row of context {context} is no distribution: {table[row]} sums to {table[row].sum()}"
        )
    with np.errstate(divide="ignore"):
        return Layer(length, np.log(table), table > 0)
