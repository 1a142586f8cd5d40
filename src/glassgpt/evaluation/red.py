"""How likely a model is to write a pattern of tokens, where its contexts are too many to be listed: an estimate.

A rare pattern is never met by waiting for it. But wherever a walk stands, the model says how likely the pattern is to
follow from there. So some walks are taken under the sampler, and after each of their tokens the pattern is read on
trial. With w the pattern, L its length and x a walk,

    P(w within n tokens) = E[ sum over t <= n - L of W(x_1..x_t) p(w_1 | x_1..x_t) ... p(w_L | x_1..x_t w_1..w_L-1) ]

over those t from which w would be the first to be completed: a text that completes a pattern is counted once, there.
The walks themselves never complete one: tokens that would are left out of the draw, and W is the product of what was
left of the distribution at each draw. Every walk's sum is positive, unbiased and free of cancellation, and its terms
may be as small as they like, since logarithms are added up. (A forced branch, or insertion, estimate; leaving out what
completes is Rao-Blackwell's step: each draw's chance of being red is replaced by its mean.)

Several patterns are one question: which of them is completed first. One that contains another can't be, so it is left
out; of the rest never two are completed by the same token, which is what keeps the events apart.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from glassgpt.automata import pattern_automaton
from glassgpt.decoding.draw import as_count, as_ends, as_prompt, logprobs_of, sample
from glassgpt.errors import UsageError
from glassgpt.evaluation.intervals import LEVEL
from glassgpt.interface import LanguageModel, Session

WALKS = 256
FIRST_WALKS = 4  # so that a slow model too has something to say soon; then as many again as there are
MOST_WALKS_AT_ONCE = 64
LOGITS_AT_ONCE = 1 << 23
TOKENS_AT_ONCE = 1 << 13  # in the caches of the walks that are taken together
ENOUGH_WALKS = 30.0  # effective ones, for an interval that is worth its name
LARGEST_SHARE = 0.1  # of the estimate that one walk may make up

Pattern = tuple[int, ...]
Draw = Callable[[np.ndarray], np.ndarray]  # logits (walks, V) to a token of each, int64 (walks,)


@dataclass(frozen=True, eq=False)
class RedEstimate:
    """The probability of a pattern within 0, 1, ..., horizon tokens, as far as `n_walks` walks know it.

    `log_within`, `log_low`, `log_high`: float64 (horizon + 1,), natural logarithms of the estimate and of an interval
    that holds the truth with about 95 %; -inf for 0. `effective_walks`: how many walks of equal weight would be as
    good; `largest_share`: how much of the estimate within the whole horizon comes from one walk. `is_exact`: nothing
    was left to chance, and low, high and estimate are one number. `underway`: of so many walks that are being taken,
    so many tokens are drawn.

    The interval is exp(log estimate +- t * relative standard error), t Student's for as many degrees of freedom as
    there are effective walks less one: it widens as those become few. Above, it also ends at a bound on how many walks
    have any chance of red after their start (Clopper & Pearson), which is all there is to say where none had. Of what
    no walk has met it can't know: where a few rare walks carry most of the probability, an estimate looks steady and
    low, and so does its interval, until one of them is met.
    """

    n_walks: int
    log_within: np.ndarray
    log_low: np.ndarray
    log_high: np.ndarray
    effective_walks: float
    largest_share: float
    is_exact: bool = False
    underway: tuple[int, int] = (0, 0)

    @property
    def is_trusted(self) -> bool:
        """Whether the interval may be taken at its word: enough effective walks, and none that makes up too much."""
        return self.is_exact or (self.effective_walks >= ENOUGH_WALKS and self.largest_share <= LARGEST_SHARE)


def estimate_red(
    model: LanguageModel,
    patterns: Sequence[Sequence[int]],
    prompt: Sequence[int] | np.ndarray,
    horizon: int,
    *,
    walks: int = WALKS,
    seconds: float = math.inf,
    seed: int = 0,
    end_token: int | None = None,
    pulse_seconds: float = math.inf,
) -> Iterator[RedEstimate]:
    """How likely any of some patterns (token ids) is within so many tokens after a prompt: ever better estimates.

    `model`: with its sampler, a `Shaped` one: the law is that of the walks. A pattern is looked for in the prompt and
    what follows it, as `chain.walk.Red` has it. `end_token` ends a text, unless it completes a pattern; without one
    no token does.

    The first answer knows no walk, only what can follow at once; then comes one after each batch of walks, until there
    are `walks` of them or `seconds` are over, when a batch under way is given up. Walk i is that of default_rng([seed,
    i]): the same seed and number of walks give the same answer. After `pulse_seconds` without a better answer the last
    one is told again, so that whoever listens can see how far it is, or leave.

    Raises UsageError for an empty prompt or pattern, and NumericalError for logits that are no distribution. Each token
    of each walk costs one token of the model, and for each pattern as many more as it has, less one.
    """
    V = model.vocab_size
    text = as_prompt(prompt, V)[0]
    horizon = as_count(horizon, "the horizon")
    walks, seed = as_count(walks, "the number of walks", 1), as_count(seed, "the seed")
    if not seconds >= 0:
        raise UsageError(f"the time must be 0 seconds or more, got {seconds}")
    watch = Watch(patterns, V, next(iter(as_ends(end_token, V)), None))
    return _estimates(Start(model, watch, text, horizon), walks, time.monotonic() + seconds, seed, pulse_seconds)


def _estimates(start: Start, walks: int, deadline: float, seed: int, pulse: float) -> Iterator[RedEstimate]:
    sums = Sums(start)
    estimate = sums.estimate()
    yield estimate
    told = time.monotonic()
    while sums.n_walks < walks and not estimate.is_exact:
        n = min(max(FIRST_WALKS, sums.n_walks), start.most_at_once, walks - sums.n_walks)
        batch = Batch(start, n, Dice(seed, range(sums.n_walks, sums.n_walks + n)))
        while batch.is_going_on:
            if (now := time.monotonic()) > deadline:
                return
            if now - told > pulse:
                yield replace(estimate, underway=(n, batch.n_drawn))
                told = time.monotonic()
            batch.step()
        sums.add(batch)
        estimate = sums.estimate()
        yield estimate
        told = time.monotonic()


class Dice:
    """Draws the next token of each of some walks, by a generator that is the walk's own."""

    def __init__(self, seed: int, walks: Sequence[int]) -> None:
        self.rngs = [np.random.default_rng([seed, walk]) for walk in walks]

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return np.array([sample(row, rng) for row, rng in zip(logits, self.rngs, strict=True)])


