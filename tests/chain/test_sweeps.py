"""The two sweeps against their sums written out, in NumPy and compiled."""

import numpy as np
import pytest

from glassgpt.chain import sweeps


def by_loops(mass, value, p):
    Q, B, M, V = len(mass), *p.shape
    left, right = np.zeros((Q, M, V)), np.zeros((Q, B, M))
    for q in range(Q):
        for b in range(B):
            for r in range(M):
                for a in range(V):
                    left[q, r, a] += mass[q, b, r] * p[b, r, a]
                    right[q, b, r] += p[b, r, a] * value[q, r, a]
    return left, right


def example(B, M, V, Q):
    rng = np.random.default_rng(B * 100 + M * 10 + V)
    return rng.random((Q, B, M)), rng.random((Q, M, V)), rng.dirichlet(np.ones(V), (B, M))


@pytest.mark.parametrize(("B", "M", "V", "Q"), [(2, 8, 2, 1), (3, 9, 3, 2), (1, 5, 5, 3), (4, 1, 4, 2)])
def test_the_sweeps_are_their_sums(B, M, V, Q):
    mass, value, p = example(B, M, V, Q)
    left, right = by_loops(mass, value, p)
    np.testing.assert_allclose(sweeps.left(mass, p), left, rtol=1e-14)
    np.testing.assert_allclose(sweeps.right(p, value), right, rtol=1e-14)


@pytest.mark.parametrize(("B", "M", "V", "Q"), [(2, 64, 2, 1), (5, 25, 5, 2), (1, 9, 3, 2)])
def test_the_compiled_sweeps_are_the_same(B, M, V, Q, monkeypatch):
    pytest.importorskip("numba")
    mass, value, p = example(B, M, V, Q)
    plain = sweeps.left(mass, p), sweeps.right(p, value)
    monkeypatch.setattr(sweeps, "COMPILED_FROM", 0)
    np.testing.assert_allclose(sweeps.left(mass, p), plain[0], rtol=1e-14)
    np.testing.assert_allclose(sweeps.right(p, value), plain[1], rtol=1e-14)


def test_compiled_sweeps_take_vectors_that_are_not_contiguous(monkeypatch):
    pytest.importorskip("numba")
    mass, value, p = example(2, 64, 2, 2)
    monkeypatch.setattr(sweeps, "COMPILED_FROM", 0)
    strided = np.asfortranarray(mass), np.asfortranarray(value)
    np.testing.assert_allclose(sweeps.left(strided[0], p), np.einsum("qbr,bra->qra", mass, p), rtol=1e-14)
    np.testing.assert_allclose(sweeps.right(p, strided[1]), np.einsum("bra,qra->qbr", p, value), rtol=1e-14)


def test_without_numba_numpy_does_it(monkeypatch):
    monkeypatch.setattr(sweeps, "find_spec", lambda name: None)
    monkeypatch.setattr(sweeps, "COMPILED_FROM", 0)
    sweeps.compiled_sweeps.cache_clear()
    try:
        assert sweeps.compiled_sweeps(2, 2) is None
        mass, value, p = example(2, 4, 2, 1)
        left, right = by_loops(mass, value, p)
        np.testing.assert_allclose(sweeps.left(mass, p), left, rtol=1e-14)
        np.testing.assert_allclose(sweeps.right(p, value), right, rtol=1e-14)
    finally:
        sweeps.compiled_sweeps.cache_clear()
