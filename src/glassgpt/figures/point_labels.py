"""Names beside points in a picture, so that as few as possible cover each other or a point; all lengths in inches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from glassgpt.figures.geometry import overlap, unit
from glassgpt.figures.house_style import GREY, INK, text_width

PASSES, ORDERS = 3, 3
NEAR = 0.05  # from a point to its name
DISTANCES = (NEAR, 0.12, 0.2, 0.28, 0.36, 0.45, 0.55, 0.66)
ANGLES = np.arange(24) * 2 * np.pi / 24
STEPS = 8
LEADER = 0.09  # a name further away than this is tied to its point by a line


def place_beside(
    points: np.ndarray, sizes: np.ndarray, low: np.ndarray, high: np.ndarray, obstacles: np.ndarray | None = None
) -> np.ndarray:
    """Centres (n, 2) of boxes of `sizes` (n, 2) beside their points (n, 2), inside the corners `low` and `high`.

    obstacles (m, 2): more points that are better not covered. Greedy, the most crowded point first, then again with
    all others in place: no two boxes overlap where there is room.
    """
    points = np.asarray(points, dtype=np.float64)
    dots = points if obstacles is None else np.concatenate([points, obstacles])
    choices = [_Choices.of(point, size, dots, low, high) for point, size in zip(points, sizes, strict=True)]
    reach = sizes / 2 + max(DISTANCES) + 0.1
    near = (np.abs(points[:, None] - points[None]) < reach[:, None] + reach[None]).all(axis=-1)
    rivals = [[j for j in np.flatnonzero(row).tolist() if j != i] for i, row in enumerate(near)]
    crowded_first = np.argsort([-len(others) for others in rivals], kind="stable").tolist()
    rng = np.random.default_rng(0)  # several orders of placing, of which the best result counts
    orders = [crowded_first, *(rng.permutation(len(points)).tolist() for _ in range(ORDERS - 1))]
    _, places = min((_placed(choices, rivals, order) for order in orders), key=lambda found: found[0])
    return np.array([choice.centres[place] for choice, place in zip(choices, places, strict=True)]).reshape(-1, 2)


def _placed(choices: list[_Choices], rivals: list[list[int]], order: list[int]) -> tuple[float, list[int]]:
    """What all speaks against the places that were found, and the place of each."""
    places: dict[int, int] = {}
    against: dict[int, float] = {}
    for i in order * PASSES:
        cost = choices[i].cost.copy()
        for j in rivals[i]:
            if j in places:
                cost += choices[i].quarrel(choices[j], places[j])
        places[i] = int(np.argmin(cost))
        against[i] = float(cost[places[i]])
    return sum(against.values()), [places[i] for i in range(len(choices))]


@dataclass(frozen=True)
class _Choices:
    """Where one name may stand: centres (places, 2) of its box, the points (places, STEPS, 2) of the line that ties it
    to its point, and what speaks against each place whatever the others do (places,)."""

    size: np.ndarray
    centres: np.ndarray
    ties: np.ndarray
    cost: np.ndarray

    @classmethod
    def of(cls, point: np.ndarray, size: np.ndarray, dots: np.ndarray, low: np.ndarray, high: np.ndarray) -> _Choices:
        directions = unit(ANGLES)
        reach = directions.round(9) * size / 2
        centres = np.concatenate([point + directions * distance + reach for distance in DISTANCES])
        ends = np.clip(point, centres - size / 2, centres + size / 2)
        gap = np.linalg.norm(ends - point, axis=1)
        along = np.linspace(0.25, 1, STEPS)[:, None]
        ties = np.where((gap > LEADER)[:, None, None], point + along * (ends - point)[:, None], np.inf)
        is_right = centres[:, 0] - point[0] > size[0] / 2
        is_level = np.abs(centres[:, 1] - point[1]) < 0.01
        cost = 8 * gap - 0.2 * is_right - 0.1 * is_level + 0.2 * np.abs(centres[:, 1] - point[1])
        covered = (np.abs(dots[None] - centres[:, None]) < size / 2 + 0.03).all(axis=-1)
        met = (np.abs(dots[None, None] - ties[:, :, None]) < 0.04).all(axis=-1).any(axis=1)
        outside = ((centres - size / 2 < low) | (centres + size / 2 > high)).any(axis=1)
        return cls(size, centres, ties, cost + 4 * covered.sum(axis=1) + 2 * met.sum(axis=1) + 100 * outside)

    def quarrel(self, other: _Choices, place: int) -> np.ndarray:
        """What speaks against each place once another name stands at its own `place`."""
        there, tie = other.centres[place], other.ties[place]
        cost = 60.0 * overlap(self.centres, self.size + 0.03, there, other.size)
        cost += 8 * (np.abs(self.ties - there) < other.size / 2 + 0.01).all(axis=-1).any(axis=1)
        return cost + 8 * (np.abs(tie[None] - self.centres[:, None]) < self.size / 2 + 0.01).all(axis=-1).any(axis=1)


def label_points(
    axes: Axes,
    points: np.ndarray,
    names: Sequence[str],
    size: float = 8.5,
    colours: Sequence[str] | None = None,
    obstacles: np.ndarray | None = None,
    gid: str = "name",
) -> None:
    """Write names beside points (n, 2) of axes whose limits and place in the figure are settled; far ones get a line.

    names: as a figure writes them (see `shown`). obstacles (m, 2): more points of the axes that are better not covered.
    """
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    box = axes.get_position()
    inches = np.array(figure.get_size_inches()) * [box.width, box.height]
    low, high = np.array([axes.get_xlim(), axes.get_ylim()], dtype=np.float64).T
    scale = inches / (high - low)
    sizes = np.array([[1.04 * text_width(name, size), 1.25 * size / 72] for name in names]).reshape(-1, 2)
    there = (np.asarray(points, dtype=np.float64).reshape(-1, 2) - low) * scale
    avoided = None if obstacles is None else (np.asarray(obstacles, dtype=np.float64).reshape(-1, 2) - low) * scale
    centres = place_beside(there, sizes, np.zeros(2), inches, avoided)
    for i, (name, centre) in enumerate(zip(names, centres, strict=True)):
        colour = colours[i] if colours else INK
        nearest = np.clip(there[i], centre - sizes[i] / 2, centre + sizes[i] / 2)
        if np.linalg.norm(nearest - there[i]) > LEADER:
            ends = np.array([there[i], nearest]) / scale + low
            axes.plot(*ends.T, color=GREY, linewidth=0.5, zorder=2, gid="leader")
        x, y = centre / scale + low
        written = axes.text(x, y, name, ha="center", va="center", size=size, color=colour, parse_math=False)
        written.set(gid=gid, zorder=5, path_effects=[withStroke(linewidth=2, foreground="white")])
