"""Mixing times, distances and eigenvalues against powers of the whole matrix."""

import numpy as np
import pytest

from glassgpt.chain import mixing
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.mixing import (
    coupling_bound,
    coupling_probabilities,
    distance_from_stationary,
    mixing_time,
    second_eigenvalue,
)
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.errors import UsageError


def random_chain(vocab_size, length, seed=0, concentration=1.0, short=False, end=None):
    rng = np.random.default_rng(seed)
    lengths = range(1, length + 1) if short else [length]
    tables = [rng.dirichlet(np.full(vocab_size, concentration), vocab_size**k) for k in lengths]
    return MarkovChain.from_probabilities(*tables, end=end)


def law_of(chain):
    return stationary_distribution(chain).probabilities


def worst_distance(chain, law, n):
    """max over full contexts of TV(P^n(s, .), pi)."""
    power = np.linalg.matrix_power(chain.transition_matrix(), n)[chain.offset(chain.context_length) :]
    return 0.5 * np.abs(power - law).sum(axis=1).max()


CHAINS = {
    "one token": random_chain(3, 1),
    "mild": random_chain(2, 5, seed=1, concentration=5),
    "sharp": random_chain(2, 4, seed=2, concentration=0.2),
    "wide": random_chain(6, 2, seed=3),
    "short contexts too": random_chain(2, 3, seed=4, short=True),
    "a restart": random_chain(2, 3, seed=5, short=True, end=End(1, restart=(0,))),
    "sticky": MarkovChain.from_probabilities(np.tile([[0.97, 0.03], [0.05, 0.95]], (4, 1))),
}


@pytest.mark.parametrize("epsilon", [0.9, 0.25, 0.05, 1e-6])
@pytest.mark.parametrize("name", CHAINS)
def test_the_mixing_time_is_the_first_power_that_is_near_enough(name, epsilon):
    chain = CHAINS[name]
    law = law_of(chain)
    found = mixing_time(chain, law, epsilon)
    by_hand = next(n for n in range(10_000) if worst_distance(chain, law, n) <= epsilon)
    assert found.exact == by_hand
    if found.upper_bound is not None:
        assert found.upper_bound >= by_hand


def test_independent_tokens_are_forgotten_with_the_window_and_not_before():
    chain = MarkovChain.from_probabilities(np.tile([0.3, 0.7], (32, 1)))
    law = law_of(chain)
    assert worst_distance(chain, law, 4) > 0.25
    assert mixing_time(chain, law).exact == 5
    assert mixing_time(chain, law).upper_bound == 5


def coupling_by_pairs(chain):
    """alpha_k by its definition for pairs: min over two contexts with the same last k tokens of sum_a min(p, p')."""
    V, T, probs = chain.vocab_size, chain.context_length, chain.full.probs
    alphas = []
    for k in range(T):
        pairs = [(s, t) for s in range(V**T) for t in range(V**T) if s % V**k == t % V**k]
        alphas.append(min(np.minimum(probs[s], probs[t]).sum() for s, t in pairs))
    return np.array(alphas)


