"""Token automata against a plain scan of every short text."""

from itertools import product

import numpy as np
import pytest

from glassgpt.automata import TokenAutomaton, any_context, pattern_automaton
from glassgpt.errors import UsageError


def holds(text, patterns):
    """Whether any of the patterns stands anywhere in the text."""
    return any(
        tuple(text[i : i + len(pattern)]) == tuple(pattern) for pattern in patterns for i in range(len(text) + 1)
    )


@pytest.mark.parametrize(
    ("patterns", "vocab_size", "longest"),
    [
        ([[1]], 2, 6),
        ([[1, 1, 0]], 2, 9),
        ([[0, 1, 0, 1, 0]], 2, 11),  # overlaps itself
        ([[0, 0, 0, 0]], 2, 10),
        ([[1, 2, 1, 2, 0]], 3, 7),
        ([[0, 1], [1, 1, 1], [2, 0, 2]], 3, 7),
        ([[0, 1, 2, 0], [1, 2]], 3, 7),  # a pattern inside another
        ([[0, 1, 0, 2], [1, 0, 1], [0]], 3, 6),  # one that begins another
        ([[0, 1, 1], [0, 1, 1]], 2, 8),  # the same twice
        ([[3, 3], [3, 0, 3]], 4, 6),
    ],
)
def test_the_automaton_accepts_exactly_the_texts_that_hold_a_pattern(patterns, vocab_size, longest):
    automaton = pattern_automaton(patterns, vocab_size)
    for length in range(longest + 1):
        for text in product(range(vocab_size), repeat=length):
            assert bool(automaton.accepting[automaton.run(text)]) == holds(text, patterns), text


def test_the_state_for_one_pattern_is_how_much_of_it_the_text_ends_in():
    pattern = (0, 1, 0, 0, 1, 0)
    automaton = pattern_automaton([pattern], 2)
    for text in product(range(2), repeat=8):
        if not holds(text, [pattern]):
            begun = max(k for k in range(len(pattern)) if text[len(text) - k :] == pattern[:k])
            assert automaton.run(text) == begun


def test_a_pattern_once_seen_stays_seen():
    automaton = pattern_automaton([[0, 1]], 3)
    seen = automaton.run([0, 1])
    assert automaton.accepting[seen]
    assert automaton.run([2, 0, 0, 2, 1], state=seen) == seen


def test_every_context_is_run_in_code_order():
    automaton = pattern_automaton([[1, 0], [2, 2, 1]], 3)
    for length in range(4):
        expected = [automaton.run(context) for context in product(range(3), repeat=length)]
        assert automaton.run_every_context(length).tolist() == expected


def test_the_automaton_of_any_context_remembers_and_accepts_nothing():
    automaton = any_context(3)
    assert automaton.n_states == 1
    assert automaton.run([0, 1, 2, 2]) == 0
    assert not automaton.accepting.any()


def test_an_accepting_state_that_can_be_left_is_refused():
    with pytest.raises(UsageError, match="accepting state 1 must lead to itself"):
        TokenAutomaton(np.array([[0, 1], [1, 0]]), np.array([False, True]))


@pytest.mark.parametrize(
    ("patterns", "reason"),
    [
        ([], "at least one pattern"),
        ([[0, 1], []], "at least one token"),
        ([[0, 2]], "token id 2 in a pattern is outside the vocabulary of 2"),
        ([[-1]], "token id -1"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(patterns, reason):
    with pytest.raises(UsageError, match=reason):
        pattern_automaton(patterns, 2)


def test_patterns_may_be_numpy_arrays():
    automaton = pattern_automaton([np.array([1, 1, 0])], 2)
    assert automaton.delta.tolist() == [[0, 1], [0, 2], [3, 2], [3, 3]]
