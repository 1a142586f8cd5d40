"""The probability of ever being somewhere: red states within n tokens, ever, how soon, and how often per token.

Every quantity is a sum of products of non-negative numbers, never one minus another, so it keeps its relative accuracy
from 1e-3000 up to one minus 1e-3000: the probability of reaching red and that of not reaching it are computed each on
its own. Exact zeros and ones come from the graph. Where float64's exponent is too short the same sums are done again in
`Wide` numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from glassgpt.chain.markov import MarkovChain, power_of_ten
from glassgpt.chain.reduction import (
    DENSE_LIMIT,
    REDUCTION_FLOOR,
    SAFELY_ABOVE_UNDERFLOW,
    WIDE_LIMIT,
    StateReduction,
)
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.structure import can_reach, never_and_surely_red, reachable
from glassgpt.chain.walk import Red, Vector, Walk
from glassgpt.chain.wide import Wide, as_float, as_wide
from glassgpt.display import Displayed
from glassgpt.errors import UsageError
from glassgpt.numerics import spelled

FLOOR = float(np.log(SAFELY_ABOVE_UNDERFLOW))
MAX_SWEEPS = 20_000
MAX_INVERSE_ITERATIONS = 1000
ENDS_UP_SAFE = "texts that run on end up where red cannot be reached"
CONVERGED = 1e-14
BRACKET = 1e-10  # of a mean between two bounds: their relative distance at which walking ends
NEGLIGIBLE = float(np.log(1e-13))  # ln of the share of a probability that may stay undecided


@dataclass(frozen=True, eq=False)
class FirstPassage(Displayed):
    """What has become of a text after 0, 1, ..., steps tokens. Each a `Wide` array (steps + 1,).

    `first_hit`: the probability of reaching red with exactly that token. `within`: of having reached it by then.
    `survival`: of running on without. `stopped`: of having stopped without. The last three add up to 1.
    """

    first_hit: Wide
    within: Wide
    survival: Wide
    stopped: Wide

    def __repr__(self) -> str:
        now = {"red": self.within, "running on without": self.survival, "stopped without": self.stopped}
        shares = ", ".join(f"{what} {spelled(float(series[-1].log10()))}" for what, series in now.items())
        return f"after {len(self.within) - 1:,} tokens: {shares}"

    @property
    def probability(self) -> Wide:
        return self.within[-1]


def hitting_probability(chain: MarkovChain, red: Red, steps: int, start: Sequence[int] | None = None) -> FirstPassage:
    """The probability of reaching red within `steps` tokens, with its profile over time.

    From the context `start` (a prompt: only its end need fit into a state), else from the stationary law. A start that
    is red has been hit at step 0. First passage forward: mu_{t+1} = mu_t Q with Q the chain without its red states, and
    what arrives in red at each step is the profile. O(steps * transitions).

    >>> chain = MarkovChain.from_probabilities(np.array([[0.9, 0.1], [0.5, 0.5]]))
    >>> red = Red.of_contexts(chain, [[1]])
    >>> round(float(hitting_probability(chain, red, 2, start=[0]).probability), 12)  # 0.1 + 0.9 * 0.1
    0.19
    """
    if steps < 0:
        raise UsageError(f"the number of steps must be 0 or more, got {steps}")
    walk = Walk(chain, red)
    origin = _start(walk, start)
    passage = _first_passage(walk, _of_this_walk(walk, origin), steps)
    if _underflowed(walk, _is_positive(origin), passage):
        passage = _first_passage(walk.widened(), as_wide(origin).copy(), steps)
    return passage


def _start(walk: Walk, start: Sequence[int] | None) -> Vector:
    """All mass in the state after the prompt `start`, or else spread by the stationary law, in `Wide` numbers if it
    was found in them."""
    if start is not None:
        return walk.start_at(start)
    law = stationary_distribution(walk.chain)
    return walk.start_from(law.probabilities if law.wide is None else law.wide)


def _of_this_walk(walk: Walk, vector: Vector) -> Vector:
    """A copy in the numbers that `walk` computes in."""
    return (as_wide(vector) if walk.wide else as_float(vector)).copy()


def _is_positive(vector: Vector) -> np.ndarray:
    return ~vector.is_zero() if isinstance(vector, Wide) else vector > 0


def _first_passage(walk: Walk, mass: Vector, steps: int) -> FirstPassage:
    hits, running, stopped = [walk.take_red(mass)], [mass.sum()], [mass.sum() * 0.0 if not walk.wide else Wide.of(0.0)]
    before = None
    for _ in range(steps):
        before, (mass, ended) = mass, walk.left(mass, scratch=before)
        hits.append(walk.take_red(mass))
        running.append(mass.sum())
        stopped.append(ended)
    return FirstPassage(_series(hits), _running_sum(hits), _series(running), _running_sum(stopped))


def _series(values: list[Any]) -> Wide:
    return Wide.concatenate(values) if isinstance(values[0], Wide) else Wide.of(np.array(values, dtype=np.float64))


def _running_sum(values: list[Any]) -> Wide:
    if not isinstance(values[0], Wide):
        return Wide.of(np.cumsum(np.array(values, dtype=np.float64)))
    total, sums = values[0], [values[0]]
    for value in values[1:]:
        total = total + value
        sums.append(total)
    return _series(sums)


def _underflowed(walk: Walk, start: np.ndarray, passage: FirstPassage) -> bool:
    """Whether any entry is smaller than float64 sums can vouch for, though the graph says that it isn't 0.

    `start`: the joint states (bool) where the text may begin.
    """
    stops = walk.chain.end is not None and walk.chain.end.restart is None
    series = [passage.first_hit, passage.survival, passage.stopped][: 3 if stops else 2]
    doubtful = np.any([entries.log() < FLOOR for entries in series], axis=0)
    if not doubtful.any():
        return False
    possible, has_stopped = start, False
    for t in range(int(np.flatnonzero(doubtful)[-1]) + 1):
        if t:
            running = possible & ~walk.red
            if stops:
                may_stop = walk.can_step_to(np.zeros(walk.shape, dtype=bool), at_end=True)
                has_stopped |= bool((running & may_stop).any())
            possible = walk.steps_from(running)
        expected = (possible[walk.red].any(), possible[~walk.red].any(), has_stopped)
        if any(there and entries.log()[t] < FLOOR for there, entries in zip(expected, series, strict=False)):
            return True
    return False


def hitting_probabilities(chain: MarkovChain, red: Red, steps: int) -> tuple[Wide, Wide]:
    """From every joint state at once: the probability of reaching red within `steps`, and of not reaching it.

    Two `Wide` arrays (automaton states, n_states). Backward: h_{k+1} = 1 on red, else the mean of h_k over successors;
    a text that stops has not reached red.
    """
    walk = Walk(chain, red)
    hit, miss = _backward(walk, steps)
    can_hit, can_miss = _backward_by_graph(walk, steps)
    if (can_hit & (hit.log() < FLOOR)).any() or (can_miss & (miss.log() < FLOOR)).any():
        hit, miss = _backward(walk.widened(), steps)
    return hit, miss


def _backward(walk: Walk, steps: int) -> tuple[Wide, Wide]:
    red, running = walk.vector(walk.red), walk.vector(~walk.red)
    hit, miss = red, running
    for _ in range(steps):
        hit = walk.right(hit) * running + red
        miss = walk.right(miss, at_end=1.0) * running
    return (hit, miss) if walk.wide else (Wide.of(hit), Wide.of(miss))


def _backward_by_graph(walk: Walk, steps: int) -> tuple[np.ndarray, np.ndarray]:
    hit, miss = walk.red, ~walk.red
    for _ in range(steps):
        hit = walk.can_step_to(hit) & ~walk.red | walk.red
        miss = walk.can_step_to(miss, at_end=True) & ~walk.red
    return hit, miss


# ---- ever ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class EverHit:
    """`probability` of ever reaching red and `complement` of never doing so, each a `Wide` scalar of its own.

    `certificate` says how they were found; `uncertainty` bounds what is undecided, which either can still gain (0 where
    the value is exact).
    """

    probability: Wide
    complement: Wide
    certificate: str
    uncertainty: Wide = field(default_factory=lambda: Wide.of(0.0))


def ever_hit(chain: MarkovChain, red: Red, start: Sequence[int] | None = None) -> EverHit:
    """The probability of ever reaching red, in a text of any length, from `start` or else the stationary law.

    With all tokens possible and no end it is exactly 1, which the graph knows. Otherwise by state reduction up to
    DENSE_LIMIT undecided states, and beyond by walking until what is undecided no longer counts.
    """
    walk = Walk(chain, red)
    never, surely = never_and_surely_red(walk)
    origin = _start(walk, start)
    begin = _is_positive(origin)
    if not (begin & ~surely).any():
        return EverHit(Wide.of(1.0), Wide.of(0.0), "by graph: no way avoids red for ever")
    if not (begin & ~never).any():
        return EverHit(Wide.of(0.0), Wide.of(1.0), "by graph: no way leads to red")
    undecided = reachable(walk, begin & ~walk.red, through_red=False) & ~never & ~surely
    if undecided.sum() > DENSE_LIMIT:
        return _ever_by_walking(walk, origin, never, surely)
    result = _ever_by_reduction(walk, as_float(origin), undecided, never, surely)
    if result is None:
        walk = walk.widened()
        if undecided.sum() > WIDE_LIMIT:
            return _ever_by_walking(walk, origin, never, surely)
        result = _ever_by_reduction(walk, as_wide(origin), undecided, never, surely)
    assert result is not None
    return EverHit(*result, "state reduction: to rounding")


def _ever_by_reduction(
    walk: Walk, origin: Vector, undecided: np.ndarray, never: np.ndarray, surely: np.ndarray
) -> tuple[Wide, Wide] | None:
    """Red and its opposite as two absorbing classes. None where float64's exponent is too short."""
    states = np.flatnonzero(undecided)
    hit = walk.right(walk.vector(surely)).reshape(-1)[states]
    miss = walk.right(walk.vector(never), at_end=1.0).reshape(-1)[states]
    reduction = _reduction(walk, states, hit, miss)
    if reduction is None:
        return None
    absorbed = reduction.absorption()
    if not walk.wide and not absorbed.min() > REDUCTION_FLOOR:
        return None
    weights = origin.reshape(-1)[states]
    decided = origin.reshape(-1)
    sums = [
        (weights * absorbed[:, i]).sum() + decided[np.flatnonzero(known)].sum()
        for i, known in enumerate((surely, never))
    ]
    return as_wide(sums[0]), as_wide(sums[1])


