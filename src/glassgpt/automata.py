"""Token automata: what must be remembered of a text, beside its last tokens, to notice a pattern in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError


@dataclass(frozen=True, eq=False)
class TokenAutomaton:
    """A deterministic automaton over token ids that starts in state 0.

    `delta`: int array (states, vocab_size), the next state. `accepting`: bool array (states,); an accepting state is
    never left, so that it means "has been seen", not "has just been seen".
    """

    delta: np.ndarray
    accepting: np.ndarray

    def __post_init__(self) -> None:
        for state in np.flatnonzero(self.accepting):
            if np.any(self.delta[state] != state):
                raise UsageError(f"accepting state {state} must lead to itself whatever token follows")

    @property
    def n_states(self) -> int:
        return len(self.delta)

    def run(self, tokens: Iterable[int], state: int = 0) -> int:
        """The state after reading `tokens`."""
        for token in tokens:
            state = int(self.delta[state, token])
        return state

    def run_every_context(self, length: int) -> np.ndarray:
        """The state after each of the vocab_size**length contexts, in code order."""
        states = np.zeros(1, dtype=np.int64)
        for _ in range(length):
            states = self.delta[states].reshape(-1)
        return states


def any_context(vocab_size: int) -> TokenAutomaton:
    """The automaton that remembers nothing and accepts nothing."""
    return TokenAutomaton(np.zeros((1, vocab_size), dtype=np.int64), np.zeros(1, dtype=bool))


def pattern_automaton(patterns: Sequence[Sequence[int]], vocab_size: int) -> TokenAutomaton:
    """Accepts as soon as any of `patterns` (token sequences) has been read; overlaps are followed.

    Aho & Corasick, "Efficient string matching" (1975); with one pattern it is Knuth, Morris & Pratt's automaton, whose
    state is the length of the longest beginning of the pattern that the text now ends in.

    >>> pattern_automaton([[1, 1, 0]], 2).delta.tolist()
    [[0, 1], [0, 2], [3, 2], [3, 3]]
    """
    children, accepting = _trie(patterns, vocab_size)
    delta = np.zeros((len(children), vocab_size), dtype=np.int64)
    fallback = [0] * len(children)  # the longest proper end of what was read that also begins a pattern
    queue = deque([0])
    while queue:
        state = queue.popleft()
        accepting[state] = accepting[state] or accepting[fallback[state]]
        delta[state] = after_fallback = delta[fallback[state]].copy()  # of state 0: back to state 0
        for token, child in children[state].items():
            delta[state, token] = child
            fallback[child] = int(after_fallback[token])
            queue.append(child)
    accepted = np.array(accepting)
    delta[accepted] = np.flatnonzero(accepted)[:, None]
    return TokenAutomaton(delta, accepted)


def _trie(patterns: Sequence[Sequence[int]], vocab_size: int) -> tuple[list[dict[int, int]], list[bool]]:
    if not patterns:
        raise UsageError("expected at least one pattern of tokens, got none")
    children: list[dict[int, int]] = [{}]
    accepting = [False]
    for pattern in patterns:
        if len(pattern) == 0:
            raise UsageError("a pattern needs at least one token: the empty one is in every text")
        state = 0
        for token in pattern:
            if not 0 <= token < vocab_size:
                raise UsageError(f"token id {token} in a pattern is outside the vocabulary of {vocab_size}")
            if token not in children[state]:
                children[state][int(token)] = len(children)
                children.append({})
                accepting.append(False)
            state = children[state][int(token)]
        accepting[state] = True
    return children, accepting
