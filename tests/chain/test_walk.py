"""Sweeps over joint states against matrices built one transition at a time, for floats, Wide numbers and booleans."""

from itertools import product

import numpy as np
import pytest

from glassgpt.chain import sweeps
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.walk import Red, Walk
from glassgpt.chain.wide import Wide
from glassgpt.errors import UsageError


def random_rows(vocab_size, length, seed, impossible=0.0):
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.ones(vocab_size), vocab_size**length)
    table[(rng.random(table.shape) < impossible) & (table < table.max(axis=1, keepdims=True))] = 0
    return table / table.sum(axis=1, keepdims=True)


def make_chain(vocab_size, context_length, *, short=False, end=None, impossible=0.3, seed=0):
    lengths = range(1, context_length + 1) if short else [context_length]
    tables = [random_rows(vocab_size, length, seed + length, impossible) for length in lengths]
    return MarkovChain.from_probabilities(*tables, end=end)


CASES = {
    "contexts": (make_chain(3, 2), "contexts", [[0, 1], [2, 2]]),
    "one pattern": (make_chain(2, 3), "patterns", [[0, 1, 0, 1, 1]]),
    "patterns and short contexts": (make_chain(3, 2, short=True), "patterns", [[0, 1, 0], [1, 1]]),
    "a red short context": (make_chain(2, 3, short=True), "contexts", [[1], [1, 0, 1]]),
    "an end": (make_chain(3, 2, short=True, end=End(2)), "patterns", [[0, 1, 0], [0, 2]]),
    "an end and red contexts": (make_chain(3, 2, end=End(1)), "contexts", [[0, 1], [2, 2]]),
    "a restart": (make_chain(3, 2, short=True, end=End(2, restart=(1,))), "patterns", [[1, 1, 0], [0, 2]]),
    "a restart of full contexts": (make_chain(2, 2, end=End(1, restart=(0, 0))), "contexts", [[1, 1]]),
}


def example(name):
    chain, kind, marks = CASES[name]
    return chain, (Red.of_contexts if kind == "contexts" else Red.of_patterns)(chain, marks)


def transitions(walk):
    """(joint state, token, probability, joint state or None where the text has stopped), one by one."""
    chain, automaton = walk.chain, walk.automaton
    probs = np.concatenate([layer.probs for layer in chain.layers])
    for q, s, a in product(range(automaton.n_states), range(chain.n_states), range(chain.vocab_size)):
        goal = (int(automaton.delta[q, a]), chain.index((*chain.context(s), a)))
        if chain.end is not None and a == chain.end.token and not walk.red[goal]:
            restart = chain.end.restart
            goal = None if restart is None else (automaton.run(restart), chain.index(restart))
        if probs[s, a] > 0:
            yield (q, s), a, probs[s, a], goal


def matrix_of(walk):
    """The joint transition matrix, and the probability of stopping at each joint state."""
    matrix, stop = np.zeros(walk.shape * 2), np.zeros(walk.shape)
    for origin, _, p, goal in transitions(walk):
        if goal is None:
            stop[origin] += p
        else:
            matrix[origin + goal] += p
    n = walk.red.size
    return matrix.reshape(n, n), stop.reshape(n)


