"""What a chain says of its text in nats: entropy rate, distance to data, and how long it remembers.

The data is a chain too: the counts of what followed each context. Training moves the model's rows towards the data's,
and the training loss is exactly the data's own entropy plus that distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.chain.hitting import ExpectedSteps, FirstPassage, Hazard, expected_steps, hazard, hitting_probability
from glassgpt.chain.markov import ROWS_AT_ONCE, MarkovChain
from glassgpt.chain.walk import Red, Walk
from glassgpt.errors import UsageError
from glassgpt.numerics import count_windows, entropy, jensen_shannon, kl_divergence, total_variation


def entropy_rate(chain: MarkovChain, law: np.ndarray) -> float:
    """Nats of surprise a token, in the long run: h = -sum_s pi(s) sum_a p(a|s) ln p(a|s). `law`: pi (n_states,).

    >>> fair_coin = MarkovChain.from_probabilities(np.full((2, 2), 0.5))
    >>> round(float(entropy_rate(fair_coin, np.array([0.5, 0.5])) / np.log(2)), 12)  # one bit a token
    1.0
    """
    total, first = 0.0, 0
    for layer in chain.layers:
        for start in range(0, layer.n_states, ROWS_AT_ONCE):  # a large chain's rows all at once would double its memory
            rows = layer.logprobs[start : start + ROWS_AT_ONCE]
            total += float(law[first + start : first + start + len(rows)] @ entropy(rows))
        first += layer.n_states
    return total


@dataclass(frozen=True, eq=False)
class EmpiricalChain:
    """The chain that a text itself is: `counts` float64 (V**length, V), how often each token followed each context.

    A context seen once has a row of certainty, so compare with `counts` in view.
    """

    counts: np.ndarray
    length: int

    @classmethod
    def of_text(cls, tokens: Sequence[int] | np.ndarray, vocab_size: int, length: int) -> EmpiricalChain:
        """Counted over all windows of `length` + 1 tokens. Raises UsageError for a text not longer than `length`."""
        text = np.asarray(tokens, dtype=np.int64)
        if len(text) <= length:
            raise UsageError(
                f"a text of {len(text)} tokens has no token that follows {length} others: give a longer one"
            )
        return cls(count_windows(text, vocab_size, length), length)

    @property
    def seen(self) -> np.ndarray:
        """Which contexts the text holds: bool (V**length,)."""
        return self.counts.sum(axis=1) > 0

    @property
    def law(self) -> np.ndarray:
        """How often each context is met as one that something follows: float64 (V**length,)."""
        return self.counts.sum(axis=1) / self.counts.sum()

    @property
    def logprobs(self) -> np.ndarray:
        """Rows as log-probabilities; those of contexts never seen are uniform, for want of anything to say."""
        totals = self.counts.sum(axis=1, keepdims=True)
        with np.errstate(divide="ignore"):
            seen = np.log(self.counts / np.where(totals > 0, totals, 1))
        return np.where(totals > 0, seen, -np.log(self.counts.shape[1]))

    @property
    def conditional_entropy(self) -> float:
        """The entropy of the next token given the context, in nats: no model of this context length can do better."""
        return float(self.law @ entropy(self.logprobs))


def kl_rate(data: EmpiricalChain, chain: MarkovChain) -> float:
    """D(data || model) = sum_s pi_data(s) KL(data(.|s) || model(.|s)), in nats a token.

    Training loss on full contexts = data.conditional_entropy + kl_rate: an identity, not an approximation.
    """
    seen = data.seen  # what was never seen counts for nothing, be it infinitely far away
    return float(data.law[seen] @ kl_divergence(data.logprobs[seen], chain.full.logprobs[seen]))


def training_loss(data: EmpiricalChain, chain: MarkovChain) -> float:
    """The cross-entropy of the model on the data's full contexts, in nats a token; inf if it excludes what happens."""
    happened = data.counts > 0
    return float(-(data.counts[happened] * chain.full.logprobs[happened]).sum() / data.counts.sum())


