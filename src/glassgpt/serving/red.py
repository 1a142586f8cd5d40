"""The probability of red within n tokens: exact, at a growing n, for models whose contexts can be listed; for others an
estimate with its interval, by a growing number of walks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassgpt.chain.hitting import hitting_probability
from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.walk import Red
from glassgpt.chain.wide import Wide
from glassgpt.decoding.shaped import Shaped
from glassgpt.evaluation.red import WALKS, RedEstimate, estimate_red
from glassgpt.serving.asked import Asked
from glassgpt.serving.events import Event
from glassgpt.serving.generation import LARGEST_SEED
from glassgpt.serving.models import Served
from glassgpt.serving.refusals import Refusal
from glassgpt.serving.sampler import Sampling, finite

LONGEST_PATTERN = 64
FARTHEST = 10_000  # tokens
LONGEST_BUDGET = 600.0  # seconds
MOST_WALKS = 100_000
MOST_POINTS = 40  # of the curve that an estimate under way is told with; the last one has all
PULSE = 0.5  # seconds after which something is told: only then can a job be left


@dataclass(frozen=True)
class RedQuestion:
    """How likely the pattern is to be written within `horizon` tokens after the prompt, under a sampler.

    Without a prompt the text is one that has long run on: it begins from the stationary law. An estimate has no such
    law, and needs a prompt; it ends after so many walks or seconds. The same seed and walks give the same estimate.
    """

    pattern: list[int]
    prompt: list[int]
    horizon: int
    sampling: Sampling
    walks: int
    budget_s: float
    seed: int

    @classmethod
    def asked(cls, asked: Asked, served: Served) -> RedQuestion:
        """Walks, a budget and a seed are for estimates; exact is exact."""
        vocab_size, length = served.source.vocab_size, served.source.context_length
        question = cls(
            asked.ids("pattern", vocab_size, most=LONGEST_PATTERN),
            asked.ids("prompt_ids", vocab_size, least=0),
            asked.whole("horizon", 0, FARTHEST),
            Sampling.asked(asked, vocab_size),
            asked.whole("walks", 1, MOST_WALKS, WALKS),
            asked.number("budget_s", 0, LONGEST_BUDGET, LONGEST_BUDGET),
            asked.whole("seed", 0, LARGEST_SEED, 0),
        )
        if served.n_states is None and not question.prompt:
            raise Refusal(
                "usage",
                f"the model has {vocab_size:,}^{length:,} states: red is estimated, from where a text begins",
                "give prompt_ids, at least one",
            )
        return question

    def answered(self, served: Served, step: int | None) -> Generator[Event, None, dict[str, Any]]:
        """Events until it is known, then the probability within every n up to the horizon."""
        model = Shaped(served.model(step), self.sampling.processors())
        return (yield from self._estimated(model) if served.n_states is None else self._computed(model))

    def _computed(self, model: Shaped) -> Generator[Event, None, dict[str, Any]]:
        """An estimate for 1, 10, 100, ... tokens and the horizon, each exact."""
        chain = MarkovChain.from_model(model, every_length=0 < len(self.prompt) < model.context_length)
        red = Red.of_patterns(chain, [self.pattern])
        within = Wide.of([0.0])
        for n in horizons(self.horizon):
            within = hitting_probability(chain, red, n, self.prompt or None).within
            log10 = log10_of(within[-1])
            yield Event("estimate", {"n": n, "log10_p": log10, "low": log10, "high": log10, "method": "exact"})
        log10s = [log10_of(within[n]) for n in range(self.horizon + 1)]
        return {"n": self.horizon, "log10_p": log10s[-1], "log10_within": log10s, "method": "exact"}

    def _estimated(self, model: Shaped) -> Generator[Event, None, dict[str, Any]]:
        """A better estimate now and then, and between them how far the walks that are being taken have come."""
        estimates = estimate_red(
            model,
            [self.pattern],
            self.prompt,
            self.horizon,
            walks=self.walks,
            seconds=self.budget_s,
            seed=self.seed,
            pulse_seconds=PULSE,
        )
        few = np.unique(np.linspace(0, self.horizon, min(MOST_POINTS, self.horizon + 1)).round()).astype(int).tolist()
        told, n_told = -math.inf, -1
        for estimate in estimates:
            if time.monotonic() - told < PULSE:
                continue
            if estimate.n_walks > n_told:
                yield Event("estimate", about_estimate(estimate, few))
            else:
                walks, drawn = estimate.underway
                yield Event("progress", {"n_walks": estimate.n_walks, "underway": walks, "n_drawn": drawn})
            told, n_told = time.monotonic(), estimate.n_walks
        return about_estimate(estimate, range(self.horizon + 1))


def about_estimate(estimate: RedEstimate, at: Sequence[int]) -> dict[str, Any]:
    """An estimate as JSON has it, with its curve at these numbers of tokens: decimal logarithms, null for 0."""
    curves = {"within": estimate.log_within, "low": estimate.log_low, "high": estimate.log_high}
    log10 = {name: [finite(float(log) / math.log(10)) for log in curve] for name, curve in curves.items()}
    return {
        "n": len(estimate.log_within) - 1,
        "log10_p": log10["within"][-1],
        "low": log10["low"][-1],
        "high": log10["high"][-1],
        "method": "exact" if estimate.is_exact else "estimate",
        "n_walks": estimate.n_walks,
        "effective_walks": estimate.effective_walks,
        "largest_share": estimate.largest_share,
        "is_trusted": estimate.is_trusted,
        "at": list(at),
        **{f"log10_{name}": [curve[n] for n in at] for name, curve in log10.items()},
    }


def horizons(last: int) -> list[int]:
    """1, 10, 100, ... and the last one: each costs a tenth of the next.

    >>> horizons(250)
    [1, 10, 100, 250]
    """
    return [*(10**k for k in range(len(str(last))) if 10**k < last), last]


def log10_of(value: Wide) -> float | None:
    """The decimal logarithm; None for a probability of exactly 0."""
    return None if value.is_zero() else float(value.log10())
