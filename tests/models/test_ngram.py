"""The n-gram model by hand."""

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.models.ngram import NGram, log_rows

BABY = [int(c) for c in "111101111011110"]


def probs(model, *contexts):
    return np.exp(model.next_token_logits([list(context) for context in contexts]))


def test_a_bigram_counts_pairs():
    model = NGram(BABY, 2, n=2, smoothing=0.0)  # 11 nine times, 10 three times, 01 twice, 00 never
    np.testing.assert_allclose(probs(model, [0], [1]), [[0, 1], [3 / 12, 9 / 12]], atol=1e-15)


def test_a_four_gram_on_the_baby_text():
    model = NGram(BABY, 2, n=4, smoothing=0.0)
    assert model.context_length == 3
    np.testing.assert_allclose(
        probs(model, [1, 1, 1], [1, 0, 1], [0, 1, 1]), [[1 / 2, 1 / 2], [0, 1], [0, 1]], atol=1e-15
    )


def test_smoothing_adds_to_every_count():
    laplace = NGram(BABY, 2, n=2, smoothing=1.0)
    np.testing.assert_allclose(probs(laplace, [0], [1]), [[1 / 4, 3 / 4], [4 / 14, 10 / 14]], atol=1e-15)
    half = NGram([0, 1, 0], 3, n=2, smoothing=0.5)
    np.testing.assert_allclose(
        probs(half, [0], [1], [2]), [[0.2, 0.6, 0.2], [0.6, 0.2, 0.2], [1 / 3, 1 / 3, 1 / 3]], atol=1e-15
    )


def test_a_context_that_never_occurred_is_uniform():
    model = NGram(BABY, 2, n=4, smoothing=0.0)
    np.testing.assert_array_equal(probs(model, [0, 0, 0], [1, 0, 0]), np.full((2, 2), 0.5))
    assert not np.isnan(model.context_table()).any()


def test_what_was_never_seen_after_a_known_context_is_impossible():
    model = NGram([0, 1, 0, 1], 2, n=2, smoothing=0.0)
    np.testing.assert_array_equal(model.next_token_logits([[0]]), [[-np.inf, 0.0]])


def test_a_short_context_is_answered_from_counts_of_its_length():
    model = NGram(BABY, 2, n=4, smoothing=0.0)
    bigram = NGram(BABY, 2, n=2, smoothing=0.0)
    np.testing.assert_array_equal(model.next_token_logits([[1], [0]]), bigram.next_token_logits([[1], [0]]))
    np.testing.assert_allclose(probs(model, [1, 0], [0, 1], [1, 1]), [[0, 1], [0, 1], [3 / 9, 6 / 9]], atol=1e-15)


def test_a_long_context_is_cropped():
    model = NGram(BABY, 2, n=3)
    np.testing.assert_array_equal(model.next_token_logits([[0, 0, 0, 1, 1]]), model.next_token_logits([[1, 1]]))


@pytest.mark.parametrize("text", [[1], [1, 0], [0, 1, 1]])
def test_a_text_shorter_than_the_order_leaves_long_contexts_uniform(text):
    model = NGram(text, 2, n=4, smoothing=0.0)
    np.testing.assert_array_equal(np.exp(model.context_table()), np.full((8, 2), 0.5))
    np.testing.assert_allclose(np.exp(NGram(text, 2, n=4).context_table()), np.full((8, 2), 0.5), atol=1e-15)


def test_a_short_text_still_counts_the_orders_it_has():
    model = NGram([0, 1, 1], 2, n=4, smoothing=0.0)
    np.testing.assert_allclose(probs(model, [0], [1]), [[0, 1], [0, 1]])
    np.testing.assert_allclose(probs(model, [0, 1]), [[0, 1]])


def test_every_row_sums_to_one():
    text = np.random.default_rng(0).integers(0, 5, 200)
    for smoothing in (0.0, 1e-9, 0.3, 1.0, 1e9):
        table = np.exp(NGram(text, 5, n=4, smoothing=smoothing).context_table())
        np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-14)


@pytest.mark.parametrize("n", [1, 0, -3])
def test_an_order_below_two_is_refused(n):
    with pytest.raises(UsageError, match="n >= 2"):
        NGram(BABY, 2, n=n)


@pytest.mark.parametrize("smoothing", [-0.1, float("nan"), float("inf")])
def test_a_smoothing_that_means_nothing_is_refused(smoothing):
    with pytest.raises(UsageError, match="smoothing"):
        NGram(BABY, 2, n=2, smoothing=smoothing)


@pytest.mark.parametrize("text", [[], [0, 2], [0.5, 1.0], [-1, 0]])
def test_a_text_that_is_no_tokens_is_refused(text):
    with pytest.raises(UsageError):
        NGram(text, 2, n=2)


def test_log_rows_by_hand():
    np.testing.assert_allclose(np.exp(log_rows(np.array([[1.0, 3.0], [0.0, 0.0]]), 0.0)), [[0.25, 0.75], [0.5, 0.5]])
