"""Keeping away from red: masking the next token, or conditioning on the whole text, and what each costs.

A mask forbids at each step the tokens that lead to red (or to where red can't be avoided) and shares their probability
out among the rest, seeing no further. Conditioning asks for the law of those texts that avoid red: of all laws that do,
the nearest to the original. The two differ, and the exact chain says by how much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.chain.markov import Layer, MarkovChain
from glassgpt.chain.reduction import SAFELY_ABOVE_UNDERFLOW
from glassgpt.chain.walk import Red, Vector, Walk
from glassgpt.chain.wide import as_float, as_wide
from glassgpt.errors import TooLargeError, UsageError

MEMORY_LIMIT = 1 << 27  # float64 numbers kept of the survival at every horizon (1 GiB)


@dataclass(frozen=True, eq=False)
class Mask:
    """Which tokens keep a text safe for ever. `safe`: bool (automaton states, n_states), the greatest set of non-red
    states each of which has a token that stays within it (or ends the text). `allowed`: bool (..., V), those tokens.
    `log_kept`: float64, ln of the probability that the model gives them, 0 where nothing is forbidden."""

    safe: np.ndarray
    allowed: np.ndarray
    log_kept: np.ndarray


def safety_mask(chain: MarkovChain, red: Red) -> Mask:
    """The mask of a red event. O(transitions) a round, until no more state is a dead end."""
    walk = Walk(chain, red)
    safe = ~walk.red
    while True:
        kept = safe & walk.can_step_to(safe, at_end=True)
        if (kept == safe).all():
            break
        safe = kept
    allowed = _leads_into(walk, safe) & safe[..., None]
    kept_mass = np.where(allowed, chain.probs, 0.0).sum(axis=-1)
    lost_mass = np.where(allowed | ~safe[..., None], 0.0, chain.probs).sum(axis=-1)
    with np.errstate(divide="ignore"):  # where little is kept its own logarithm is exact, where much is what was lost
        log_kept = np.where(kept_mass < 0.5, np.log(kept_mass), np.log1p(-lost_mass))
    return Mask(safe, allowed, np.where(safe, log_kept, -np.inf))


def _leads_into(walk: Walk, goal: np.ndarray) -> np.ndarray:
    """Which possible tokens lead into `goal`, or end the text short of red: bool (automaton states, n_states, V)."""
    flat = np.append(goal.reshape(-1), True)  # a text that stops, index -1, is as good as in it
    into = [flat[walk.successors(token)].reshape(walk.shape) for token in range(walk.chain.vocab_size)]
    return np.stack(into, axis=-1) & walk.chain.possible


def masked_chain(chain: MarkovChain, red: Red) -> MarkovChain:
    """The chain of the masked sampler: red states are left to themselves, and none leads to them from a safe state.

    For red contexts, and for patterns that fit into a context, where the context alone tells what is forbidden. Rows of
    states that are not safe stay as they were: a text that starts safe never meets them.
    """
    red = as_contexts(chain, red)
    mask = _enforceable(chain, red)
    rows = mask.safe[0][:, None]
    logprobs = np.where(
        rows, np.where(mask.allowed[0], chain.logprobs, -np.inf) - _finite(mask.log_kept[0])[:, None], chain.logprobs
    )
    return _with_rows(chain, logprobs, np.where(rows, mask.allowed[0], chain.possible))


def conditioned_chain(chain: MarkovChain, red: Red, tolerance: float = 1e-13) -> MarkovChain:
    """The chain of texts that avoid red for ever: p(a|s) h(s·a) / (lambda h(s)), h the right Perron vector.

    Doob's transform with an infinite horizon, on the safe states; found by iterating survival backwards until its shape
    stands still. Raises UsageError if it doesn't (several classes of safe states that survive equally well).
    """
    if chain.end is not None:
        raise UsageError("conditioning for ever needs texts without end: leave the end token free")
    red = as_contexts(chain, red)
    walk, mask = Walk(chain, red), _enforceable(chain, red)
    value = walk.vector(mask.safe)
    for _ in range(20_000):
        following = walk.right(value) * mask.safe
        following /= following.max()
        change = np.abs(following - value).max()
        value = following
        if change < tolerance:
            break
    else:
        raise UsageError(
            "survival keeps changing its shape: the safe states fall into classes or a rhythm of their own"
        )
    with np.errstate(divide="ignore"):
        ahead = chain.logprobs + np.log(value[0])[chain.successors]
    rows = (value[0] > 0)[:, None]
    total = np.logaddexp.reduce(np.where(rows, ahead, 0.0), axis=1, keepdims=True)
    return _with_rows(
        chain, np.where(rows, ahead - total, chain.logprobs), np.where(rows, ~np.isneginf(ahead), chain.possible)
    )


def _enforceable(chain: MarkovChain, red: Red) -> Mask:
    mask = safety_mask(chain, red)
    if not mask.safe.any():
        raise UsageError("nothing can be enforced: every state is red or leads to red with certainty")
    return mask


def as_contexts(chain: MarkovChain, red: Red) -> Red:
    """A red event as a set of contexts. Raises UsageError for patterns that are longer than a context."""
    if red.automaton.n_states == 1:
        return red
    marked = red.contexts.copy()
    start = 0
    for layer in chain.layers:
        seen = red.automaton.accepting[red.automaton.run_every_context(layer.length)]
        marked[start : start + layer.n_states] |= seen
        start += layer.n_states
    depth = _longest_pattern(red)
    if depth > chain.context_length:
        raise UsageError(
            f"a pattern of {depth} tokens does not show in a context of {chain.context_length}, so the masked sampler "
            "is no chain over contexts: `enforcement` gives its exact costs all the same"
        )
    return Red(marked, Walk(chain).automaton)


def _longest_pattern(red: Red) -> int:
    """Breadth-first depth of the deepest state of the automaton, which is the length of its longest pattern."""
    depth = {0: 0}
    queue = [0]
    for state in queue:
        for following in red.automaton.delta[state].tolist():
            if following not in depth:
                depth[following] = depth[state] + 1
                queue.append(following)
    return max(depth.values())


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isneginf(values), 0.0, values)


def _with_rows(chain: MarkovChain, logprobs: np.ndarray, possible: np.ndarray) -> MarkovChain:
    layers, start = [], 0
    for layer in chain.layers:
        rows = slice(start, start + layer.n_states)
        layers.append(Layer(layer.length, logprobs[rows], possible[rows]))
        start = rows.stop
    return MarkovChain(tuple(layers), chain.end)


@dataclass(frozen=True, eq=False)
class Enforcement:
    """What avoiding red for `steps` tokens costs, in nats over the whole text.

    `log_avoid`: ln of the probability that the model avoids red unasked. The four divergences compare the model
    ("base"), its masked sampler ("mask") and its law conditioned on avoiding red ("cond"); `kl_cond_mask` is inf where
    conditioning still walks into dead ends that a mask, which looks ahead for ever, forbids. `total_variation`: between
    the masked and the conditioned law of the final state, to have stopped being one.
    """

    log_avoid: float
    kl_cond_base: float
    kl_mask_base: float
    kl_mask_cond: float
    kl_cond_mask: float
    total_variation: float


def enforcement(chain: MarkovChain, red: Red, steps: int, start: Sequence[int]) -> Enforcement:
    """Masking against conditioning over a horizon, exactly, by one backward and one forward sweep each step.

    KL(cond||base) = -ln P(avoid), the least that any law avoiding red can cost; KL(mask||base) = E_mask[sum -ln Z];
    KL(mask||cond) = ln P(avoid) + KL(mask||base); KL(cond||mask) = E_cond[sum ln Z] - ln P(avoid), with Z the
    probability that the mask keeps. Raises UsageError if the start is red or can't avoid it.
    """
    walk, mask = Walk(chain, red), safety_mask(chain, red)
    if not mask.safe[walk.joint_index(start)]:
        raise UsageError(f"nothing can be enforced from {list(start)}: it is red, or leads to red with certainty")
    if (steps + 1) * int(np.prod(walk.shape)) > MEMORY_LIMIT:
        raise TooLargeError(
            f"{steps} steps of {int(np.prod(walk.shape))} states are more than the {MEMORY_LIMIT} numbers kept: "
            "ask for fewer steps"
        )
    survival = _survivals(walk, steps)
    conditioning = walk
    if not survival[steps][walk.joint_index(start)] > SAFELY_ABOVE_UNDERFLOW:
        conditioning = walk.widened()
        survival = _survivals(conditioning, steps)
    log_avoid = _log_avoid(conditioning, survival[steps], start, steps)
    masked_cost, masked_law = _masked_walk(walk, mask, steps, start)
    conditioned_gain, conditioned_law = _conditioned_walk(conditioning, mask, survival, steps, start)
    return Enforcement(
        log_avoid,
        -log_avoid,
        masked_cost,
        max(0.0, log_avoid + masked_cost),
        max(0.0, conditioned_gain - log_avoid),
        0.5 * float(np.abs(masked_law - conditioned_law).sum()),
    )


def _survivals(walk: Walk, steps: int) -> list[Vector]:
    """survival[k]: from each joint state the probability of k more tokens without red (a stopped text has survived)."""
    running = walk.vector(~walk.red)
    survival = [running]
    for _ in range(steps):
        survival.append(walk.right(survival[-1], at_end=1.0) * running)
    return survival


def _log_avoid(walk: Walk, survival: Vector, start: Sequence[int], steps: int) -> float:
    avoid = as_wide(survival[walk.joint_index(start)])
    if float(avoid) < 0.5:
        return float(avoid.log())
    red = hit = walk.vector(walk.red)
    for _ in range(steps):
        hit = walk.right(hit) * ~walk.red + red
    return float(np.log1p(-hit[walk.joint_index(start)]))


def _masked_walk(walk: Walk, mask: Mask, steps: int, start: Sequence[int]) -> tuple[float, np.ndarray]:
    """E_mask[sum of -ln Z] and the masked law of the final state, flat, to have stopped being the last."""
    scale = np.where(mask.safe, np.exp(-_finite(mask.log_kept)), 0.0)
    mass, cost = walk.start_at(start), 0.0
    ended = 0.0
    for _ in range(steps):
        cost -= float((mass * _finite(mask.log_kept)).sum())
        mass, stopped = walk.left(mass * scale)
        mass = mass * mask.safe
        ended += float(stopped)
    return cost, np.append(mass, ended)


def _conditioned_walk(
    walk: Walk, mask: Mask, survival: list[Vector], steps: int, start: Sequence[int]
) -> tuple[float, np.ndarray]:
    """E_cond[sum of ln Z] (inf if a forbidden token is ever taken) and the conditioned law of the final state, flat."""
    mass = walk.start_at(start)
    avoid = survival[steps][walk.joint_index(start)]
    gain, ended = 0.0, 0.0
    for t in range(steps + 1):
        law = as_float(mass * survival[steps - t] / avoid)
        if (law[~mask.safe] > 0).any():
            gain = np.inf
        if t < steps:
            gain += float((law * _finite(mask.log_kept)).sum())
            mass, stopped = walk.left(mass)
            walk.take_red(mass)
            ended += float(stopped / avoid)
    return gain, np.append(as_float(mass / avoid), ended)
