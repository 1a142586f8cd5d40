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

COMPILED_FROM = 1 << 20  # transitions; below, loading the compiled sweeps (a second) costs more than they save


def left(mass: np.ndarray, p: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """For each of Q automaton states: mass (Q, V, M), p (V, M, V) -> (Q, M, V).

    `out` may give a large sweep the memory to write to, since asking the system for it anew costs as much as the sweep.
    """
    if p.size < COMPILED_FROM or (compiled := compiled_sweeps(p.shape[0], p.shape[2])) is None:
        return np.einsum("qbr,bra->qra", mass, p)
    out = np.empty((len(mass), *p.shape[1:])) if out is None else out.reshape(len(mass), *p.shape[1:])
    for q in range(len(mass)):
        compiled[0](np.ascontiguousarray(mass[q]), p, out[q])
    return out


def right(p: np.ndarray, value: np.ndarray) -> np.ndarray:
    """For each of Q automaton states: p (V, M, V), value (Q, M, V) -> (Q, V, M)."""
    if p.size < COMPILED_FROM or (compiled := compiled_sweeps(p.shape[0], p.shape[2])) is None:
        return np.einsum("bra,qra->qbr", p, value)
    out = np.empty((len(value), *p.shape[:2]))
    for q in range(len(value)):
        compiled[1](p, np.ascontiguousarray(value[q]), out[q])
    return out


@cache
def compiled_sweeps(n_oldest: int, vocab_size: int) -> tuple[Callable, Callable] | None:
    """The two sweeps compiled for this machine, or None where numba isn't installed.

    The table's first and last axis are constants to the compiler, which unrolls the loops over them.
    """
    if find_spec("numba") is None:
        return None
    import numba

    @numba.njit(parallel=True, cache=True)
    def compiled_left(mass, p, out):  # type: ignore[no-untyped-def]
        for r in numba.prange(p.shape[1]):
            for a in range(vocab_size):
                total = 0.0
                for b in range(n_oldest):
                    total += mass[b, r] * p[b, r, a]
                out[r, a] = total

    @numba.njit(parallel=True, cache=True)
    def compiled_right(p, value, out):  # type: ignore[no-untyped-def]
        for r in numba.prange(p.shape[1]):
            for b in range(n_oldest):
                total = 0.0
                for a in range(vocab_size):
                    total += p[b, r, a] * value[r, a]
                out[b, r] = total

    return compiled_left, compiled_right