@pytest.mark.parametrize(("vocab_size", "length"), [(2, 1), (2, 4), (3, 3), (5, 2)])
def test_coupling_probabilities_are_lower_bounds_and_exact_where_two_contexts_differ(vocab_size, length):
    chain = random_chain(vocab_size, length, seed=6)
    ours, pairs = coupling_probabilities(chain), coupling_by_pairs(chain)
    assert (ours <= pairs + 1e-15).all()
    assert (ours > 0).all()
    if vocab_size == 2:
        assert ours[-1] == pytest.approx(pairs[-1], rel=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_the_coupling_bound_bounds_every_distance(seed):
    chain = random_chain(2, 4, seed=seed, concentration=3)
    law, closing = law_of(chain), np.prod(coupling_probabilities(chain))
    for n in range(30):
        assert worst_distance(chain, law, n) <= (1 - closing) ** (n // 4) + 1e-13
    for epsilon in (0.5, 0.1, 1e-3):
        assert worst_distance(chain, law, coupling_bound(chain, epsilon)) <= epsilon


def test_without_a_coupling_there_is_no_bound():
    deterministic = MarkovChain.from_probabilities(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert coupling_bound(deterministic, 0.25) is None
    assert coupling_bound(random_chain(2, 2, end=End(0, restart=(0, 0))), 0.25) is None


def test_a_coupling_so_weak_that_its_bound_is_past_counting_gives_none():
    chain = MarkovChain.from_probabilities(np.array([[1.0, 1e-30], [1e-30, 1.0]]))
    assert coupling_bound(chain, 0.25) is None


def test_a_rhythm_is_never_forgotten():
    table = np.full((8, 2), 0.5)
    table[0b001], table[0b010], table[0b100] = [1, 0], [1, 0], [0, 1]
    chain = MarkovChain.from_probabilities(table)
    found = mixing_time(chain, law_of(chain))
    assert found.exact is None
    assert "not mixed after 2^40" in found.note


def test_a_chain_that_forgets_in_1e15_tokens_is_not_said_never_to():
    chain = MarkovChain.from_probabilities(np.array([[1 - 1e-15, 1e-15], [1e-15, 1 - 1e-15]]))
    found = mixing_time(chain, np.array([0.5, 0.5]))
    assert found.exact is None
    assert found.upper_bound > 1e14
    assert "never" not in found.note


@pytest.mark.parametrize("p", [1e-3, 1e-6, 1e-9])
def test_slow_mixing_is_timed_by_doubling(p):
    """Two states that change places with probability p: TV = (1 - 2 p)^n / 2."""
    chain = MarkovChain.from_probabilities(np.array([[1 - p, p], [p, 1 - p]]))
    found = mixing_time(chain, np.array([0.5, 0.5]), 0.25)
    assert found.exact == pytest.approx(np.ceil(np.log(0.5) / np.log1p(-2 * p)), rel=1e-6)


def test_large_chains_get_the_bound_alone(monkeypatch):
    monkeypatch.setattr(mixing, "EXACT_LIMIT", 8)
    chain = random_chain(2, 4, seed=7, concentration=5)
    found = mixing_time(chain, law_of(chain))
    assert found.exact is None
    assert found.upper_bound is not None
    assert "exact only up to 8 states" in found.note


def test_texts_that_stop_do_not_mix():
    chain = random_chain(2, 2, end=End(1))
    found = mixing_time(chain, np.full(4, 0.25))
    assert found.exact is None
    assert "texts stop" in found.note


@pytest.mark.parametrize("epsilon", [0.0, 1.0, -0.1])
def test_an_epsilon_that_is_no_distance_is_refused(epsilon):
    with pytest.raises(UsageError, match="epsilon must be between 0 and 1"):
        mixing_time(CHAINS["one token"], np.full(3, 1 / 3), epsilon)


@pytest.mark.parametrize("name", CHAINS)
def test_the_distance_from_a_start_is_that_of_its_row_of_the_powers(name):
    chain = CHAINS[name]
    law, P = law_of(chain), chain.transition_matrix()
    start = chain.context(chain.n_states - 1)
    row, expected = np.eye(chain.n_states)[-1], []
    for _ in range(13):
        expected.append(0.5 * np.abs(row - law).sum())
        row = row @ P
    found = distance_from_stationary(chain, law, start, 12)
    np.testing.assert_allclose(found, expected, atol=1e-14)
    assert (np.diff(found) <= 1e-15).all()


@pytest.mark.parametrize(
    ("vocab_size", "length", "concentration"),
    [(2, 3, 1), (7, 2, 1), (3, 5, 0.3), (10, 2, 0.2), (2, 8, 0.2), (100, 1, 1)],
)
def test_the_second_eigenvalue_is_that_of_numpy(vocab_size, length, concentration):
    chain = random_chain(vocab_size, length, seed=8, concentration=concentration)
    moduli = np.sort(np.abs(np.linalg.eigvals(chain.transition_matrix())))
    assert second_eigenvalue(chain) == pytest.approx(moduli[-2], rel=1e-9)


@pytest.mark.parametrize("length", [3, 7, 9])
def test_the_second_eigenvalue_is_found_though_its_vector_has_the_opposite_symmetry(length):
    """A token is repeated with .99, whichever it is: lambda_2 = .98, odd under the exchange of the two tokens."""
    chain = MarkovChain.from_probabilities(np.tile([[0.99, 0.01], [0.01, 0.99]], (2 ** (length - 1), 1)))
    assert second_eigenvalue(chain) == pytest.approx(0.98, rel=1e-9)


def test_independent_tokens_have_no_second_eigenvalue_that_rounding_can_tell_from_zero():
    for length in (2, 8):
        chain = MarkovChain.from_probabilities(np.tile([0.3, 0.7], (2**length, 1)))
        assert second_eigenvalue(chain) < 2 * 1e-16 ** (1 / length)


def test_the_second_eigenvalue_of_a_rhythm_is_one():
    table = np.full((128, 2), 0.5)
    for i in range(7):  # 0000001 for ever
        table[1 << i] = [0, 1] if i == 6 else [1, 0]
    assert second_eigenvalue(MarkovChain.from_probabilities(table)) == pytest.approx(1, rel=1e-9)


def test_no_eigenvalue_is_sought_in_a_chain_too_large_for_it(monkeypatch):
    monkeypatch.setattr(mixing, "EIGENVALUE_LIMIT", 100)
    assert second_eigenvalue(random_chain(2, 7)) is None
