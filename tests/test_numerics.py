"""The shared formulas against mpmath, against their definitions, and at their edges."""

import mpmath
import numpy as np
import pytest

from glassgpt.errors import NumericalError
from glassgpt.numerics import (
    count_windows,
    entropy,
    jensen_shannon,
    kl_divergence,
    log_softmax,
    total_variation,
)


def rows(seed, shape):
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def test_log_softmax_agrees_with_mpmath_over_the_whole_range_of_logits():
    logits = np.random.default_rng(0).normal(size=(20, 7)) * np.logspace(-3, 4, 20)[:, None]
    with mpmath.workdps(60):
        for row, ours in zip(logits, log_softmax(logits), strict=True):
            total = mpmath.log(mpmath.fsum(mpmath.exp(mpmath.mpf(z)) for z in row))
            exact = [float(mpmath.mpf(z) - total) for z in row]
            np.testing.assert_allclose(ours, exact, rtol=1e-14, atol=4e-16)


def test_log_softmax_takes_float32_and_answers_in_float64():
    answer = log_softmax(np.array([1e-3, 0.0, -2.0], dtype=np.float32))
    assert answer.dtype == np.float64
    assert abs(np.exp(answer).sum() - 1) < 1e-15


def test_log_softmax_does_not_change_what_it_is_given():
    logits = np.array([[1.0, 2.0]])
    log_softmax(logits)
    assert logits.tolist() == [[1.0, 2.0]]


def test_excluded_tokens_stay_excluded_and_the_rest_sums_to_one():
    answer = log_softmax(np.array([-np.inf, 0.0, 1.0]))
    assert answer[0] == -np.inf
    assert abs(np.exp(answer).sum() - 1) < 1e-15


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        ([[0.0, 1.0], [np.nan, 0.0]], "row 1 hold NaN"),
        ([[0.0, np.inf]], r"row 0 hold \+inf"),
        ([[0.0, 1.0], [0.0, 0.0], [-np.inf, -np.inf]], "row 2 excludes every token"),
    ],
)
def test_logits_that_mean_nothing_are_refused_with_their_row(logits, reason):
    with pytest.raises(NumericalError, match=reason):
        log_softmax(np.array(logits))


def test_a_row_of_no_tokens_is_refused():
    with pytest.raises(NumericalError, match="every token is excluded"):
        log_softmax(np.zeros((3, 0)))


def test_entropy_is_its_definition_and_counts_the_impossible_as_nothing():
    p = rows(1, (5, 4))
    np.testing.assert_allclose(entropy(np.log(p)), [-sum(x * np.log(x) for x in row) for row in p], rtol=1e-14)
    assert entropy(np.array([0.0, -np.inf])) == 0
    np.testing.assert_allclose(entropy(np.log(np.full(8, 1 / 8))), np.log(8))


def test_divergences_are_their_definitions():
    p, q = rows(2, (6, 5)), rows(3, (6, 5))
    for i in range(6):
        a, b = p[i], q[i]
        m = (a + b) / 2
        kl = sum(x * np.log(x / y) for x, y in zip(a, b, strict=True))
        js = sum(x * np.log(x / z) + y * np.log(y / z) for x, y, z in zip(a, b, m, strict=True)) / 2
        np.testing.assert_allclose(kl_divergence(np.log(p), np.log(q))[i], kl, rtol=1e-13)
        np.testing.assert_allclose(jensen_shannon(p, q)[i], js, rtol=1e-13)
        np.testing.assert_allclose(total_variation(p, q)[i], (a - b).clip(0).sum(), rtol=1e-13)


def test_divergence_is_infinite_only_where_the_other_excludes_what_happens():
    p, q = np.log([0.5, 0.5]), np.array([0.0, -np.inf])
    assert kl_divergence(p, q) == np.inf
    np.testing.assert_allclose(kl_divergence(q, p), np.log(2))
    assert kl_divergence(q, q) == 0


def test_divergence_broadcasts_one_law_against_many():
    many = np.log(rows(4, (3, 4)))
    one = many[0]
    assert kl_divergence(many, one).shape == (3,)
    assert kl_divergence(many, one)[0] == 0


def test_disjoint_laws_are_at_the_greatest_distances():
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert total_variation(p, q) == 1
    np.testing.assert_allclose(jensen_shannon(p, q), np.log(2))


def test_jensen_shannon_is_finite_even_beside_the_smallest_float():
    tiny = 5e-324
    assert jensen_shannon(np.array([1.0, tiny]), np.array([1.0, 0.0])) == 0


@pytest.mark.parametrize(("vocab_size", "length"), [(2, 1), (2, 3), (3, 2), (5, 1)])
def test_windows_are_counted_as_by_hand(vocab_size, length):
    text = np.random.default_rng(5).integers(vocab_size, size=60)
    expected = np.zeros((vocab_size,) * (length + 1))
    for i in range(len(text) - length):
        expected[tuple(text[i : i + length + 1])] += 1
    np.testing.assert_array_equal(count_windows(text, vocab_size, length), expected.reshape(-1, vocab_size))


def test_a_text_too_short_for_a_window_counts_nothing():
    assert count_windows(np.array([0, 1]), vocab_size=2, length=2).sum() == 0
    assert count_windows(np.array([0, 1]), vocab_size=2, length=2).shape == (4, 2)
