"""How soon a text forgets how it began.

The second eigenvalue gives only the rate in the far end: these chains are strongly non-normal (for independent tokens
every other eigenvalue is 0, and yet nothing is forgotten before the window has passed), so the time itself is measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.walk import Walk
from glassgpt.errors import UsageError

EXACT_LIMIT = 1024  # states; above it the powers of the whole matrix are too much, and only the bound is given
EIGENVALUE_LIMIT = 1 << 16
LONGEST_TIME = 1 << 62
LONGEST_DOUBLING = 40  # squarings of P, each of which doubles what rounding has cost so far


@dataclass(frozen=True)
class MixingTime:
    """`exact`: the smallest n with max over starts of TV(P^n(s, .), pi) <= epsilon, or None where the chain is too
    large for it, or never mixes (`note` says which). `upper_bound`: a proven one by coupling, or None."""

    epsilon: float
    exact: int | None
    upper_bound: int | None
    note: str = ""


def coupling_probabilities(chain: MarkovChain) -> np.ndarray:
    """alpha_k for k = 0..T-1: float64 (context_length,).

    alpha_k is a lower bound on the probability that two texts agreeing in their last k tokens can be made to draw the
    same next one: min over suffixes of sum_a min over contexts with that suffix of p(a | context). Exact for two
    tokens; for more, the minimum over pairs can only be larger. T such draws in a row make the contexts equal.
    Zero where an end of text or impossible tokens spoil the argument.
    """
    V, T = chain.vocab_size, chain.context_length
    alphas = np.zeros(T)
    if chain.end is not None:
        return alphas
    lowest = chain.full.probs.reshape(-1, V)
    for k in range(T - 1, -1, -1):  # drop the oldest token of the suffix, one at a time
        lowest = lowest.reshape(V, -1, V).min(axis=0)
        alphas[k] = min(1.0, float(lowest.sum(axis=-1).min()))
    return alphas


def mixing_time(chain: MarkovChain, law: np.ndarray, epsilon: float = 0.25) -> MixingTime:
    """The number of tokens after which the start is forgotten up to `epsilon` in total variation, from full contexts.

    `law`: the stationary law (n_states,). Exact for up to EXACT_LIMIT full contexts, by doubling powers of P and then
    bisection (the distance never grows). The bound: TV(n) <= (1 - prod alpha_k) ** floor(n / T).
    """
    if not 0 < epsilon < 1:
        raise UsageError(f"epsilon must be between 0 and 1, got {epsilon}")
    bound = coupling_bound(chain, epsilon)
    if chain.end is not None and chain.end.restart is None:
        return MixingTime(epsilon, None, bound, "texts stop, so there is no law to converge to")
    if chain.full.n_states > EXACT_LIMIT:
        return MixingTime(epsilon, None, bound, f"exact only up to {EXACT_LIMIT} states: the proven bound stands")
    exact = _by_doubling(chain.transition_matrix(), law, epsilon, chain.offset(chain.context_length))
    if exact is None:
        note = f"not mixed after 2^{LONGEST_DOUBLING} tokens: the start, or a rhythm of time, still shows"
        return MixingTime(epsilon, None, bound, note)
    return MixingTime(epsilon, exact, bound)


def coupling_bound(chain: MarkovChain, epsilon: float) -> int | None:
    """A proven upper bound on the mixing time, or None."""
    closing = float(np.prod(coupling_probabilities(chain)))
    if closing <= 0:
        return None
    if closing >= 1:
        return chain.context_length
    rounds = np.ceil(np.log(epsilon) / np.log1p(-closing))
    return int(rounds) * chain.context_length if rounds < LONGEST_TIME else None


def _by_doubling(P: np.ndarray, law: np.ndarray, epsilon: float, first_full: int) -> int | None:
    """Powers P^(2^k) until mixed, then the largest time that is not, by trying the powers downwards."""

    def mixed(power: np.ndarray) -> bool:
        return 0.5 * np.abs(power[first_full:] - law).sum(axis=1).max() <= epsilon

    if mixed(np.eye(len(P))):
        return 0
    powers = [P]
    while not mixed(powers[-1]):
        if len(powers) > LONGEST_DOUBLING:
            return None
        square = powers[-1] @ powers[-1]
        powers.append(square / square.sum(axis=1, keepdims=True))
    if len(powers) == 1:
        return 1
    not_mixed, time = powers[-2], 1 << (len(powers) - 2)
    for k in range(len(powers) - 3, -1, -1):
        further = not_mixed @ powers[k]
        if not mixed(further):
            not_mixed, time = further, time + (1 << k)
    return time + 1


def distance_from_stationary(chain: MarkovChain, law: np.ndarray, start: Sequence[int], steps: int) -> np.ndarray:
    """TV of the law of the state after 0..steps tokens from `start` and the stationary one: float64 (steps + 1,)."""
    walk = Walk(chain)
    mass = walk.start_at(start)
    distances = []
    for _ in range(steps + 1):
        distances.append(0.5 * float(np.abs(mass[0] - law).sum()))
        mass, _ = walk.left(mass)
    return np.array(distances)


def second_eigenvalue(chain: MarkovChain) -> float | None:
    """|lambda_2| of P: TV falls like its n-th power in the far end, whatever happens before. None where not found.

    Where tokens are nearly independent the eigenvalues near 0 come in Jordan blocks, of which floating point resolves
    no more than about 1e-16 ** (1 / context_length).
    """
    if chain.n_states <= 64:
        moduli = np.sort(np.abs(np.linalg.eigvals(chain.transition_matrix())))
        return float(moduli[-2]) if len(moduli) > 1 else 0.0
    if chain.n_states > EIGENVALUE_LIMIT:
        return None
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs  # a third of a second that few need

    walk = Walk(chain)
    operator = LinearOperator(
        (chain.n_states, chain.n_states),
        matvec=lambda v: walk.left(np.reshape(v, (1, -1)))[0].reshape(-1),
        dtype=np.float64,
    )
    try:
        # NOTE: not a vector of ones, which has every symmetry of the chain and so never meets an eigenvector without.
        v0 = np.random.default_rng(0).random(chain.n_states)
        values = eigs(operator, k=2, v0=v0, return_eigenvectors=False, maxiter=2000)
    except ArpackNoConvergence:
        return None
    return float(np.sort(np.abs(values))[-2])
