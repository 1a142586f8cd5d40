"""The machine that a GPT is at temperature 0: every state has exactly one successor, so every walk ends in a cycle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, PathPatch

from glassgpt.errors import UsageError
from glassgpt.figures import geometry
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import (
    CATEGORIES,
    GREY,
    INK,
    POINT,
    in_house_style,
    inch_axes,
    line_height,
    shown,
    text_width,
    wrapped,
)

MOST_STATES = 64
STEP = 0.32
"""Inches between the rims of a state and of its successor, on the way to the cycle."""

BETWEEN, BETWEEN_CYCLE = 0.12, 0.28
"""Inches between the rims of neighbours at the same distance from the cycle, and on the cycle."""

NUMBERS_TYPE = 9.0
N_COLOURS = 7


@in_house_style
def draw_greedy_machine(successors: Sequence[int], labels: Sequence[str], title: str | None = None) -> Figure:
    """Each state with one arrow to its successor: cycles as rings, and the trees of states that flow into them.

    successors: int sequence, the state that follows each state; labels: the states' contexts. Each basin (a cycle and
    all that flows into it) has a colour and a line that says its numbers; states on a cycle have a thick rim.
    Raises UsageError above 64 states and for successors that do not exist.
    """
    following = _checked(successors, labels)
    basins = basins_of(following)
    radius = max(0.17, max(text_width(shown(label), 8.5) for label in labels) / 2 + 0.06)
    laid_out = [_lay_out_basin(following, cycle, members, radius) for cycle, members in basins]
    boxes = [_box(*basin, places, radius) for basin, places in zip(basins, laid_out, strict=True)]
    corners, size = _pack(boxes)
    caption = wrapped(_caption(len(basins)), size[0], 9)
    below = 0.2 + line_height(caption, 9)
    figure = Figure(figsize=(size[0] + 0.3, size[1] + below + (0.45 if title else 0.15)))
    axes = inch_axes(figure, 0.15, below, np.zeros(2), size)
    for i, ((cycle, members), places, corner) in enumerate(zip(basins, laid_out, corners, strict=True)):
        moved = {state: place - boxes[i][0] + corner for state, place in places.items()}
        _paint_basin(axes, following, cycle, moved, labels, radius, CATEGORIES[i % N_COLOURS])
        _write_numbers(axes, cycle, members, moved, radius)
    figure.text(0.5, 0.1 / figure.get_figheight(), caption, ha="center", va="bottom", size=9, color=GREY)
    if title:
        y = 1 - 0.12 / figure.get_figheight()
        figure.text(0.5, y, title, ha="center", va="top", size=13, weight="bold", parse_math=False)
    return figure


def basins_of(successors: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Each cycle, in the order in which it is walked, with all states that end in it, the largest basin first.

    >>> basins_of([1, 2, 1, 3])
    [([1, 2], [0, 1, 2]), ([3], [3])]
    """
    end_of: dict[int, int] = {}  # state -> the smallest state of its cycle
    cycles: dict[int, list[int]] = {}
    for start in range(len(successors)):
        path, state = [], start
        while state not in end_of and state not in path:
            path.append(state)
            state = successors[state]
        if state not in end_of:
            cycle = path[path.index(state) :]
            first = cycle.index(min(cycle))
            cycles[min(cycle)] = cycle[first:] + cycle[:first]
        end = end_of.get(state, min(path[path.index(state) :]) if state in path else -1)
        end_of.update((passed, end) for passed in path)
    basins = [(cycle, [s for s in range(len(successors)) if end_of[s] == end]) for end, cycle in cycles.items()]
    return sorted(basins, key=lambda basin: (-len(basin[1]), basin[0]))


def _caption(n_basins: int) -> str:
    repeated = f" (repeated after {N_COLOURS})" if n_basins > N_COLOURS else ""
    return f"Thick rim: on a cycle. A colour{repeated}: all states that end in one cycle."


