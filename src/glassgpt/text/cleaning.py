"""Throwing documents away, with reasons: too short, garbled, repeated, seen before or nearly so.

Decisions are made in one pass over all sources, so that what two sources share is kept once, and hold at every later
pass. A document so long that it comes in parts (over a million characters) is kept unseen: these rules are for corpora
of many documents.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

from glassgpt.errors import UsageError
from glassgpt.text.documents import Document, Source, whole_documents
from glassgpt.text.near_duplicates import NearDuplicates

EXAMPLES, EXAMPLE_LENGTH = 3, 120  # of each reason, and characters of each


@dataclass(frozen=True)
class Cleaning:
    """What a document must be to stay; None leaves a rule out.

    The bounds are loose: they are meant for tables, logs, base64 and boilerplate, in any language that has letters.
    `shortest`, `longest`: characters. `most_repeated_lines`: the share of lines (of those that are not empty) that
    came before in the document. `fewest_letters`: the share of letters, digits and spaces. `mean_word`: shortest and
    longest mean length of what lies between spaces; the upper bound is only for text that has spaces at all, as Chinese
    has not. `near_duplicates`: how alike (Jaccard, of 12 characters) two documents may be at the most.
    """

    shortest: int | None = 20
    longest: int | None = None
    most_repeated_lines: float | None = 0.5
    fewest_letters: float | None = 0.6
    mean_word: tuple[float, float] | None = (1.5, 15.0)
    exact_duplicates: bool = True
    near_duplicates: float | None = 0.8

    def reason_against(self, text: str) -> str | None:
        """Why a document of this text is thrown away, or None. Duplicates are no matter of the text alone."""
        rules: list[tuple[bool, Callable[[], bool], str]] = [
            (self.shortest is not None, lambda: len(text) < (self.shortest or 0), "too short"),
            (self.longest is not None, lambda: len(text) > (self.longest or 0), "too long"),
            (
                self.most_repeated_lines is not None,
                lambda: repeated_lines(text) > (self.most_repeated_lines or 0),
                "repeats its lines",
            ),
            (
                self.fewest_letters is not None,
                lambda: share_of_letters(text) < (self.fewest_letters or 0),
                "more signs than letters",
            ),
            (self.mean_word is not None, lambda: not self._has_words(text), "no words of usual length"),
        ]
        return next((reason for applies, is_broken, reason in rules if applies and is_broken()), None)

    def _has_words(self, text: str) -> bool:
        assert self.mean_word is not None
        words = text.split()
        mean = sum(map(len, words)) / max(1, len(words))
        return self.mean_word[0] <= mean and (mean <= self.mean_word[1] or _needs_no_spaces(text))


def repeated_lines(text: str) -> float:
    """The share of lines that came before, of those that are not empty.

    >>> repeated_lines("ha\\nha\\n\\nha\\nho")
    0.5
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def share_of_letters(text: str) -> float:
    """The share of characters that are letters, digits, the marks over them, or white space."""
    return 1 - len(re.findall(r"[^\w\s\u0300-\u036f\u0591-\u05bd\u064b-\u0652\u0900-\u109f]|_", text)) / max(
        1, len(text)
    )


def _needs_no_spaces(text: str) -> bool:
    """Whether most letters are of a script that is written without spaces: Thai, Chinese, Japanese and their kin."""
    return len(re.findall("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]", text)) > len(text) / 2


@dataclass
class Cleaned:
    """What a cleaning did: documents and bytes kept, and of those thrown away a count and a few examples by reason."""

    kept: int = 0
    kept_bytes: int = 0
    thrown_away: Counter[str] = field(default_factory=Counter)
    thrown_away_bytes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def _keep(self, document: Document) -> None:
        self.kept += not document.continues
        self.kept_bytes += len(document.text.encode())

    def _throw_away(self, text: str, reason: str, like: str | None) -> None:
        self.thrown_away[reason] += 1
        self.thrown_away_bytes[reason] += len(text.encode())
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(_short(text) + (f" (as: {like})" if like else ""))

    def to_dict(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "kept_bytes": self.kept_bytes,
            "thrown_away": dict(self.thrown_away),
            "thrown_away_bytes": dict(self.thrown_away_bytes),
            "examples": self.examples,
        }

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Cleaned:
        return cls(**told | {key: Counter(told[key]) for key in ("thrown_away", "thrown_away_bytes")})

    def lines(self) -> list[str]:
        """The report for a person."""
        total = self.kept + sum(self.thrown_away.values())
        told = [f"kept {self.kept:,} of {total:,} documents, {self.kept_bytes:,} bytes"]
        for reason, count in self.thrown_away.most_common():
            told.append(f"{count:,} thrown away ({self.thrown_away_bytes[reason]:,} bytes): {reason}")
            told += [f"    {example}" for example in self.examples[reason]]
        return told


