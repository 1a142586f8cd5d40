"""A chain walked together with an automaton that watches it, and the states marked red.

The joint state is (automaton state q, context s); the token a leads from it to (delta[q, a], s·a). The row p(a | s) is
the same for every q, so the automaton multiplies the vectors and never the table. Joint vectors have shape
(automaton states, chain states). They hold float64, `Wide` numbers or booleans, and the same sweeps serve all three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.automata import TokenAutomaton, any_context, pattern_automaton
from glassgpt.chain import sweeps
from glassgpt.chain.markov import Layer, MarkovChain, refuse_vectors_too_large
from glassgpt.chain.wide import Wide
from glassgpt.errors import UsageError

Vector = Any  # float64 ndarray, Wide, or bool ndarray, of shape (automaton states, chain states)


@dataclass(frozen=True, eq=False)
class Red:
    """What must not happen: being in one of some contexts, or having written one of some patterns.

    A pattern is looked for in the prompt and what follows it, overlaps included; one that lies wholly inside the prompt
    has happened at step 0, as has a start in a red context. A token that ends the text still counts if it completes the
    pattern, or if the context it makes is red.
    """

    contexts: np.ndarray  # bool (chain states,)
    automaton: TokenAutomaton

    @classmethod
    def of_contexts(cls, chain: MarkovChain, contexts: Sequence[Sequence[int]]) -> Red:
        """Red contexts, each a state of the chain. Raises UsageError if none or all states are red."""
        marked = np.zeros(chain.n_states, dtype=bool)
        for context in contexts:
            if len(context) > chain.context_length:
                raise UsageError(
                    f"red context {list(context)} is longer than the {chain.context_length} tokens that a state "
                    "remembers: mark it as a red pattern instead"
                )
            marked[chain.index(context)] = True
        if not marked.any():
            raise UsageError("no state is marked red: name at least one context")
        if marked[chain.offset(chain.context_length) :].all():
            raise UsageError("every state is marked red: there is nothing left to reach them from")
        return cls(marked, any_context(chain.vocab_size))

    @classmethod
    def of_patterns(cls, chain: MarkovChain, patterns: Sequence[Sequence[int]]) -> Red:
        """Any of some token sequences, of any length, even longer than a context."""
        return cls(np.zeros(chain.n_states, dtype=bool), pattern_automaton(patterns, chain.vocab_size))


class Walk:
    """The sweeps of a chain under a red event, whose states absorb what reaches them.

    `wide` computes in `Wide` numbers instead of float64.
    """

    def __init__(self, chain: MarkovChain, red: Red | None = None, *, wide: bool = False) -> None:
        self.chain = chain
        self.event = red
        self.wide = wide
        self.automaton = red.automaton if red else any_context(chain.vocab_size)
        refuse_vectors_too_large(self.automaton.n_states, chain.n_states, numbers=2 if wide else 1)
        self.red = np.zeros((self.automaton.n_states, chain.n_states), dtype=bool)
        if red:
            self.red |= red.contexts | red.automaton.accepting[:, None]
        self.red_indices = np.flatnonzero(self.red)
        self.rows = {layer.length: self._rows(layer) for layer in chain.layers}
        self.arrivals = [_by_goal(self.automaton.delta[:, token]) for token in range(chain.vocab_size)]

    def widened(self) -> Walk:
        """The same walk in `Wide` numbers."""
        return Walk(self.chain, self.event, wide=True)

    def _rows(self, layer: Layer) -> Vector:
        rows = Wide.from_log(layer.logprobs) if self.wide else layer.probs
        return rows.reshape(self._row_shape(layer))

    def _row_shape(self, layer: Layer) -> tuple[int, int, int]:
        """(V, M, V) = (oldest token, rest, next token) for full contexts; short ones drop none: (1, V**length, V)."""
        V = self.chain.vocab_size
        return (V, layer.n_states // V, V) if layer is self.chain.full else (1, layer.n_states, V)

    # ---- vectors ---------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        return self.red.shape

    def zeros(self) -> Vector:
        return Wide.zeros(self.shape) if self.wide else np.zeros(self.shape)

    def vector(self, values: np.ndarray) -> Vector:
        """A float64 or boolean array as a joint vector of this walk's numbers."""
        values = np.broadcast_to(np.asarray(values, dtype=np.float64), self.shape)
        return Wide.of(values) if self.wide else values.copy()

    def joint_index(self, context: Sequence[int]) -> tuple[int, int]:
        """The joint state in which a prompt leaves the walk: the automaton has read all of it."""
        return self.automaton.run(int(token) for token in context), self.chain.index(context)

    def start_at(self, context: Sequence[int]) -> Vector:
        """All mass in the joint state after a prompt."""
        start = np.zeros(self.shape)
        start[self.joint_index(context)] = 1.0
        return self.vector(start)

    def start_from(self, law: np.ndarray | Wide) -> Vector:
        """A law over the chain's states (n_states,), the automaton having read each context's own tokens.

        `Wide` for a `Wide` law, whatever this walk's own numbers are.
        """
        start: Vector = Wide.zeros(self.shape) if isinstance(law, Wide) else np.zeros(self.shape)
        for layer in self.chain.layers:
            states = self._states(layer)
            start[self.automaton.run_every_context(layer.length), np.arange(states.start, states.stop)] = law[states]
        return start if isinstance(start, Wide) else self.vector(start)

    # ---- sweeps ----------------------------------------------------------------------------------------------

    def right(self, value: Vector, at_end: float = 0.0) -> Vector:
        """One step back: at each joint state the mean of `value` over its successors.

        Where a text stops for good the value is `at_end`, unless its last token made it red.
        """
        parts = []
        for layer in self.chain.layers:
            rows, target = self.rows[layer.length], self._targets(value, layer, at_end)
            if self.wide:
                parts.append((rows.reshape(1, *rows.shape) * target.reshape(len(target), 1, *target.shape[1:])).sum(-1))
            else:
                parts.append(sweeps.right(rows, target))
        return self._joined(parts)

    def left(self, mass: Vector, scratch: Vector | None = None) -> tuple[Vector, Any]:
        """One step forward: the mass at every joint state, and the mass whose text has stopped.

        `mass` must have left the red states (see `take_red`): they would pass it on like any other. `scratch` may be a
        joint vector that is needed no more; a large sweep then writes the result over it.
        """
        moved = []
        for layer in self.chain.layers:
            rows = self.rows[layer.length]
            part = mass[:, self._states(layer)].reshape(-1, *rows.shape[:2])
            if self.wide:
                moved.append((part.reshape(*part.shape, 1) * rows.reshape(1, *rows.shape)).sum(1))
            else:
                moved.append(sweeps.left(part, rows, scratch if len(self.chain.layers) == 1 else None))
        return self._delivered(moved, self.zeros)

    def can_step_to(self, goal: np.ndarray, at_end: bool = False) -> np.ndarray:
        """Which joint states have a possible token that leads into `goal` (bool, joint): `right` for booleans."""
        parts = []
        for layer in self.chain.layers:
            possible = layer.possible.reshape(self._row_shape(layer))
            parts.append((possible & self._targets(goal, layer, at_end)[:, None]).any(axis=-1))
        return self._joined(parts)

    def steps_from(self, origin: np.ndarray) -> np.ndarray:
        """Which joint states one possible token leads to from `origin` (bool, joint): `left` for booleans."""
        moved = []
        for layer in self.chain.layers:
            possible = layer.possible.reshape(self._row_shape(layer))
            part = origin[:, self._states(layer)].reshape(-1, *possible.shape[:2])
            moved.append((part[..., None] & possible).any(axis=1))
        return self._delivered(moved, lambda: np.zeros(self.shape, dtype=bool))[0]

    def _joined(self, parts: list[Vector]) -> Vector:
        """The layers' shares of a joint vector, side by side."""
        parts = [part.reshape(self.shape[0], -1) for part in parts]
        if len(parts) == 1:
            return parts[0]
        join = Wide.concatenate if isinstance(parts[0], Wide) else np.concatenate
        return join(parts, axis=1)

    def _delivered(self, moved: list[Vector], empty: Callable[[], Vector]) -> tuple[Vector, Any]:
        """Each layer's arrivals (Q, M, V) added up where they belong, and the mass that has stopped."""
        alone = len(moved) == self.shape[0] == 1  # then what moved is all there is, and needs no place found
        out = moved[0].reshape(*self.shape) if alone else empty()
        stopped = Wide.of(0.0) if self.wide else 0.0
        for layer, arrivals in zip(self.chain.layers, moved, strict=True):
            stopped = stopped + self._divert_ended(arrivals, layer, out)
            if not alone:
                self._deliver(arrivals, layer, out)
        return out, stopped

    def take_red(self, mass: Vector) -> Any:
        """Take the mass out of the red states and return how much it was."""
        flat = mass.reshape(-1)
        taken = flat[self.red_indices].sum()
        flat[self.red_indices] = Wide.zeros(len(self.red_indices)) if self.wide else 0.0
        return taken

    # ---- one transition at a time ----------------------------------------------------------------------------

    def successors(self, token: int) -> np.ndarray:
        """The joint state that `token` leads to from each, as a flat index, or -1 where it stops: int64 (all,)."""
        chain = self.chain
        moved = self.automaton.delta[:, token][:, None] * chain.n_states + chain.successors[:, token]
        moved = moved.reshape(-1)
        if chain.end is None or token != chain.end.token:
            return moved
        after = -1
        if chain.end.restart is not None:
            q, state = self.joint_index(chain.end.restart)
            after = q * chain.n_states + state
        return np.where(self.red.reshape(-1)[moved], moved, after)

    def ways_among(self, states: np.ndarray) -> Vector:
        """Transition probabilities among some joint states, given as flat indices: (n, n)."""
        n = len(states)
        place = np.full(self.red.size + 1, -1)  # the last for what has stopped
        place[states] = np.arange(n)
        matrix = Wide.zeros((n, n)) if self.wide else np.zeros((n, n))
        for token in range(self.chain.vocab_size):
            to = place[self.successors(token)[states]]
            rows = np.flatnonzero(to >= 0)
            cells = (rows, to[rows])  # distinct, since a row has one cell a token
            matrix[cells] = matrix[cells] + self.step(states[rows], token)
        return matrix

    def step(self, states: np.ndarray, token: int) -> Vector:
        """The probability of `token` at some joint states, given as flat indices."""
        logprobs = self.chain.logprobs[states % self.chain.n_states, token]
        return Wide.from_log(logprobs) if self.wide else np.exp(logprobs)

    # ---- where tokens lead -----------------------------------------------------------------------------------

    def _states(self, layer: Layer) -> slice:
        start = self.chain.offset(layer.length)
        return slice(start, start + layer.n_states)

    def _following(self, layer: Layer) -> slice:
        """The states that the contexts of a layer lead to: those one token longer, or the full ones again."""
        length = min(layer.length + 1, self.chain.context_length)
        start = self.chain.offset(length)
        return slice(start, start + self.chain.vocab_size**length)

    def _targets(self, value: Vector, layer: Layer, at_end: Any) -> Vector:
        """`value` where each token leads: (Q, M, V), M = successors / V; a view if nothing turns it aside."""
        V = self.chain.vocab_size
        target = value[:, self._following(layer)].reshape(self.shape[0], -1, V)
        if self.shape[0] > 1:
            M = target.shape[1]
            target = target[self.automaton.delta[:, None, :], np.arange(M)[:, None], np.arange(V)]
        end = self.chain.end
        if end is None:
            return target
        after_end = at_end if end.restart is None else value[self.joint_index(end.restart)]
        return self._with_ended(target.copy(), self._red_at_end(layer), after_end)

    def _red_at_end(self, layer: Layer) -> np.ndarray:
        """Where the end token makes the joint state red, so that the text's end comes too late: bool (Q, M)."""
        assert self.chain.end is not None
        token, V = self.chain.end.token, self.chain.vocab_size
        red = self.red[:, self._following(layer)].reshape(self.shape[0], -1, V)
        return red[self.automaton.delta[:, token], :, token]

    def _with_ended(self, target: Vector, red: np.ndarray, after_end: Any) -> Vector:
        assert self.chain.end is not None
        q, rest = np.nonzero(~red)
        where = (q, rest, self.chain.end.token)
        if isinstance(target, Wide):
            after_end = after_end if isinstance(after_end, Wide) else Wide.of(after_end)
            target.mantissa[where], target.exponent[where] = after_end.mantissa, after_end.exponent
        else:
            target[where] = after_end
        return target

    def _divert_ended(self, moved: Vector, layer: Layer, out: Vector) -> Any:
        """Take out of `moved` what ends its text; return it, or deliver it to the restart."""
        end = self.chain.end
        nothing = Wide.of(0.0) if self.wide else 0.0
        if end is None:
            return nothing
        q, rest = np.nonzero(~self._red_at_end(layer))
        where = (q, rest, end.token)
        ended = moved[where]
        boolean = isinstance(moved, np.ndarray) and moved.dtype == bool
        total = ended.any() if boolean else ended.sum()
        moved[where] = Wide.zeros(ended.shape) if isinstance(moved, Wide) else False
        if end.restart is not None:
            _add(out, self.joint_index(end.restart), total)
            return nothing
        return nothing if boolean else total

    def _deliver(self, moved: Vector, layer: Layer, out: Vector) -> None:
        """Add arrivals (Q, M, V), one column a token, to the joint states that the tokens lead to."""
        V, states = self.chain.vocab_size, self._following(layer)
        for token in range(V):
            order, starts, goals = self.arrivals[token]
            column = slice(states.start + token, states.stop, V)
            _add(out, (goals, column), _group_sums(moved[order, :, token], starts))


def _add(out: Vector, where: Any, arrived: Vector) -> None:
    if isinstance(out, np.ndarray) and out.dtype == bool:
        out[where] |= arrived
    else:
        out[where] += arrived


def _group_sums(rows: Vector, starts: np.ndarray) -> Vector:
    """Sums (for booleans, ors) of groups of successive rows: (rows, n) to (groups, n)."""
    if isinstance(rows, Wide):
        return rows.group_sums(starts)
    return (np.logical_or if rows.dtype == bool else np.add).reduceat(rows, starts, axis=0)


def _by_goal(moves: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The automaton's states in order of where one token moves them, where each group begins, and the goals."""
    order = np.argsort(moves, kind="stable")
    goals, starts = np.unique(moves[order], return_index=True)
    return order, starts, goals