def _checked(successors: Sequence[int], labels: Sequence[str]) -> list[int]:
    following = [int(state) for state in successors]
    if len(following) > MOST_STATES:
        raise UsageError(
            f"the greedy machine can be drawn up to {MOST_STATES} states and this one has {len(following):,}; "
            f"its cycles and basins can be listed instead (basins_of)"
        )
    if not following or len(labels) != len(following):
        raise UsageError(f"each state needs a successor and a label; got {len(following)} and {len(labels)}")
    outside = [state for state in following if not 0 <= state < len(following)]
    if outside:
        raise UsageError(f"successors are states from 0 to {len(following) - 1}; got {outside[0]}")
    return following


def _lay_out_basin(
    successors: Sequence[int], cycle: Sequence[int], members: Sequence[int], radius: float
) -> dict[int, np.ndarray]:
    """Places of a basin's states: the cycle on a ring, and round it a wider ring for each step of distance from it."""
    angles, depths = _angles_and_depths(successors, cycle, members)
    rings: list[float] = []
    for depth in range(max(depths.values()) + 1):
        level = np.sort([angles[state] for state in members if depths[state] == depth])
        # Distance between neighbours on a ring of radius 1, round the circle; the ring must be wide enough for them.
        distance = (2 * np.sin(np.minimum(np.diff(level, append=level[0] + 2 * np.pi), np.pi) / 2)).min()
        wanted = (2 * radius + (BETWEEN_CYCLE if depth == 0 else BETWEEN)) / distance if len(level) > 1 else 0.0
        rings.append(max(wanted, rings[-1] + 2 * radius + STEP if rings else 0.0))
    return {state: rings[depths[state]] * geometry.unit(angles[state]) for state in members}


def _angles_and_depths(
    successors: Sequence[int], cycle: Sequence[int], members: Sequence[int]
) -> tuple[dict[int, float], dict[int, int]]:
    """Angle of each state, its tree in a sector as wide as it has leaves, and its distance from the cycle in steps."""
    children: dict[int, list[int]] = {state: [] for state in members}
    for state in members:
        if state not in cycle:
            children[successors[state]].append(state)
    leaves: dict[int, int] = {}

    def count(state: int) -> int:
        leaves[state] = max(1, sum(count(child) for child in children[state]))
        return leaves[state]

    total = sum(count(state) for state in cycle)
    angles: dict[int, float] = {}
    depths: dict[int, int] = {}

    def stand(state: int, first: float, width: float, depth: int) -> None:
        angles[state], depths[state] = first - width / 2, depth
        for child in children[state]:
            share = width * leaves[child] / leaves[state]
            stand(child, first, share, depth + 1)
            first -= share

    # Clockwise from the top, where a state that repeats keeps a sixth of the circle free for its loop.
    free = np.pi / 3 if len(cycle) == 1 else 0.0
    angle = np.pi / 2 - free / 2
    for state in cycle:
        width = (2 * np.pi - free) * (0.7 * leaves[state] / total + 0.3 / len(cycle))
        stand(state, angle, width, 0)
        angle -= width
    return angles, depths


def _numbers(cycle: Sequence[int], members: Sequence[int]) -> str:
    name = "repeats for ever" if len(cycle) == 1 else f"cycle of {len(cycle)}"
    more = len(members) - len(cycle)
    return f"{name}\n{more} more {'flows' if more == 1 else 'flow'} in" if more else name


def _fits_inside(text: str, cycle: Sequence[int], places: dict[int, np.ndarray], radius: float) -> bool:
    """Whether the numbers of a basin can stand inside the ring of its cycle."""
    inside = min(np.hypot(*(places[state] - _centre(cycle, places))) for state in cycle) - radius
    return inside > max(text_width(line, NUMBERS_TYPE) for line in text.split("\n")) / 2 + 0.2


def _centre(cycle: Sequence[int], places: dict[int, np.ndarray]) -> np.ndarray:
    return np.mean([places[state] for state in cycle], axis=0)


def _box(
    cycle: Sequence[int], members: Sequence[int], places: dict[int, np.ndarray], radius: float
) -> tuple[np.ndarray, np.ndarray]:
    """Corners of the box that a basin takes, with room for a loop above and for its numbers below."""
    text = _numbers(cycle, members)
    points = np.array(list(places.values()))
    low, high = points.min(axis=0) - radius - 0.15, points.max(axis=0) + radius + 0.15
    if len(cycle) == 1:
        high[1] = max(high[1], places[cycle[0]][1] + radius + 0.6)
    if not _fits_inside(text, cycle, places, radius):
        low[1] -= line_height(text, NUMBERS_TYPE) + 0.05
        widest = max(text_width(line, NUMBERS_TYPE) for line in text.split("\n")) + 0.3
        middle = _centre(cycle, places)[0]
        low[0], high[0] = min(low[0], middle - widest / 2), max(high[0], middle + widest / 2)
    return low, high