@pytest.mark.parametrize("name", CASES)
def test_the_sweeps_are_products_with_the_joint_matrix(name):
    walk = Walk(*example(name))
    matrix, stop = matrix_of(walk)
    rng = np.random.default_rng(1)
    mass, value = rng.random(walk.shape), rng.random(walk.shape)
    moved, stopped = walk.left(mass.copy())
    np.testing.assert_allclose(moved.ravel(), mass.ravel() @ matrix, rtol=1e-13)
    np.testing.assert_allclose(stopped, mass.ravel() @ stop, rtol=1e-13)
    np.testing.assert_allclose(walk.right(value, at_end=0.7).ravel(), matrix @ value.ravel() + 0.7 * stop, rtol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_wide_sweeps_are_the_float_sweeps(name):
    chain, red = example(name)
    walk, wide = Walk(chain, red), Walk(chain, red).widened()
    rng = np.random.default_rng(2)
    mass, value = rng.random(walk.shape), rng.random(walk.shape)
    moved, stopped = walk.left(mass.copy())
    wide_moved, wide_stopped = wide.left(wide.vector(mass))
    np.testing.assert_allclose(wide_moved.to_float(), moved, rtol=1e-13)
    np.testing.assert_allclose(float(wide_stopped), stopped, rtol=1e-13)
    backward = wide.right(wide.vector(value), at_end=0.7)
    np.testing.assert_allclose(backward.to_float(), walk.right(value, at_end=0.7), rtol=1e-13)
    states = np.arange(0, walk.red.size, 2)
    np.testing.assert_allclose(wide.ways_among(states).to_float(), walk.ways_among(states), rtol=1e-13)
    assert float(wide.take_red(wide_moved)) == pytest.approx(walk.take_red(moved), rel=1e-13)
    np.testing.assert_allclose(wide_moved.to_float(), moved, rtol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_boolean_sweeps_say_where_the_float_sweeps_are_positive(name):
    walk = Walk(*example(name))
    rng = np.random.default_rng(3)
    for share in (0.1, 0.5):
        some = rng.random(walk.shape) < share
        for at_end in (False, True):
            expected = walk.right(some.astype(float), at_end=float(at_end)) > 0
            np.testing.assert_array_equal(walk.can_step_to(some, at_end=at_end), expected)
        np.testing.assert_array_equal(walk.steps_from(some), walk.left(some.astype(float))[0] > 0)


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_are_adjoint(name):
    walk = Walk(*example(name))
    rng = np.random.default_rng(4)
    mass, value = rng.random(walk.shape), rng.random(walk.shape)
    moved, stopped = walk.left(mass.copy())
    assert (moved * value).sum() + 0.3 * stopped == pytest.approx((mass * walk.right(value, 0.3)).sum(), rel=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_compiled_sweeps_change_nothing(name, monkeypatch):
    pytest.importorskip("numba")
    walk = Walk(*example(name))
    rng = np.random.default_rng(5)
    mass, value = rng.random(walk.shape), rng.random(walk.shape)
    plain = walk.left(mass.copy()), walk.right(value, 0.5)
    monkeypatch.setattr(sweeps, "COMPILED_FROM", 0)
    compiled = walk.left(mass.copy()), walk.right(value, 0.5)
    np.testing.assert_allclose(compiled[0][0], plain[0][0], rtol=1e-14)
    np.testing.assert_allclose(compiled[0][1], plain[0][1], rtol=1e-14)
    np.testing.assert_allclose(compiled[1], plain[1], rtol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_a_sweep_leaves_its_argument_as_it_was(name):
    chain, red = example(name)
    for walk in (Walk(chain, red), Walk(chain, red).widened()):
        before = np.random.default_rng(6).random(walk.shape)
        vector = walk.vector(before)
        walk.left(vector)
        walk.right(vector)
        np.testing.assert_array_equal(vector.to_float() if walk.wide else vector, before)


@pytest.mark.parametrize("name", CASES)
def test_single_transitions_are_those_of_the_joint_matrix(name):
    walk = Walk(*example(name))
    matrix, _ = matrix_of(walk)
    everything = np.arange(walk.red.size)
    np.testing.assert_allclose(walk.ways_among(everything), matrix, rtol=1e-13)
    for origin, token, p, goal in transitions(walk):
        flat = int(np.ravel_multi_index(origin, walk.shape))
        expected = -1 if goal is None else np.ravel_multi_index(goal, walk.shape)
        assert walk.successors(token)[flat] == expected
        assert walk.step(np.array([flat]), token)[0] == pytest.approx(p, rel=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_no_mass_is_lost(name):
    walk = Walk(*example(name))
    mass = np.random.default_rng(7).dirichlet(np.ones(walk.red.size)).reshape(walk.shape)
    taken = walk.take_red(mass)
    moved, stopped = walk.left(mass)
    assert taken + moved.sum() + stopped == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("compiled_from", [0, sweeps.COMPILED_FROM])
@pytest.mark.parametrize("name", CASES)
def test_a_sweep_may_write_over_a_vector_that_is_needed_no_more(name, compiled_from, monkeypatch):
    monkeypatch.setattr(sweeps, "COMPILED_FROM", compiled_from)
    walk = Walk(*example(name))
    mass = np.random.default_rng(9).random(walk.shape)
    before = mass.copy()
    moved, stopped = walk.left(mass, scratch=np.full(walk.shape, np.nan))
    expected, also_stopped = walk.left(mass)
    np.testing.assert_array_equal(moved, expected)
    assert stopped == also_stopped
    np.testing.assert_array_equal(mass, before)


def test_a_long_prompt_is_read_whole_by_the_automaton():
    chain = make_chain(2, 2)
    walk = Walk(chain, Red.of_patterns(chain, [[1, 0, 0, 0, 1]]))
    assert walk.joint_index([1, 0, 0, 0]) == (4, 0)
    assert walk.red[walk.joint_index([1, 0, 0, 0, 1, 0])]


def test_a_law_over_contexts_starts_the_automaton_with_the_tokens_of_each():
    chain = make_chain(2, 3, short=True)
    red = Red.of_patterns(chain, [[0, 1], [1, 1, 0, 0]])
    walk = Walk(chain, red)
    law = np.random.default_rng(8).dirichlet(np.ones(chain.n_states))
    expected = np.zeros(walk.shape)
    for state, probability in enumerate(law):
        expected[red.automaton.run(chain.context(state)), state] = probability
    np.testing.assert_array_equal(walk.start_from(law), expected)
    np.testing.assert_array_equal(walk.start_from(Wide.of(law)).to_float(), expected)


@pytest.mark.parametrize("pattern", [(1,), (0, 1), (1, 1), (1, 0, 1)])
def test_a_pattern_that_fits_into_a_context_is_the_set_of_contexts_that_hold_it(pattern):
    chain = make_chain(2, 3, impossible=0)
    holding = [c for c in product(range(2), repeat=3) if any(c[i : i + len(pattern)] == pattern for i in range(3))]
    by_pattern = Walk(chain, Red.of_patterns(chain, [pattern]))
    by_contexts = Walk(chain, Red.of_contexts(chain, holding))
    for start in product(range(2), repeat=3):
        masses = by_pattern.start_at(start), by_contexts.start_at(start)
        for _ in range(8):
            taken = by_pattern.take_red(masses[0]), by_contexts.take_red(masses[1])
            assert taken[0] == pytest.approx(taken[1], rel=1e-13, abs=0)
            masses = by_pattern.left(masses[0])[0], by_contexts.left(masses[1])[0]


def test_red_contexts_that_cannot_be_meant_are_refused():
    chain = make_chain(2, 2)
    with pytest.raises(UsageError, match="no state is marked red"):
        Red.of_contexts(chain, [])
    with pytest.raises(UsageError, match="every state is marked red"):
        Red.of_contexts(chain, list(product(range(2), repeat=2)))
    with pytest.raises(UsageError, match=r"\[0, 1, 1\] is longer than the 2 tokens"):
        Red.of_contexts(chain, [[0, 1, 1]])
    with pytest.raises(UsageError, match="at least 2"):
        Red.of_contexts(chain, [[0]])