def _reduction(walk: Walk, states: np.ndarray, *out: Vector) -> StateReduction | None:
    """The reduced form of some states with the given ways out, or None where float64's exponent is too short for it."""
    try:
        with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
            reduction = StateReduction(walk.ways_among(states), _columns(*out))
    except ZeroDivisionError:
        return None
    return reduction if walk.wide or reduction.leaving.min() > REDUCTION_FLOOR else None


def _columns(*columns: Vector) -> Any:
    if isinstance(columns[0], Wide):
        return Wide(np.stack([c.mantissa for c in columns], axis=1), np.stack([c.exponent for c in columns], axis=1))
    return np.stack(columns, axis=1)


def _ever_by_walking(walk: Walk, origin: Vector, never: np.ndarray, surely: np.ndarray) -> EverHit:
    """What has arrived for sure bounds both from below, and what is still on the way is all that they can gain."""
    mass = _of_this_walk(walk, origin)
    hit: Any = Wide.of(0.0)
    miss: Any = Wide.of(0.0)
    sure, lost = np.flatnonzero(surely), np.flatnonzero(never)
    undecided: Any = Wide.of(1.0)
    for _ in range(MAX_SWEEPS):
        flat = mass.reshape(-1)
        hit, miss = hit + as_wide(flat[sure].sum()), miss + as_wide(flat[lost].sum())
        flat[sure] = flat[lost] = Wide.of(0.0) if walk.wide else 0.0
        undecided = as_wide(mass.sum())
        if undecided.log() < max(NEGLIGIBLE + min(hit.log(), miss.log()), -np.inf if walk.wide else FLOOR):
            break
        mass, stopped = walk.left(mass)
        miss = miss + as_wide(stopped)
    if not walk.wide and min(hit.log(), miss.log()) < FLOOR:  # neither is 0, or the graph would have told
        return _ever_by_walking(walk.widened(), origin, never, surely)
    size = "0" if undecided.is_zero() else power_of_ten(float(undecided.log10()))
    return EverHit(hit, miss, f"walking: between this and {size} more", undecided)


