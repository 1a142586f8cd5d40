"""Speculative sampling: guess some tokens cheaply, let the model judge all of them in one call, and lose nothing.

Leviathan et al. (arXiv 2211.17192) and Chen et al. (arXiv 2302.01318). The tokens have exactly the distribution that
`generate` draws from, whatever the guesses are; good guesses only make it faster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glassgpt.decoding.draw import Drawn, Ends, as_count, as_ends, as_prompt, as_rng, draw, logprob_of
from glassgpt.decoding.processors import apply, processors
from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, LogitsProcessor
from glassgpt.numerics import log_softmax


@dataclass(frozen=True)
class Lookup:
    """Guess that the text goes on as it did before: prompt look-up, a draft that needs no model.

    The last `longest` tokens are looked for earlier in the text, the latest place first, and if they occur nowhere a
    token fewer, down to one; what followed there is the guess.
    """

    longest: int = 3

    def __post_init__(self) -> None:
        as_count(self.longest, "the length of what is looked up", least=1)

    def find(self, text: np.ndarray, n: int) -> np.ndarray:
        """The guess, at most `n` tokens, for what follows `text` (time,); empty if nothing occurs twice.

        >>> Lookup(2).find(np.array([5, 1, 2, 3, 4, 1, 2]), n=2).tolist()
        [3, 4]
        """
        for length in range(min(self.longest, len(text) - 1), 0, -1):
            windows = np.lib.stride_tricks.sliding_window_view(text[:-1], length)
            places = np.flatnonzero((windows == text[-length:]).all(axis=1))
            if len(places):
                start = int(places[-1]) + length
                return text[start : start + n]
        return text[:0]


@dataclass(frozen=True)
class Speculation:
    """The new tokens with their log-probabilities under the model itself (natural), and how the guesses went.

    `n_calls` counts the model's answers after the prompt was read: `generate` would need one for each token.
    """

    tokens: list[int]
    logprobs: list[float]
    n_drafted: int
    n_accepted: int
    n_calls: int


def generate_speculative(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int = 20,
    *,
    draft: LanguageModel | Lookup,
    n_draft: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    end_token: Ends = None,
    seed: int = 0,
) -> Speculation:
    """What `generate` draws, in distribution; at temperature 0 the same tokens.

    `draft`: a smaller model over the same vocabulary, which draws through the same processors, or a `Lookup`. It
    guesses up to `n_draft` tokens at a time. The same seed gives the same tokens, but not those of `generate`, since
    other numbers are drawn.
    """
    chosen = processors(temperature, top_k, top_p, min_p, repetition_penalty)
    speculating = SpeculativeStream(
        model,
        tokens,
        max_new_tokens,
        draft=draft,
        n_draft=n_draft,
        processors=chosen,
        end_token=end_token,
        dice=Dice(as_rng(seed)),
    )
    drawn = list(speculating)
    return Speculation(
        [token for token, _ in drawn],
        [logprob for _, logprob in drawn],
        speculating.n_drafted,
        speculating.n_accepted,
        speculating.n_calls,
    )


class Dice:
    """The two random choices that speculative sampling makes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def draw(self, probs: np.ndarray) -> int:
        """An index, drawn by its probability."""
        return draw(probs, self.rng)

    def accept(self, probability: float) -> bool:
        """Yes, with this probability: 0 is never and 1 is always."""
        return bool(self.rng.random() < probability)


def acceptance(p: np.ndarray, q: np.ndarray, token: int) -> float:
    """With what probability a token drawn from `q` (vocab_size,) is let stand as one of `p`: min(1, p / q).

    >>> acceptance(np.array([0.25, 0.75]), np.array([0.5, 0.5]), 0)
    0.5
    """
    return min(1.0, float(p[token] / q[token])) if p[token] < q[token] else 1.0


