"""Processors by hand, their rules for ties, and the same answers on every kind of array."""

import math

import numpy as np
import pytest
import torch

from glassgpt.decoding.processors import (
    MinP,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    likeliest,
    processors,
    softmax,
)
from glassgpt.errors import UsageError

INF = math.inf
QUARTERS = np.zeros((1, 4))  # four equals of exactly 1/4
HALVES = np.log([[0.125, 0.5, 0.125, 0.25]])  # the powers of two make every sum exact


def kept(processor, logits):
    """The ids that stay in the first row."""
    shaped = np.asarray(processor(None, np.asarray(logits)))
    assert shaped.shape == np.shape(logits)
    stays = ~np.isneginf(shaped)
    np.testing.assert_array_equal(shaped[stays], np.asarray(logits)[stays])
    return np.flatnonzero(stays[0]).tolist()


# ---- worked answers --------------------------------------------------------------------------------------------------


def test_temperature_divides():
    shaped = Temperature(0.5)(None, np.array([[1.0, -2.0, -INF]]))
    np.testing.assert_array_equal(shaped, [[2.0, -4.0, -INF]])


def test_temperature_zero_keeps_the_likeliest_and_the_lowest_id_among_equals():
    assert kept(Temperature(0), [[1.0, 3.0, 2.0]]) == [1]
    assert kept(Temperature(0), [[1.0, 3.0, 3.0]]) == [1]
    assert kept(Temperature(0), QUARTERS) == [0]
    assert kept(Temperature(0), [[-INF, -INF, -5.0]]) == [2]


def test_top_k_keeps_exactly_k_and_lower_ids_first_among_equals():
    for k in (1, 2, 3, 4):
        assert kept(TopK(k), QUARTERS) == list(range(k))
    assert kept(TopK(2), [[1.0, 3.0, 2.0, 3.0]]) == [1, 3]
    assert kept(TopK(2), [[2.0, 3.0, 2.0, 2.0]]) == [0, 1]
    assert kept(TopK(9), QUARTERS) == [0, 1, 2, 3]


def test_top_k_brings_nothing_back_that_was_excluded():
    assert kept(TopK(3), [[-INF, 1.0, -INF, 0.0]]) == [1, 3]


def test_top_p_keeps_the_smallest_set_that_holds_p():
    assert kept(TopP(0.5), HALVES) == [1]  # 0.5 alone is enough
    assert kept(TopP(0.500001), HALVES) == [1, 3]
    assert kept(TopP(0.75), HALVES) == [1, 3]
    assert kept(TopP(0.750001), HALVES) == [0, 1, 3]  # of the two equals the lower id
    assert kept(TopP(0.875), HALVES) == [0, 1, 3]
    assert kept(TopP(0.88), HALVES) == [0, 1, 2, 3]


def test_top_p_settles_ties_by_the_lower_id():
    assert kept(TopP(0.25), QUARTERS) == [0]
    assert kept(TopP(0.26), QUARTERS) == [0, 1]
    assert kept(TopP(0.75), QUARTERS) == [0, 1, 2]


@pytest.mark.parametrize("p", [5e-324, 1e-300, 1e-9])
def test_top_p_keeps_at_least_one_token(p):
    assert kept(TopP(p), HALVES) == [1]
    assert kept(TopP(p), QUARTERS) == [0]
    assert kept(TopP(p), [[-INF, -7.0]]) == [1]


def test_top_p_of_one_keeps_even_what_rounding_would_lose():
    assert kept(TopP(1.0), [[0.0, -60.0, -745.0]]) == [0, 1, 2]
    assert kept(TopP(1.0), [[0.0, -INF]]) == [0]


def test_what_top_p_keeps_is_the_beginning_of_the_order_and_holds_p():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2000, 9)).round(1)  # with equals
    for p in (0.1, 0.5, 0.9, 0.999):
        probs = softmax(logits)
        stays = ~np.isneginf(TopP(p)(None, logits))
        order = np.argsort(-probs, axis=1, kind="stable")
        in_order = np.take_along_axis(stays, order, axis=1)
        n_kept = in_order.sum(axis=1)
        np.testing.assert_array_equal(in_order, np.arange(9) < n_kept[:, None])
        mass = np.cumsum(np.take_along_axis(probs, order, axis=1), axis=1)
        rows = np.arange(len(mass))
        assert (mass[rows, n_kept - 1] > p - 1e-12).all()
        assert (np.where(n_kept > 1, mass[rows, n_kept - 2], 0) < p + 1e-12).all()