# ---- how often, how soon -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Hazard:
    """`per_token`: the probability that the next token reaches red, in a text that has long run without doing so.

    A `Wide` scalar, or None where there is no such text; `note` then says why. `certificate` says how far to trust it.
    """

    per_token: Wide | None
    certificate: str
    note: str = ""

    def within(self, tokens: float) -> float:
        """The probability of reaching red in so many tokens of a long deployment: 1 - (1 - hazard) ** tokens."""
        if self.per_token is None:
            raise UsageError(f"there is no hazard to extrapolate: {self.note}")
        return float(-np.expm1(tokens * np.log1p(-float(self.per_token))))


def hazard(chain: MarkovChain, red: Red, start: Sequence[int] | None = None) -> Hazard:
    """The long-run hazard: sum over states of nu(s) f_1(s), nu the quasi-stationary law, f_1 the next-token risk.

    nu solves nu = nu Q / |nu Q|: where the texts are that have run on and not yet reached red (nor stopped). It is a
    sum, never 1 - lambda, so a hazard of 1e-300 has all its digits. By inverse iteration, nu <- nu Q (I - Q)^-1
    normalised, on the reduced form: it separates two classes of texts the faster the rarer red is (the inverse) and the
    sooner one dies out before the other (the step by Q). Beyond DENSE_LIMIT states by walking.
    """
    walk = Walk(chain, red)
    begin = _is_positive(_start(walk, start)) & ~walk.red
    on_the_way = reachable(walk, begin, through_red=False) & ~walk.red
    if not on_the_way.any():
        return Hazard(None, "by graph", "every start is red")
    if not (can_reach(walk, walk.red) & on_the_way).any():
        return Hazard(Wide.of(0.0), "by graph", "red cannot be reached")
    way_out = can_reach(walk, walk.red, or_stop=True)
    if (on_the_way & ~way_out).any():
        return Hazard(Wide.of(0.0), "by graph", ENDS_UP_SAFE)
    if not _lasting(walk, on_the_way).any():
        return Hazard(None, "by graph", "no text runs on: each reaches red or stops within a bounded number of tokens")
    states = np.flatnonzero(on_the_way)
    if len(states) > DENSE_LIMIT:
        return _hazard_by_walking(walk, begin)
    result = _hazard_by_reduction(walk, states, begin)
    if result is None and len(states) <= WIDE_LIMIT:
        result = _hazard_by_reduction(walk.widened(), states, begin)
    return result or _hazard_by_walking(walk.widened(), begin)


