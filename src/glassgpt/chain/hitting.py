"""The probability of ever being somewhere: red states within n tokens, ever, how soon, and how often per token.

Every quantity is a sum of products of non-negative numbers, never one minus another, so it keeps its relative accuracy
from 1e-3000 up to one minus 1e-3000: the probability of reaching red and that of not reaching it are computed each on
its own. Exact zeros and ones come from the graph. Where float64's exponent is too short the same sums are done again in
`Wide` numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.reduction import DENSE_LIMIT, WIDE_LIMIT, StateReduction
from glassgpt.chain.stationary import stationary_distribution
from glassgpt.chain.structure import can_reach, never_and_surely_red, reachable
from glassgpt.chain.walk import Red, Vector, Walk
from glassgpt.chain.wide import Wide
from glassgpt.errors import UsageError

# A float64 sum of non-negative terms loses at most 5e-324 to each underflow. Above this no number of them can matter.
SAFELY_ABOVE_UNDERFLOW = 1e-290
# The same for state reduction, which also divides by the ways out of a state.
REDUCTION_FLOOR = 1e-140
MAX_SWEEPS = 20_000
CONVERGED = 1e-14
NEGLIGIBLE = float(np.log(1e-13))  # ln of the share of a probability that may stay undecided


@dataclass(frozen=True, eq=False)
class FirstPassage:
    """What has become of a text after 0, 1, ..., steps tokens. Each a `Wide` array (steps + 1,).

    `first_hit`: the probability of reaching red with exactly that token. `within`: of having reached it by then.
    `survival`: of running on without. `stopped`: of having stopped without. The last three add up to 1.
    """

    first_hit: Wide
    within: Wide
    survival: Wide
    stopped: Wide

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
    >>> float(hitting_probability(chain, red, 2, start=[0]).probability)  # 0.1 + 0.9 * 0.1
    0.19
    """
    if steps < 0:
        raise UsageError(f"the number of steps must be 0 or more, got {steps}")
    walk = Walk(chain, red)
    origin = _start(walk, start)
    passage = _first_passage(walk, origin.copy(), steps)
    if _underflowed(walk, origin, passage):
        passage = _first_passage(Walk(chain, red, wide=True), Wide.of(origin), steps)
    return passage


def _start(walk: Walk, start: Sequence[int] | None) -> Vector:
    """All mass in the state after the prompt `start`, or else spread by the stationary law."""
    if start is not None:
        return walk.start_at(start)
    return walk.start_from(stationary_distribution(walk.chain).probabilities)


def _first_passage(walk: Walk, mass: Vector, steps: int) -> FirstPassage:
    hits, running, stopped = [walk.take_red(mass)], [mass.sum()], [mass.sum() * 0.0 if not walk.wide else Wide.of(0.0)]
    for _ in range(steps):
        mass, ended = walk.left(mass)
        hits.append(walk.take_red(mass))
        running.append(mass.sum())
        stopped.append(ended)
    return FirstPassage(_series(hits), _running_sum(hits), _series(running), _running_sum(stopped))


def _series(values: list[Any]) -> Wide:
    return Wide.concatenate([value if isinstance(value, Wide) else Wide.of(value) for value in values])


def _running_sum(values: list[Any]) -> Wide:
    total, sums = values[0], [values[0]]
    for value in values[1:]:
        total = total + value
        sums.append(total)
    return _series(sums)