def test_min_p_keeps_what_is_likely_enough_and_equals_together():
    assert kept(MinP(0.5), HALVES) == [1, 3]
    assert kept(MinP(0.500001), HALVES) == [1]
    assert kept(MinP(0.25), HALVES) == [0, 1, 2, 3]  # both eighths stay
    assert kept(MinP(1.0), HALVES) == [1]
    assert kept(MinP(1.0), QUARTERS) == [0, 1, 2, 3]
    assert kept(MinP(0.0), [[0.0, -745.0, -INF]]) == [0, 1]


def test_the_usual_five_apply_in_order_and_idle_ones_are_left_out():
    assert processors() == []
    assert processors(1.0, None, None, None) == []
    assert processors(0.7, 40, 0.9, 0.1) == [Temperature(0.7), TopK(40), TopP(0.9), MinP(0.1)]
    assert processors(0, None, 1.0, 0.0) == [Temperature(0), TopP(1.0), MinP(0.0)]
    assert processors(0.7, repetition_penalty=1.2) == [RepetitionPenalty(1.2), Temperature(0.7)]
    assert processors(repetition_penalty=1.0) == []


def test_top_p_after_top_k_counts_the_mass_that_is_left():
    logits = HALVES
    for processor in processors(top_k=2, top_p=0.66):  # of the half and the quarter the half now holds 2/3
        logits = processor(None, logits)
    assert np.flatnonzero(~np.isneginf(logits[0])).tolist() == [1]


# ---- repetition penalty ----------------------------------------------------------------------------------------------


def test_a_token_of_the_context_is_divided_if_positive_and_multiplied_if_not():
    logits = np.array([[3.0, -3.0, 0.0, 5.0, -INF], [3.0, -3.0, 0.0, 5.0, -1.0]])
    shaped = RepetitionPenalty(2.0)(np.array([[0, 1, 1, 2, 0, 4], [3, 3, 3, 3, 3, 3]]), logits)
    np.testing.assert_array_equal(shaped, [[1.5, -6.0, 0.0, 5.0, -INF], [3.0, -3.0, 0.0, 2.5, -1.0]])


def test_a_penalty_below_one_invites_repetition():
    shaped = RepetitionPenalty(0.5)(np.array([[0, 1]]), np.array([[3.0, -3.0, 1.0]]))
    np.testing.assert_array_equal(shaped, [[6.0, -1.5, 1.0]])


def random_contexts(batch=50):
    return np.random.default_rng(1).integers(0, 7, (batch, 4))


@pytest.mark.parametrize("penalty", [0.5, 1.3, 40.0])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
    transformers = pytest.importorskip("transformers")
    logits, contexts = random_logits(), random_contexts()
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)
    expected = theirs(torch.from_numpy(contexts), torch.from_numpy(logits).clone())
    np.testing.assert_allclose(RepetitionPenalty(penalty)(contexts, logits), expected.numpy(), rtol=1e-15)


def test_the_repetition_penalty_is_the_same_on_every_kind_of_array_and_row_by_row():
    logits, contexts = random_logits(), random_contexts()
    before = logits.copy()
    penalty = RepetitionPenalty(1.7)
    expected = penalty(contexts, logits)
    np.testing.assert_array_equal(logits, before)
    there = penalty(torch.from_numpy(contexts), torch.from_numpy(logits))
    assert isinstance(there, torch.Tensor)
    np.testing.assert_allclose(there.numpy(), expected, rtol=1e-15)
    alone = [penalty(context[None], row[None])[0] for context, row in zip(contexts, logits, strict=True)]
    np.testing.assert_array_equal(alone, expected)
    xp = pytest.importorskip("array_api_strict")
    np.testing.assert_array_equal(np.asarray(penalty(xp.asarray(contexts), xp.asarray(logits))), expected)


def test_the_repetition_penalty_hides_no_nan():
    logits = np.array([[0.5, np.nan, 1.0]])
    for context in ([[0]], [[1]]):
        assert np.isnan(RepetitionPenalty(2.0)(np.array(context), logits)[0, 1])


# ---- a long vocabulary -----------------------------------------------------------------------------------------------


def by_sorting_ids(probs, n_or_p):
    """The rules for ties written out: order the ids by falling value, lower ids first."""
    order = np.lexsort((np.arange(len(probs)), -probs))
    before = np.concatenate([[0.0], np.cumsum(probs[order])[:-1]])
    return set(order[:n_or_p] if isinstance(n_or_p, int) else order[before < n_or_p])