def _lasting(walk: Walk, states: np.ndarray) -> np.ndarray:
    """Those of some states in which a text can run on for ever: the rest lead to none of them."""
    left = states.copy()
    while True:
        kept = left & walk.can_step_to(left)
        if (kept == left).all():
            return left
        left = kept


def _hazard_by_reduction(walk: Walk, states: np.ndarray, begin: np.ndarray) -> Hazard | None:
    risk = walk.right(walk.vector(walk.red)).reshape(-1)[states]
    stop = _stopping(walk)[states]
    reduction = _reduction(walk, states, risk, stop)
    if reduction is None:
        return None
    law = walk.vector(begin).reshape(-1)[states]
    law = law / law.sum()
    change = np.inf
    for _ in range(MAX_INVERSE_ITERATIONS):
        mass = walk.zeros()
        mass.reshape(-1)[states] = law
        moved_on = walk.left(mass)[0].reshape(-1)[states]
        if not walk.wide and not moved_on.sum() > SAFELY_ABOVE_UNDERFLOW:
            return None
        visits = reduction.expected_visits(moved_on / moved_on.sum())
        following = visits / visits.sum()
        moved = following.distance(law) if isinstance(law, Wide) else np.abs(following - law)
        law, value = following, (following * risk).sum()
        if walk.wide and value.is_zero():
            return Hazard(value, "inverse iteration", ENDS_UP_SAFE)
        if not walk.wide and not value > REDUCTION_FLOOR:
            return None
        # Both as a share of all texts and as a share of the hazard, which may come from where next to no text is.
        change = max(float(moved.sum()), float((moved * risk).sum() / value))
        if change < CONVERGED:
            return Hazard(as_wide(value), "inverse iteration")
    return Hazard(as_wide(value), f"inverse iteration: not certified (still moves {change:.0e})")


def _stopping(walk: Walk) -> Vector:
    """At each joint state, flat, the probability that the next token stops the text without reaching red."""
    return walk.right(walk.zeros(), at_end=1.0).reshape(-1)