# ---- patterns ------------------------------------------------------------------------------------------------


class Watch:
    """What must be known of some patterns while a text is written.

    `patterns`: those that can be the first to be completed. `left_out[state]`: the tokens that complete one in that
    state of the automaton, or end the text. `may_be_first[pattern]`: see `is_first`.
    """

    def __init__(self, patterns: Sequence[Sequence[int]], vocab_size: int, end_token: int | None = None) -> None:
        self.automaton = pattern_automaton(patterns, vocab_size)  # refuses what is no pattern
        self.patterns = shortest_of([tuple(int(token) for token in pattern) for pattern in patterns])
        self.end_token = end_token
        ends = [] if end_token is None else [end_token]
        delta, accepting = self.automaton.delta, self.automaton.accepting
        self.left_out = [np.union1d(np.flatnonzero(accepting[row]), ends).astype(np.int64) for row in delta]
        self.may_be_first = {pattern: self.is_first(pattern) for pattern in self.patterns}

    def is_first(self, rest: Pattern) -> np.ndarray:
        """From which states `rest` can be read without a pattern completed, or the text ended, before its last token:
        bool (states,)."""
        states = np.arange(self.automaton.n_states)
        for token in rest[:-1]:
            states = self.automaton.delta[states, token]
        return ~self.automaton.accepting[states] & (self.end_token not in rest[:-1])


def shortest_of(patterns: Sequence[Pattern]) -> list[Pattern]:
    """The patterns, each once, that contain no other: a text that holds any of them holds one of these, no later.

    >>> shortest_of([(1, 2, 3), (2,), (1, 1), (1, 1)])
    [(2,), (1, 1)]
    """

    def contains(whole: Pattern, part: Pattern) -> bool:
        return any(whole[i : i + len(part)] == part for i in range(len(whole) - len(part) + 1))

    distinct = list(dict.fromkeys(patterns))
    return [whole for whole in distinct if not any(part != whole and contains(whole, part) for part in distinct)]


# ---- walks ---------------------------------------------------------------------------------------------------


