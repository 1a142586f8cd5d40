"""What counting finds in a text: its letters, pairs of letters and words, and what n-grams write that have counted it.

A text is read as words (runs of letters, in lower case), or as letters: those of the words, with one space between two
words. Shannon ("A Mathematical Theory of Communication", 1948, section 3) let n-grams of letters and words of growing n
write text; Wolfram ("What is ChatGPT doing ... and why does it work?", 2023) shows them on the way to a GPT.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from glassgpt.decoding.draw import as_count
from glassgpt.decoding.generate import stream
from glassgpt.errors import UsageError
from glassgpt.models.backoff import KneserNey
from glassgpt.numerics import count_windows

WORD = re.compile(r"[^\s']+(?:'[^\s']+)*")
SPACE = " "
MOST_SIGNS, RAREST = 36, 1e-4
LENGTHS = (1, 2, 3, 4, 5, 6)
N_TOKENS = {"letters": 150, "words": 25}
"""The units that a text is read in, and how many of them `write` writes if it isn't told: about equally much text."""


@dataclass(frozen=True, eq=False)
class Frequencies:
    """How often each of a text's words or letters occurs, the most frequent first, equals in alphabetical order.

    counts: int64 (names,).
    """

    names: tuple[str, ...]
    counts: np.ndarray


@dataclass(frozen=True, eq=False)
class LetterPairs:
    """How often a letter is followed by another: the space, then the most frequent letters in alphabetical order.

    counts: int64 (signs, signs), row: this letter, column: the next. totals: int64 (signs,), how often this letter is
    followed by any, those that are not among the signs included.
    """

    signs: tuple[str, ...]
    counts: np.ndarray
    totals: np.ndarray


@dataclass(frozen=True)
class Written:
    """What an n-gram model wrote.

    unit: "letters" or "words". n: how many of them are counted together, the predicted one included. known: of letters,
    the share of the words that they make which the counted text has too, in [0, 1], without a last one that is broken
    off; None if there is no whole word. copied: the longest stretch, in units, that stands in the counted text just so.
    """

    unit: str
    n: int
    text: str
    known: float | None
    copied: int


def words_of(text: str) -> list[str]:
    """The words of a text in lower case: letters of any script, with apostrophes between two.

    >>> words_of("Don't PANIC: it's 42_times ok")
    ["don't", 'panic', "it's", 'times', 'ok']
    """
    lower = unicodedata.normalize("NFC", text).replace("’", "'").lower()
    return WORD.findall("".join(c if c.isalpha() or c == "'" else SPACE for c in lower))


def letters_of(text: str) -> str:
    """The letters of a text in lower case, with one space between two words; apostrophes are left out.

    >>> letters_of("Don't PANIC: it's 42_times ok")
    'dont panic its times ok'
    """
    return SPACE.join(words_of(text)).replace("'", "")


def letter_frequencies(text: str) -> Frequencies:
    """How often each letter occurs, and the space between words. Raises UsageError for a text without letters."""
    return _frequencies(Counter(_some(list(letters_of(text)))))


def word_frequencies(text: str) -> Frequencies:
    """How often each word occurs. Raises UsageError for a text without words."""
    return _frequencies(Counter(_some(words_of(text))))


def letter_pairs(text: str, most: int = MOST_SIGNS, rarest: float = RAREST) -> LetterPairs:
    """How often each letter is followed by each, for the space and the `most` - 1 most frequent letters.

    Letters whose share of the text is below `rarest` are left out too: a row that counts three pairs says nothing.
    Raises UsageError for a text of less than two letters, and for `most` below 1.
    """
    if most < 1:
        raise UsageError(f"pairs of letters need at least one sign, got most = {most}")
    letters = letters_of(text)
    if len(letters) < 2:
        raise UsageError(f"a pair needs a text of two letters or more, got {letters!r}")
    found = letter_frequencies(text)
    enough = [name for name, count in zip(found.names, found.counts, strict=True) if count >= rarest * len(letters)]
    signs = (SPACE, *sorted([name for name in enough if name != SPACE][: most - 1]))
    place = {sign: i for i, sign in enumerate(signs)}
    codes = np.array([place.get(letter, len(signs)) for letter in letters])  # one code for all that isn't listed
    counts = count_windows(codes, len(signs) + 1, length=1).astype(np.int64)[:-1]
    return LetterPairs(signs, counts[:, :-1], np.sum(counts, axis=1))


