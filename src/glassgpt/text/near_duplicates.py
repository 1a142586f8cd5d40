"""Documents that are nearly the same, without comparing each with each: MinHash and banding (Broder 1997).

A text is the set of its windows of WINDOW characters. Of two sets, A and B, a random order of all windows puts the same
window first with probability J = |A & B| / |A | B|, so the share of HASHES such orders in which the first windows agree
estimates J, with a standard deviation of sqrt(J (1-J) / HASHES), 0.037 at J = 0.8. Only documents that agree in all
ROWS orders of one of BANDS bands are compared at all: a pair is, with probability 1 - (1 - J^ROWS)^BANDS, which is
0.998 at J = 0.8, 0.92 at 0.7, 0.27 at 0.5 and 0.01 at 0.3.
"""

from __future__ import annotations

import re

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.text.draws import hashed

WINDOW = 12
BANDS, ROWS = 20, 6
HASHES = BANDS * ROWS
AT_ONCE = 1 << 12  # windows hashed in one go, 4 MB

_MULTIPLIERS = np.array([hashed("multiplier", i) | 1 for i in range(HASHES)], dtype=np.uint64)[:, None]
_OFFSETS = np.array([hashed("offset", i) for i in range(HASHES)], dtype=np.uint64)[:, None]
_PLACES = np.array([hashed("place", i) | 1 for i in range(WINDOW)], dtype=np.uint64)


def normalised(text: str) -> str:
    """What counts as the same: the case of letters and the amount of white space do not."""
    return re.sub(r"\s+", " ", text.casefold()).strip()


def signature(text: str) -> np.ndarray:
    """The least hash of the text's windows in each of HASHES orders: uint32 (HASHES,). A text shorter than a window is
    one window."""
    codes = np.frombuffer(normalised(text).ljust(WINDOW).encode("utf-32-le"), np.uint32).astype(np.uint64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, WINDOW)
    least = np.full(HASHES, 0xFFFFFFFF, dtype=np.uint32)
    for start in range(0, len(windows), AT_ONCE):
        names = (windows[start : start + AT_ONCE] * _PLACES).sum(axis=1)
        names ^= names >> np.uint64(31)  # the low bits of a product know little of the high ones
        orders = (names * _MULTIPLIERS + _OFFSETS) >> np.uint64(32)
        np.minimum(least, orders.min(axis=1).astype(np.uint32), out=least)
    return least


class NearDuplicates:
    """The documents seen so far, and whether a new one is nearly one of them. Some 3 kB a document."""

    def __init__(self, threshold: float = 0.8) -> None:
        """`threshold`: the estimated J, in (0, 1], from which a document is a near-duplicate."""
        if not 0 < threshold <= 1:
            raise UsageError(f"near-duplicates are alike by more than 0 and at most 1, got {threshold}")
        self.threshold = threshold
        self._signatures = np.empty((1024, HASHES), dtype=np.uint32)
        self._count = 0
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]

    def find_or_add(self, text: str) -> tuple[int, float] | None:
        """The number (0 for the first added) of the document most like `text`, and how alike the two are; or None, and
        `text` is added, if there is none above the threshold."""
        values = signature(text)
        keys = [values[band * ROWS : (band + 1) * ROWS].tobytes() for band in range(BANDS)]
        candidates = sorted({i for found, key in zip(self._bands, keys, strict=True) for i in found.get(key, ())})
        if candidates:
            alike = (self._signatures[candidates] == values).mean(axis=1)
            best = int(np.argmax(alike))
            if alike[best] >= self.threshold:
                return candidates[best], float(alike[best])
        self._add(values, keys)
        return None

    def _add(self, values: np.ndarray, keys: list[bytes]) -> None:
        if self._count == len(self._signatures):
            self._signatures = np.concatenate([self._signatures, np.empty_like(self._signatures)])
        self._signatures[self._count] = values
        for found, key in zip(self._bands, keys, strict=True):
            found.setdefault(key, []).append(self._count)
        self._count += 1
