"""The stationary law: how often each context is met in a text without end, pi = pi P.

Up to a few thousand states it is solved by state reduction, to full relative accuracy in every entry. Beyond, it is
iterated, and the result carries a bound on its error where the chain allows one: a small residual alone proves nothing
(at low temperature it can be 1e-9 where entries are wrong by 1e8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.mixing import coupling_probabilities
from glassgpt.chain.reduction import (
    DENSE_LIMIT,
    REDUCTION_FLOOR,
    SAFELY_ABOVE_UNDERFLOW,
    WIDE_LIMIT,
    StateReduction,
)
from glassgpt.chain.structure import CommunicatingClasses, communicating_classes, has_full_support
from glassgpt.chain.walk import Walk
from glassgpt.chain.wide import Wide
from glassgpt.errors import UsageError
from glassgpt.numerics import total_variation

MAX_SWEEPS = 20_000
SWEEPS_A_ROUND = 8  # between two looks at how far they still move
TOLERANCE = 1e-15  # of the L1 change in one sweep: iteration stops below it,
PLATEAU = 1e-12  # or below this once it no longer falls, which rounding prevents
NEGLIGIBLE = 1e-13  # of the mass that is still on its way to a closed class


@dataclass(frozen=True, eq=False)
class StationaryLaw:
    """`probabilities`: float64 (n_states,), summing to 1.

    `certificate` says how it was found and how far it can be from the truth. `error_bound`: a proven bound on its L1
    distance to the true law (0 for state reduction, whose error is rounding), or None where none could be proven.
    `wide`: the same law with the entries that a float64 is too short for, where it was found by state reduction.
    """

    probabilities: np.ndarray
    certificate: str
    error_bound: float | None
    sweeps: int = 0
    wide: Wide | None = None

    @property
    def is_certified(self) -> bool:
        return self.error_bound is not None


def stationary_distribution(chain: MarkovChain, start: Sequence[int] | None = None) -> StationaryLaw:
    """The long-run share of each state in a text without end.

    With several closed classes (top-k and top-p make them) the law depends on where the text began: it is then the
    mixture of their laws by the probability of ending in each, from the context `start`. A periodic class gets its
    long-run average. Raises UsageError if texts stop, or if several classes are closed and no start is given.

    >>> chain = MarkovChain.from_probabilities(np.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> stationary_distribution(chain).probabilities.round(6)  # flow out of 0 equals flow into it: 5/6 and 1/6
    array([0.833333, 0.166667])
    """
    if chain.end is not None and chain.end.restart is None:
        raise UsageError("a text that stops has no stationary law: let its end be a token like others, or a restart")
    if has_full_support(chain) and chain.full.n_states > DENSE_LIMIT:
        return _iterated(chain, None)  # one class: no need to list its states, which are many
    classes = communicating_classes(chain)
    closed = classes.closed_classes()
    if len(closed) > 1 and start is None:
        raise UsageError(
            f"this sampler has {len(closed)} closed classes of states, and the long run depends on which one a text "
            "falls into: say from which context it starts"
        )
    shares = np.ones(1)
    if len(closed) > 1 and start is not None:
        shares = class_probabilities(chain, classes, start)
    law = Wide.zeros(chain.n_states)
    for states, share in zip(closed, shares, strict=True):
        within = solve_class(chain, states) if len(states) <= DENSE_LIMIT else None
        if within is None:
            return _iterated(chain, start if len(closed) > 1 else None)
        law[states] = Wide.of(share) * within
    return StationaryLaw(law.to_float(), "state reduction (GTH): every entry to rounding", 0.0, wide=law)


def solve_class(chain: MarkovChain, states: np.ndarray) -> Wide | None:
    """The stationary law within one closed class, by state reduction: `Wide` (len(states),).

    None where float64's exponent is too short for the reduction, and the class too large to reduce in `Wide` numbers.
    """
    nowhere_out = np.zeros((len(states), 1))
    try:
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            reduction = StateReduction(Walk(chain).ways_among(states), nowhere_out)
    except ZeroDivisionError:
        reduction = None
    if reduction is not None and reduction.leaving[1:].min(initial=1.0) > REDUCTION_FLOOR:
        law = reduction.stationary()
        if law.log().min() > np.log(SAFELY_ABOVE_UNDERFLOW):
            return law
    if len(states) > WIDE_LIMIT:
        return None
    return StateReduction(Walk(chain, wide=True).ways_among(states), Wide.of(nowhere_out)).stationary()


def class_probabilities(chain: MarkovChain, classes: CommunicatingClasses, start: Sequence[int]) -> np.ndarray:
    """From `start`, the probability of falling into each closed class: float64 (closed classes,)."""
    closed = classes.closed_classes()
    home = int(classes.labels[chain.index(start)])
    if classes.closed[home]:
        return (np.flatnonzero(classes.closed) == home).astype(np.float64)
    inside = np.concatenate(closed)
    number = np.concatenate([np.full(len(states), i) for i, states in enumerate(closed)])
    transient = np.setdiff1d(np.arange(chain.n_states), inside)
    if len(transient) > DENSE_LIMIT:
        return _fallen_mass(chain, closed, start)
    walk = Walk(chain)
    goal = np.full(chain.n_states, -1)
    goal[inside] = number
    out = np.zeros((len(transient), len(closed)))
    for token in range(chain.vocab_size):
        to = goal[walk.successors(token)[transient]]
        rows = np.flatnonzero(to >= 0)
        out[rows, to[rows]] += walk.step(transient[rows], token)
    place = int(np.flatnonzero(transient == chain.index(start))[0])
    return StateReduction(walk.ways_among(transient), out).absorption()[place]


def _fallen_mass(chain: MarkovChain, closed: list[np.ndarray], start: Sequence[int]) -> np.ndarray:
    """The same by walking forward until next to nothing is left on the way."""
    walk = Walk(chain)
    mass = walk.start_at(start)
    for _ in range(MAX_SWEEPS):
        shares = np.array([mass[0, states].sum() for states in closed])
        if 1 - shares.sum() < NEGLIGIBLE:
            break
        mass, _ = walk.left(mass)
    return shares / shares.sum()


def _iterated(chain: MarkovChain, start: Sequence[int] | None) -> StationaryLaw:
    walk = Walk(chain)
    if start is not None:
        law = walk.start_at(start)
    else:
        law = walk.zeros()
        law[:, chain.offset(chain.context_length) :] = 1 / chain.full.n_states
    closing = coupling_probabilities(chain)
    lazy = not closing.all()  # without a coupling bound the chain may be periodic: average two steps
    change, before, sweeps = np.inf, np.inf, 0
    previous = np.empty_like(law)
    while sweeps < MAX_SWEEPS and change > TOLERANCE and not (change >= before and change < PLATEAU):
        for _ in range(SWEEPS_A_ROUND):
            previous, law = law, walk.left(law, scratch=previous)[0]
            if lazy:
                law = 0.5 * (law + previous)
        law /= law.sum()
        before, change = change, 2 * float(total_variation(law.ravel(), previous.ravel()))
        sweeps += SWEEPS_A_ROUND
    following, _ = walk.left(law, scratch=previous)
    residual = 2 * float(total_variation(following.ravel(), law.ravel()))
    return _certified(chain, law.reshape(-1), residual, float(np.prod(closing)), sweeps)


def _certified(chain: MarkovChain, law: np.ndarray, residual: float, closing: float, sweeps: int) -> StationaryLaw:
    """||law - pi|| <= T ||law P - law|| / (1 - tau), tau the contraction over T steps, which coupling bounds."""
    rounding = (chain.vocab_size + 1) * 2.0**-52  # of one sweep, relative, which no smaller residual can be told from
    bound = chain.context_length * (residual + rounding) / closing if closing > 0 else np.inf
    if bound < 1:
        return StationaryLaw(law, f"iteration: proven within {bound:.1e} of the truth (L1), by coupling", bound, sweeps)
    reason = "texts may never meet" if closing == 0 else "the proven bound says nothing"
    return StationaryLaw(law, f"iteration: not certified ({reason}; one more sweep moves {residual:.1e})", None, sweeps)
