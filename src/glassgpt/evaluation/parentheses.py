"""The language of balanced parentheses as a task: how much probability does a model give to what cannot follow?

The grammar is a counter: "(" adds one, ")" takes one, and neither ")" nor going on below 0, nor an end above 0, is a
word of the language. So what is wrong after a prefix is known exactly, and a model's distribution says how wrong it is
without drawing a single token. Wolfram ("What is ChatGPT doing ... and why does it work?", 2023, Syntactic Grammar and
Parse Trees) showed a small transformer that does well for short strings and fails at longer ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.numerics import log_softmax

OPEN, CLOSE = 1, -1  # what a parenthesis does to the depth


@dataclass(frozen=True)
class Alphabet:
    """The ids of the two parentheses, and of the token that stands before and after every string, if there is one."""

    open: int = 0
    close: int = 1
    end: int | None = 2


def wrong_move(model: LanguageModel, prefixes: np.ndarray, alphabet: Alphabet | None = None) -> np.ndarray:
    """The probability of the token that cannot follow each prefix: a close at depth 0, an end anywhere deeper.

    `prefixes`: int array (n, length) of 1 for "(" and -1 for ")", as `prefixes` gives; the end token, if the alphabet
    has one, is put before them, so that the model sees where the string begins. Returns float64 (n,). Raises
    UsageError for a prefix that is wrong itself, and without an end token for one of length 0 or above depth 0.
    """
    alphabet = alphabet or Alphabet()
    steps = np.asarray(prefixes)
    depths = np.cumsum(np.concatenate([np.zeros((len(steps), 1), dtype=np.int64), steps], axis=1), axis=1)
    if (depths < 0).any():
        raise UsageError("a prefix closes what was never opened: there is no more to go wrong")
    if alphabet.end is None and (steps.shape[1] == 0 or depths[:, -1].any()):
        raise UsageError("without an end token only what follows a balanced prefix can be wrong: a close")
    tokens = np.where(steps == OPEN, alphabet.open, alphabet.close)
    if alphabet.end is not None:
        tokens = np.pad(tokens, ((0, 0), (1, 0)), constant_values=alphabet.end)
    wrong = np.where(depths[:, -1] == 0, alphabet.close, alphabet.close if alphabet.end is None else alphabet.end)
    logprobs = log_softmax(np.asarray(model.next_token_logits(tokens)))
    return np.exp(np.take_along_axis(logprobs, wrong[:, None], axis=1)[:, 0])


def wrong_close_by_length(
    model: LanguageModel, lengths: Sequence[int], alphabet: Alphabet | None = None, n: int = 200, seed: int = 0
) -> np.ndarray:
    """The mean probability of a close after the balanced strings of each (even) length: float64 (lengths,).

    Over all strings of a length if there are at most `n`, else over `n` drawn uniformly from `seed`.
    """
    means = [np.mean(wrong_move(model, prefixes(length, 0, n, seed), alphabet)) for length in lengths]
    return np.array(means, dtype=np.float64)


def wrong_close_by_depth(model: LanguageModel, depths: Sequence[int], alphabet: Alphabet | None = None) -> np.ndarray:
    """The probability of one close too many after each nest, d times "(" and d times ")": float64 (depths,)."""
    nests = [np.repeat([[OPEN, CLOSE]], depth, axis=1) for depth in depths]
    return np.array([wrong_move(model, nest, alphabet)[0] for nest in nests], dtype=np.float64)


def prefixes(length: int, depth: int, n: int, seed: int = 0) -> np.ndarray:
    """Prefixes of the language of `length` parentheses that end `depth` deep: int64 (prefixes, length) of 1 and -1.

    All of them, in a fixed order, if there are at most `n`; else `n` drawn from `seed`, each with equal probability
    (and so perhaps twice). Those of depth 0 are the balanced strings. Raises UsageError if there are none.

    >>> prefixes(4, 0, n=10)
    array([[ 1,  1, -1, -1],
           [ 1, -1,  1, -1]])
    """
    if length < 0 or not 0 <= depth <= length or (length - depth) % 2:
        raise UsageError(f"no prefix of {length} parentheses ends at depth {depth}")
    if n_prefixes(length, depth) <= n:
        return _every_prefix(length, depth)
    return _random_prefixes(length, depth, n, np.random.default_rng([seed, length, depth]))


def n_prefixes(length: int, depth: int) -> int:
    """How many prefixes of `length` parentheses end `depth` deep (the ballot numbers; Catalan's at depth 0)."""
    opened = (length + depth) // 2
    return math.comb(length, opened) - math.comb(length, opened + 1)


def _every_prefix(length: int, depth: int) -> np.ndarray:
    found = np.zeros((1, 0), dtype=np.int64)
    for left in range(length - 1, -1, -1):
        found = np.concatenate([np.repeat(found, 2, axis=0), np.tile([[OPEN], [CLOSE]], (len(found), 1))], axis=1)
        ends = found.sum(axis=1)
        found = found[(ends >= 0) & (abs(ends - depth) <= left)]
    return found


def _random_prefixes(length: int, depth: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """From the last parenthesis to the first: of the prefixes that end here, the share whose last is an open.

    With u opens and v closes there are (d + 1) (u + v)! / ((u + 1)! v!) prefixes, d = u - v; one open less leaves
    d / (d + 1) * (u + 1) / (u + v) of them.
    """
    drawn = np.empty((n, length), dtype=np.int64)
    depths = np.full(n, depth)
    for place in range(length, 0, -1):
        opened = (place + depths) // 2
        is_open = rng.random(n) < depths / (depths + 1) * (opened + 1) / place
        drawn[:, place - 1] = np.where(is_open, OPEN, CLOSE)
        depths -= drawn[:, place - 1]
    return drawn
