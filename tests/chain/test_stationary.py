"""The stationary law against QuantEcon, and entry by entry against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest

from glassgpt.chain import stationary
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.errors import UsageError


def dirichlet_rows(vocab_size, length, seed, concentration=1.0):
    return np.random.default_rng(seed).dirichlet(np.full(vocab_size, concentration), vocab_size**length)


def softmax_rows(vocab_size, length, seed, scale):
    """Rows of normal logits; the larger the scale the nearer to certainty."""
    logits = scale * np.random.default_rng(seed).normal(size=(vocab_size**length, vocab_size))
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def solve(matrix, right):
    """Gauss-Jordan elimination of Fractions: the vector x with matrix @ x = right."""
    n = len(matrix)
    rows = [[*a, b] for a, b in zip(matrix, right, strict=True)]
    for k in range(n):
        pivot = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[pivot] = rows[pivot], rows[k]
        scale = 1 / rows[k][k]
        rows[k] = [x * scale if x else x for x in rows[k]]
        for i in range(n):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [x - factor * y if y else x for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[n] for row in rows]


def exact_rows(table):
    """The rows as Fractions, divided by their sums, which are 1 only up to rounding."""
    rows = [[Fraction(float(p)) for p in row] for row in table]
    return [[p / sum(row) for p in row] for row in rows]


def exact_law(table, restart=None, end=None):
    """pi = pi P with sum 1, over the contexts of one length, in Fractions. All must be one class."""
    rows = exact_rows(table)
    n, V = len(rows), len(rows[0])
    balance = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    for s in range(n):
        for a in range(V):
            to = restart if a == end else (s * V + a) % n
            balance[to][s] -= rows[s][a]
    balance[0] = [Fraction(1)] * n
    return solve(balance, [Fraction(1)] + [Fraction(0)] * (n - 1))


def relative_error(ours, exact):
    return float(max(abs(Fraction(float(x)) / y - 1) for x, y in zip(ours, exact, strict=True)))


def assert_close(ours, theirs, rtol=1e-10):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=0)


@pytest.mark.parametrize(
    ("vocab_size", "length", "concentration"),
    [(2, 3, 1), (2, 9, 1), (10, 3, 1), (31, 2, 1), (2, 9, 0.1), (10, 3, 0.1), (31, 2, 0.05), (3, 5, 0.3), (40, 1, 1)],
)
def test_the_law_is_that_of_quantecon(vocab_size, length, concentration):
    markov = pytest.importorskip("quantecon.markov")
    table = dirichlet_rows(vocab_size, length, seed=vocab_size, concentration=concentration)
    table = np.maximum(table, 1e-30)  # a positive least probability, however skewed the row
    chain = MarkovChain.from_probabilities(table / table.sum(axis=1, keepdims=True))
    law = stationary_distribution(chain)
    assert_close(law.probabilities, markov.gth_solve(chain.transition_matrix()))
    assert law.error_bound == 0
    assert law.is_certified
    assert "state reduction" in law.certificate


@pytest.mark.parametrize(("vocab_size", "length"), [(2, 8), (16, 2)])
def test_the_law_is_that_of_a_quantecon_chain(vocab_size, length):
    quantecon = pytest.importorskip("quantecon")
    chain = MarkovChain.from_probabilities(dirichlet_rows(vocab_size, length, seed=1))
    (theirs,) = quantecon.MarkovChain(chain.transition_matrix()).stationary_distributions
    assert_close(stationary_distribution(chain).probabilities, theirs)


@pytest.mark.parametrize("scale", [1, 4, 12])
def test_every_entry_of_a_nearly_deterministic_chain_is_right_to_rounding(scale):
    table = softmax_rows(2, 6, seed=3, scale=scale)
    ours = stationary_distribution(MarkovChain.from_probabilities(table))
    exact = exact_law(table)
    assert relative_error(ours.probabilities, exact) < 1e-13
    if scale == 12:  # where an eigenvector has lost its digits
        chain = MarkovChain.from_probabilities(table)
        values, vectors = np.linalg.eig(chain.transition_matrix().T)
        vector = np.abs(vectors[:, np.argmax(values.real)].real)
        assert relative_error(vector / vector.sum(), exact) > 1e-10


def test_entries_too_small_for_a_float_keep_their_digits_in_wide_numbers():
    p = 1e-50
    chain = MarkovChain.from_probabilities(np.tile([p, 1.0], (256, 1)))  # independent tokens
    law = stationary_distribution(chain)
    for state in range(chain.n_states):
        zeros = chain.context(state).count(0)
        assert float(law.wide[state].log10()) == pytest.approx(-50 * zeros, rel=1e-14, abs=1e-13)
        if zeros <= 6:
            assert law.probabilities[state] == pytest.approx(10.0 ** (-50 * zeros), rel=1e-12, abs=0)


def test_a_start_that_the_long_run_all_but_never_meets_does_not_overflow():
    """State reduction builds on state 0, here of probability 1e-320."""
    law = stationary_distribution(MarkovChain.from_probabilities(np.tile([1e-32, 1.0], (1024, 1))))
    assert law.probabilities[-1] == pytest.approx(1, rel=1e-14)
    assert law.probabilities[0] == pytest.approx(1e-320, rel=1e-3, abs=0)


def test_ways_out_too_small_for_floats_are_reduced_in_wide_numbers():
    a, b = 1e-200, 3e-200
    chain = MarkovChain.from_probabilities(np.array([[1, a], [b, 1], [1, a], [b, 1]]))
    law = stationary_distribution(chain).wide  # after 0 a 1 by a, after 1 a 0 by b
    assert float(law[0].log10()) == pytest.approx(np.log10(0.75), rel=1e-12)
    assert float(law[3].log10()) == pytest.approx(np.log10(0.25), rel=1e-12)
    assert float(law[1].log10()) == pytest.approx(np.log10(0.75 * a), rel=1e-14)


def test_a_state_reached_only_by_two_steps_too_rare_together_for_a_float_is_not_lost():
    """0 -> 2 and 2 -> 3 by 1e-200 each, then for certain by 1 back to 0; reduction joins them before it reaches 1."""
    tiny = 1e-200
    table = np.array([[1, 0, tiny, 0], [1, 0, 0, 0], [1, 0, 0, tiny], [0, 1, 0, 0]])
    law = stationary_distribution(MarkovChain.from_probabilities(table)).wide
    np.testing.assert_allclose(law.log10(), [0, -400, -200, -400], rtol=1e-14, atol=1e-15)


def test_ways_out_of_few_digits_are_reduced_in_wide_numbers():
    """0 and 1 hold on to themselves; the way from 0 by 3 to 1 is 3.4e-320, from 1 by 2 to 0 it is 3e-320."""
    e = 1e-160
    table = np.array([[1, 0, 0, 2 * e], [0, 1, 3 * e, 0], [e, 1, 0, 0], [1, 1.7 * e, 0, 0]])
    law = stationary_distribution(MarkovChain.from_probabilities(table)).probabilities
    assert_close(law, [3 / 6.4, 3.4 / 6.4, 3 * e * 3.4 / 6.4, 2 * e * 3 / 6.4], rtol=1e-12)


def test_short_contexts_have_no_part_in_the_long_run():
    tables = [dirichlet_rows(2, length, seed=length) for length in (1, 2, 3)]
    law = stationary_distribution(MarkovChain.from_probabilities(*tables)).probabilities
    assert (law[:6] == 0).all()
    assert relative_error(law[6:], exact_law(tables[2])) < 1e-13


def test_the_law_stands_still_and_sums_to_one():
    chain = MarkovChain.from_probabilities(dirichlet_rows(3, 4, seed=4, concentration=0.5))
    law = stationary_distribution(chain).probabilities
    assert law.sum() == pytest.approx(1, abs=1e-14)
    assert_close(law @ chain.transition_matrix(), law, rtol=1e-13)


def test_restarting_texts_have_the_law_of_the_chain_with_that_transition():
    table = dirichlet_rows(3, 2, seed=5)
    chain = MarkovChain.from_probabilities(table, end=End(2, restart=(0, 1)))
    law = stationary_distribution(chain).probabilities
    reached = [chain.index(c) for c in ((0, 0), (0, 1), (1, 0), (1, 1))]  # no context holds the end token
    P = chain.transition_matrix()[np.ix_(reached, reached)]
    exact = exact_law_of_matrix(P)
    assert relative_error(law[reached], exact) < 1e-13
    assert law.sum() == pytest.approx(1, abs=1e-14)


def exact_law_of_matrix(P):
    n = len(P)
    rows = exact_rows(P)
    balance = [[Fraction(int(i == j)) - rows[j][i] for j in range(n)] for i in range(n)]
    balance[0] = [Fraction(1)] * n
    return solve(balance, [Fraction(1)] + [Fraction(0)] * (n - 1))


def test_restarting_from_a_short_context_gives_the_short_ones_their_part():
    tables = [dirichlet_rows(2, length, seed=10 + length) for length in (1, 2)]
    chain = MarkovChain.from_probabilities(*tables, end=End(1, restart=(0,)))
    law = stationary_distribution(chain).probabilities
    reached = [chain.index(c) for c in ((0,), (0, 0))]
    exact = exact_law_of_matrix(chain.transition_matrix()[np.ix_(reached, reached)])
    assert relative_error(law[reached], exact) < 1e-13


def test_texts_that_stop_have_no_long_run():
    chain = MarkovChain.from_probabilities(np.full((2, 2), 0.5), end=End(1))
    with pytest.raises(UsageError, match="a text that stops has no stationary law"):
        stationary_distribution(chain)


# ---- several closed classes, and rhythms ---------------------------------------------------------------------


def two_loops():
    """V = 2, T = 2: from 01 and 10 a choice; 00 for ever 0, 11 for ever 1."""
    return MarkovChain.from_probabilities(np.array([[1.0, 0.0], [0.3, 0.7], [0.6, 0.4], [0.0, 1.0]]))


def test_the_long_run_of_several_closed_classes_depends_on_the_start():
    chain = two_loops()
    with pytest.raises(UsageError, match="2 closed classes"):
        stationary_distribution(chain)
    assert stationary_distribution(chain, start=[0, 0]).probabilities.tolist() == [1, 0, 0, 0]
    # from 01: to 11 by .7, else to 10, and from there to 00 by .6, else back
    ends_in_ones = Fraction(7, 10) / (1 - Fraction(3, 10) * Fraction(4, 10))
    law = stationary_distribution(chain, start=[0, 1]).probabilities
    assert_close(law, [float(1 - ends_in_ones), 0, 0, float(ends_in_ones)], rtol=1e-14)
    assert_close(stationary_distribution(chain, start=np.array([0, 1])).probabilities, law)


def test_laws_of_several_classes_are_those_of_quantecon():
    quantecon = pytest.importorskip("quantecon")
    table = dirichlet_rows(3, 3, seed=7)
    for word in ((0, 0, 0), (1, 1, 1), (2, 2, 2)):
        code = word[0] * 13
        table[code] = np.eye(3)[word[0]]
    table[[5, 7]] = [1.0, 0.0, 0.0]
    chain = MarkovChain.from_probabilities(table)
    P = chain.transition_matrix()
    theirs = quantecon.MarkovChain(P).stationary_distributions
    far = np.linalg.matrix_power(P, 1 << 20)
    for start in ((0, 1, 2), (2, 2, 2), (1, 2, 0)):
        ours = stationary_distribution(chain, start=start).probabilities
        shares = [far[chain.index(start)][law > 0].sum() for law in theirs]
        assert_close(ours, sum(share * law for share, law in zip(shares, theirs, strict=True)))


def test_a_cycle_of_three_gives_each_of_its_states_a_third():
    table = np.full((8, 2), 0.5)
    table[0b001], table[0b010], table[0b100] = [1, 0], [1, 0], [0, 1]  # 001 001 001 ...
    law = stationary_distribution(MarkovChain.from_probabilities(table)).probabilities
    assert_close(law[[0b001, 0b010, 0b100]], 1 / 3, rtol=1e-15)
    assert law.sum() == pytest.approx(1)


def test_shares_are_found_by_walking_too(monkeypatch):
    chain = two_loops()
    exact = stationary_distribution(chain, start=[0, 1]).probabilities
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 1)  # the transient states are two, each closed class one
    assert_close(stationary_distribution(chain, start=[0, 1]).probabilities, exact, rtol=1e-12)


# ---- iteration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vocab_size", "length", "scale"), [(2, 6, 0.5), (2, 9, 1), (5, 3, 1), (20, 2, 2), (3, 4, 2), (2, 8, 1.2)]
)
def test_iteration_ends_within_its_proven_bound(vocab_size, length, scale, monkeypatch):
    chain = MarkovChain.from_probabilities(softmax_rows(vocab_size, length, seed=8, scale=scale))
    exact = stationary_distribution(chain).probabilities
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 1)
    law = stationary_distribution(chain)
    assert law.sweeps > 0
    assert law.is_certified
    assert "by coupling" in law.certificate
    assert np.abs(law.probabilities - exact).sum() <= law.error_bound
    assert_close(law.probabilities, exact, rtol=1e-8)


def test_a_chain_that_hardly_forgets_is_not_certified(monkeypatch):
    chain = MarkovChain.from_probabilities(softmax_rows(2, 8, seed=9, scale=40))
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 1)
    monkeypatch.setattr(stationary, "MAX_SWEEPS", 200)
    law = stationary_distribution(chain)
    assert not law.is_certified
    assert law.error_bound is None
    assert "not certified" in law.certificate


def test_a_bound_that_is_given_holds_even_when_iteration_is_cut_short(monkeypatch):
    chain = MarkovChain.from_probabilities(softmax_rows(2, 5, seed=10, scale=1))
    exact = stationary_distribution(chain).probabilities
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 1)
    for sweeps in (8, 16, 24, 32):
        monkeypatch.setattr(stationary, "MAX_SWEEPS", sweeps)
        law = stationary_distribution(chain)
        if law.is_certified:
            assert np.abs(law.probabilities - exact).sum() <= law.error_bound


def test_iteration_averages_a_rhythm_away_and_is_not_certified(monkeypatch):
    table = np.full((8, 2), 0.5)
    table[0b001], table[0b010], table[0b100] = [1, 0], [1, 0], [0, 1]
    chain = MarkovChain.from_probabilities(table)
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 1)
    law = stationary_distribution(chain)
    assert not law.is_certified
    assert_close(law.probabilities[[0b001, 0b010, 0b100]], 1 / 3, rtol=1e-12)


def test_iteration_with_a_restart_agrees_with_reduction(monkeypatch):
    chain = MarkovChain.from_probabilities(
        *(dirichlet_rows(3, length, seed=11 + length) for length in (1, 2)), end=End(0, restart=(1,))
    )
    exact = stationary_distribution(chain).probabilities
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 1)
    law = stationary_distribution(chain)
    np.testing.assert_allclose(law.probabilities, exact, rtol=1e-10, atol=1e-14)


def test_iteration_from_a_start_finds_its_classes(monkeypatch):
    table = dirichlet_rows(2, 3, seed=12)
    table[0], table[7] = [1, 0], [0, 1]
    chain = MarkovChain.from_probabilities(table)
    exact = stationary_distribution(chain, start=[0, 1, 0]).probabilities
    monkeypatch.setattr(stationary, "DENSE_LIMIT", 0)
    law = stationary_distribution(chain, start=[0, 1, 0])
    np.testing.assert_allclose(law.probabilities, exact, atol=1e-11)


# ---- laws ----------------------------------------------------------------------------------------------------


def test_renaming_the_tokens_renames_the_states():
    table = dirichlet_rows(3, 3, seed=13).reshape(3, 3, 3, 3)
    law = stationary_distribution(MarkovChain.from_probabilities(table.reshape(27, 3))).probabilities.reshape(3, 3, 3)
    rename = [2, 0, 1]
    renamed = table[np.ix_(rename, rename, rename, rename)].reshape(27, 3)
    theirs = stationary_distribution(MarkovChain.from_probabilities(renamed)).probabilities.reshape(3, 3, 3)
    assert_close(theirs, law[np.ix_(rename, rename, rename)], rtol=1e-13)