def reverse_kl_rate(chain: MarkovChain, law: np.ndarray, data: EmpiricalChain, smoothing: float = 1.0) -> float:
    """D(model || data): over the model's own texts. What the data never did gets `smoothing` counts a token."""
    counts = data.counts + smoothing
    smoothed = np.log(counts / counts.sum(axis=1, keepdims=True))
    full = law[chain.offset(chain.context_length) :]
    return float(full @ kl_divergence(chain.full.logprobs, smoothed))


@dataclass(frozen=True)
class MarginalDistance:
    """Distance of two laws of k successive tokens: total variation in [0, 1], Jensen-Shannon in nats."""

    k: int
    total_variation: float
    jensen_shannon: float


def marginal_distances(chain: MarkovChain, law: np.ndarray, data: EmpiricalChain) -> list[MarginalDistance]:
    """How far the k-grams of the model's texts lie from those of the data, k = 1..context_length."""
    model, text = law[chain.offset(chain.context_length) :], data.law
    distances = []
    for k in range(1, chain.context_length + 1):
        p, q = k_gram_law(model, chain.vocab_size, k), k_gram_law(text, chain.vocab_size, k)
        distances.append(MarginalDistance(k, float(total_variation(p, q)), float(jensen_shannon(p, q))))
    return distances


def k_gram_law(law: np.ndarray, vocab_size: int, k: int) -> np.ndarray:
    """The law of the last k tokens of a context: float64 (vocab_size**k,), from one over full contexts."""
    return law.reshape(-1, vocab_size**k).sum(axis=0)


def mutual_information(chain: MarkovChain, law: np.ndarray, steps: int) -> np.ndarray:
    """I(X_0; X_n) for n = 0..steps, in nats: what a token still tells of the one n places later. float64 (steps + 1,).

    X_0 is the newest token of a context drawn from the stationary law. One walk for each of its values.
    """
    V = chain.vocab_size
    full = law[chain.offset(chain.context_length) :].reshape(-1, V)
    marginal = full.sum(axis=0)
    walk = Walk(chain)
    joint = np.zeros((steps + 1, V, V))  # [n, X_0, X_n]
    for token in range(V):
        start = np.zeros(chain.n_states)
        start[chain.offset(chain.context_length) :].reshape(-1, V)[:, token] = full[:, token]
        mass = walk.vector(start)
        for n in range(steps + 1):
            joint[n, token] = mass[0, chain.offset(chain.context_length) :].reshape(-1, V).sum(axis=0)
            mass, _ = walk.left(mass)
    later = joint.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = joint * (np.log(joint) - np.log(marginal[None, :, None]) - np.log(later))
    return np.where(joint > 0, terms, 0.0).sum(axis=(1, 2))


@dataclass(frozen=True, eq=False)
class Exposure:
    """How a model's own text leaves what it was trained on (exposure bias), measured exactly.

    `stationary_mass_outside`: the long-run share of contexts that the data never held. `escape_hazard` and
    `mean_steps_to_leave`: from within the data, how often a token leads out, and how long that takes.
    """

    stationary_mass_outside: float
    escape_hazard: Hazard
    mean_steps_to_leave: ExpectedSteps
    escape: FirstPassage


def exposure(
    chain: MarkovChain, law: np.ndarray, data: EmpiricalChain, start: Sequence[int], steps: int = 100
) -> Exposure | None:
    """Leaving the data's contexts as a hitting problem, red being all others. None if the data holds every context."""
    outside = np.zeros(chain.n_states, dtype=bool)
    outside[chain.offset(chain.context_length) :] = ~data.seen
    if not outside.any():
        return None
    red = Red(outside, Walk(chain).automaton)
    return Exposure(
        float(law[outside].sum()),
        hazard(chain, red, start),
        expected_steps(chain, red, start),
        hitting_probability(chain, red, steps, start),
    )