def _short(text: str) -> str:
    line = " ".join(text[: 2 * EXAMPLE_LENGTH].split())
    return line if len(line) <= EXAMPLE_LENGTH else line[: EXAMPLE_LENGTH - 3] + "..."


class CleanedSources:
    """Sources without what `cleaning` throws away; of documents that are alike, the first stays.

    `sources` take the place of those that were given. The pass that decides is made when it is first needed; `report`
    says what it did. Exact duplicates are found by 64-bit hashes of the text: of a million documents, one is lost by
    chance with probability 3e-8. Raises UsageError if nothing is left.
    """

    def __init__(self, sources: Sequence[Source], cleaning: Cleaning) -> None:
        self.cleaning, self._given = cleaning, list(sources)
        self.sources = [Kept(self, source, number) for number, source in enumerate(self._given)]

    @property
    def report(self) -> Cleaned:
        return self._decided[1]

    def dropped(self, number: int) -> set[int]:
        """The documents of source `number` that are thrown away, by their own numbers."""
        return self._decided[0][number]

    @cached_property
    def hash(self) -> str:
        """Of all that decides what stays."""
        identities = [source.identity() for source in self._given]
        return hashlib.sha256(repr([identities, dataclasses.asdict(self.cleaning)]).encode()).hexdigest()

    @cached_property
    def _decided(self) -> tuple[list[set[int]], Cleaned]:
        report, judge = Cleaned(), _Judge(self.cleaning)
        dropped: list[set[int]] = []
        for source in self._given:
            dropped.append(set())
            for number, parts in enumerate(whole_documents(source)):
                first = next(parts)
                second = next(parts, None)
                reason, like = judge.verdict(first.text) if second is None else (None, None)
                if reason is not None:
                    dropped[-1].add(number)
                    report._throw_away(first.text, reason, like)
                    continue
                for part in chain([first], [second] if second is not None else [], parts):
                    report._keep(part)
        if not report.kept:
            raise UsageError("cleaning threw every document away: " + "; ".join(report.lines()[1:])[:500])
        return dropped, report


class Kept(Source):
    """One of the cleaned sources."""

    def __init__(self, cleaned: CleanedSources, source: Source, number: int) -> None:
        self.cleaned, self.source, self.name, self._number = cleaned, source, source.name, number

    def documents(self) -> Iterator[Document]:
        dropped, number = self.cleaned.dropped(self._number), -1
        for document in self.source.documents():
            number += not document.continues
            if number not in dropped:
                yield document

    def identity(self) -> dict[str, str | int]:
        return {**self.source.identity(), "cleaned": self.cleaned.hash}


class _Judge:
    """Remembers what it has let pass."""

    def __init__(self, cleaning: Cleaning) -> None:
        self._cleaning = cleaning
        self._seen: set[int] = set()
        self._near = None if cleaning.near_duplicates is None else NearDuplicates(cleaning.near_duplicates)
        self._beginnings: list[str] = []

    def verdict(self, text: str) -> tuple[str | None, str | None]:
        """The reason to throw a text away, or None; and the beginning of the document that it is like."""
        if reason := self._cleaning.reason_against(text):
            return reason, None
        if self._cleaning.exact_duplicates:
            name = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
            if name in self._seen:
                return "exact duplicate", None
            self._seen.add(name)
        if self._near is not None:
            if found := self._near.find_or_add(text):
                return "near-duplicate", self._beginnings[found[0]]
            self._beginnings.append(_short(text)[:60])
        return None, None
