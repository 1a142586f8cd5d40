"""Intervals: against SciPy's, how often they hold what is true, and what is refused."""

import numpy as np
import pytest
from scipy import stats

from glassgpt.errors import UsageError
from glassgpt.evaluation import intervals
from glassgpt.evaluation.intervals import bootstrap_difference, bootstrap_mean, percentile_interval, wilson

VALUES = np.random.default_rng(0).gamma(2.0, size=60)
OTHERS = VALUES + np.random.default_rng(1).normal(0.3, 0.2, size=60)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_bootstrap_of_a_mean_is_scipys(level):
    ours = bootstrap_mean(VALUES, seed=0, level=level)
    theirs = stats.bootstrap(
        (VALUES,),
        np.mean,
        n_resamples=20_000,
        method="percentile",
        confidence_level=level,
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == VALUES.mean()
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)


@pytest.mark.parametrize("paired", [True, False])
def test_the_bootstrap_of_a_difference_is_scipys(paired):
    ours = bootstrap_difference(OTHERS, VALUES, seed=0, paired=paired)
    theirs = stats.bootstrap(
        (OTHERS, VALUES),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        n_resamples=20_000,
        paired=paired,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert ours.value == pytest.approx(OTHERS.mean() - VALUES.mean())
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)


def test_pairs_that_hang_together_are_told_apart_where_the_values_alone_are_not():
    paired = bootstrap_difference(OTHERS, VALUES, seed=0, paired=True)
    apart = bootstrap_difference(OTHERS, VALUES, seed=0, paired=False)
    assert paired.low > 0 > apart.low
    assert paired.value == pytest.approx(apart.value)


def test_the_difference_of_a_series_and_itself_is_drawn_apart_unless_paired():
    same = bootstrap_difference(VALUES, VALUES, seed=0, paired=False)
    assert same.low < 0 < same.high
    together = bootstrap_difference(VALUES, VALUES, seed=0, paired=True)
    assert together.low == together.high == 0


def test_the_interval_of_a_mean_holds_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found = [bootstrap_mean(rng.normal(size=50), seed=i, level=0.9, resamples=500) for i in range(400)]
    assert 0.85 < np.mean([interval.low <= 0 <= interval.high for interval in found]) < 0.94


def test_intervals_follow_from_the_seed_whatever_is_drawn_at_once(monkeypatch):
    whole = bootstrap_mean(VALUES, seed=3)
    assert bootstrap_mean(list(VALUES), seed=3) == whole
    assert bootstrap_mean(VALUES, seed=4) != whole
    monkeypatch.setattr(intervals, "AT_ONCE", 7000)
    assert bootstrap_mean(VALUES, seed=3) == whole


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (3, 7), (412, 1000)])
def test_wilsons_interval_is_scipys(successes, n, level):
    theirs = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    ours = wilson(successes, n, level)
    assert (ours.value, ours.low, ours.high) == pytest.approx((successes / n, theirs.low, theirs.high), abs=1e-12)


def test_a_percentile_interval_cuts_off_the_same_share_on_both_sides():
    found = percentile_interval(1.0, np.arange(101.0), 0.9)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 5.0, 95.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_mean([], 0), "one or more finite numbers"),
        (lambda: bootstrap_mean([1.0, np.nan], 0), "one or more finite numbers"),
        (lambda: bootstrap_mean([1.0], 0, level=95), "between 0 and 1"),
        (lambda: bootstrap_mean([1.0], 0, resamples=0), "1 or more resamples"),
        (lambda: bootstrap_difference([1.0], [1.0, 2.0], 0, paired=True), "equal numbers, got 1 and 2"),
        (lambda: wilson(3, 2), "3 of 2"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: wilson(1, 2, 1.0), "between 0 and 1"),
    ],
)
def test_what_has_no_interval_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