class Start:
    """The text that all walks begin with, read once, and what can follow it at once.

    `log_chances`: ln P of a pattern that begins in the prompt or right after it, and is the first to be completed, by
    the n-th token: float64 (horizon + 1,). `n_sure`: within so many tokens there is no other. `most_at_once`: so many
    walks fit in memory together.
    """

    def __init__(self, model: LanguageModel, watch: Watch, prompt: np.ndarray, horizon: int) -> None:
        self.watch, self.horizon = watch, horizon
        self.state = watch.automaton.run(int(token) for token in prompt)
        self.log_chances = np.full(horizon + 1, -math.inf)
        lengths = [len(pattern) for pattern in watch.patterns]
        self.n_sure = min(horizon, min(lengths))
        seen = min(len(prompt), model.context_length)
        fitting = TOKENS_AT_ONCE // (seen + horizon + max(lengths)), LOGITS_AT_ONCE // (max(lengths) * model.vocab_size)
        self.most_at_once = max(1, min(*fitting, MOST_WALKS_AT_ONCE))
        if watch.automaton.accepting[self.state]:
            self.n_sure, self.log_chances[0] = horizon, 0.0
            return
        self.session = model.session()
        self.logits = _float64(self.session.feed(prompt[None, -seen:]))
        for pattern in watch.patterns:
            for begun in range(min(len(pattern), len(prompt) + 1)):
                if tuple(prompt[len(prompt) - begun :]) == pattern[:begun]:
                    self._add(pattern[begun:])

    def _add(self, rest: Pattern) -> None:
        n = len(rest)
        if n <= self.horizon and self.watch.is_first(rest)[self.state]:
            chance = _chance_after(self.session, self.logits, rest)[0]
            self.log_chances[n] = np.logaddexp(self.log_chances[n], chance)


class Batch:
    """Walks that are taken together, a token of each at a time.

    `log_chances`: as of `Start`, what each walk gives after its own tokens: float64 (walks, horizon + 1).
    `had_choice`: whether any draw of them could have gone otherwise.
    """

    def __init__(self, start: Start, n: int, draw: Draw) -> None:
        self.start, self.draw = start, draw
        self.session = start.session.fork()
        self.session.reorder(np.zeros(n, dtype=np.int64))
        self.logits = np.repeat(start.logits, n, axis=0)
        self.states, self.log_weight = np.full(n, start.state), np.zeros(n)
        self.log_chances = np.full((n, start.horizon + 1), -math.inf)
        self.n_drawn, self.had_choice = 0, False

    @property
    def is_going_on(self) -> bool:
        """Whether there is room for a pattern after one more token, and a walk that could take it."""
        return self.n_drawn < self.start.horizon - self.start.n_sure and bool((self.log_weight > -math.inf).any())

    def step(self) -> None:
        watch = self.start.watch
        kept, log_left = self._without_red()
        self.log_weight = self.log_weight + log_left
        alive = self.log_weight > -math.inf  # the others have no token left, and count no more
        self.had_choice |= bool(((kept > -math.inf).sum(axis=1) > 1)[alive].any())
        tokens = self.draw(np.where(alive[:, None], kept, self.logits))
        self.states = watch.automaton.delta[self.states, tokens]
        self.n_drawn += 1
        room = self.start.horizon - self.n_drawn
        self.logits, chances = _fed(self.session, tokens, [one for one in watch.patterns if len(one) <= room])
        for pattern, chance in chances.items():
            counted = self.log_weight + np.where(watch.may_be_first[pattern][self.states], chance, -math.inf)
            by_then = self.log_chances[:, self.n_drawn + len(pattern)]
            np.logaddexp(by_then, counted, out=by_then)

    def _without_red(self) -> tuple[np.ndarray, np.ndarray]:
        """The logits without the tokens that would be red or the end, and ln of the probability of all the others."""
        kept = self.logits.copy()
        for state in np.unique(self.states):
            kept[np.ix_(self.states == state, self.start.watch.left_out[state])] = -math.inf
        return kept, _log_sum(kept) - _log_sum(self.logits)


def _fed(
    session: Session, tokens: np.ndarray, patterns: Sequence[Pattern]
) -> tuple[np.ndarray, dict[Pattern, np.ndarray]]:
    """Feed each text its token: the logits of what follows (texts, V), and ln P of each pattern following (texts,).

    The first pattern is read in one call with the token, which costs a model little more than the token alone.
    """
    run: Pattern = patterns[0][:-1] if patterns else ()
    on_trial = np.tile(np.array(run, dtype=np.int64), (len(tokens), 1))
    answers = session.feed_each(np.concatenate([tokens[:, None], on_trial], axis=1))
    session.rewind(len(run))
    logits = _float64(answers[:, 0])
    chances = {pattern: _chance(answers, pattern) for pattern in patterns[:1]}
    for pattern in patterns[1:]:
        chances[pattern] = _chance_after(session, logits, pattern)
    return logits, chances


def _chance_after(session: Session, logits: np.ndarray, pattern: Pattern) -> np.ndarray:
    """ln P that a pattern follows the texts of a session, which stays where it is; `logits` are what it said last."""
    chance = _chance(logits[:, None], pattern[:1])
    if len(pattern) > 1:
        chance = chance + _chance(session.feed_each(np.tile(pattern[:-1], (len(logits), 1))), pattern[1:])
        session.rewind(len(pattern) - 1)
    return chance


