"""State reduction: solving chains by additions, multiplications and divisions of non-negative numbers alone.

States are taken out one at a time, the last first, and the ways through them are credited to the states that remain.
The diagonal 1 - p_kk is never formed by subtraction: it is the *sum* of the other ways out of k. So every result has a
small relative error in every entry, where a linear solver loses all digits of a probability of 1e-30.

Grassmann, Taksar & Heyman (1985); O'Cinneide, "Entrywise perturbation theory and error analysis for Markov chains"
(1993). The elimination is blocked here, so that most of the work is one matrix product.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glassgpt.chain.wide import Wide, as_wide

BLOCK = 64
DENSE_LIMIT = 4096  # states; above it a dense matrix costs more than the sweeps it replaces
WIDE_LIMIT = 768  # the same for `Wide` numbers, whose operations are some thirty times slower
SAFELY_ABOVE_UNDERFLOW = 1e-290  # a sum of non-negative floats loses at most 5e-324 to each underflow, nothing to this
REDUCTION_FLOOR = 1e-140  # the same for state reduction, which also divides by the ways out of a state


class StateReduction:
    """The reduced form of a chain of n states with ways out of it.

    `ways`: non-negative (n, n), ways[i, j] from i to j; the diagonal is not read. `out`: non-negative (n, c), the ways
    from i to c absorbing classes; together with the diagonal the rows sum to 1. float64 arrays or `Wide`.

    Raises ZeroDivisionError if a state cannot leave the states that come before it: order closed states first.
    """

    def __init__(self, ways: Any, out: Any) -> None:
        self.n = ways.shape[0]
        self.classes = out.shape[1]
        self.matrix: Any
        if isinstance(ways, Wide):
            self.matrix = Wide.zeros((self.n, self.classes + self.n))
            self.matrix[:, : self.classes], self.matrix[:, self.classes :] = out, ways
            self.leaving = _eliminate(self.matrix, self.classes)
        else:
            self.matrix = np.concatenate([out, ways], axis=1)
            self.leaving = _eliminate_in_blocks(self.matrix, self.classes)

    def absorption(self) -> Any:
        """From each state the probability of each absorbing class: (n, c)."""
        return self._solve_right(self.matrix[:, : self.classes].copy())

    def expected_sum(self, reward: Any) -> Any:
        """From each state the expected sum of `reward` (n,) over the visits until absorption: (I - Q)^-1 reward."""
        reward = reward.copy()
        for k in range(self.n - 1, 0, -1):
            reward[:k] = reward[:k] + self.matrix[:k, self.classes + k] / self.leaving[k] * reward[k]
        return self._solve_right(reward.reshape(-1, 1)).reshape(-1)

    def expected_visits(self, start: Any) -> Any:
        """From a start measure (n,) the expected visits to each state until absorption: start (I - Q)^-1."""
        visits = start.copy()
        c = self.classes
        for k in range(self.n - 1, 0, -1):
            visits[:k] = visits[:k] + (visits[k] / self.leaving[k]) * self.matrix[k, c : c + k]
        visits[0] = visits[0] / self.leaving[0]
        for k in range(1, self.n):
            visits[k] = (visits[k] + (visits[:k] * self.matrix[:k, c + k]).sum()) / self.leaving[k]
        return visits

    def stationary(self) -> Wide:
        """The stationary law (n,) of a chain with no way out, all of whose states lead to state 0.

        `Wide`, since it is built up from state 0, which others can outweigh by more than a float64 can say.
        """
        c = self.classes
        law = Wide.zeros(self.n)
        law[0] = Wide.of(1.0)
        for k in range(1, self.n):
            law[k] = (law[:k] * as_wide(self.matrix[:k, c + k])).sum() / as_wide(self.leaving[k])
        return law / law.sum()

    def _solve_right(self, right: Any) -> Any:
        """Back-substitution of (n, columns) on the reduced form, from state 0 up."""
        c = self.classes
        for k in range(self.n):
            row = self.matrix[k, c : c + k].reshape(-1, 1)
            total = right[k] + (row * right[:k]).sum(axis=0) if k else right[k]
            right[k] = total / self.leaving[k]
        return right


def _eliminate(matrix: Any, classes: int) -> Any:
    """Reduce in place, state by state; return the total way out of each state at the time it was taken out.

    `matrix` is (n, classes + n), the absorbing classes first. Entry [k, j] then holds the way from k to what remains
    below k, entry [i, k] the way from i < k into k.
    """
    n = matrix.shape[0]
    leaving = matrix[:, 0].copy()
    for k in range(n - 1, -1, -1):
        column = classes + k
        leaving[k] = _total(matrix[k, :column], k)
        if k:
            share = matrix[:k, column] / leaving[k]
            matrix[:k, :column] = matrix[:k, :column] + share.reshape(-1, 1) * matrix[k, :column].reshape(1, -1)
    return leaving


def _eliminate_in_blocks(matrix: np.ndarray, classes: int) -> np.ndarray:
    """The same for float64: within a block of states only their own rows and columns are kept up to date."""
    n = len(matrix)
    leaving = np.empty(n)
    for high in range(n, 0, -BLOCK):
        low = max(0, high - BLOCK)
        shares = np.zeros((high, high - low))  # shares[i, k - low]: from i into k, as a part of what leaves k
        for k in range(high - 1, low - 1, -1):
            column = classes + k
            done = slice(k + 1, high)  # states of this block that are out already
            if k + 1 < high:
                matrix[k, :column] += shares[k, k + 1 - low :] @ matrix[done, :column]
                matrix[:k, column] += shares[:k, k + 1 - low :] @ matrix[done, column]
            leaving[k] = _total(matrix[k, :column], k)
            shares[:k, k - low] = matrix[:k, column] / leaving[k]
        if low:
            below = classes + low
            matrix[:low, :below] += shares[:low] @ matrix[low:high, :below]
    return leaving


def _total(ways: Any, k: int) -> Any:
    total = ways.sum()
    if k and not float(total.mantissa if isinstance(total, Wide) else total) > 0:
        raise ZeroDivisionError(f"state {k} has no way to the states before it, nor out")
    return total
