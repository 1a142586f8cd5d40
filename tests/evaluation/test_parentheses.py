"""The language of parentheses: its prefixes are counted and drawn evenly, and a model that counts is never wrong."""

from collections import Counter

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation.parentheses import (
    Alphabet,
    n_prefixes,
    prefixes,
    wrong_close_by_depth,
    wrong_close_by_length,
    wrong_move,
)
from glassgpt.interface import LanguageModel, as_contexts
from glassgpt.models.ngram import NGram


class Counting(LanguageModel):
    """Knows the depth since the last end, up to `reach` parentheses back; allows whatever it believes can follow."""

    vocab_size = 3

    def __init__(self, context_length):
        self.context_length = context_length

    def next_token_logits(self, contexts):
        contexts = as_contexts(contexts, 3)[:, -self.context_length :]
        logits = np.zeros((len(contexts), 3))
        for row, context in enumerate(contexts):
            depth = 0
            for token in context:
                depth = 0 if token == 2 else depth + (1 if token == 0 else -1)
            logits[row, 1 if depth <= 0 else 2] = -np.inf
        return logits


def test_the_balanced_strings_are_as_many_as_catalan_says():
    assert [n_prefixes(length, 0) for length in (0, 2, 4, 6, 8, 20)] == [1, 1, 2, 5, 14, 16_796]
    assert n_prefixes(3, 1) == 2 and n_prefixes(3, 3) == 1


@pytest.mark.parametrize(("length", "depth"), [(0, 0), (1, 1), (6, 0), (7, 3), (10, 0), (9, 9)])
def test_every_prefix_is_listed_once_and_is_one(length, depth):
    found = prefixes(length, depth, n=10_000)
    assert len(found) == n_prefixes(length, depth) == len({tuple(row) for row in found.tolist()})
    depths = np.cumsum(found, axis=1)
    assert (depths >= 0).all() and found.sum(axis=1).tolist() == [depth] * len(found)


@pytest.mark.parametrize(("length", "depth"), [(8, 0), (7, 1)])
def test_drawn_prefixes_are_even(length, depth):
    n_kinds, n = n_prefixes(length, depth), 14_000
    kinds = [tuple(row) for row in prefixes(length, depth, n=n_kinds).tolist()]
    drawn = np.concatenate([prefixes(length, depth, n=n_kinds - 1, seed=seed) for seed in range(n // n_kinds)])
    counts = Counter(tuple(row) for row in drawn.tolist())
    assert set(counts) == set(kinds)
    mean = len(drawn) / n_kinds
    assert max(abs(counts[kind] - mean) for kind in kinds) < 4.5 * np.sqrt(mean)  # 4.5 standard errors of each count


def test_long_prefixes_are_drawn_whole():
    drawn = prefixes(200, 0, n=50, seed=1)
    assert drawn.shape == (50, 200) and (np.cumsum(drawn, axis=1) >= 0).all() and not drawn.sum(axis=1).any()
    np.testing.assert_array_equal(drawn, prefixes(200, 0, n=50, seed=1))


def test_a_model_that_counts_is_never_wrong_within_its_window_and_is_past_it():
    model = Counting(context_length=12)
    np.testing.assert_array_equal(wrong_close_by_length(model, [0, 2, 6, 10], n=30), 0)
    np.testing.assert_array_equal(wrong_move(model, prefixes(7, 3, n=30)), 0)
    np.testing.assert_array_equal(wrong_close_by_depth(model, [0, 1, 5]), 0)
    short = Counting(context_length=3)  # after (()) it sees ")))" or "())": too many closes; after ()() it sees ")()"
    assert wrong_close_by_length(short, [2], n=9)[0] == 0
    assert wrong_move(short, np.array([[1, -1, 1, 1, -1, -1]]))[0] == 0


def test_the_wrong_move_of_a_bigram_by_hand():
    #                     E ( ) ( ( ) ) E: after ")" an open once, a close once, an end once; after "(" never an end
    model = NGram([2, 0, 1, 0, 0, 1, 1, 2], 3, n=2, smoothing=0.0)
    assert wrong_move(model, np.array([[1, -1]]))[0] == pytest.approx(1 / 3)
    assert wrong_move(model, np.array([[1, 1, -1]]))[0] == pytest.approx(1 / 3)
    assert wrong_move(model, np.array([[1, 1]]))[0] == 0
    assert wrong_move(model, np.zeros((1, 0), dtype=int))[0] == 0
    assert wrong_close_by_length(model, [0, 2, 4]) == pytest.approx([0, 1 / 3, 1 / 3])


def test_without_an_end_token_only_a_close_can_be_wrong():
    model = NGram([0, 1, 0, 1], 2, n=2)
    alphabet = Alphabet(end=None)
    assert wrong_move(model, np.array([[1, -1]]), alphabet)[0] == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="end token"):
        wrong_move(model, np.array([[1, 1]]), alphabet)
    with pytest.raises(UsageError, match="end token"):
        wrong_close_by_length(model, [0], alphabet)


@pytest.mark.parametrize(("length", "depth"), [(3, 0), (2, 1), (2, 4), (4, -2), (-2, 0)])
def test_a_prefix_that_cannot_be_is_refused(length, depth):
    with pytest.raises(UsageError, match="no prefix"):
        prefixes(length, depth, n=5)
    with pytest.raises(UsageError, match="never opened"):
        wrong_move(Counting(4), np.array([[-1]]))
