"""Beam search: the likeliest text instead of the likeliest next token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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


@dataclass(frozen=True)
class BeamStep:
    """Where a search stands after one more token. Whatever runs is continued, dropped or finished at the next step."""

    running: tuple[Beam, ...]
    """The beams that go on, likeliest first; none after the last step."""
    dropped: tuple[Beam, ...]
    """Given up at this step: beams none of whose continuations is among the likeliest, as they were before it;
    finished ones that better ones have pushed out; and, where the search is over, what was running still."""
    finished: tuple[Beam, ...]
    """The best that have ended so far, best first."""


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
    question = _asked(model, tokens, max_new_tokens, n_beams, length_penalty, end_token, early_stopping)
    finished: list[Beam] = []
    for step in _steps(model, question):
        finished = step.finished
    return finished


def beam_steps(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    n_beams: int,
    *,
    length_penalty: float = 1.0,
    end_token: Ends = None,
    early_stopping: bool = False,
) -> Iterator[BeamStep]:
    """`beam_search` token by token, for whoever wants to see what it gives up; the last `finished` are its answer.

    Raises UsageError at once, as `beam_search` does, and not only when the first step is asked for.
    """
    question = _asked(model, tokens, max_new_tokens, n_beams, length_penalty, end_token, early_stopping)
    return (step.told(question.length_penalty) for step in _steps(model, question))


class _Question(NamedTuple):
    prompt: np.ndarray  # (1, time)
    n_new: int
    n_beams: int
    length_penalty: float
    ends: np.ndarray
    stop_when_full: bool


def _asked(
    model: LanguageModel,
    tokens: Sequence[int] | np.ndarray,
    max_new_tokens: int,
    n_beams: int,
    length_penalty: float,
    end_token: Ends,
    early_stopping: bool,
) -> _Question:
    prompt = as_prompt(tokens, model.vocab_size)
    n_new = as_count(max_new_tokens, "max_new_tokens")
    n_beams = as_count(n_beams, "the number of beams", least=1)
    if not is_a_number(length_penalty) or abs(length_penalty) > LARGEST_LENGTH_PENALTY:
        limit = f"-{LARGEST_LENGTH_PENALTY:g} to {LARGEST_LENGTH_PENALTY:g}"
        raise UsageError(f"the length penalty must be a number from {limit}, got {length_penalty}")
    ends = np.array(sorted(as_ends(end_token, model.vocab_size)), dtype=np.int64)
    return _Question(prompt, n_new, n_beams, length_penalty, ends, early_stopping or n_beams == 1)


class _Texts(NamedTuple):
    """New tokens of several texts of one length."""

    tokens: np.ndarray  # (n, length)
    logprobs: np.ndarray  # (n, length), of each token
    sums: np.ndarray  # (n,)

    def only(self, rows: np.ndarray) -> _Texts:
        return _Texts(self.tokens[rows], self.logprobs[rows], self.sums[rows])

    def beams(self, length_penalty: float) -> list[Beam]:
        return [
            _beam(text, logprobs, float(total), length_penalty) for text, logprobs, total in zip(*self, strict=True)
        ]


class _Step(NamedTuple):
    """A `BeamStep` whose texts are still arrays: a search that nobody watches never spells them out."""

    running: _Texts
    dropped: list[_Texts]
    outdone: list[Beam]
    finished: list[Beam]

    def told(self, length_penalty: float) -> BeamStep:
        dropped = [beam for texts in self.dropped for beam in texts.beams(length_penalty)]
        running = self.running.beams(length_penalty)
        return BeamStep(tuple(running), (*dropped, *self.outdone), tuple(self.finished))


def _steps(model: LanguageModel, question: _Question) -> Iterator[_Step]:
    prompt, n_new, n_beams, length_penalty, ends, stop_when_full = question
    session = model.session()
    running = _Texts(np.empty((1, 0), dtype=np.int64), np.empty((1, 0)), np.zeros(1))  # likeliest first
    fed, finished = prompt, list[Beam]()
    for length in range(1, n_new + 1):
        logits = session.feed(fed)
        if logits.size > MOST_CANDIDATES:
            raise TooLargeError(
                f"{len(logits)} beams over a vocabulary of {model.vocab_size} are too many to rank: use fewer beams"
            )
        logprobs = log_softmax(logits)
        candidates = (running.sums[:, None] + logprobs).reshape(-1)
        best = largest(candidates, (1 + len(ends)) * n_beams)
        rows, new = np.divmod(best, model.vocab_size)
        longer = _Texts(
            np.concatenate([running.tokens[rows], new[:, None]], axis=1),
            np.concatenate([running.logprobs[rows], logprobs[rows, new][:, None]], axis=1),
            candidates[best],
        )
        is_done = np.isin(new, ends) | (length == n_new)
        counted, going_on = np.flatnonzero(is_done[:n_beams]), np.flatnonzero(~is_done)[:n_beams]
        left = np.setdiff1d(np.arange(len(logits)), rows[np.concatenate([counted, going_on])])
        dropped, running = [running.only(left)], longer.only(going_on)
        ranked = sorted(finished + longer.only(counted).beams(length_penalty), key=lambda beam: -beam.score)
        finished, outdone = ranked[:n_beams], ranked[n_beams:]
        is_over = len(going_on) == 0 or _is_over(
            finished, n_beams, running.sums[0], length, n_new, length_penalty, stop_when_full
        )
        if is_over:
            dropped, running = [*dropped, running], running.only(going_on[:0])
        yield _Step(running, dropped, outdone, finished)
        if is_over:
            return
        if not np.array_equal(rows[going_on], np.arange(len(logits))):
            session.reorder(rows[going_on])
        fed = running.tokens[:, -1:]


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
