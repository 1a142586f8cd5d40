"""Wide numbers against rational arithmetic of the very same floats."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassgpt.chain.wide import Wide

RELATIVE = 3e-16


def exact(mantissa, exponent):
    return Fraction(mantissa) * Fraction(2) ** exponent


def value(wide):
    """A Wide scalar as the rational number that it is."""
    return exact(float(wide.mantissa), int(wide.exponent)) if wide.mantissa else Fraction(0)


def relative_error(wide, truth):
    return float(abs(value(wide) / truth - 1)) if truth else float(value(wide))


mantissas = st.floats(min_value=0.5, max_value=1, exclude_max=True)
numbers = st.one_of(
    st.tuples(mantissas, st.integers(-20_000, 20_000)),
    st.tuples(mantissas, st.integers(-60, 60)),
    st.just((0.0, 0)),
)


@settings(deadline=None, derandomize=True)
@given(numbers, numbers)
def test_arithmetic_loses_no_more_than_a_rounding(x, y):
    a, b = Wide.of(*x), Wide.of(*y)
    fx, fy = exact(*x), exact(*y)
    assert relative_error(a * b, fx * fy) < RELATIVE
    assert relative_error(a + b, fx + fy) < RELATIVE
    if fy:
        assert relative_error(a / b, fx / fy) < RELATIVE
    # a difference is rounded like what it is taken from
    assert abs(value(a.distance(b)) - abs(fx - fy)) <= max(fx, fy) * Fraction(RELATIVE)


@settings(deadline=None, derandomize=True)
@given(st.lists(numbers, min_size=1, max_size=20))
def test_a_sum_loses_no_more_than_its_roundings(terms):
    total = Wide.of([m for m, _ in terms], [e for _, e in terms]).sum()
    assert relative_error(total, sum(exact(*term) for term in terms)) < len(terms) * RELATIVE


def test_sums_run_along_either_axis():
    rng = np.random.default_rng(0)
    mantissa, exponent = rng.random((3, 4)), rng.integers(-3000, 3000, (3, 4))
    terms = [
        [exact(float(m), int(e)) for m, e in zip(*row, strict=True)] for row in zip(mantissa, exponent, strict=True)
    ]
    wide = Wide.of(mantissa, exponent)
    for i in range(3):
        assert relative_error(wide.sum(axis=1)[i], sum(terms[i])) < 4 * RELATIVE
    for j in range(4):
        assert relative_error(wide.sum(axis=0)[j], sum(row[j] for row in terms)) < 4 * RELATIVE


def test_group_sums_are_sums_of_the_groups():
    rng = np.random.default_rng(1)
    wide = Wide.of(rng.random((6, 3)), rng.integers(-3000, 3000, (6, 3)))
    grouped = wide.group_sums(np.array([0, 1, 4]))
    for g, rows in enumerate([[0], [1, 2, 3], [4, 5]]):
        for j in range(3):
            assert relative_error(grouped[g, j], sum(value(wide[i, j]) for i in rows)) < 3 * RELATIVE


def test_a_sum_of_nothing_is_zero():
    assert Wide.zeros(0).sum().is_zero()
    assert Wide.of(0.0).sum().is_zero()


def test_logarithms_are_those_of_the_number():
    x = Wide.of(0.75, -10_000)
    assert abs(float(x.log()) - (math.log(0.75) - 10_000 * math.log(2))) < 1e-11
    assert abs(float(x.log10()) - (math.log10(0.75) - 10_000 * math.log10(2))) < 1e-11
    assert Wide.of(0.0).log() == -np.inf
    assert Wide.of(0.0).log10() == -np.inf


@pytest.mark.parametrize("logarithm", [0.0, -1e-300, -1.0, -50.0, -745.0, -10_000.0, 700.0])
def test_from_log_and_log_are_inverse(logarithm):
    assert abs(float(Wide.from_log(logarithm).log()) - logarithm) <= 4e-16 * max(1, abs(logarithm))


def test_from_log_of_minus_infinity_is_zero():
    assert Wide.from_log(np.array([-np.inf, 0.0])).is_zero().tolist() == [True, False]


def test_floats_survive_the_way_there_and_back_and_what_is_too_small_becomes_zero():
    floats = np.array([0.0, 5e-324, 2.2e-308, 1e-17, 1.0, 1.7e308])
    np.testing.assert_array_equal(Wide.of(floats).to_float(), floats)
    assert float(Wide.of(0.5, -5000)) == 0
    assert float(Wide.of(0.5, 5000)) == np.inf


def test_zero_never_takes_part():
    zero, x = Wide.of(0.0), Wide.of(0.5, -9000)
    assert value(zero + x) == value(x)
    assert (zero * x).is_zero()
    assert (zero / x).is_zero()
    assert (zero + zero).is_zero()
    assert x.distance(x).is_zero()


def test_arrays_are_indexed_set_shaped_and_joined_as_in_numpy():
    x = Wide.of(np.arange(1.0, 7.0)).reshape(2, 3)
    assert x.shape == (2, 3)
    assert len(x) == 2
    assert x[1].to_float().tolist() == [4, 5, 6]
    y = x.copy()
    y[0, 1:] = Wide.of(np.array([0.0, 9.0]))
    assert y.to_float().tolist() == [[1, 0, 9], [4, 5, 6]]
    assert x.to_float().tolist() == [[1, 2, 3], [4, 5, 6]]
    assert Wide.concatenate([x, y], axis=1).to_float().tolist() == [[1, 2, 3, 1, 0, 9], [4, 5, 6, 4, 5, 6]]
    assert Wide.concatenate([Wide.of(1.0), Wide.of(2.0)]).to_float().tolist() == [1, 2]


def test_repr_says_the_number_or_its_order_of_magnitude():
    assert repr(Wide.of(0.75)) == "Wide(0.75)"
    assert repr(Wide.of(0.0)) == "Wide(0.0)"
    assert repr(Wide.of(0.5, -(10**4))).startswith("Wide(10**-3010.")
