"""The probability of red within n tokens, for models whose contexts can be listed: exact, at a growing n.

A model with more contexts would need an estimate of a rare event, which GlassGPT has none of yet: it is refused.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from glassgpt.chain.hitting import hitting_probability
from glassgpt.chain.markov import MarkovChain
from glassgpt.chain.walk import Red
from glassgpt.chain.wide import Wide
from glassgpt.decoding.shaped import Shaped
from glassgpt.serving.asked import Asked
from glassgpt.serving.events import Event
from glassgpt.serving.generation import LARGEST_SEED
from glassgpt.serving.models import MAX_STATES, Served
from glassgpt.serving.refusals import Refusal
from glassgpt.serving.sampler import Sampling

LONGEST_PATTERN = 64
FARTHEST = 10_000  # tokens
LONGEST_BUDGET = 600.0  # seconds


@dataclass(frozen=True)
class RedQuestion:
    """How likely the pattern is to be written within `horizon` tokens after the prompt, under a sampler.

    Without a prompt the text is one that has long run on: it begins from the stationary law.
    """

    pattern: list[int]
    prompt: list[int]
    horizon: int
    sampling: Sampling

    @classmethod
    def asked(cls, asked: Asked, served: Served) -> RedQuestion:
        """Raises Refusal for a model of too many states. A budget and a seed are for estimates; exact is exact."""
        vocab_size, length = served.source.vocab_size, served.source.context_length
        question = cls(
            asked.ids("pattern", vocab_size, most=LONGEST_PATTERN),
            asked.ids("prompt_ids", vocab_size, least=0),
            asked.whole("horizon", 0, FARTHEST),
            Sampling.asked(asked, vocab_size),
        )
        asked.number("budget_s", 0, LONGEST_BUDGET, LONGEST_BUDGET)
        asked.whole("seed", 0, LARGEST_SEED, 0)
        if served.n_states is None:
            raise Refusal(
                "too_big",
                f"the model has {vocab_size:,}^{length:,} states: red is computed exactly, for up to {MAX_STATES:,}, "
                "and an estimate for more is unsupported",
                "ask of a model with a smaller vocabulary or a shorter context",
                501,
            )
        return question

    def answered(self, served: Served, step: int | None) -> Generator[Event, None, dict[str, Any]]:
        """An estimate for 1, 10, 100, ... tokens and the horizon; then the probability within every n up to it."""
        model = Shaped(served.model(step), self.sampling.processors())
        chain = MarkovChain.from_model(model, every_length=0 < len(self.prompt) < model.context_length)
        red = Red.of_patterns(chain, [self.pattern])
        within = Wide.of([0.0])
        for n in horizons(self.horizon):
            within = hitting_probability(chain, red, n, self.prompt or None).within
            log10 = log10_of(within[-1])
            yield Event("estimate", {"n": n, "log10_p": log10, "low": log10, "high": log10, "method": "exact"})
        log10s = [log10_of(within[n]) for n in range(self.horizon + 1)]
        return {"n": self.horizon, "log10_p": log10s[-1], "log10_within": log10s, "method": "exact"}


def horizons(last: int) -> list[int]:
    """1, 10, 100, ... and the last one: each costs a tenth of the next.

    >>> horizons(250)
    [1, 10, 100, 250]
    """
    return [*(10**k for k in range(len(str(last))) if 10**k < last), last]


def log10_of(value: Wide) -> float | None:
    """The decimal logarithm; None for a probability of exactly 0."""
    return None if value.is_zero() else float(value.log10())
