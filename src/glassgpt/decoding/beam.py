"""Beam search: the likeliest text instead of the likeliest next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.decoding.draw import Ends, as_count, as_ends, as_prompt, is_a_number
from glassgpt.errors import TooLargeError, UsageError
from glassgpt.interface import LanguageModel
from glassgpt.numerics import log_softmax

MOST_CANDIDATES = 1 << 28  # beams times vocabulary, 2 GiB of float64
LARGEST_LENGTH_PENALTY = 10.0  # lengths raised to it must stay numbers


@dataclass(frozen=True)
class Beam:
    """New tokens that follow a prompt, their joint log-probability (natural), and the score they are ranked by."""

    tokens: tuple[int, ...]
    logprob: float
    score: float
    logprobs: tuple[float, ...]
    """Of each token; `logprob` is their sum."""


def beam_search(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    n_beams: int,
    *,
    length_penalty: float = 1.0,
    end_token: Ends = None,
    early_stopping: bool = False,
) -> list[Beam]:
    """The best texts that the search finds, at most `n_beams`, best first; none twice.

    Of all one-token continuations of the beams the `n_beams` likeliest count, in the order of their log-probability,
    then of their beam, then of their id. Those that end in an `end_token` are finished; the likeliest others, always
    `n_beams` if there are as many, go on. What reaches `max_new_tokens` is finished there. A token of probability 0
    is never taken, so a model that can't go on that far may leave fewer beams, or none.

    score = logprob / length**length_penalty, `length` the number of new tokens, an end token included: transformers'
    formula, which above 0 favours long texts (GNMT, arXiv 1609.08144, divides by ((5 + length) / 6)**length_penalty
    instead). The search is over when `n_beams` are finished and the best running beam can't beat the worst of them,
    even if every token to come were certain: at `max_new_tokens` for a penalty above 0, at its present length
    otherwise. That bound is exact, so nothing the search could still have found is lost; transformers' default is a
    heuristic instead, and its early_stopping="never" is this rule. With `early_stopping` the search is over as soon
    as `n_beams` are finished. One beam always stops so: then it is greedy decoding. As many beams as there are texts
    make it exhaustive.

    `model` is taken as it is: give a `Shaped` one to search under processors.
    """
    prompt = as_prompt(tokens, model.vocab_size)
    n_new = as_count(max_new_tokens, "max_new_tokens")
    n_beams = as_count(n_beams, "the number of beams", least=1)
    if not is_a_number(length_penalty) or abs(length_penalty) > LARGEST_LENGTH_PENALTY:
        limit = f"-{LARGEST_LENGTH_PENALTY:g} to {LARGEST_LENGTH_PENALTY:g}"
        raise UsageError(f"the length penalty must be a number from {limit}, got {length_penalty}")
    ends = np.array(sorted(as_ends(end_token, model.vocab_size)), dtype=np.int64)
    if n_new == 0:
        return []
    return _search(model, prompt, n_new, n_beams, length_penalty, ends, early_stopping or n_beams == 1)


def _search(
    model: LanguageModel,
    prompt: np.ndarray,
    n_new: int,
    n_beams: int,
    length_penalty: float,
    ends: np.ndarray,
    stop_when_full: bool,
) -> list[Beam]:
    session = model.session()
    logits = session.feed(prompt)
    texts = np.empty((1, 0), dtype=np.int64)  # the running beams, likeliest first
    steps = np.empty((1, 0))  # the log-probability of each of their tokens
    sums = np.zeros(1)
    finished: list[Beam] = []
    for length in range(1, n_new + 1):
        if logits.size > MOST_CANDIDATES:
            raise TooLargeError(
                f"{len(logits)} beams over a vocabulary of {model.vocab_size} are too many to rank: use fewer beams"
            )
        logprobs = log_softmax(logits)
        candidates = (sums[:, None] + logprobs).reshape(-1)
        best = largest(candidates, (1 + len(ends)) * n_beams)
        rows, new = np.divmod(best, model.vocab_size)
        texts = np.concatenate([texts[rows], new[:, None]], axis=1)
        steps = np.concatenate([steps[rows], logprobs[rows, new][:, None]], axis=1)
        sums = candidates[best]
        is_done = np.isin(new, ends) | (length == n_new)
        counted = np.flatnonzero(is_done[:n_beams])
        finished += [_beam(texts[i], steps[i], float(sums[i]), length_penalty) for i in counted]
        finished = sorted(finished, key=lambda beam: -beam.score)[:n_beams]
        going_on = np.flatnonzero(~is_done)[:n_beams]
        texts, steps, sums = texts[going_on], steps[going_on], sums[going_on]
        if len(texts) == 0 or _is_over(finished, n_beams, sums[0], length, n_new, length_penalty, stop_when_full):
            break
        if not np.array_equal(rows[going_on], np.arange(len(logits))):
            session.reorder(rows[going_on])
        logits = session.feed(texts[:, -1:])
    return finished


def _beam(tokens: np.ndarray, logprobs: np.ndarray, logprob: float, length_penalty: float) -> Beam:
    score = logprob / len(tokens) ** length_penalty
    return Beam(tuple(map(int, tokens)), logprob, score, tuple(map(float, logprobs)))


def _is_over(
    finished: list[Beam],
    n_beams: int,
    best_running: float,
    length: int,
    n_new: int,
    length_penalty: float,
    stop_when_full: bool,
) -> bool:
    if len(finished) < n_beams:
        return False
    within_reach = best_running / (n_new if length_penalty > 0 else length) ** length_penalty
    return stop_when_full or within_reach <= finished[-1].score


def largest(values: np.ndarray, n: int) -> np.ndarray:
    """Where the `n` largest of `values` (n_values,) stand, falling, the lower index first among equals; -inf never."""
    if n < len(values):
        at_least = np.partition(values, len(values) - n)[len(values) - n]
        kept = np.flatnonzero((values >= at_least) & (values > -np.inf))
    else:
        kept = np.flatnonzero(values > -np.inf)
    return kept[np.argsort(-values[kept], kind="stable")][:n]