def write(
    text: str, unit: str, lengths: Sequence[int] = LENGTHS, n_tokens: int | None = None, seed: int = 0
) -> list[Written]:
    """What the n-grams of each length in `lengths` write that have counted `text` in letters or words.

    The n-grams back off (`KneserNey`), so that no history is a dead end; the draws of each follow from seed and n.
    Letters begin after a space; words with the most frequent one, which is the first of what is written. n_tokens: how
    many letters or words are written. A few seconds for a million letters. Raises UsageError for another unit, for a
    text without a letter, for n below 1 and for n_tokens below 1.
    """
    if unit not in N_TOKENS:
        raise UsageError(f"n-grams count {' or '.join(N_TOKENS)}, not {unit!r}")
    n_tokens = as_count(N_TOKENS[unit] if n_tokens is None else n_tokens, "n_tokens", least=1)
    words, of_letters = _some(words_of(text)), unit == "letters"
    counted = letters_of(text) + SPACE if of_letters else words
    start = SPACE if of_letters else _frequencies(Counter(words)).names[0]
    names, tokens = np.unique(np.array(list(counted)), return_inverse=True)
    found = []
    for n in lengths:
        model, rng = KneserNey(tokens, len(names), n), np.random.default_rng([seed, n])
        drawn = stream(model, [int(np.searchsorted(names, start))], n_tokens - (not of_letters), rng=rng)
        wrote = [str(names[token]) for token, _ in drawn]
        if of_letters:
            found.append(
                Written(
                    unit, n, "".join(wrote), share_known("".join(wrote), words), longest_copy("".join(wrote), counted)
                )
            )
        else:
            found.append(Written(unit, n, SPACE.join([start, *wrote]), None, longest_copy([start, *wrote], counted)))
    return found


def share_known(wrote: str, words: Iterable[str]) -> float | None:
    """The share of the whole words of `wrote` that are among `words`; None if there is no whole word.

    >>> share_known("the dgo the c", ["the", "dog"]), share_known("the", ["the", "dog"])
    (0.6666666666666666, None)
    """
    whole = f"{wrote}.".split()[:-1]  # without the word that is broken off, or the full stop if none is
    known = {word.replace("'", "") for word in words}
    return sum(word in known for word in whole) / len(whole) if whole else None


def longest_copy(wrote: Sequence[str], counted: Sequence[str]) -> int:
    """How long the longest stretch of `wrote` is that stands in `counted` just so, in letters (str) or words (list).

    >>> longest_copy("a cat and a dog", "the cat and the dog"), longest_copy(["a", "cat", "at"], ["cat", "at", "a"])
    (9, 2)
    """
    # Words are found as texts with a mark on either side, so that "cat" isn't found in "concatenated".
    mark = "" if isinstance(wrote, str) else "\0"
    place = mark + mark.join(counted) + mark
    longest = 0
    for end in range(1, len(wrote) + 1):  # what ends one further on can be longer by one at most
        longest += mark + mark.join(wrote[end - longest - 1 : end]) + mark in place
    return longest


def _frequencies(counter: Counter[str]) -> Frequencies:
    ordered = sorted(counter.items(), key=lambda item: (-item[1], item[0]))
    return Frequencies(tuple(name for name, _ in ordered), np.array([count for _, count in ordered], dtype=np.int64))


def _some(words: list[str]) -> list[str]:
    if not words:
        raise UsageError("this text has no letters: there is nothing to count, give one that is written in words")
    return words