def _underflowed(walk: Walk, start: Vector, passage: FirstPassage) -> bool:
    """Whether any entry is smaller than float64 sums can vouch for, though the graph says that it isn't 0."""
    floor = np.log(SAFELY_ABOVE_UNDERFLOW)
    stops = walk.chain.end is not None and walk.chain.end.restart is None
    series = [passage.first_hit, passage.survival, passage.stopped][: 3 if stops else 2]
    doubtful = np.any([entries.log() < floor for entries in series], axis=0)
    if not doubtful.any():
        return False
    possible, has_stopped = start > 0, False
    for t in range(int(np.flatnonzero(doubtful)[-1]) + 1):
        if t:
            running = possible & ~walk.red
            if stops:
                may_stop = walk.can_step_to(np.zeros(walk.shape, dtype=bool), at_end=True)
                has_stopped |= bool((running & may_stop).any())
            possible = walk.steps_from(running)
        expected = (possible[walk.red].any(), possible[~walk.red].any(), has_stopped)
        if any(there and entries.log()[t] < floor for there, entries in zip(expected, series, strict=False)):
            return True
    return False


def hitting_probabilities(chain: MarkovChain, red: Red, steps: int) -> tuple[Wide, Wide]:
    """From every joint state at once: the probability of reaching red within `steps`, and of not reaching it.

    Two `Wide` arrays (automaton states, n_states). Backward: h_{k+1} = 1 on red, else the mean of h_k over successors;
    a text that stops has not reached red.
    """
    walk = Walk(chain, red)
    hit, miss = _backward(walk, steps)
    floor = np.log(SAFELY_ABOVE_UNDERFLOW)
    can_hit, can_miss = _backward_by_graph(walk, steps)
    if (can_hit & (hit.log() < floor)).any() or (can_miss & (miss.log() < floor)).any():
        hit, miss = _backward(Walk(chain, red, wide=True), steps)
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

    `certificate` says how they were found; `uncertainty` bounds what is undecided (0 where the value is exact).
    """

    probability: Wide
    complement: Wide
    certificate: str
    uncertainty: float = 0.0


def ever_hit(chain: MarkovChain, red: Red, start: Sequence[int] | None = None) -> EverHit:
    """The probability of ever reaching red, in a text of any length, from `start` or else the stationary law.

    With all tokens possible and no end it is exactly 1, which the graph knows. Otherwise by state reduction up to
    DENSE_LIMIT undecided states, and beyond by walking until what is undecided no longer counts.
    """
    walk = Walk(chain, red)
    never, surely = never_and_surely_red(walk)
    origin = _start(walk, start)
    begin = origin > 0
    if not (begin & ~surely).any():
        return EverHit(Wide.of(1.0), Wide.of(0.0), "by graph: no way avoids red for ever")
    if not (begin & ~never).any():
        return EverHit(Wide.of(0.0), Wide.of(1.0), "by graph: no way leads to red")
    undecided = reachable(walk, begin & ~walk.red, through_red=False) & ~never & ~surely
    if undecided.sum() > DENSE_LIMIT:
        return _ever_by_walking(walk, origin, never, surely)
    result = _ever_by_reduction(walk, origin, undecided, never, surely)
    if result is None:
        if undecided.sum() > WIDE_LIMIT:
            return _ever_by_walking(Walk(chain, red, wide=True), _wide(origin), never, surely)
        result = _ever_by_reduction(Walk(chain, red, wide=True), _wide(origin), undecided, never, surely)
    assert result is not None
    return EverHit(*result, "state reduction: to rounding")


def _wide(vector: Vector) -> Wide:
    return vector if isinstance(vector, Wide) else Wide.of(vector)


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
    return _wide(sums[0]), _wide(sums[1])


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


def _ever_by_walking(walk: Walk, mass: Vector, never: np.ndarray, surely: np.ndarray) -> EverHit:
    """What has arrived for sure bounds both from below, and what is still on the way is all that they can gain."""
    hit: Any = Wide.of(0.0)
    miss: Any = Wide.of(0.0)
    sure, lost = np.flatnonzero(surely), np.flatnonzero(never)
    undecided: Any = Wide.of(1.0)
    for _ in range(MAX_SWEEPS):
        flat = mass.reshape(-1)
        hit, miss = hit + _wide(flat[sure].sum()), miss + _wide(flat[lost].sum())
        flat[sure] = flat[lost] = Wide.of(0.0) if walk.wide else 0.0
        undecided = _wide(mass.sum())
        if undecided.log() < NEGLIGIBLE + min(hit.log(), miss.log()):
            break
        mass, stopped = walk.left(mass)
        miss = miss + _wide(stopped)
    size = float(undecided)
    return EverHit(hit, miss, f"walking: between this and {size:.1e} more", size)


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
    sum, never 1 - lambda, so a hazard of 1e-300 has all its digits. By inverse iteration, nu <- nu (I - Q)^-1
    normalised, on the reduced form, whose convergence is the faster the rarer red is; beyond DENSE_LIMIT states by
    walking.
    """
    walk = Walk(chain, red)
    begin = (_start(walk, start) > 0) & ~walk.red
    on_the_way = reachable(walk, begin, through_red=False) & ~walk.red
    if not on_the_way.any():
        return Hazard(None, "by graph", "every start is red")
    if not (can_reach(walk, walk.red) & on_the_way).any():
        return Hazard(Wide.of(0.0), "by graph", "red cannot be reached")
    way_out = can_reach(walk, walk.red, or_stop=True)
    if (on_the_way & ~way_out).any():
        return Hazard(Wide.of(0.0), "by graph", "texts that run on end up where red cannot be reached")
    recurring = _recurring(walk, on_the_way)
    if not recurring.any():
        return Hazard(None, "by graph", "no text runs on: each reaches red or stops within a bounded number of tokens")
    states = np.flatnonzero(on_the_way)
    if len(states) > DENSE_LIMIT:
        return _hazard_by_walking(walk, begin)
    result = _hazard_by_reduction(walk, states, begin)
    if result is None and len(states) <= WIDE_LIMIT:
        result = _hazard_by_reduction(Walk(chain, red, wide=True), states, begin)
    return result or _hazard_by_walking(Walk(chain, red, wide=True), begin)