def residual(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """What is drawn from instead when a token of `q` was refused: where p exceeds q, normalised.

    With it sum over x of q(x) [accept(x) 1{y = x} + (1 - accept(x)) residual(y)] = p(y): as much of y is made up for
    as was guessed too rarely.

    >>> residual(np.array([0.25, 0.75]), np.array([0.5, 0.5]))
    array([0., 1.])
    """
    missing = np.maximum(p - q, 0.0)
    total = missing.sum()
    return missing / total if total > 0 else p  # p = q up to rounding: nothing is ever refused


class Draft(Protocol):
    def propose(self, text: np.ndarray, n: int, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
        """At most `n` tokens (k,) that may follow `text` (time,), each with the distribution that gave it, (k, V)."""


class SpeculativeStream:
    """Iterate over it for the tokens, as from `stream`; `n_drafted`, `n_accepted` and `n_calls` count along.

    One step: the draft proposes n tokens, drawn from q_1 ... q_n; the model gives p_1 ... p_(n+1) for all of them in
    one `feed_each`; from left to right each proposal stands with probability min(1, p/q). The first that doesn't is
    replaced by a draw from `residual`, and what came after it is forgotten (`rewind`). If all stand, one more token is
    drawn from p_(n+1). So a step gives 1 to n+1 tokens.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: Sequence[int] | np.ndarray,
        max_new_tokens: int,
        *,
        draft: LanguageModel | Lookup,
        n_draft: int = 4,
        processors: Sequence[LogitsProcessor] = (),
        end_token: Ends = None,
        dice: Dice,
    ) -> None:
        self.model, self.processors, self.dice = model, tuple(processors), dice
        self.n_new = as_count(max_new_tokens, "max_new_tokens")
        self.n_draft = as_count(n_draft, "the number of drafted tokens", least=1)
        self.ends = as_ends(end_token, model.vocab_size)
        self.n_drafted = self.n_accepted = self.n_calls = 0
        self._drawn = self._run(as_prompt(tokens, model.vocab_size)[0], self._draft(draft))

    def _draft(self, draft: LanguageModel | Lookup) -> Draft:
        if isinstance(draft, Lookup):
            return LookupDraft(draft, self.model.vocab_size)
        if draft.vocab_size != self.model.vocab_size:
            raise UsageError(
                f"the draft's vocabulary of {draft.vocab_size} tokens is not the model's of {self.model.vocab_size}: "
                "both must speak of the same tokens"
            )
        return ModelDraft(draft, self.processors)

    def __iter__(self) -> Iterator[Drawn]:
        return self._drawn

    def _run(self, text: np.ndarray, draft: Draft) -> Iterator[Drawn]:
        session = self.model.session()
        if self.n_new and len(text) > 1:
            session.feed(text[None, :-1])
        stop = len(text) + self.n_new
        while len(text) < stop:
            proposed, drawn_from = draft.propose(text, min(self.n_draft, stop - len(text) - 1), self.dice)
            logits = session.feed_each(np.append(text[-1:], proposed)[None])[0]
            self.n_calls += 1
            self.n_drafted += len(proposed)
            for i, row in enumerate(logits):
                p = probabilities(self.model, self.processors, text, row)
                stands = i < len(proposed) and self.dice.accept(acceptance(p, drawn_from[i], proposed[i]))
                if stands:
                    token = int(proposed[i])
                    self.n_accepted += 1
                else:
                    token = self.dice.draw(residual(p, drawn_from[i]) if i < len(proposed) else p)
                text = np.append(text, token)
                yield Drawn(token, logprob_of(row, token))
                if token in self.ends:
                    return
                if not stands:
                    break
            session.rewind(session.length - (len(text) - 1))


class LookupDraft:
    """A `Lookup` as a draft: each token is drawn from the distribution that knows no other."""

    def __init__(self, lookup: Lookup, vocab_size: int) -> None:
        self.lookup, self.vocab_size = lookup, vocab_size

    def propose(self, text: np.ndarray, n: int, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
        proposed = self.lookup.find(text, n)
        drawn_from = np.zeros((len(proposed), self.vocab_size))
        drawn_from[np.arange(len(proposed)), proposed] = 1.0
        return proposed, drawn_from


class ModelDraft:
    """A model as a draft. Its session keeps what the text and the last proposals have in common."""

    def __init__(self, model: LanguageModel, processors: Sequence[LogitsProcessor]) -> None:
        self.model, self.processors = model, processors
        self.session = model.session()
        self.fed = np.empty(0, dtype=np.int64)

    def propose(self, text: np.ndarray, n: int, dice: Dice) -> tuple[np.ndarray, np.ndarray]:
        drawn_from = np.empty((n, self.model.vocab_size))
        if n == 0:
            return text[:0], drawn_from
        kept = common_length(self.fed, text[:-1])
        self.session.rewind(len(self.fed) - kept)
        n_before = len(text)
        for i in range(n):
            logits = self.session.feed(text[None, kept:])[0]
            kept = len(text)
            drawn_from[i] = probabilities(self.model, self.processors, text, logits)
            text = np.append(text, dice.draw(drawn_from[i]))
        self.fed = text[:-1]
        return text[n_before:], drawn_from


def common_length(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two texts have in common from the beginning."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def probabilities(
    model: LanguageModel, processors: Sequence[LogitsProcessor], text: np.ndarray, logits: np.ndarray
) -> np.ndarray:
    """The distribution (vocab_size,) that `generate` draws from after `text` (time,), given the model's logits."""
    return np.exp(log_softmax(apply(processors, text[None], logits[None], model.context_length)[0]))
