"""State reduction against rational linear algebra, entry by entry."""

from fractions import Fraction

import numpy as np
import pytest

from glassgpt.chain import reduction as reduction_module
from glassgpt.chain.reduction import StateReduction
from glassgpt.chain.wide import Wide


def solve(matrix, right):
    """Gauss-Jordan elimination of Fractions: the matrix X with matrix @ X = right."""
    n = len(matrix)
    rows = [list(a) + list(b) for a, b in zip(matrix, right, strict=True)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [x / rows[k][k] for x in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                rows[i] = [x - rows[i][k] * y for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]


def badly_scaled(n, classes, decades, seed):
    """Ways among n states and out, of sizes spread over so many decades; the diagonal makes the rows sum to 1."""
    rng = np.random.default_rng(seed)
    ways, out = 10.0 ** -rng.uniform(0, decades, (n, n)), 10.0 ** -rng.uniform(0, decades, (n, classes))
    ways[rng.random((n, n)) < 0.3] = 0
    ways[np.arange(n), np.arange(n)] = 0
    total = ways.sum(axis=1) + out.sum(axis=1)
    return ways / total[:, None] / 2, out / total[:, None] / 2


def exact_system(ways, out):
    """I - Q of the same numbers, the diagonal of Q being what the rest of a row leaves."""
    n = len(ways)
    ways = [[Fraction(float(x)) for x in row] for row in ways]
    out = [[Fraction(float(x)) for x in row] for row in out]
    system = [[sum(ways[i]) - ways[i][i] + sum(out[i]) if i == j else -ways[i][j] for j in range(n)] for i in range(n)]
    return system, out


def as_fraction(x):
    if isinstance(x, Wide):
        return Fraction(float(x.mantissa)) * Fraction(2) ** int(x.exponent)
    return Fraction(float(x))


def relative_error(ours, exact):
    return float(abs(as_fraction(ours) / exact - 1))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("decades", [1, 30, 100])
def test_every_entry_is_right_to_rounding_however_badly_the_chain_is_scaled(decades, wide):
    n, classes = 12, 2
    ways, out = badly_scaled(n, classes, decades, seed=decades)
    system, exact_out = exact_system(ways, out)
    rng = np.random.default_rng(1)
    reward, start = 10.0 ** -rng.uniform(0, decades, n), 10.0 ** -rng.uniform(0, decades, n)
    number = Wide.of if wide else np.array
    ours = StateReduction(number(ways), number(out))

    absorbed = solve(system, exact_out)
    for i in range(n):
        for c in range(classes):
            assert relative_error(ours.absorption()[i, c], absorbed[i][c]) < 1e-14
    sums = solve(system, [[Fraction(float(x))] for x in reward])
    transposed = [list(column) for column in zip(*system, strict=True)]
    visits = solve(transposed, [[Fraction(float(x))] for x in start])
    for i in range(n):
        assert relative_error(ours.expected_sum(number(reward))[i], sums[i][0]) < 1e-14
        assert relative_error(ours.expected_visits(number(start))[i], visits[i][0]) < 1e-14


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("decades", [1, 30, 100])
def test_every_entry_of_a_stationary_law_is_right_to_rounding(decades, wide):
    n = 12
    ways, out = badly_scaled(n, 1, decades, seed=decades + 1)
    out[:] = 0
    system, _ = exact_system(ways, out)
    balance = [*[list(column) for column in zip(*system, strict=True)][1:], [Fraction(1)] * n]
    exact = solve(balance, [[Fraction(int(i == n - 1))] for i in range(n)])
    ours = StateReduction(Wide.of(ways), Wide.of(out)) if wide else StateReduction(ways, out)
    law = ours.stationary()
    for i in range(n):
        assert relative_error(law[i], exact[i][0]) < 1e-14


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 130])
def test_blocks_change_nothing(n, monkeypatch):
    ways, out = badly_scaled(n, 3, 30, seed=n)
    reward = np.random.default_rng(2).random(n)
    blocked, wide = StateReduction(ways, out), StateReduction(Wide.of(ways), Wide.of(out))
    monkeypatch.setattr(reduction_module, "BLOCK", 1)
    unblocked = StateReduction(ways, out)
    for other in (unblocked, wide):
        vector = Wide.of(reward) if other is wide else reward
        pairs = [
            (blocked.absorption(), other.absorption()),
            (blocked.expected_sum(reward), other.expected_sum(vector)),
            (blocked.expected_visits(reward), other.expected_visits(vector)),
            (blocked.leaving, other.leaving),
        ]
        for a, b in pairs:
            np.testing.assert_allclose(a, b.to_float() if isinstance(b, Wide) else b, rtol=1e-12)


def test_absorption_sums_to_one_over_the_classes():
    ways, out = badly_scaled(100, 4, 60, seed=3)
    np.testing.assert_allclose(StateReduction(ways, out).absorption().sum(axis=1), 1, rtol=1e-13)


def test_the_gamblers_ruin_is_won_in_proportion_to_the_stake():
    n = 9  # stakes 1..9 of 10
    ways = np.diag(np.full(n - 1, 0.5), 1) + np.diag(np.full(n - 1, 0.5), -1)
    out = np.zeros((n, 2))
    out[0, 0] = out[-1, 1] = 0.5
    stakes = np.arange(1, n + 1)
    reduction = StateReduction(ways, out)
    np.testing.assert_allclose(reduction.absorption()[:, 1], stakes / 10, rtol=1e-14)
    np.testing.assert_allclose(reduction.expected_sum(np.ones(n)), stakes * (10 - stakes), rtol=1e-14)


@pytest.mark.parametrize("wide", [False, True])
def test_a_state_that_cannot_leave_is_refused(wide):
    ways, out = np.array([[0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]]), np.array([[0.5], [0.5], [0.0]])
    with pytest.raises(ZeroDivisionError, match="state 2 has no way to the states before it, nor out"):
        StateReduction(Wide.of(ways), Wide.of(out)) if wide else StateReduction(ways, out)


def test_the_diagonal_is_not_read():
    ways, out = badly_scaled(8, 2, 10, seed=4)
    with_diagonal = ways + np.diag(np.full(8, 0.9))
    np.testing.assert_array_equal(
        StateReduction(ways, out).absorption(), StateReduction(with_diagonal, out).absorption()
    )
