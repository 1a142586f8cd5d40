"""Where the contexts of a chain stand as necklaces: those that are rotations of one another on a ring of their own.

A model that always repeats the token that drops out of its context only turns the context around: 1101, 1011, 0111,
1110, 1101, ... These cycles of the pure shift (in combinatorics: necklaces) are the periodic texts whose period divides
the context, and they take in every context once. On this layout an arrow along a ring keeps a text periodic, and any
other changes one token of the period.

Rings stand from left to right by the sum of their tokens' numbers (with two tokens, how many ones), so that arrows
between rings go to a neighbouring column if the tokens differ by one. Nothing here depends on probabilities; lengths
are in units of the distance between neighbours on a ring. page/src/lib/necklaces.ts is the same.
"""

from __future__ import annotations

import numpy as np

GAP = 1.0  # between the circles of two rings
ASPECT = 1.6  # of width to height that is aimed at
BREAK = 0.4  # what another band costs beside it, as the logarithm of a ratio
SWEEPS = 4
PARTS = 6  # into which the angle between neighbours is divided, where rings are turned


def necklaces(vocab_size: int, context_length: int) -> list[list[int]]:
    """The codes of the full contexts by rotation class, each class in the order in which the shift goes round.

    A class begins with its smallest code, and classes stand in the order of these.

    >>> [[format(code, "03b") for code in ring] for ring in necklaces(2, 3)]
    [['000'], ['001', '010', '100'], ['011', '110', '101'], ['111']]
    """
    most = vocab_size ** (context_length - 1)
    rings, seen = [], set[int]()
    for first in range(vocab_size**context_length):
        if first in seen:
            continue
        ring, code = [first], first % most * vocab_size + first // most
        while code != first:
            ring.append(code)
            code = code % most * vocab_size + code // most
        seen.update(ring)
        rings.append(ring)
    return rings


def necklace_layout(vocab_size: int, context_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and centres of rings, float arrays (V**T, 2) by the codes of contexts, y pointing up.

    A ring goes clockwise. It is turned so that the arrows between rings are short.
    """
    rings = necklaces(vocab_size, context_length)
    centres = _centres([sum(_digits(ring[0], vocab_size, context_length)) for ring in rings], [len(r) for r in rings])
    n = vocab_size**context_length
    ring_of, place = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for i, ring in enumerate(rings):
        ring_of[ring], place[ring] = i, range(len(ring))
    angles = _turned(rings, centres, ring_of, place, vocab_size)
    positions = np.array([_stand(centres, rings, angles, int(ring_of[code]), int(place[code])) for code in range(n)])
    return positions, centres[ring_of]


def _digits(code: int, vocab_size: int, length: int) -> list[int]:
    return [code // vocab_size**place % vocab_size for place in range(length)]


def radius_of(n_members: int) -> float:
    """Of a ring whose neighbours are 1 apart."""
    return 0.0 if n_members == 1 else float(0.5 / np.sin(np.pi / n_members))


def _centres(weights: list[int], sizes: list[int]) -> np.ndarray:
    """Centres of rings (rings, 2): a column for each weight, in as many bands as come nearest to the aspect."""
    columns = [[i for i, weight in enumerate(weights) if weight == wanted] for wanted in sorted(set(weights))]
    widths = [2 * max(radius_of(sizes[i]) for i in column) for column in columns]
    heights = [sum(2 * radius_of(sizes[i]) + GAP for i in column) - GAP for column in columns]
    best, best_cost = _bands(widths, 1), np.inf
    for n_bands in range(1, len(columns) + 1):
        bands = _bands(widths, n_bands)
        width = max(sum(widths[c] + GAP for c in band) for band in bands)
        height = sum(max(heights[c] for c in band) + GAP for band in bands)
        cost = abs(np.log(width / height / ASPECT)) + BREAK * (n_bands - 1)
        if cost < best_cost - 1e-9:
            best, best_cost = bands, cost
    centres, top = np.zeros((len(weights), 2)), 0.0
    for band in best:
        tall, x = max(heights[c] for c in band), -(sum(widths[c] + GAP for c in band) - GAP) / 2
        for c in band:
            y = top - (tall - heights[c]) / 2
            for i in columns[c]:
                r = radius_of(sizes[i])
                centres[i] = x + widths[c] / 2, y - r
                y -= 2 * r + GAP
            x += widths[c] + GAP
        top -= tall + GAP
    return centres - np.array([0.0, (top + GAP) / 2])


def _bands(widths: list[float], n_bands: int) -> list[list[int]]:
    """Columns in their order, parted where the width that is taken passes the next share of all."""
    total, taken = sum(width + GAP for width in widths), 0.0
    bands: list[list[int]] = [[] for _ in range(n_bands)]
    for column, width in enumerate(widths):
        middle = taken + (width + GAP) / 2
        bands[min(int(middle / total * n_bands + 1e-9), n_bands - 1)].append(column)
        taken += width + GAP
    return [band for band in bands if band]


def _stand(centres: np.ndarray, rings: list[list[int]], angles: np.ndarray, ring: int, place: int) -> np.ndarray:
    size = len(rings[ring])
    angle = angles[ring] - 2 * np.pi * place / size
    return centres[ring] + radius_of(size) * np.array([np.cos(angle), np.sin(angle)])


def _turned(
    rings: list[list[int]], centres: np.ndarray, ring_of: np.ndarray, place: np.ndarray, vocab_size: int
) -> np.ndarray:
    """The angle of each ring's first member: one ring after the other is turned to where its arrows are shortest."""
    n, angles = len(ring_of), np.full(len(rings), np.pi / 2)
    for _ in range(SWEEPS):
        for i, ring in enumerate(rings):
            if len(ring) == 1:
                continue
            ways = [(a, b) for a, b in _arrows(ring, n, vocab_size) if ring_of[a] != i or ring_of[b] != i]
            best, best_cost = angles[i], np.inf
            for turn in range(PARTS * len(ring)):
                angles[i] = np.pi / 2 + 2 * np.pi * turn / (PARTS * len(ring))
                cost = 0.0
                for a, b in ways:
                    ends = [_stand(centres, rings, angles, int(ring_of[x]), int(place[x])) for x in (a, b)]
                    cost += float(np.sum((ends[0] - ends[1]) ** 2))
                if cost < best_cost - 1e-9:
                    best, best_cost = angles[i], cost
            angles[i] = best
    return angles


def _arrows(ring: list[int], n: int, vocab_size: int) -> list[tuple[int, int]]:
    """All arrows from members of a ring and to them, as (source, target)."""
    out = [(code, (code * vocab_size + token) % n) for code in ring for token in range(vocab_size)]
    into = [(code // vocab_size + oldest * (n // vocab_size), code) for code in ring for oldest in range(vocab_size)]
    return out + into
