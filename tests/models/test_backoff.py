"""Kneser-Ney by hand, against counting written out plainly, and the laws of a distribution."""

from collections import Counter, defaultdict

import numpy as np
import pytest

from glassgpt.check import check_model
from glassgpt.decoding.generate import generate
from glassgpt.errors import UsageError
from glassgpt.evaluation.score import score
from glassgpt.models.backoff import KneserNey, discount_of
from glassgpt.models.ngram import NGram

TEXT = np.random.default_rng(0).integers(0, 4, 300) * (np.arange(300) % 3 > 0)  # a text that repeats itself somewhat


def plainly(text, vocab_size, n, history):
    """P(. | history) by the definition, recursive, with dictionaries and the whole text counted anew each time."""
    text, history = tuple(text), tuple(history)[max(0, len(history) - n + 1) :]

    def counts(length, continuing):
        found = defaultdict(Counter)
        grams = [(text[i : i + length], text[i + length]) for i in range(len(text) - length)]
        if not continuing:
            for before, token in grams:
                found[before][token] += 1
        else:
            preceded = {(text[i - 1] if i else "beginning", *gram) for i, gram in enumerate(grams)}
            for _, before, token in preceded:
                found[before][token] += 1
        return found

    def probs(before, continuing):
        length = len(before)
        found = counts(length, continuing)
        shorter = probs(before[1:], True) if length else [1 / vocab_size] * vocab_size
        followers = found.get(before)
        if not followers:
            return shorter
        values = [times for row in found.values() for times in row.values()]
        once, twice = values.count(1), values.count(2)
        D = once / (once + 2 * twice) if once and twice else 0.5
        total, left = sum(followers.values()), D * len(followers)
        return [(max(followers[w] - D, 0) + left * shorter[w]) / total for w in range(vocab_size)]

    return probs(history, continuing=False)


def test_a_bigram_by_hand():
    # 01 twice, 10 and 11 once: D = 2 / (2 + 2 * 1) = 1/2. 0 follows the beginning and 1, 1 follows 0 and 1: Q = 1/2.
    model = KneserNey([0, 1, 0, 1, 1], 2, n=2)
    after_0 = [1 / 2 * 1 / 2 * 1 / 2, (2 - 1 / 2) / 2 + 1 / 2 * 1 / 2 * 1 / 2]
    after_1 = [(1 - 1 / 2) / 2 + 1 / 2 * 2 / 2 * 1 / 2] * 2
    np.testing.assert_allclose(np.exp(model.next_token_logits([[0], [1]])), [after_0, after_1], atol=1e-15)


def test_a_unigram_by_hand():
    model = KneserNey([0, 0, 0, 2, 2, 1], 4, n=1)  # counts 3, 1, 2, 0; D = 1 / (1 + 2 * 1)
    left = 1 / 3 * 3 / 6 / 4
    expected = [(3 - 1 / 3) / 6 + left, (1 - 1 / 3) / 6 + left, (2 - 1 / 3) / 6 + left, left]
    np.testing.assert_allclose(np.exp(model.next_token_logits([[1], [3]])), [expected] * 2, atol=1e-15)
    assert model.context_length == 1


