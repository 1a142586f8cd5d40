"""How sure a measured number is: bootstrap intervals of means, and Wilson's of a share.

interval = bootstrap_mean(scores, seed=0)
print(f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from glassgpt.errors import UsageError

LEVEL = 0.95
RESAMPLES = 10_000
AT_ONCE = 2_000_000  # numbers drawn at once, which bounds the memory


@dataclass(frozen=True)
class Interval:
    """`value` as measured, and from where to where the true one lies at the level asked for."""

    value: float
    low: float
    high: float


def bootstrap_mean(
    values: Sequence[float] | np.ndarray, seed: int, level: float = LEVEL, resamples: int = RESAMPLES
) -> Interval:
    """The mean of `values` (independent of each other), with the percentile interval of its bootstrap.

    Efron 1979: the means of `resamples` samples drawn from the values with replacement spread as the mean itself does.
    Too narrow for few values (for 10 of a normal distribution about 90 % where 95 are asked for), and for values that
    hang together: give one number, their mean, for all that belongs to one prompt. Raises UsageError for no values,
    values that are not finite, and a level outside (0, 1).
    """
    numbers = _checked("values", values)
    return percentile_interval(float(numbers.mean()), _resampled_means(numbers, seed, resamples), level)


def bootstrap_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    seed: int,
    *,
    paired: bool,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
) -> Interval:
    """The mean of `a` less that of `b`, as `bootstrap_mean`.

    `paired`: a[i] and b[i] belong together (two models on one prompt) and are drawn together, which takes out what they
    share; else both are drawn apart. Raises UsageError as `bootstrap_mean`, and for pairs of different numbers.
    """
    first, second = _checked("a", a), _checked("b", b)
    if paired:
        if len(first) != len(second):
            raise UsageError(f"paired values come in equal numbers, got {len(first)} and {len(second)}")
        return bootstrap_mean(first - second, seed, level, resamples)
    means = _resampled_means(first, seed, resamples) - _resampled_means(second, seed + 1, resamples)
    return percentile_interval(float(first.mean() - second.mean()), means, level)


def wilson(successes: int, n: int, level: float = LEVEL) -> Interval:
    """The share of successes in `n` independent trials with Wilson's interval (1927), good for few trials and shares
    near 0 and 1 too: all shares that a test at this level would not reject.

    >>> interval = wilson(9, 10)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.596, 0.982)
    """
    if not 0 <= successes <= n or n < 1:
        raise UsageError(f"a share needs 1 or more trials and from 0 to all successes, got {successes} of {n}")
    z = NormalDist().inv_cdf((1 + _checked_level(level)) / 2)
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return Interval(share, 0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


def percentile_interval(value: float, resampled: np.ndarray, level: float = LEVEL) -> Interval:
    """`value` between the quantiles of its resampled values (float array, one dimension) that enclose `level`."""
    tail = (1 - _checked_level(level)) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """The means of samples with replacement, as many values each: float64 (resamples,)."""
    rng = np.random.default_rng(seed)
    parts = [
        values[rng.integers(len(values), size=(rows, len(values)))].mean(axis=1) for rows in _rows(values, resamples)
    ]
    return np.concatenate(parts)


def _rows(values: np.ndarray, resamples: int) -> Iterator[int]:
    if resamples < 1:
        raise UsageError(f"a bootstrap needs 1 or more resamples, got {resamples}")
    at_once = max(1, AT_ONCE // len(values))
    for start in range(0, resamples, at_once):
        yield min(at_once, resamples - start)


def _checked(name: str, values: Sequence[float] | np.ndarray) -> np.ndarray:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
        raise UsageError(f"{name} must be one or more finite numbers in a row, got an array of shape {numbers.shape}")
    return numbers


def _checked_level(level: float) -> float:
    if not 0 < level < 1:
        raise UsageError(f"a level lies between 0 and 1, such as 0.95; got {level}")
    return level
