"""A draw before it is made: the likeliest tokens after a context, what a sampler makes of them, and what it cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.decoding.draw import as_count, as_prompt
from glassgpt.decoding.processors import MinP, RepetitionPenalty, Temperature, TopK, TopP, apply
from glassgpt.display import Displayed
from glassgpt.interface import LanguageModel, LogitsProcessor
from glassgpt.numerics import LN2, entropy, log_softmax
from glassgpt.numerics import spelled as spelled_probability

CUTS = (TopK, TopP, MinP)  # the processors that exclude the unlikely; the others only reshape


@dataclass(frozen=True, eq=False)
class NextTokens(Displayed):
    """What may come next after one context: n listed tokens, and the rest of the vocabulary as one.

    setting: the sampler in words. tokens: how the n listed ones are written. ids: int64 (n,).
    model, uncut, cut, drawn: float64 (n + 1,), the last entry for the rest taken together.
        model: the probability under the model itself. uncut: under the sampler if it excluded nothing, so after the
        repetition penalty and the temperature. cut: how much of `uncut` the sampler then excludes (all of a token's or
        nothing; of the rest some). drawn: what the next token is drawn from, what is left, made to add up to 1.
    n_uncut, n_kept: how many tokens of the whole vocabulary are possible at all, before the cuts and after them.
    model_bits, uncut_bits, drawn_bits: the entropies of the three distributions over the whole vocabulary.
    """

    setting: str
    tokens: tuple[str, ...]
    ids: np.ndarray
    model: np.ndarray
    uncut: np.ndarray
    cut: np.ndarray
    drawn: np.ndarray
    vocab_size: int
    n_uncut: int
    n_kept: int
    model_bits: float
    uncut_bits: float
    drawn_bits: float

    def __repr__(self) -> str:
        names = [*map(repr, self.tokens), *([f"{self.n_rest:,} others"] if self.n_rest else [])]
        with np.errstate(divide="ignore"):
            log10 = np.log10(self.drawn)
        lines = [f"{spelled_probability(float(log10[i])):>9}  {name}" for i, name in enumerate(names)]
        return "\n".join([f"next token under {self.setting}, {self.drawn_bits:.2f} bits:", *lines])

    @property
    def n_rest(self) -> int:
        """How many tokens are not listed."""
        return self.vocab_size - len(self.tokens)

    @property
    def kept_mass(self) -> float:
        """The share of the uncut distribution that stays."""
        return float(1 - np.sum(self.cut))


def next_tokens(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    name_of: Callable[[int], str],
    samplers: Sequence[Sequence[LogitsProcessor]] = ((),),
    n: int = 10,
) -> list[NextTokens]:
    """The `n` likeliest tokens after the context `tokens` (ids, at least one), under each of `samplers`.

    The listed tokens are the likeliest under the model itself, lower ids first among equals, and so the same under all
    samplers. The model is asked once. A sampler is a list of processors, as `processors(...)` makes it; the empty one
    is the model itself. `name_of` says how an id is written. Raises UsageError for an empty context, ids outside the
    vocabulary and n below 1, NumericalError for logits that mean nothing.
    """
    context, n = as_prompt(tokens, model.vocab_size), min(as_count(n, "n", least=1), model.vocab_size)
    logits = np.asarray(model.next_token_logits(context))

    def shaped(chosen: Sequence[LogitsProcessor]) -> np.ndarray:
        return log_softmax(apply(chosen, context, logits, model.context_length)[0])

    itself = shaped(())
    ids = np.argsort(-itself, kind="stable")[:n]
    names = tuple(name_of(int(token)) for token in ids)
    found = []
    for sampler in samplers:
        uncut = shaped([one for one in sampler if not isinstance(one, CUTS)])
        drawn = shaped(sampler)
        excluded = np.isneginf(drawn)
        found.append(
            NextTokens(
                setting=spelled(sampler),
                tokens=names,
                ids=ids,
                model=_listed(np.exp(itself), ids),
                uncut=_listed(np.exp(uncut), ids),
                cut=_listed(np.where(excluded, np.exp(uncut), 0.0), ids),
                drawn=_listed(np.exp(drawn), ids),
                vocab_size=model.vocab_size,
                n_uncut=int(np.sum(~np.isneginf(uncut))),
                n_kept=int(np.sum(~excluded)),
                model_bits=_bits(itself),
                uncut_bits=_bits(uncut),
                drawn_bits=_bits(drawn),
            )
        )
    return found


def spelled(sampler: Sequence[LogitsProcessor]) -> str:
    """A sampler in words.

    >>> spelled([Temperature(0.7), TopK(5)]), spelled([])
    ('temperature 0.7, top-k 5', 'the model itself')
    """
    return ", ".join(map(_spelled_one, sampler)) or "the model itself"


def _spelled_one(processor: LogitsProcessor) -> str:
    match processor:
        case RepetitionPenalty(value):
            return f"repetition penalty {value:g}"
        case Temperature(value):
            return f"temperature {value:g}"
        case TopK(value):
            return f"top-k {value}"
        case TopP(value):
            return f"top-p {value:g}"
        case MinP(value):
            return f"min-p {value:g}"
    return type(processor).__name__


def _listed(probs: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """The entries of `ids`, and the sum of all others after them."""
    others = np.ones(len(probs), dtype=np.bool_)
    others[ids] = False
    return np.append(probs[ids], np.sum(probs[others]))


def _bits(logprobs: np.ndarray) -> float:
    return float(entropy(logprobs)) / LN2 + 0.0  # no minus zero