@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_top_k_and_top_p_of_a_long_vocabulary_are_what_sorting_the_ids_gives(decimals):
    logits = np.random.default_rng(decimals).normal(0, 2, (3, 5000)).round(decimals)
    logits[:, ::7] = -INF
    probs = softmax(logits)
    for row in range(3):
        for k in (1, 40, 4000):
            assert set(kept(TopK(k), logits[row : row + 1])) == by_sorting_ids(logits[row], k) - set(range(0, 5000, 7))
        for p in (0.01, 0.5, 0.95):
            assert set(kept(TopP(p), logits[row : row + 1])) == by_sorting_ids(probs[row], p)


# ---- every row on its own, every kind of array -----------------------------------------------------------------------

EVERY = [
    Temperature(0),
    Temperature(0.6),
    Temperature(3.0),
    TopK(1),
    TopK(3),
    TopP(0.3),
    TopP(0.9),
    MinP(0.1),
    MinP(1.0),
]


def random_logits(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (50, 7)).round(1)  # a tenth apart, so that many are equal
    logits[rng.random((50, 7)) < 0.2] = -INF
    logits[:, 3] = np.where(np.isneginf(logits).all(axis=1), 0.0, logits[:, 3])
    return logits


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_rows_do_not_know_each_other(processor):
    logits = random_logits()
    alone = [processor(None, row[None])[0] for row in logits]
    np.testing.assert_array_equal(processor(None, logits), alone)


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_numpy_and_torch_give_the_same(processor):
    logits = random_logits()
    expected = processor(None, logits)
    there = processor(None, torch.from_numpy(logits))
    assert isinstance(there, torch.Tensor)
    assert there.dtype == torch.float64
    np.testing.assert_array_equal(np.isneginf(there.numpy()), np.isneginf(expected))
    np.testing.assert_allclose(there.numpy(), expected, rtol=1e-15)


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_array_api_strict_gives_the_same(processor):
    xp = pytest.importorskip("array_api_strict")
    logits = random_logits()
    there = processor(None, xp.asarray(logits))
    np.testing.assert_array_equal(np.asarray(there), processor(None, logits))


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_jax_gives_the_same(processor):
    jax = pytest.importorskip("jax")
    logits = random_logits()
    with jax.enable_x64(True):
        there = np.asarray(processor(None, jax.numpy.asarray(logits)))
    np.testing.assert_array_equal(np.isneginf(there), np.isneginf(processor(None, logits)))
    np.testing.assert_allclose(there, processor(None, logits), rtol=1e-15)


@pytest.mark.parametrize("processor", EVERY, ids=str)
def test_the_logits_that_come_in_are_left_as_they_are(processor):
    logits = random_logits()
    before = logits.copy()
    processor(None, logits)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize("processor", EVERY, ids=str)
@pytest.mark.parametrize("where", [0, 3, 6])
def test_nan_is_never_hidden(processor, where):
    logits = np.array([[0.5, 3.0, 1.0, -INF, 2.0, 0.0, -1.0]])
    logits[0, where] = np.nan
    assert np.isnan(processor(None, logits)).any()
    assert torch.isnan(processor(None, torch.from_numpy(logits))).any()


def test_the_likeliest_are_exactly_so_many_and_lower_ids_come_first():
    values = np.array([[1.0, 3.0, 3.0, -INF, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    ranks = np.array([[3, 0, 1, 4, 2], [0, 1, 2, 3, 4]])
    for n in range(1, 6):
        threshold = -np.sort(-values, axis=1)[:, n - 1, None]
        np.testing.assert_array_equal(likeliest(values, threshold, n), ranks < n)


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, INF, -INF])
def test_a_temperature_that_means_nothing_is_refused(value):
    with pytest.raises(UsageError, match="temperature"):
        Temperature(value)
    with pytest.raises(UsageError, match="temperature"):
        processors(temperature=value)


@pytest.mark.parametrize("value", [0, -1.2, math.nan, INF, 1e300, 1e-300])
def test_a_repetition_penalty_that_means_nothing_is_refused(value):
    with pytest.raises(UsageError, match="repetition penalty"):
        processors(repetition_penalty=value)


@pytest.mark.parametrize("value", [0, -1, 2.5, math.nan])
def test_a_top_k_below_one_is_refused(value):
    with pytest.raises(UsageError, match="top-k"):
        processors(top_k=value)


@pytest.mark.parametrize("value", [0, 0.0, -0.1, 1.1, math.nan, INF])
def test_a_top_p_outside_its_range_is_refused(value):
    with pytest.raises(UsageError, match="top-p"):
        processors(top_p=value)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, INF])
def test_a_min_p_outside_its_range_is_refused(value):
    with pytest.raises(UsageError, match="min-p"):
        processors(min_p=value)
