"""Classes, periods and reachability against QuantEcon and against plain searches."""

from collections import deque
from itertools import product

import numpy as np
import pytest

from glassgpt.chain import structure
from glassgpt.chain.markov import End, MarkovChain
from glassgpt.chain.structure import (
    can_reach,
    communicating_classes,
    greedy_machine,
    has_full_support,
    never_and_surely_red,
    period,
    reachable,
    red_is_reachable,
    stops,
    transition_graph,
)
from glassgpt.chain.walk import Red, Walk


def sparse_rows(vocab_size, length, impossible, seed):
    """Random rows of which many tokens are impossible, never all."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.ones(vocab_size), vocab_size**length)
    table[(rng.random(table.shape) < impossible) & (table < table.max(axis=1, keepdims=True))] = 0
    return table / table.sum(axis=1, keepdims=True)


def sparse_chain(vocab_size, length, impossible, seed, end=None):
    return MarkovChain.from_probabilities(sparse_rows(vocab_size, length, impossible, seed), end=end)


TABLES = [(2, 4, 0.5), (2, 5, 0.8), (3, 3, 0.6), (3, 3, 0.9), (5, 2, 0.8), (8, 2, 0.95), (4, 3, 0.3)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("vocab_size", "length", "impossible"), TABLES)
def test_classes_and_periods_are_those_of_quantecon(vocab_size, length, impossible, seed):
    quantecon = pytest.importorskip("quantecon")
    chain = sparse_chain(vocab_size, length, impossible, seed)
    classes = communicating_classes(chain)
    theirs = quantecon.MarkovChain(chain.transition_matrix() / chain.transition_matrix().sum(axis=1, keepdims=True))

    ours = {frozenset(classes.members(label).tolist()) for label in range(classes.n_classes)}
    assert ours == {frozenset(c.tolist()) for c in theirs.communication_classes}
    closed = {frozenset(members.tolist()) for members in classes.closed_classes()}
    assert closed == {frozenset(c.tolist()) for c in theirs.recurrent_classes}
    for members in classes.closed_classes():
        within = chain.transition_matrix()[np.ix_(members, members)]
        alone = quantecon.MarkovChain(within / within.sum(axis=1, keepdims=True))
        assert period(chain, members) == alone.period
    if classes.n_classes == 1:
        assert theirs.is_irreducible
        assert (period(chain, np.arange(chain.n_states)) == 1) == theirs.is_aperiodic


def cycle(text, vocab_size, length):
    """A chain that, from the contexts of a repeated text, repeats it, and from all others does anything."""
    table = np.full((vocab_size**length, vocab_size), 1 / vocab_size)
    chain = MarkovChain.from_probabilities(table)
    repeated = list(text) * 3
    for i in range(len(text)):
        state = chain.index(repeated[i : i + length])
        table[state] = 0
        table[state, repeated[i + length]] = 1
    return MarkovChain.from_probabilities(table)


def test_a_repeated_text_of_three_is_a_closed_class_of_period_three():
    chain = cycle([0, 0, 1], 2, 3)
    (members,) = communicating_classes(chain).closed_classes()
    assert sorted(chain.context(s) for s in members) == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    assert period(chain, members) == 3


def test_full_support_is_one_class_of_period_one_found_without_a_graph():
    chain = sparse_chain(3, 2, 0, seed=0)
    assert has_full_support(chain)
    classes = communicating_classes(chain)
    assert classes.n_classes == 1
    assert period(chain, classes.members(0)) == 1


def test_short_contexts_are_classes_of_their_own_that_are_left():
    tables = [np.full((2**length, 2), 0.5) for length in (1, 2)]
    for end in (None, End(1), End(1, restart=(0, 0))):
        classes = communicating_classes(MarkovChain.from_probabilities(*tables, end=end))
        for short in (0, 1):
            assert (classes.labels == classes.labels[short]).sum() == 1
            assert not classes.closed[classes.labels[short]]


def test_the_shortcut_for_full_support_gives_the_classes_of_the_graph(monkeypatch):
    chain = MarkovChain.from_probabilities(*(sparse_rows(2, length, 0, length) for length in (1, 2, 3)))
    shortcut = communicating_classes(chain)
    monkeypatch.setattr(structure, "has_full_support", lambda chain: False)
    by_graph = communicating_classes(chain)
    assert shortcut.n_classes == by_graph.n_classes == 7
    for label in range(7):
        members = shortcut.members(label)
        (its_label,) = set(by_graph.labels[members].tolist())
        np.testing.assert_array_equal(by_graph.members(its_label), members)
        assert by_graph.closed[its_label] == shortcut.closed[label]
    assert period(chain, shortcut.closed_classes()[0]) == 1


def test_a_state_with_no_way_back_has_period_zero():
    chain = MarkovChain.from_probabilities(np.array([[0.0, 1.0], [0.0, 1.0]]))
    assert period(chain, np.array([0])) == 0
    assert period(chain, np.array([1])) == 1


def test_a_class_that_texts_stop_in_is_not_closed_but_one_that_restarts_is():
    table = np.full((4, 2), 0.5)
    stopping = MarkovChain.from_probabilities(table, end=End(1))
    assert stops(stopping).all()
    assert not communicating_classes(stopping).closed_classes()
    restarting = MarkovChain.from_probabilities(table, end=End(1, restart=(0, 1)))
    assert not stops(restarting).any()
    assert [[restarting.context(s) for s in c] for c in communicating_classes(restarting).closed_classes()] == [
        [(0, 0), (0, 1), (1, 0)]
    ]


@pytest.mark.parametrize("end", [None, End(0), End(1, restart=(1, 0))])
def test_the_graph_has_an_edge_wherever_the_matrix_is_positive(end):
    chain = sparse_chain(2, 2, 0.4, seed=1, end=end)
    np.testing.assert_array_equal(transition_graph(chain).toarray() > 0, chain.transition_matrix() > 0)


@pytest.mark.parametrize("end", [None, End(0), End(1, restart=(0, 0, 0))])
@pytest.mark.parametrize(("vocab_size", "length"), [(2, 3), (3, 3), (5, 2)])
def test_the_greedy_machine_is_what_following_the_likeliest_token_finds(vocab_size, length, end):
    if end is not None and end.restart is not None:
        end = End(end.token, restart=(0,) * length)
    chain = sparse_chain(vocab_size, length, 0.2, seed=2, end=end)
    machine = greedy_machine(chain)

    def follow(state):
        token = int(np.argmax(chain.probs[state]))
        if end is not None and token == end.token:
            return state if end.restart is None else chain.index(end.restart)
        return chain.index((*chain.context(state), token))

    for state in range(chain.n_states):
        assert machine.successors[state] == follow(state)
        path = [state]
        while (following := follow(path[-1])) not in path:
            path.append(following)
        loop = path[path.index(following) :]
        assert machine.steps[state] == path.index(following)
        assert sorted(machine.cycles[machine.basins[state]].tolist()) == sorted(loop)
    for loop in machine.cycles:
        assert loop[0] == loop.min()
        assert [follow(int(s)) for s in loop] == [*loop[1:].tolist(), int(loop[0])]


def test_of_equally_likely_tokens_the_lowest_is_greedy():
    machine = greedy_machine(MarkovChain.from_probabilities(np.full((3, 3), 1 / 3)))
    assert machine.successors.tolist() == [0, 0, 0]


# ---- reachability, against a search that knows only texts ----------------------------------------------------


def text_graph(chain, patterns):
    """Successors of every (last tokens, red) that texts can be in; the string "stop" where a text stops."""
    T = chain.context_length
    memory = max(T, max(len(p) for p in patterns))
    graph, queue = {}, deque((c, any(ends(c[:i], patterns) for i in range(len(c) + 1))) for c in contexts(chain))
    starts = list(queue)
    while queue:
        state = queue.popleft()
        if state in graph:
            continue
        text, red = state
        graph[state] = set()
        for token in np.flatnonzero(chain.probs[chain.index(text)] > 0).tolist():
            longer = (*text, token)
            after = (longer[-memory:], red or ends(longer, patterns))
            if chain.end is not None and token == chain.end.token and not after[1]:
                restart = chain.end.restart
                after = "stop" if restart is None else (restart, False)
            graph[state].add(after)
            if after != "stop":
                queue.append(after)
    return graph, starts


def contexts(chain):
    return [chain.context(s) for s in range(chain.n_states)]


def ends(text, patterns):
    return any(tuple(text[len(text) - len(p) :]) == tuple(p) for p in patterns if len(text) >= len(p))


def found_from(graph, start, through_red):
    seen, queue = {start}, deque([start])
    while queue:
        state = queue.popleft()
        if state == "stop" or (state[1] and not through_red):
            continue
        for after in graph[state] - seen:
            seen.add(after)
            queue.append(after)
    return seen


@pytest.mark.parametrize("end", [None, End(0), End(1, restart=(0, 0))])
@pytest.mark.parametrize("impossible", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("patterns", [[(1, 0, 1)], [(0, 0), (2, 1, 2, 2)]])
def test_zero_and_one_are_told_by_the_graph(patterns, impossible, end):
    chain = sparse_chain(3, 2, impossible, seed=5, end=end)
    red = Red.of_patterns(chain, patterns)
    walk = Walk(chain, red)
    never, surely = never_and_surely_red(walk)
    graph, starts = text_graph(chain, patterns)
    for start in starts:
        place = walk.joint_index(start[0])
        seen = found_from(graph, start, through_red=False)
        can_hit = any(state != "stop" and state[1] for state in seen)
        hopeless = any(
            state == "stop" or not any(s != "stop" and s[1] for s in found_from(graph, state, True)) for state in seen
        )
        assert never[place] == (not can_hit), start
        assert surely[place] == (not hopeless), start
        assert red_is_reachable(chain, red, start[0]) == can_hit


def test_reachable_and_can_reach_are_each_others_converse():
    chain = sparse_chain(3, 2, 0.5, seed=6, end=End(2))
    walk = Walk(chain, Red.of_contexts(chain, [[0, 1]]))
    forward = np.zeros((chain.n_states, chain.n_states), dtype=bool)
    backward = forward.copy()
    for s, goal in product(range(chain.n_states), repeat=2):
        one = np.zeros(walk.shape, dtype=bool)
        one[0, s] = True
        if goal == 0:
            forward[s] = reachable(walk, one)[0]
            backward[:, s] = can_reach(walk, one)[0]
    np.testing.assert_array_equal(forward, backward)


def test_red_from_anywhere_is_reachable_unless_no_state_leads_to_it():
    table = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0], [1.0, 0.0]])  # after 00 always 0: never 11 from 0
    chain = MarkovChain.from_probabilities(table)
    red = Red.of_contexts(chain, [[1, 1]])
    assert red_is_reachable(chain, red, None)
    assert not red_is_reachable(chain, red, (0, 0))
