"""Random draws that are the same on every Python: `random.random()` alone is promised never to change."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

T = TypeVar("T")


def hashed(*key: object) -> int:
    """64 bits that follow from the key's parts alone, evenly spread."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Draws:
    """A stream of draws that follows from a key: `Draws("world", 3)` and `Draws("world", 4)` have nothing in common."""

    def __init__(self, *key: object) -> None:
        self.random = random.Random(hashed(*key)).random

    def below(self, n: int) -> int:
        """0 to n-1, each as likely."""
        return int(self.random() * n)

    def between(self, low: int, high: int) -> int:
        """low to high, both included."""
        return low + self.below(high - low + 1)

    def pick(self, values: Sequence[T]) -> T:
        return values[self.below(len(values))]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        result = list(values)
        for i in range(len(result) - 1, 0, -1):
            j = self.below(i + 1)
            result[i], result[j] = result[j], result[i]
        return result


class ByRank:
    """Values drawn as Zipf found words to be: the k-th in proportion to 1/k."""

    def __init__(self, values: Sequence[str]) -> None:
        self.values = values
        self._cumulative = list(accumulate(1 / rank for rank in range(1, len(values) + 1)))

    def draw(self, draws: Draws) -> str:
        return self.values[bisect(self._cumulative, draws.random() * self._cumulative[-1])]