def _recurring(walk: Walk, states: np.ndarray) -> np.ndarray:
    """The states left after taking out, again and again, those that lead to none of the rest."""
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
    change, value = np.inf, None
    for _ in range(1000):
        visits = reduction.expected_visits(law)
        following = visits / visits.sum()
        change = _largest_relative_change(following, law)
        law = following
        if change < CONVERGED:
            break
    value = (law * risk).sum()
    if not walk.wide and not value > REDUCTION_FLOOR:
        return None
    trust = (
        "inverse iteration" if change < CONVERGED else f"inverse iteration: not certified (still moves {change:.0e})"
    )
    return Hazard(_wide(value), trust)


def _largest_relative_change(new: Vector, old: Vector) -> float:
    if isinstance(new, Wide):
        with np.errstate(invalid="ignore"):
            return float(np.nanmax(np.abs(new.log() - old.log()), initial=0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.abs(new - old) / new
    return float(np.nanmax(ratio, initial=0.0))


def _stopping(walk: Walk) -> Vector:
    """At each joint state, flat, the probability that the next token stops the text without reaching red."""
    return walk.right(walk.zeros(), at_end=1.0).reshape(-1)


def _hazard_by_walking(walk: Walk, begin: np.ndarray) -> Hazard:
    mass = walk.vector(begin)
    mass = mass / mass.sum()
    risk = walk.right(walk.vector(walk.red))
    value, change = (mass * risk).sum(), np.inf
    quiet = 0
    for _ in range(MAX_SWEEPS):
        following, _ = walk.left(mass)
        walk.take_red(following)
        following = following / following.sum()
        new = (following * risk).sum()
        change = abs(float(_wide(new).log()) - float(_wide(value).log())) if float(_wide(new).mantissa) else np.inf
        mass, value = following, new
        quiet = quiet + 1 if change < CONVERGED else 0
        if quiet > walk.chain.context_length:
            return Hazard(_wide(value), "walking: unmoved by a whole context of further tokens")
    return Hazard(_wide(value), f"walking: not certified (the last of {MAX_SWEEPS} tokens moved it by {change:.0e})")


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
    origin = _start(walk, start)
    begin = origin > 0
    _, surely = never_and_surely_red(walk)
    if (begin & ~surely).any():
        return ExpectedSteps(None, None, "by graph", "infinite: with some probability red is never reached")
    states = np.flatnonzero(reachable(walk, begin & ~walk.red, through_red=False) & ~walk.red)
    if len(states) == 0:
        return ExpectedSteps(Wide.of(0.0), Wide.of(0.0), "by graph: the start is red")
    if len(states) > DENSE_LIMIT:
        return _expected_steps_by_walking(walk, origin)
    mean = _expected_steps_by_reduction(walk, origin, states)
    if mean is None and len(states) <= WIDE_LIMIT:
        mean = _expected_steps_by_reduction(Walk(chain, red, wide=True), _wide(origin), states)
    if mean is None:
        return _expected_steps_by_walking(Walk(chain, red, wide=True), _wide(origin))
    return ExpectedSteps(mean, mean, "state reduction: to rounding")


def _expected_steps_by_reduction(walk: Walk, origin: Vector, states: np.ndarray) -> Wide | None:
    risk = walk.right(walk.vector(walk.red)).reshape(-1)[states]
    reduction = _reduction(walk, states, risk)
    if reduction is None:
        return None
    ones = walk.vector(np.ones(walk.shape)).reshape(-1)[states]
    steps = reduction.expected_sum(ones)
    return _wide((origin.reshape(-1)[states] * steps).sum())


def _expected_steps_by_walking(walk: Walk, mass: Vector, tolerance: float = 1e-10) -> ExpectedSteps:
    """sum of survivals, plus a tail between S_K / e_max and S_K / e_min, the extreme hazards of the survivors.

    e bounds the hazard of any law: (Q^K f_1)(s) / (Q^K 1)(s) is the risk at token K + 1 of a text begun at s that ran
    on until then (Collatz & Wielandt); both are positive sums.
    """
    walk.take_red(mass)
    running = walk.vector(~walk.red)
    live = np.flatnonzero(~walk.red)
    risk, alive = walk.right(walk.vector(walk.red)) * running, running
    total = Wide.of(0.0)
    for sweep in range(MAX_SWEEPS):
        total = total + _wide(mass.sum())
        mass, _ = walk.left(mass)
        walk.take_red(mass)
        risk, alive = walk.right(risk) * running, walk.right(alive) * running
        rates = _wide(risk.reshape(-1)[live]).log() - _wide(alive.reshape(-1)[live]).log()
        lowest, highest = Wide.from_log(rates.min()), Wide.from_log(rates.max())
        if lowest.is_zero():
            continue
        left = _wide(mass.sum())
        low, high = total + left / highest, total + left / lowest
        if high.log() - low.log() < tolerance or sweep == MAX_SWEEPS - 1:
            return ExpectedSteps(
                low, high, f"walking: proven to lie within {float(high.log() - low.log()):.0e}, relative"
            )
    return ExpectedSteps(total, None, "walking: a lower bound only", "some states never saw red in the tokens walked")


def mean_return_time(chain: MarkovChain, red: Red) -> float:
    """Started from the stationary law within red contexts, the mean number of tokens until red again.

    Kac's lemma: it is 1 / pi(red), which this does *not* use; the two agreeing tests both.
    """
    law = stationary_distribution(chain).probabilities
    inside = np.where(red.contexts, law, 0.0)
    walk = Walk(chain, red)
    following, _ = walk.left(walk.start_from(inside / inside.sum()))
    walk.take_red(following)
    states = np.flatnonzero(~walk.red)
    outside = _expected_steps_by_reduction(walk, following, states)
    assert outside is not None
    return 1.0 + float(outside)


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
