"""n-grams of every length at once: what followed the longest history that was ever seen, and what the shorter add.

A plain n-gram knows nothing after a history that it never saw. Backing off asks the next shorter history, down to the
uniform distribution, so that a long history costs nothing where it is rare.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import Array, LanguageModel, as_contexts

NOTHING = -1  # stands where a text has no token yet


@dataclass(frozen=True, eq=False)
class Grams:
    """What followed each history of one length, for the histories that were followed by anything; all sorted.

    Histories are numbered. `histories[i]` is the number of history i without its oldest token, times vocab_size, plus
    that token. A gram is a history's number times vocab_size, plus the token that followed; the grams of history i
    stand in grams[starts[i] : starts[i + 1]].
    """

    histories: np.ndarray
    grams: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, histories: np.ndarray, grams: np.ndarray, vocab_size: int) -> Grams:
        return cls(histories, grams, np.searchsorted(grams, np.arange(len(histories) + 1) * vocab_size))


@dataclass(frozen=True, eq=False)
class Counts:
    """How often each gram counts (`times`, int32), with what each history's add up to, and the discount of each."""

    of: Grams
    times: np.ndarray
    total: np.ndarray
    discount: float

    @classmethod
    def counted(cls, of: Grams, times: np.ndarray) -> Counts:
        return cls(of, times.astype(np.int32), np.add.reduceat(times, of.starts[:-1]), discount_of(times))

    def left(self, numbers: np.ndarray) -> np.ndarray:
        """The probability that the histories `numbers` leave to the next shorter one."""
        return self.discount * (self.of.starts[numbers + 1] - self.of.starts[numbers]) / self.total[numbers]


class KneserNey(LanguageModel):
    """Interpolated Kneser-Ney: the n-grams of 1 to n tokens in one distribution; `n` counts the predicted token too.

        P(w | h) = max(c(hw) - D, 0) / c(h) + D d(h) / c(h) * Q(w | h')

    c(hw) is how often w followed the history h, c(h) the sum over w, d(h) how many different tokens followed, and h' is
    h without its oldest token. Q is the same formula, of which every shorter history is asked in turn, with other
    counts: not how often hw occurred but after how many different tokens, the beginning of the text being one of them
    ("Francisco" is frequent and follows one word). Below the empty history lies the uniform 1 / vocab_size. So no token
    is impossible, and every row sums to 1 (to rounding). After a history that was never followed P(w | h) = Q(w | h').
    Each length has its discount D = n1 / (n1 + 2 n2), n1 and n2 grams counting 1 and 2; 1/2 if either is 0.

    A history of k < n - 1 tokens, as at the beginning of a text, is answered exactly as by the model of n = k + 1, so
    one model holds all shorter ones. `context_length` is n - 1, or 1 for the unigram, which looks at nothing.

    Counting sorts the text a few times for each length, O(n N log N): a second or two for a million tokens at
    n = 6. `n_bytes` are kept, at most 48 for each different gram of each length; about 60 N more while counting.
    Raises UsageError for n < 1, for no tokens, and for ids outside the vocabulary.

    Source: Kneser and Ney, "Improved backing-off for m-gram language modeling", ICASSP 1995, in the interpolated form
    with one discount a length of Chen and Goodman, TR-10-98, Harvard 1998. Differs in the bottom, uniform here. Tried
    beside it on tiny Shakespeare's last tenth, n = 6, in bits a character: Witten-Bell's form 2.45, absolute
    discounting without continuations 2.52, this one 2.25.

    >>> model = KneserNey([0, 1, 0, 1, 1], vocab_size=2, n=2)
    >>> np.exp(model.next_token_logits([[0], [1]]))  # D = 1/2 and Q = 1/2, 1/2; after 0: 1 twice, (2 - D) / 2 + D / 4
    array([[0.125, 0.875],
           [0.5  , 0.5  ]])
    """

    def __init__(self, tokens: Sequence[int] | np.ndarray, vocab_size: int, n: int) -> None:
        if n < 1:
            raise UsageError(f"an n-gram needs n >= 1 (n = 1 looks at no history), got n = {n}")
        text = as_contexts(np.asarray(tokens).reshape(1, -1), vocab_size)[0]
        if len(text) * vocab_size >= 2**63:
            raise UsageError(f"{len(text):,} tokens of a vocabulary of {vocab_size:,} are more than int64 can number")
        self.vocab_size = vocab_size
        self.context_length = max(1, n - 1)
        self.n = n
        self._occurrences, self._continuations = count(text, vocab_size, n)
        self._empty = np.full((2, vocab_size), 1 / vocab_size)  # after the empty history: in Q, and in P
        for row, levels in enumerate((self._continuations, self._occurrences)):
            if levels:  # a unigram has nothing to continue
                blend(self._empty, levels[0], np.array([row]), np.array([0]))

    @property
    def n_counts(self) -> int:
        """How many different n-grams, of all lengths, are kept with their counts."""
        return sum(len(counts.times) for counts in self._occurrences)

    @property
    def n_bytes(self) -> int:
        """The memory that the counts take."""
        grams = [part for c in self._occurrences for part in (c.of.histories, c.of.grams, c.of.starts)]
        counts = [part for c in self._occurrences + self._continuations for part in (c.times, c.total)]
        return sum(part.nbytes for part in grams + counts)

    def next_token_logits(self, contexts: Array) -> np.ndarray:
        return np.log(self._probs(as_contexts(contexts, self.vocab_size)))

    def sequence_logits(self, tokens: Array) -> np.ndarray:
        tokens = as_contexts(tokens, self.vocab_size)
        logits = np.log(self._probs(self._windows(tokens).reshape(-1, self.context_length)))
        return logits.reshape(*tokens.shape, self.vocab_size)

    def text_logprobs(self, tokens: Sequence[int] | np.ndarray) -> np.ndarray:
        """The log-probability of every token of a text given those before it: float64 (time,).

        The same numbers as `sequence_logits` holds, without the other tokens': a vocabulary of 50,000 words costs no
        more than one of 65 characters. The first token has that of the unigram.
        """
        text = as_contexts(np.asarray(tokens).reshape(1, -1), self.vocab_size)
        histories = np.pad(self._windows(text)[0, :-1], ((1, 0), (0, 0)), constant_values=NOTHING)
        probs = np.full(text.shape[1], 1 / self.vocab_size)
        for counts, rows, numbers in self._longer_and_longer(histories):
            places, seen = find(counts.of.grams, numbers * self.vocab_size + text[0, rows])
            kept = np.where(seen, counts.times[places] - counts.discount, 0.0) / counts.total[numbers]
            probs[rows] = kept + counts.left(numbers) * probs[rows]
        return np.log(probs)

    def _windows(self, tokens: np.ndarray) -> np.ndarray:
        """The last `context_length` tokens of every prefix, NOTHING before the first: (batch, time, context_length)."""
        padded = np.pad(tokens, ((0, 0), (self.context_length - 1, 0)), constant_values=NOTHING)
        return np.lib.stride_tricks.sliding_window_view(padded, self.context_length, axis=1)

    def _probs(self, contexts: np.ndarray) -> np.ndarray:
        probs = self._empty[(self._lengths(contexts) == 0).astype(np.int64)]
        for counts, rows, numbers in self._longer_and_longer(contexts):
            if counts.of is not self._occurrences[0].of:
                blend(probs, counts, rows, numbers)
        return probs

    def _lengths(self, contexts: np.ndarray) -> np.ndarray:
        """How many tokens of each context count."""
        return np.minimum(np.sum(contexts != NOTHING, axis=1), self.n - 1)

    def _longer_and_longer(self, contexts: np.ndarray) -> Iterator[tuple[Counts, np.ndarray, np.ndarray]]:
        """For each length of history, shortest first: counts, the rows whose history has any, and its number.

        Occurrences count where the history is all that there is of the context, else continuations.
        """
        lengths = self._lengths(contexts)
        rows, numbers = np.arange(len(contexts)), np.zeros(len(contexts), dtype=np.int64)
        for k, counts in enumerate(self._occurrences[: contexts.shape[1] + 1]):
            if k:
                oldest = contexts[rows, -k]
                places, seen = find(counts.of.histories, numbers * self.vocab_size + oldest)
                seen &= oldest != NOTHING
                rows, numbers = rows[seen], places[seen]
            whole = lengths[rows] == k
            if whole.any():
                yield counts, rows[whole], numbers[whole]
            if not whole.all():
                yield self._continuations[k], rows[~whole], numbers[~whole]