def _hazard_by_walking(walk: Walk, begin: np.ndarray) -> Hazard:
    mass = walk.vector(begin)
    mass = mass / mass.sum()
    risk = walk.right(walk.vector(walk.red))
    value, change = as_wide((mass * risk).sum()), np.inf
    quiet = 0
    for sweep in range(MAX_SWEEPS):
        mass, _ = walk.left(mass)
        walk.take_red(mass)
        mass = mass / mass.sum()
        before, value = value, as_wide((mass * risk).sum())
        if not walk.wide and value.log() < FLOOR:
            if sweep > _patience(walk):
                return _hazard_by_walking(walk.widened(), begin)
            continue
        change = np.inf if before.is_zero() or value.is_zero() else abs(float(value.log() - before.log()))
        quiet = quiet + 1 if change < CONVERGED else 0
        if quiet > walk.chain.context_length:
            return Hazard(value, "walking: unmoved by a whole context of further tokens, which proves nothing")
    return Hazard(value, f"walking: not certified (the last of {MAX_SWEEPS} tokens moved it by {change:.0e})")


def _patience(walk: Walk) -> int:
    """So many tokens of no risk are no surprise; after more of them a float64 is suspected of being too short."""
    return walk.chain.context_length * walk.automaton.n_states


@dataclass(frozen=True, eq=False)
class ExpectedSteps:
    """The mean number of tokens until red: between `lower` and `upper`, None where it is infinite (`note` says why)."""

    lower: Wide | None
    upper: Wide | None
    certificate: str
    note: str = ""


def expected_steps(chain: MarkovChain, red: Red, start: Sequence[int] | None = None) -> ExpectedSteps:
    """The mean number of tokens until red is reached, 0 from a red start: m = 1 + Q m, solved without subtraction.

    It is infinite, and not given, unless red is reached with probability exactly 1.
    """
    walk = Walk(chain, red)
    return _expected_steps_from(walk, _start(walk, start))


def _expected_steps_from(walk: Walk, origin: Vector) -> ExpectedSteps:
    begin = _is_positive(origin)
    _, surely = never_and_surely_red(walk)
    if (begin & ~surely).any():
        return ExpectedSteps(None, None, "by graph", "infinite: with some probability red is never reached")
    on_the_way = reachable(walk, begin & ~walk.red, through_red=False) & ~walk.red
    states = np.flatnonzero(on_the_way)
    if len(states) == 0:
        return ExpectedSteps(Wide.of(0.0), Wide.of(0.0), "by graph: the start is red")
    if len(states) > DENSE_LIMIT:
        return _expected_steps_by_walking(walk, origin, on_the_way)
    mean = _expected_steps_by_reduction(walk, as_float(origin), states)
    if mean is None and len(states) <= WIDE_LIMIT:
        mean = _expected_steps_by_reduction(walk.widened(), as_wide(origin), states)
    if mean is None:
        return _expected_steps_by_walking(walk.widened(), origin, on_the_way)
    return ExpectedSteps(mean, mean, "state reduction: to rounding")


def _expected_steps_by_reduction(walk: Walk, origin: Vector, states: np.ndarray) -> Wide | None:
    risk = walk.right(walk.vector(walk.red)).reshape(-1)[states]
    reduction = _reduction(walk, states, risk)
    if reduction is None:
        return None
    ones = walk.vector(np.ones(walk.shape)).reshape(-1)[states]
    steps = reduction.expected_sum(ones)
    return as_wide((origin.reshape(-1)[states] * steps).sum())


