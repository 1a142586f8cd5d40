"""The two sweeps that everything else repeats, over a row table p[b, r, a] = P(a | context b·r).

    left,  mass one step forward:   out[r, a] = sum_b mass[b, r] p[b, r, a]
    right, value one step back:     out[b, r] = sum_a p[b, r, a] value[r, a]

No index arrays and no matrix: unit stride, one pass over the table. In NumPy they are one einsum each; for large chains
the same two loops compiled by numba, where it is installed, run on all cores (figures in notes/log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np

COMPILED_FROM = 1 << 17  # transitions; below, the import of numba costs more than it saves


def left(mass: np.ndarray, p: np.ndarray) -> np.ndarray:
    """mass (V, M), p (V, M, V) -> (M, V)."""
    if p.size >= COMPILED_FROM and (compiled := compiled_sweeps()) is not None:
        return compiled[0](np.ascontiguousarray(mass), p)
    return np.einsum("br,bra->ra", mass, p)


def right(p: np.ndarray, value: np.ndarray) -> np.ndarray:
    """p (V, M, V), value (M, V) -> (V, M)."""
    if p.size >= COMPILED_FROM and (compiled := compiled_sweeps()) is not None:
        return compiled[1](p, np.ascontiguousarray(value))
    return np.einsum("bra,ra->br", p, value)


@cache
def compiled_sweeps() -> tuple[Callable, Callable] | None:
    """The two sweeps compiled for this machine, or None where numba isn't installed."""
    if find_spec("numba") is None:
        return None
    import numba

    @numba.njit(parallel=True, cache=True)
    def compiled_left(mass, p):  # type: ignore[no-untyped-def]
        V, M = mass.shape
        out = np.empty((M, V))
        for r in numba.prange(M):
            for a in range(V):
                total = 0.0
                for b in range(V):
                    total += mass[b, r] * p[b, r, a]
                out[r, a] = total
        return out

    @numba.njit(parallel=True, cache=True)
    def compiled_right(p, value):  # type: ignore[no-untyped-def]
        V, M, _ = p.shape
        out = np.empty((V, M))
        for r in numba.prange(M):
            for b in range(V):
                total = 0.0
                for a in range(V):
                    total += p[b, r, a] * value[r, a]
                out[b, r] = total
        return out

    return compiled_left, compiled_right