def _chance(answers: np.ndarray, tokens: Pattern) -> np.ndarray:
    """The sum of ln P of the j-th token under the j-th logits: (texts, >= tokens, V) to (texts,)."""
    chance = np.zeros(len(answers))
    for j, token in enumerate(tokens):
        chance += logprobs_of(_float64(answers[:, j]), np.full(len(answers), token))
    return chance


def _log_sum(logits: np.ndarray) -> np.ndarray:
    """ln of the sum of exp over the last axis; -inf where all are."""
    top = np.max(logits, axis=-1)
    shift = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore"):
        return np.asarray(shift + np.log(np.sum(np.exp(logits - shift[:, None]), axis=-1)))


def _float64(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits, dtype=np.float64)


# ---- what walks add up to ------------------------------------------------------------------------------------


class Sums:
    """Of what each walk gave after its start, within n tokens, sums over the walks: float64 (horizon + 1,) each.

    Logarithms of the sum, the sum of squares and the largest, and of how many it was not 0.
    """

    def __init__(self, start: Start) -> None:
        size = start.horizon + 1
        self.at_once = np.logaddexp.accumulate(start.log_chances)
        self.is_sure = np.arange(size) <= start.n_sure
        self.n_walks, self.n_met = 0, np.zeros(size, dtype=np.int64)
        self.total, self.squares, self.largest = (np.full(size, -math.inf) for _ in range(3))

    def add(self, batch: Batch) -> None:
        within = np.logaddexp.accumulate(batch.log_chances, axis=1)
        self.n_walks += len(within)
        self.n_met += (within > -math.inf).sum(axis=0)
        self.total = np.logaddexp(self.total, np.logaddexp.reduce(within, axis=0))
        self.squares = np.logaddexp(self.squares, np.logaddexp.reduce(2 * within, axis=0))
        self.largest = np.maximum(self.largest, within.max(axis=0))
        if not batch.had_choice:  # all walks are this one
            self.is_sure[:] = True

    def estimate(self) -> RedEstimate:
        n = max(self.n_walks, 1)
        within = np.logaddexp(self.at_once, self.total - math.log(n))
        variance = self._variance(within)
        effective = np.where(within > -math.inf, self.n_walks / (1 + variance * (n - 1)), 0.0)
        width = _width(variance, effective)
        low, high = self.at_once.copy(), np.zeros(len(within))
        told = width < math.inf
        low[told] = np.maximum(within[told] - width[told], low[told])
        high[told] = within[told] + width[told]
        high = np.minimum(high, np.logaddexp(self.at_once, self._log_chance_of_meeting()))
        low, high = np.where(self.is_sure, within, low), np.where(self.is_sure, within, high)
        heaviest = np.logaddexp(self.at_once[-1], self.largest[-1]) - math.log(n)
        return RedEstimate(
            self.n_walks,
            np.minimum(within, 0.0),  # an estimate may exceed 1, and a probability can't
            np.minimum(low, 0.0),
            np.minimum(high, 0.0),
            float(effective[-1]),
            math.exp(min(heaviest - within[-1], 0.0)) if self.n_walks and within[-1] > -math.inf else 0.0,
            bool(self.is_sure.all()),
        )

    def _variance(self, within: np.ndarray) -> np.ndarray:
        """Of the estimate, relative to its square. A single walk is as good as one."""
        n, met = self.n_walks, self.n_met > 0
        variance = np.zeros(len(within))
        if n > 1:
            squared = np.exp(self.squares[met] - 2 * self.total[met] + math.log(n))  # the mean one over the mean's
            share = np.exp(self.total[met] - math.log(n) - within[met])  # that walks have in the estimate
            variance[met] = np.maximum(squared - 1, 0.0) / (n - 1) * share**2
        return variance

    def _log_chance_of_meeting(self) -> np.ndarray:
        """ln of the largest probability, at the interval's level, of a walk having any chance of red after its start.

        Whoever is red has had one, so that it bounds red too.
        """
        from scipy.special import betaincinv

        met, missed = self.n_met, self.n_walks - self.n_met
        most = np.ones(len(met))
        most[missed > 0] = betaincinv(met[missed > 0] + 1, missed[missed > 0], (1 + LEVEL) / 2)
        return np.log(most)


def _width(variance: np.ndarray, effective: np.ndarray) -> np.ndarray:
    """Half the interval's width in logarithms, by the relative variance of the mean; inf where nothing is known."""
    from scipy.special import stdtrit

    width = np.full(len(variance), math.inf)
    told = effective > 1.001  # a single walk, or one that makes up everything, tells nothing of the others
    width[told] = stdtrit(effective[told] - 1, (1 + LEVEL) / 2) * np.sqrt(variance[told])
    return width