def _expected_steps_by_walking(walk: Walk, origin: Vector, states: np.ndarray) -> ExpectedSteps:
    """sum of survivals, plus a tail between S_K / e_max and S_K / e_min, the extreme hazards of the survivors.

    e bounds the hazard of any law on `states` (bool), the non-red ones that the text can be in: (Q^K f_1)(s) /
    (Q^K 1)(s) is the risk at token K + 1 of a text begun at s that ran on until then (Collatz & Wielandt); both are
    positive sums.
    """
    mass = _of_this_walk(walk, origin)
    walk.take_red(mass)
    running = walk.vector(states)
    lasting = np.flatnonzero(_lasting(walk, states))  # where Q^K 1 is never 0
    risk, alive = walk.right(walk.vector(walk.red)) * running, running
    total = Wide.of(0.0)
    for sweep in range(MAX_SWEEPS):
        total = total + as_wide(mass.sum())
        mass, _ = walk.left(mass)
        walk.take_red(mass)
        left = as_wide(mass.sum())
        if left.is_zero() and len(lasting) == 0:
            return ExpectedSteps(total, total, "walking: every text has reached red")
        risk, alive = walk.right(risk) * running, walk.right(alive) * running
        if not walk.wide and len(lasting):  # or they would underflow in time
            if not alive.max() > SAFELY_ABOVE_UNDERFLOW:
                return _expected_steps_by_walking(walk.widened(), origin, states)
            risk, alive = risk / alive.max(), alive / alive.max()
        live = np.union1d(lasting, np.flatnonzero(_is_positive(alive)))
        rates = _rates(risk.reshape(-1)[live], alive.reshape(-1)[live])
        if not walk.wide and not rates.min() > FLOOR:
            if sweep > _patience(walk):
                return _expected_steps_by_walking(walk.widened(), origin, states)
            continue
        lowest, highest = Wide.from_log(rates.min()), Wide.from_log(rates.max())
        if lowest.is_zero():
            continue
        low, high = total + left / highest, total + left / lowest
        if high.log() - low.log() < BRACKET or sweep == MAX_SWEEPS - 1:
            width = float((high.distance(low) / low).to_float())
            return ExpectedSteps(low, high, f"walking: proven to lie within {width:.0e}, relative, and rounding")
    return ExpectedSteps(total, None, "walking: a lower bound only", "some states never saw red in the tokens walked")


def _rates(risk: Vector, alive: Vector) -> np.ndarray:
    """ln(risk / alive); -inf where a float64 was too short for either."""
    either_lost = ~_is_positive(risk) | ~_is_positive(alive)
    with np.errstate(invalid="ignore"):
        return np.where(either_lost, -np.inf, as_wide(risk).log() - as_wide(alive).log())


def mean_return_time(chain: MarkovChain, red: Red) -> ExpectedSteps:
    """Started from the stationary law within red contexts, the mean number of tokens until red again.

    Kac's lemma: it is 1 / pi(red), which this does *not* use; the two agreeing tests both. Raises UsageError for
    patterns, since what has been written stays written, and for contexts that the long run never meets.
    """
    if red.automaton.n_states > 1:
        raise UsageError("there is no return to a pattern, which once written stays written: mark contexts as red")
    law = stationary_distribution(chain)
    inside = as_wide(law.probabilities if law.wide is None else law.wide)
    inside = inside * Wide.of(red.contexts)
    if inside.is_zero().all():
        raise UsageError("there is no return to red: in the long run it is never met")
    walk = Walk(chain, red)
    origin, _ = walk.widened().left((inside / inside.sum()).reshape(walk.shape))
    outside = _expected_steps_from(walk, origin)
    assert outside.lower is not None
    one = Wide.of(1.0)
    return ExpectedSteps(
        one + outside.lower, None if outside.upper is None else one + outside.upper, outside.certificate, outside.note
    )


def sensitivity(chain: MarkovChain, red: Red, steps: int, start: Sequence[int]) -> np.ndarray:
    """d P(red within steps from start) / d logit(context, token): float64 (n_states, V).

    sum over t of mu_t(s) p(a|s) [h_{N-t-1}(s·a) - h_{N-t}(s)], mu_t the mass that has not reached red, h_k the
    probability of reaching it within k. This is the gradient by which a model could be trained away from red.
    """
    if chain.end is not None:
        raise UsageError("the sensitivity is defined here for chains whose texts do not end")
    walk = Walk(chain, red)
    running, value = walk.vector(~walk.red), walk.vector(walk.red)
    values = [value]
    for _ in range(steps):
        value = walk.right(value) * running + walk.vector(walk.red)
        values.append(value)
    gradient = np.zeros((chain.n_states, chain.vocab_size))
    mass = walk.start_at(start)
    for t in range(steps):
        walk.take_red(mass)
        for q in range(walk.automaton.n_states):
            for token in range(chain.vocab_size):
                after = values[steps - t - 1][walk.automaton.delta[q, token], chain.successors[:, token]]
                gradient[:, token] += mass[q] * chain.probs[:, token] * (after - values[steps - t][q])
        mass, _ = walk.left(mass)
    return gradient