def test_a_frequent_word_that_follows_one_word_is_not_expected_after_others():
    text = [0, 1] * 20 + [2, 3, 4, 3, 5, 3, 2, 3]  # 1 is frequent and follows only 0; 3 follows 2, 4 and 5
    after_unseen = np.exp(KneserNey(text, 7, n=2).next_token_logits([[6]]))[0]
    assert after_unseen[3] > after_unseen[1]
    assert np.exp(KneserNey(text, 7, n=1).next_token_logits([[6]]))[0, 1] > 0.3


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("text", [TEXT[:60], [1, 2, 1, 2, 3], [2], [0, 1]], ids=len)
def test_every_distribution_is_what_plain_counting_gives(n, text):
    model = KneserNey(text, 4, n)
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, 4, length) for length in (1, 2, 3, 5, 7)] + [np.array(text[:n]), np.array(text[-n:])]
    for history in histories:
        expected = plainly(np.array(text).tolist(), 4, n, history.tolist())
        np.testing.assert_allclose(np.exp(model.next_token_logits(history[None]))[0], expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_the_contract_is_kept(n):
    check_model(KneserNey(TEXT, 4, n), tolerance=1e-12)
    check_model(KneserNey([1, 0], 4, n), tolerance=1e-12)


@pytest.mark.parametrize("n", [1, 3, 6])
def test_every_row_sums_to_one_and_no_token_is_impossible(n):
    table = np.exp(KneserNey(TEXT, 5, n).context_table(5))  # token 4 never occurs
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-14)
    assert table.min() > 0


def test_a_short_history_is_answered_as_by_the_shorter_model():
    long = KneserNey(TEXT, 4, n=5)
    for k in (1, 2, 3):
        np.testing.assert_allclose(long.context_table(k), KneserNey(TEXT, 4, n=k + 1).context_table(k), rtol=1e-13)


def test_the_surprise_of_a_text_is_that_of_its_tokens_one_by_one():
    model = KneserNey(TEXT, 4, n=4)
    text = np.random.default_rng(2).integers(0, 4, 50)
    logprobs = model.text_logprobs(text)
    np.testing.assert_allclose(logprobs[1:], score(model, text, stride=1).logprobs[1:], rtol=1e-12)
    np.testing.assert_allclose(logprobs[0], KneserNey(TEXT, 4, n=1).next_token_logits([[0]])[0, text[0]], rtol=1e-13)


def test_more_history_never_makes_the_training_text_less_likely_when_nothing_is_smoothed():
    """Counting alone: the same places of the training text, seen with one token more."""
    bits = []
    for n in range(2, 7):
        logits = NGram(TEXT, 4, n, smoothing=0.0).sequence_logits(TEXT[None, :-1])[0, 5:]
        bits.append(-np.mean(np.take_along_axis(logits, TEXT[6:, None], axis=1)))
    assert bits == sorted(bits, reverse=True)


def test_a_text_that_repeats_is_learned_better_with_more_history():
    text = np.tile([0, 1, 0, 2, 0, 1, 1, 3], 60)
    surprise = [-KneserNey(text[:240], 4, n).text_logprobs(text[240:])[6:].mean() for n in range(1, 5)]
    assert surprise == sorted(surprise, reverse=True)
    assert surprise[-1] < 0.05


def test_a_vocabulary_of_words_costs_no_table():
    model = KneserNey(np.random.default_rng(3).integers(0, 50_000, 2000), 50_000, n=6)
    assert model.n_counts <= 6 * 2000 and model.n_bytes <= 48 * model.n_counts
    assert np.isfinite(model.text_logprobs([49_999, 3, 7])).all()


def test_it_writes_texts_of_the_grams_it_knows():
    text = np.tile([0, 1, 2], 500)
    written = generate(KneserNey(text, 3, n=3), [0, 1], 30, temperature=0)
    assert written == [2, 0, 1] * 10


def test_the_discount_by_hand():
    assert discount_of(np.array([1, 1, 2, 5])) == 2 / (2 + 2 * 1)
    assert discount_of(np.array([3, 4])) == discount_of(np.array([1, 3])) == 0.5


@pytest.mark.parametrize("text", [[], [0, 4], [0.5, 1.0], [-1, 0]])
def test_a_text_that_is_no_tokens_is_refused(text):
    with pytest.raises(UsageError):
        KneserNey(text, 4, n=2)


def test_an_order_below_one_is_refused():
    with pytest.raises(UsageError, match="n >= 1"):
        KneserNey(TEXT, 4, n=0)


def test_more_grams_than_int64_can_number_are_refused():
    with pytest.raises(UsageError, match="int64"):
        KneserNey(TEXT, 2**60, n=2)