def discount_of(times: np.ndarray) -> float:
    """What Kneser-Ney takes off each count, in (0, 1): n1 / (n1 + 2 n2), or 1/2 if nothing counts 1 or nothing 2."""
    once, twice = int(np.sum(times == 1)), int(np.sum(times == 2))
    return once / (once + 2 * twice) if once and twice else 0.5


def blend(probs: np.ndarray, counts: Counts, rows: np.ndarray, numbers: np.ndarray) -> None:
    """Turn the `rows` of `probs`, which hold Q(w | h'), into P(w | h) of the histories `numbers`, in place."""
    probs[rows] *= counts.left(numbers)[:, None]
    first = counts.of.starts[numbers]
    lengths = counts.of.starts[numbers + 1] - first
    ends = np.cumsum(lengths)
    places = np.arange(ends[-1]) + np.repeat(first - (ends - lengths), lengths)
    followers = counts.of.grams[places] % probs.shape[1]
    kept = (counts.times[places] - counts.discount) / np.repeat(counts.total[numbers], lengths)
    probs[np.repeat(rows, lengths), followers] += kept


def count(text: np.ndarray, vocab_size: int, n: int) -> tuple[list[Counts], list[Counts]]:
    """What followed each history of 0, 1, ... n - 1 tokens, as far as the text is long enough: how often each token
    did, and after how many different tokens (or the beginning of the text) history and token stood."""
    occurrences, continuations = [], []
    histories, numbers = np.zeros(1, dtype=np.int64), np.zeros(len(text), dtype=np.int64)  # of what precedes each place
    for k in range(min(n, len(text))):
        if k:
            first = numbers[0] * vocab_size + text[k - 1]
            histories, numbers = np.unique(numbers[1:] * vocab_size + text[:-k], return_inverse=True)
        grams, times = np.unique(numbers * vocab_size + text[k:], return_counts=True)
        occurrences.append(Counts.counted(Grams.of(histories, grams, vocab_size), times))
        if k:
            shorter = occurrences[-2].of
            preceded = histories[grams // vocab_size] // vocab_size * vocab_size + grams % vocab_size
            places, _ = find(shorter.grams, np.append(preceded, first))
            continuations.append(Counts.counted(shorter, np.bincount(places, minlength=len(shorter.grams))))
    if len(occurrences) < n:  # the longest history leads to the last token of the text, once
        continuations.append(occurrences[-1])
    return occurrences, continuations


def find(sorted_values: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `wanted` stands among `sorted_values` (at least one), and whether it does."""
    places = np.minimum(np.searchsorted(sorted_values, wanted), len(sorted_values) - 1)
    return places, sorted_values[places] == wanted
