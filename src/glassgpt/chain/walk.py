"""A chain walked together with an automaton that watches it, and the states marked red.

The joint state is (automaton state q, context s); the token a leads from it to (delta[q, a], s·a). The row p(a | s) is
the same for every q, so the automaton multiplies the vectors and never the table. Joint vectors have shape
(automaton states, chain states). They hold float64, `Wide` numbers or booleans, and the same sweeps serve all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.automata import TokenAutomaton, any_context, pattern_automaton
from glassgpt.chain import sweeps
from glassgpt.chain.markov import Layer, MarkovChain
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
        self.wide = wide
        self.automaton = red.automaton if red else any_context(chain.vocab_size)
        self.red = np.zeros((self.automaton.n_states, chain.n_states), dtype=bool)
        if red:
            self.red |= red.contexts | red.automaton.accepting[:, None]
        self.red_indices = np.flatnonzero(self.red)
        self.rows = {layer.length: self._rows(layer) for layer in chain.layers}

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

    def start_from(self, law: np.ndarray) -> Vector:
        """A law over the chain's states (n_states,), the automaton having read each context's own tokens."""
        start = np.zeros(self.shape)
        for layer in self.chain.layers:
            states = slice(self.chain.offset(layer.length), self.chain.offset(layer.length) + layer.n_states)
            start[self.automaton.run_every_context(layer.length), np.arange(states.start, states.stop)] = law[states]
        return self.vector(start)

    # ---- sweeps ----------------------------------------------------------------------------------------------

    def right(self, value: Vector, at_end: float = 0.0) -> Vector:
        """One step back: at each joint state the mean of `value` over its successors.

        Where a text stops for good the value is `at_end`, unless its last token made it red.
        """
        out = self.zeros()
        for q, layer, states in self._parts():
            target = self._targets(value, q, layer, at_end)
            rows = self.rows[layer.length]
            swept = (rows * target.reshape(1, *target.shape)).sum(axis=-1) if self.wide else sweeps.right(rows, target)
            out[q, states] = swept.reshape(-1)
        return out

    def left(self, mass: Vector) -> tuple[Vector, Any]:
        """One step forward: the mass at every joint state, and the mass whose text has stopped.

        `mass` must have left the red states (see `take_red`): they would pass it on like any other.
        """
        out = self.zeros()
        stopped = Wide.of(0.0) if self.wide else 0.0
        for q, layer, states in self._parts():
            rows = self.rows[layer.length]
            part = mass[q, states].reshape(rows.shape[:2])
            moved = (part.reshape(*part.shape, 1) * rows).sum(axis=0) if self.wide else sweeps.left(part, rows)
            stopped = stopped + self._divert_ended(moved, q, layer, out)
            self._deliver(moved, q, layer, out)
        return out, stopped

    def can_step_to(self, goal: np.ndarray, at_end: bool = False) -> np.ndarray:
        """Which joint states have a possible token that leads into `goal` (bool, joint): `right` for booleans."""
        out = np.zeros(self.shape, dtype=bool)
        for q, layer, states in self._parts():
            possible = layer.possible.reshape(self._row_shape(layer))
            target = self._targets(goal, q, layer, at_end)
            out[q, states] = (possible & target).any(axis=-1).reshape(-1)
        return out

    def steps_from(self, origin: np.ndarray) -> np.ndarray:
        """Which joint states one possible token leads to from `origin` (bool, joint): `left` for booleans."""
        out = np.zeros(self.shape, dtype=bool)
        for q, layer, states in self._parts():
            possible = layer.possible.reshape(self._row_shape(layer))
            moved = (origin[q, states].reshape(*possible.shape[:2], 1) & possible).any(axis=0)
            self._divert_ended(moved, q, layer, out)
            self._deliver(moved, q, layer, out)
        return out

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

    def _parts(self) -> Iterator[tuple[int, Layer, slice]]:
        for layer in self.chain.layers:
            start = self.chain.offset(layer.length)
            for q in range(self.automaton.n_states):
                yield q, layer, slice(start, start + layer.n_states)

    def _following(self, layer: Layer) -> slice:
        """The states that the contexts of a layer lead to: those one token longer, or the full ones again."""
        length = min(layer.length + 1, self.chain.context_length)
        start = self.chain.offset(length)
        return slice(start, start + self.chain.vocab_size**length)

    def _targets(self, value: Vector, q: int, layer: Layer, at_end: Any) -> Vector:
        """`value` where each token leads: shape (M, V), M = successors / V; a view unless the automaton moves."""
        V, states = self.chain.vocab_size, self._following(layer)
        moves = self.automaton.delta[q]
        if (moves == moves[0]).all():
            target = value[int(moves[0]), states].reshape(-1, V)
        else:
            codes = np.arange(states.start, states.stop).reshape(-1, V)
            target = value[moves[None, :], codes]
        end = self.chain.end
        if end is None:
            return target
        after_end = at_end if end.restart is None else value[self.joint_index(end.restart)]
        return self._with_ended(target.copy(), self._survives_end(q, states), after_end)

    def _survives_end(self, q: int, states: slice) -> np.ndarray:
        """Where the end token makes the joint state red, so that the text's end comes too late: bool (M,)."""
        assert self.chain.end is not None
        token = self.chain.end.token
        return self.red[self.automaton.delta[q, token], states].reshape(-1, self.chain.vocab_size)[:, token]

    def _with_ended(self, target: Vector, red: np.ndarray, after_end: Any) -> Vector:
        assert self.chain.end is not None
        where = (~red, self.chain.end.token)
        if isinstance(target, Wide):
            after_end = after_end if isinstance(after_end, Wide) else Wide.of(after_end)
            target.mantissa[where], target.exponent[where] = after_end.mantissa, after_end.exponent
        else:
            target[where] = after_end
        return target

    def _divert_ended(self, moved: Vector, q: int, layer: Layer, out: Vector) -> Any:
        """Take out of `moved` what ends its text; return it, or deliver it to the restart."""
        end = self.chain.end
        if end is None:
            return Wide.of(0.0) if self.wide else 0.0
        where = (np.flatnonzero(~self._survives_end(q, self._following(layer))), end.token)
        ended = moved[where]
        boolean = isinstance(moved, np.ndarray) and moved.dtype == bool
        total = ended.any() if boolean else ended.sum()
        moved[where] = Wide.zeros(ended.shape) if isinstance(moved, Wide) else False
        if end.restart is None:
            return 0.0 if boolean else total
        goal = self.joint_index(end.restart)
        out[goal] = (out[goal] | total) if boolean else out[goal] + total
        return Wide.of(0.0) if self.wide else 0.0

    def _deliver(self, moved: Vector, q: int, layer: Layer, out: Vector) -> None:
        """Add (M, V) arrivals, one column a token, to the joint states that the tokens lead to."""
        states, moves = self._following(layer), self.automaton.delta[q]
        boolean = isinstance(moved, np.ndarray) and moved.dtype == bool
        if (moves == moves[0]).all():
            goal = int(moves[0])
            arrived = moved.reshape(-1)
            out[goal, states] = (out[goal, states] | arrived) if boolean else out[goal, states] + arrived
            return
        for a in range(self.chain.vocab_size):
            goal = int(moves[a])
            column = slice(states.start + a, states.stop, self.chain.vocab_size)
            out[goal, column] = (out[goal, column] | moved[:, a]) if boolean else out[goal, column] + moved[:, a]