def _pack(boxes: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[list[np.ndarray], np.ndarray]:
    """Lower left corners of boxes set in rows from top to bottom, and the size of the whole."""
    sizes = [high - low for low, high in boxes]
    area = sum(float(size.prod()) for size in sizes)
    row_width = max(1.25 * area**0.5, max(float(size[0]) for size in sizes))
    rows: list[list[int]] = [[]]
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i][1]):
        if rows[-1] and sum(sizes[j][0] for j in rows[-1]) + sizes[i][0] > row_width + 1e-9:
            rows.append([])
        rows[-1].append(i)
    heights = [max(sizes[i][1] for i in row) for row in rows]
    width = max(sum(sizes[i][0] for i in row) for row in rows)
    corners = [np.zeros(2) for _ in sizes]
    top = sum(heights)
    for row, height in zip(rows, heights, strict=True):
        x = (width - sum(sizes[i][0] for i in row)) / 2
        for i in row:
            corners[i] = np.array([x, top - height / 2 - sizes[i][1] / 2])
            x += sizes[i][0]
        top -= height
    return corners, np.array([width, sum(heights)])


def _paint_basin(
    axes: Axes,
    successors: Sequence[int],
    cycle: Sequence[int],
    places: dict[int, np.ndarray],
    labels: Sequence[str],
    radius: float,
    colour: str,
) -> None:
    centre = _centre(cycle, places)
    for state, place in places.items():
        on_cycle = state in cycle
        curve = _curve(place, places[successors[state]], centre, on_cycle, radius)
        outline = geometry.arrow_outline(
            geometry.between_nodes(curve, radius, gap=0.02), (2.6 if on_cycle else 1.3) * POINT, 0.13
        )
        axes.add_artist(
            PathPatch(outline, facecolor=colour if on_cycle else GREY, edgecolor="none", gid=f"edge-{state}")
        )
        circle = Circle((place[0], place[1]), radius, edgecolor=colour, linewidth=2.6 if on_cycle else 1.0, zorder=3)
        circle.set(facecolor=_tint(colour), gid=f"state-{state}")
        axes.add_artist(circle)
        text = axes.text(place[0], place[1], shown(labels[state]), size=8.5, ha="center", va="center")
        text.set(parse_math=False, zorder=4, gid=f"name-{state}", weight="bold" if on_cycle else "normal", color=INK)


def _curve(place: np.ndarray, end: np.ndarray, centre: np.ndarray, on_cycle: bool, radius: float) -> np.ndarray:
    if np.allclose(place, end):
        away = place - centre
        return geometry.loop_at(place, away if np.hypot(*away) > 1e-6 else np.array([0.0, 1.0]), 0.3 + 1.7 * radius)
    middle = (place + end) / 2
    if on_cycle:
        # Along the ring: to the left of a clockwise step, which is outward.
        middle = middle + 0.13 * geometry.left_of(end - place)
    return geometry.curve_through(place, middle, end)


def _write_numbers(
    axes: Axes, cycle: Sequence[int], members: Sequence[int], places: dict[int, np.ndarray], radius: float
) -> None:
    text = _numbers(cycle, members)
    x, y = _centre(cycle, places)
    style: dict[str, Any] = {"size": NUMBERS_TYPE, "ha": "center", "linespacing": 1.25, "zorder": 5}
    if _fits_inside(text, cycle, places, radius):
        axes.text(x, y, text, va="center", **style)
    else:
        axes.text(x, _box(cycle, members, places, radius)[0][1] + 0.05, text, va="bottom", **style)


def _tint(colour: str) -> tuple[float, float, float]:
    """The colour mixed with four parts of white."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.8 + 0.2 * red, 0.8 + 0.2 * green, 0.8 + 0.2 * blue
