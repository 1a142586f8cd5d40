"""Non-negative numbers with float64 digits and an exponent of their own, for probabilities far below 1e-308.

A sum of products of probabilities keeps its relative accuracy whatever its size, so 1e-3000 can be as accurate as 0.3;
only float64's exponent is too short for it. Logarithms would do, but lose digits as they grow: ln P = -7000 leaves a
relative error of 1e-12 in P at every operation. A mantissa with an int64 exponent loses none.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

LN2 = float(np.log(2.0))
LOG10_2 = float(np.log10(2.0))
ZERO_EXPONENT = -(1 << 40)  # of the number 0: lower than any other, so that it never wins a maximum


class Wide:
    """An array of non-negative numbers mantissa * 2**exponent, mantissa in [0.5, 1) or 0.

    >>> x = Wide.from_log(np.array([-7000.0, 0.0]))
    >>> (x * x).log().round(9)
    array([-14000.,      0.])
    """

    def __init__(self, mantissa: np.ndarray, exponent: np.ndarray) -> None:
        self.mantissa = mantissa
        self.exponent = exponent

    @classmethod
    def of(cls, mantissa: Any, exponent: Any = 0) -> Self:
        """mantissa * 2**exponent for any finite non-negative float64 mantissas."""
        fraction, shift = np.frexp(np.asarray(mantissa, dtype=np.float64))
        return cls(fraction, np.where(fraction == 0, ZERO_EXPONENT, shift + np.asarray(exponent, dtype=np.int64)))

    @classmethod
    def from_log(cls, logarithm: Any) -> Self:
        """e**logarithm; -inf gives 0."""
        logarithm = np.asarray(logarithm, dtype=np.float64)
        finite = np.where(np.isneginf(logarithm), 0.0, logarithm)
        power = np.floor(finite / LN2)
        return cls.of(np.where(np.isneginf(logarithm), 0.0, np.exp(finite - power * LN2)), power.astype(np.int64))

    @classmethod
    def zeros(cls, shape: Any) -> Self:
        return cls.of(np.zeros(shape))

    @classmethod
    def concatenate(cls, parts: list[Self], axis: int = 0) -> Self:
        """Arrays one after the other; scalars count as arrays of one."""
        return cls(
            np.concatenate([np.atleast_1d(part.mantissa) for part in parts], axis=axis),
            np.concatenate([np.atleast_1d(part.exponent) for part in parts], axis=axis),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mantissa.shape

    def __len__(self) -> int:
        return len(self.mantissa)

    def __getitem__(self, key: Any) -> Self:
        return type(self)(self.mantissa[key], self.exponent[key])

    def __setitem__(self, key: Any, value: Self) -> None:
        self.mantissa[key] = value.mantissa
        self.exponent[key] = value.exponent

    def reshape(self, *shape: Any) -> Self:
        return type(self)(self.mantissa.reshape(*shape), self.exponent.reshape(*shape))

    def copy(self) -> Self:
        return type(self)(self.mantissa.copy(), self.exponent.copy())

    def __mul__(self, other: Self) -> Self:
        return self.of(self.mantissa * other.mantissa, self.exponent + other.exponent)

    def __truediv__(self, other: Self) -> Self:
        return self.of(self.mantissa / other.mantissa, self.exponent - other.exponent)

    def __add__(self, other: Self) -> Self:
        top = np.maximum(self.exponent, other.exponent)
        return self.of(_shifted(self, top) + _shifted(other, top), top)

    def distance(self, other: Self) -> Self:
        """|self - other|, the one difference that is needed: to see whether an iteration still moves."""
        top = np.maximum(self.exponent, other.exponent)
        return self.of(np.abs(_shifted(self, top) - _shifted(other, top)), top)

    def sum(self, axis: int | None = None) -> Self:
        if self.mantissa.size == 0:
            return self.of(self.mantissa.sum(axis=axis))
        top = self.exponent.max(axis=axis, keepdims=True)
        return self.of(_shifted(self, top).sum(axis=axis), top.reshape(()) if axis is None else top.squeeze(axis))

    def group_sums(self, starts: np.ndarray) -> Self:
        """Sums of groups of successive rows, each from one of `starts` to the next: (rows, n) to (groups, n)."""
        top = np.maximum.reduceat(self.exponent, starts, axis=0)
        sizes = np.diff(np.append(starts, len(self)))
        return self.of(np.add.reduceat(_shifted(self, np.repeat(top, sizes, axis=0)), starts, axis=0), top)

    def log(self) -> np.ndarray:
        """Natural logarithm; -inf for 0."""
        with np.errstate(divide="ignore"):
            return np.where(self.mantissa == 0, -np.inf, np.log(self.mantissa) + self.exponent * LN2)

    def log10(self) -> np.ndarray:
        """Decimal logarithm; -inf for 0."""
        with np.errstate(divide="ignore"):
            return np.where(self.mantissa == 0, -np.inf, np.log10(self.mantissa) + self.exponent * LOG10_2)

    def to_float(self) -> np.ndarray:
        """As float64: 0 below 5e-324, inf above 1.8e308."""
        with np.errstate(over="ignore", under="ignore"):
            return np.ldexp(self.mantissa, np.clip(self.exponent, -4000, 4000).astype(np.int32))

    def __float__(self) -> float:
        return float(self.to_float())

    def is_zero(self) -> np.ndarray:
        return self.mantissa == 0

    def __repr__(self) -> str:
        """A scalar as the number it is where a float can hold it, 10**log10 where not; arrays by their logarithms."""
        if self.mantissa.ndim == 0 and (self.is_zero() or abs(self.log10()) < 300):
            return f"Wide({float(self)!r})"
        return f"Wide(10**{self.log10()})"


def as_wide(values: Any) -> Wide:
    return values if isinstance(values, Wide) else Wide.of(values)


def as_float(values: Any) -> np.ndarray:
    return values.to_float() if isinstance(values, Wide) else values


def _shifted(x: Wide, top: np.ndarray) -> np.ndarray:
    """Mantissas at the common exponent `top`; what lies more than 4000 binary places below it vanishes, as it must."""
    return np.ldexp(x.mantissa, np.maximum(x.exponent - top, -4000).astype(np.int32))
