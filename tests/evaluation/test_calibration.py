"""Calibration: worked answers, the plain definition, laws, and what noise in labels allows."""

import math

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation.calibration import (
    accuracy,
    brier,
    expected_calibration_error,
    label_noise_ceiling,
    reliability,
)
from glassgpt.evaluation.intervals import wilson

RNG = np.random.default_rng(0)
P = RNG.beta(1.5, 1.0, size=4000)
TRUE = (RNG.random(4000) < P).astype(int)


def test_bins_of_equal_widths_have_this_worked_answer():
    found = reliability([0.05, 0.15, 0.1, 0.9, 1.0, 0.95], [0, 1, 0, 1, 1, 0], bins=2, by="widths")
    assert found.predicted == pytest.approx([0.1, 0.95])
    assert found.observed == pytest.approx([1 / 3, 2 / 3])
    assert found.counts.tolist() == [3, 3]
    assert found.low[0] == wilson(1, 3).low and found.high[1] == wilson(2, 3).high
    error = expected_calibration_error([0.05, 0.15, 0.1, 0.9, 1.0, 0.95], [0, 1, 0, 1, 1, 0], 2, "widths")
    assert error == pytest.approx((1 / 3 - 0.1 + 0.95 - 2 / 3) / 2)


def test_bins_of_equal_widths_follow_the_plain_definition():
    total = 0.0
    for i in range(10):
        inside = [j for j in range(4000) if i / 10 <= P[j] < (i + 1) / 10]
        total += abs(sum(TRUE[j] for j in inside) - sum(P[j] for j in inside)) / 4000
    assert expected_calibration_error(P, TRUE, by="widths") == pytest.approx(total)


def test_bins_of_equal_counts_are_equal_and_ascend():
    found = reliability(P, TRUE, bins=8)
    assert found.counts.tolist() == [500] * 8
    assert (np.diff(found.predicted) > 0).all()
    assert found.predicted == pytest.approx(np.sort(P).reshape(8, 500).mean(axis=1))


@pytest.mark.parametrize("by", ["counts", "widths"])
def test_order_makes_no_difference_and_equal_predictions_stay_together(by):
    p, order = np.round(P, 1), RNG.permutation(4000)
    one, other = reliability(p, TRUE, 7, by), reliability(p[order], TRUE[order], 7, by)
    assert one.predicted == pytest.approx(other.predicted) and one.observed == pytest.approx(other.observed)
    assert one.counts.sum() == 4000
    same = reliability([0.3] * 5, [1, 0, 0, 0, 1], 4, by)
    assert (same.predicted.tolist(), same.observed.tolist(), same.counts.tolist()) == ([pytest.approx(0.3)], [0.4], [5])


def test_empty_bins_are_left_out():
    assert reliability([0.01, 0.99], [0, 1], bins=10, by="widths").counts.tolist() == [1, 1]


def test_honest_predictions_are_calibrated_and_boasting_ones_are_not():
    found = reliability(P, TRUE)
    assert ((found.low <= found.predicted) & (found.predicted <= found.high)).mean() >= 0.8
    assert expected_calibration_error(P, TRUE) < 0.6 * math.sqrt(10 / 4000)
    odds = (P / (1 - P)) ** 3
    assert expected_calibration_error(odds / (1 + odds), TRUE) > 0.1
    assert brier(P, TRUE) < brier(odds / (1 + odds), TRUE)


def test_a_perfect_predictors_error_is_as_large_as_the_docstring_says():
    errors = []
    for _ in range(200):
        p = RNG.random(500)
        errors.append(expected_calibration_error(p, RNG.random(500) < p))
    assert 0.2 * math.sqrt(10 / 500) < np.mean(errors) < 0.4 * math.sqrt(10 / 500)


def test_scores_have_these_worked_answers():
    assert brier([1.0, 0.0, 0.5, 0.5], [1, 0, 1, 0]) == 0.125
    assert accuracy([0.9, 0.2, 0.5, 0.6], [1, 1, 0, 1]) == pytest.approx(2.5 / 4)
    assert brier(np.full(4000, 0.5), TRUE) == 0.25


@pytest.mark.parametrize("flips", [0.0, 0.1, 0.3, 0.5])
def test_who_knows_the_truth_reaches_the_ceiling_on_noisy_labels(flips):
    truth = RNG.integers(0, 2, size=20_000)
    labels = np.where(RNG.random(20_000) < flips, 1 - truth, truth)
    p = np.where(truth == 1, 1 - flips, flips)
    ceiling = label_noise_ceiling(flips)
    assert accuracy(p, labels) == pytest.approx(ceiling.accuracy, abs=0.015)
    assert brier(p, labels) == pytest.approx(ceiling.brier, abs=0.01)
    nats = -np.mean(np.log(np.where(labels == 1, p, 1 - p)))
    assert nats == pytest.approx(ceiling.nats, abs=0.02)


def test_other_predictions_cost_more_than_the_ceilings():
    for flips in (0.1, 0.3):
        ceiling = label_noise_ceiling(flips)
        for said in np.linspace(0.01, 0.99, 99):
            cost = (1 - flips) * (1 - said) ** 2 + flips * said**2
            nats = -(1 - flips) * math.log(said) - flips * math.log(1 - said)
            assert cost >= ceiling.brier - 1e-12 and nats >= ceiling.nats - 1e-12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: reliability([], []), "one outcome"),
        (lambda: brier([0.5], [1, 0]), "one outcome"),
        (lambda: accuracy([1.5], [1]), "from 0 to 1"),
        (lambda: accuracy([math.nan], [1]), "from 0 to 1"),
        (lambda: brier([0.5], [0.5]), "be 0 or 1"),
        (lambda: reliability([0.5], [1], bins=0), "1 or more"),
        (lambda: reliability([0.5], [1], by="size"), "'size'"),
        (lambda: label_noise_ceiling(0.7), "0.7"),
    ],
)
def test_what_cannot_be_judged_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
