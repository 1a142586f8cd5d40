"""The graph of a chain: which states lead to which, told by possibility alone and never by the size of a number."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

import numpy as np

from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.walk import Red, Walk

if TYPE_CHECKING:
    from scipy.sparse import csr_array


@dataclass(frozen=True, eq=False)
class CommunicatingClasses:
    """States that lead to each other, class by class.

    `labels`: int array (n_states,), the class of each state. `closed`: bool array (classes,): no way leads out, so a
    walk that enters stays for ever. A state that no text returns to (a short context, say) is a class of its own.
    """

    labels: np.ndarray
    closed: np.ndarray

    @property
    def n_classes(self) -> int:
        return len(self.closed)

    def members(self, label: int) -> np.ndarray:
        """The states of one class, in order."""
        return np.flatnonzero(self.labels == label)

    def closed_classes(self) -> list[np.ndarray]:
        return [self.members(int(label)) for label in np.flatnonzero(self.closed)]


def has_full_support(chain: MarkovChain) -> bool:
    """Whether every token can follow every full context, which makes the full contexts one aperiodic class.

    Any context is then written from any other in context_length steps.
    """
    return chain.end is None and bool(chain.full.possible.all())


def communicating_classes(chain: MarkovChain) -> CommunicatingClasses:
    """Strongly connected components of the possible transitions.

    >>> walk_right = MarkovChain.from_probabilities(np.array([[0.5, 0.5], [0.0, 1.0]]))
    >>> classes = communicating_classes(walk_right)
    >>> [members.tolist() for members in classes.closed_classes()]  # once a 1, always a 1
    [[1]]
    """
    if has_full_support(chain):
        short = chain.n_states - chain.full.n_states
        labels = np.minimum(np.arange(chain.n_states), short)
        return CommunicatingClasses(labels, np.arange(short + 1) == short)
    from scipy.sparse.csgraph import connected_components

    graph = transition_graph(chain)
    n_classes, labels = connected_components(graph, directed=True, connection="strong")
    sources = np.repeat(np.arange(chain.n_states), np.diff(graph.indptr))
    leaves = labels[sources] != labels[graph.indices]
    closed = np.ones(n_classes, dtype=bool)
    closed[labels[sources[leaves]]] = False
    closed[labels[stops(chain)]] = False
    return CommunicatingClasses(labels, closed)


def stops(chain: MarkovChain) -> np.ndarray:
    """Where the text may stop for good: bool (n_states,)."""
    if chain.end is None or chain.end.restart is not None:
        return np.zeros(chain.n_states, dtype=bool)
    return chain.possible[:, chain.end.token]


def transition_graph(chain: MarkovChain) -> csr_array:
    """The possible transitions as a sparse matrix of ones (n_states, n_states)."""
    from scipy.sparse import csr_array

    walk = Walk(chain)
    targets = np.stack([walk.successors(token) for token in range(chain.vocab_size)], axis=1)
    possible = chain.possible & (targets >= 0)
    starts = np.concatenate([[0], np.cumsum(possible.sum(axis=1))])
    targets = targets[possible]
    return csr_array((np.ones(len(targets), dtype=np.int8), targets, starts), shape=(chain.n_states, chain.n_states))


def period(chain: MarkovChain, states: np.ndarray) -> int:
    """The greatest common divisor of the lengths of all round trips within one communicating class.

    Breadth-first levels from any of its states; each edge u -> v contributes level(u) + 1 - level(v). 0 for a state
    that has no way back to itself.
    """
    if has_full_support(chain) and len(states) > 1:
        return 1
    from scipy.sparse.csgraph import breadth_first_order

    graph = transition_graph(chain)[states][:, states]
    order, parents = breadth_first_order(graph, 0)
    level = np.zeros(len(states), dtype=np.int64)
    for state in order[1:]:
        level[state] = level[parents[state]] + 1
    sources = np.repeat(np.arange(len(states)), np.diff(graph.indptr))
    return gcd(*np.unique(level[sources] + 1 - level[graph.indices]).tolist())


@dataclass(frozen=True, eq=False)
class GreedyMachine:
    """What temperature 0 makes of a chain: a deterministic finite-state machine.

    `successors`: int array (n_states,), the one state that follows each; a state whose text stops follows itself.
    `cycles`: the loops that every text ends in, each as its states in order, the smallest first. `basins`: int array
    (n_states,), the cycle that each state falls into. `steps`: how many tokens until it has.
    """

    successors: np.ndarray
    cycles: list[np.ndarray]
    basins: np.ndarray
    steps: np.ndarray


def greedy_machine(chain: MarkovChain) -> GreedyMachine:
    """The likeliest token at every state, the lowest id among equals.

    >>> chain = MarkovChain.from_probabilities(np.array([[0.2, 0.8], [0.6, 0.4]]))
    >>> greedy_machine(chain).cycles  # 0 -> 1 -> 0 -> ...
    [array([0, 1])]
    """
    best = np.argmax(chain.logprobs, axis=1)
    walk = Walk(chain)
    successors = np.arange(chain.n_states)
    for token in range(chain.vocab_size):
        to = walk.successors(token)
        successors = np.where((best == token) & (to >= 0), to, successors)
    cycles = _cycles(successors)
    basins = np.full(len(successors), -1)
    steps = np.zeros(len(successors), dtype=np.int64)
    for number, cycle in enumerate(cycles):
        basins[cycle] = number
    _fill_basins(successors, basins, steps)
    return GreedyMachine(successors, cycles, basins, steps)


def _cycles(successors: np.ndarray) -> list[np.ndarray]:
    """The recurrent states are the image of f applied n times, by doubling f; each cycle is then followed once."""
    far = successors
    for _ in range(max(1, len(successors)).bit_length()):
        far = far[far]
    recurrent = np.unique(far)
    seen: set[int] = set()
    cycles = []
    for start in recurrent.tolist():
        if start not in seen:
            cycle = [start]
            while (following := int(successors[cycle[-1]])) != start:
                cycle.append(following)
            seen.update(cycle)
            cycles.append(np.array(cycle))
    return cycles


def _fill_basins(successors: np.ndarray, basins: np.ndarray, steps: np.ndarray) -> None:
    """Every state that is not on a cycle gets the basin of its successor, and one step more: all at once, in rounds."""
    missing = np.flatnonzero(basins < 0)
    while len(missing):
        known = basins[successors[missing]] >= 0
        done = missing[known]
        basins[done] = basins[successors[done]]
        steps[done] = steps[successors[done]] + 1
        missing = missing[~known]


def reachable(walk: Walk, start: np.ndarray, *, through_red: bool = True) -> np.ndarray:
    """The joint states (bool) that `start` (bool, joint) can lead to, itself included; red ones lead nowhere if not
    `through_red`."""
    reached = start.copy()
    frontier = start
    while True:
        passing = frontier if through_red else frontier & ~walk.red
        frontier = walk.steps_from(passing) & ~reached
        if not frontier.any():
            return reached
        reached |= frontier


def can_reach(walk: Walk, goal: np.ndarray, *, avoiding: np.ndarray | None = None, or_stop: bool = False) -> np.ndarray:
    """The joint states (bool) from which `goal` can be reached, itself included, by ways outside `avoiding`.

    `or_stop`: a text that stops for good counts as having reached it.
    """
    reached = goal.copy()
    while True:
        grown = reached | walk.can_step_to(reached, at_end=or_stop)
        if avoiding is not None:
            grown &= ~avoiding | goal
        if (grown == reached).all():
            return reached
        reached = grown


def never_and_surely_red(walk: Walk) -> tuple[np.ndarray, np.ndarray]:
    """The joint states from which red is reached with probability exactly 0, and exactly 1: two bool arrays.

    By graph alone (Prob0 and Prob1 of probabilistic model checking): 0 where no way leads to red; 1 where no way that
    avoids red leads to such a state or to the text's end.
    """
    never = ~can_reach(walk, walk.red)
    escapes = can_reach(walk, never, avoiding=walk.red, or_stop=True)
    return never, ~escapes


def red_is_reachable(chain: MarkovChain, red: Red, start: tuple[int, ...] | None) -> bool:
    """Whether red has any probability at all, from a prompt or else from anywhere."""
    walk = Walk(chain, red)
    if start is None:
        return bool(can_reach(walk, walk.red)[~walk.red].any())
    origin = np.zeros(walk.shape, dtype=bool)
    origin[walk.joint_index(start)] = True
    return bool(reachable(walk, origin, through_red=False)[walk.red].any())
