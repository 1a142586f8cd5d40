"""Whether predicted probabilities mean what they say: of all that is called 80 % sure, four in five should come true.

For a reward model a prediction is sigmoid(r(a) - r(b)), and the outcome whether a was preferred. Which answer is called
a must not follow from the label: give the pairs in a drawn order, or each in both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.evaluation.intervals import LEVEL, wilson

BINS = 10
WAYS = ("counts", "widths")

Numbers = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins, from low to high, without the empty ones: float64 (bins,), and int64 for `counts`.

    `predicted`: the mean prediction; `observed`: the share that came true; `low` to `high`: its Wilson interval.
    """

    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray
    counts: np.ndarray


def reliability(
    probabilities: Numbers, outcomes: Numbers, bins: int = BINS, by: str = "counts", level: float = LEVEL
) -> Reliability:
    """How often what was predicted with each probability came true.

    probabilities: (n,), in [0, 1]. outcomes: (n,), 1 for what came true, else 0. `by`: bins of equal "counts" (split at
    quantiles; equal predictions stay together, so there may be fewer) or of equal "widths". Raises UsageError for
    anything else.
    """
    p, came = _checked(probabilities, outcomes)
    _, place = np.unique(_bins(p, bins, by), return_inverse=True)
    counts = np.bincount(place)
    true = np.bincount(place, weights=came)
    shares = [wilson(int(t), int(n), level) for t, n in zip(true, counts, strict=True)]
    return Reliability(
        predicted=np.bincount(place, weights=p) / counts,
        observed=true / counts,
        low=np.array([share.low for share in shares]),
        high=np.array([share.high for share in shares]),
        counts=counts,
    )


def expected_calibration_error(
    probabilities: Numbers, outcomes: Numbers, bins: int = BINS, by: str = "counts"
) -> float:
    """The mean distance, over all predictions, of a bin's observed share from its mean prediction (Naeini et al. 2015;
    Guo et al. 2017, arXiv 1706.04599, with bins of equal widths).

    Never below 0, so above it even for perfect predictions: on average by 0.4 sqrt(bins / n) or less.
    """
    found = reliability(probabilities, outcomes, bins, by)
    return float(np.average(np.abs(found.observed - found.predicted), weights=found.counts))


def brier(probabilities: Numbers, outcomes: Numbers) -> float:
    """The mean squared distance of prediction and outcome (Brier 1950): 0 is perfect, always saying 1/2 gives 1/4."""
    p, came = _checked(probabilities, outcomes)
    return float(np.mean((p - came) ** 2))


def accuracy(probabilities: Numbers, outcomes: Numbers) -> float:
    """The share of outcomes on the side of 1/2 that was predicted; a prediction of 1/2 itself is half right."""
    p, came = _checked(probabilities, outcomes)
    return float(np.mean(np.where(p == 0.5, 0.5, (p > 0.5) == came)))


@dataclass(frozen=True)
class NoiseCeiling:
    """What the best predictions reach on noisy labels, on average: `accuracy`, and the least `brier` and `nats`."""

    accuracy: float
    brier: float
    nats: float


def label_noise_ceiling(flips: float) -> NoiseCeiling:
    """The bounds for who knows the truth but is judged by labels of which a share `flips` (0 to 1/2) is turned round.

    The best prediction is 1 - flips for what is true: right in that share, with the Brier score flips (1 - flips) and
    the loss of a coin that falls so, -f ln f - (1 - f) ln(1 - f). Whoever gets better has learned the noise.

    >>> label_noise_ceiling(0.25).accuracy, label_noise_ceiling(0.25).brier
    (0.75, 0.1875)
    """
    if not 0 <= flips <= 0.5:
        raise UsageError(f"the share of flipped labels must lie from 0 to 0.5, got {flips}")
    nats = -sum(share * math.log(share) for share in (flips, 1 - flips) if share > 0)
    return NoiseCeiling(accuracy=1 - flips, brier=flips * (1 - flips), nats=nats)


def _bins(p: np.ndarray, bins: int, by: str) -> np.ndarray:
    """The bin of each prediction: int64 (n,)."""
    if by not in WAYS or bins < 1:
        raise UsageError(f"bins are 1 or more, by 'counts' or 'widths'; got {bins} by {by!r}")
    inner = np.arange(1, bins) / bins
    edges = np.quantile(p, inner) if by == "counts" else inner
    return np.searchsorted(edges, p, side="right")


def _checked(probabilities: Numbers, outcomes: Numbers) -> tuple[np.ndarray, np.ndarray]:
    p, came = np.asarray(probabilities, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if p.ndim != 1 or p.shape != came.shape or not len(p):
        raise UsageError(f"each of one or more predictions needs one outcome; got shapes {p.shape} and {came.shape}")
    if not ((p >= 0) & (p <= 1)).all() or not np.isin(came, (0, 1)).all():
        raise UsageError("predictions must lie from 0 to 1 and outcomes be 0 or 1; got others")
    return p, came
