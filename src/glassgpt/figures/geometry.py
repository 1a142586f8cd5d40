"""Curves, arrows and label places in the plane; all lengths in inches, all curves as float arrays (points, 2)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.path import Path

SPACING = 0.05  # inches between the points of a curve


def unit(angle: float | np.ndarray) -> np.ndarray:
    """The unit vector at an angle in radians, (..., 2)."""
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def left_of(direction: np.ndarray) -> np.ndarray:
    """The vectors (..., 2) turned by a quarter to the left."""
    return np.stack([-direction[..., 1], direction[..., 0]], axis=-1)


def curve_through(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The parabola from start to end that passes `middle` halfway (a quadratic Bezier curve)."""
    control = 2 * middle - (start + end) / 2
    t = np.linspace(0, 1, 200)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end


def loop_at(node: np.ndarray, direction: np.ndarray, length: float, spread: float = 0.62) -> np.ndarray:
    """A loop that leaves a node and comes back, reaching about three quarters of `length` along `direction`."""
    angle = np.arctan2(direction[1], direction[0])
    first, second = (node + length * unit(angle + side * spread) for side in (1, -1))
    t = np.linspace(0, 1, 200)[:, None]
    return ((1 - t) ** 3 + t**3) * node + 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second


def between_nodes(curve: np.ndarray, radius: float, gap: float) -> np.ndarray:
    """The part of a curve from one node's rim to `gap` before the other's, with points about SPACING apart."""
    from_start = np.hypot(*(curve - curve[0]).T)
    to_end = np.hypot(*(curve - curve[-1]).T)
    halfway = len(curve) // 2
    first = int(np.argmax(from_start[:halfway] >= radius))
    inside = to_end[halfway:] <= radius + gap
    last = halfway + int(np.argmax(inside))
    return evenly(curve[first : max(last, first + 2)])


def evenly(curve: np.ndarray) -> np.ndarray:
    """The same curve with points at equal distances, about SPACING apart."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(curve, axis=0).T))])
    places = np.linspace(0, along[-1], max(12, round(along[-1] / SPACING)))
    return np.stack([np.interp(places, along, curve[:, axis]) for axis in (0, 1)], axis=1)


def arrow_outline(curve: np.ndarray, width: float, head: float) -> Path:
    """The outline of an arrow along a curve: a stem `width` wide and a head `head` long that ends at the last point."""
    tip = curve[-1]
    stem = curve[np.hypot(*(curve - tip).T) > 0.8 * head]
    stem = stem if len(stem) >= 2 else curve[:2]
    forward = tip - stem[-1]
    forward = forward / max(np.hypot(*forward), 1e-9)
    side = left_of(np.gradient(stem, axis=0))
    side = side / np.maximum(np.hypot(*side.T), 1e-9)[:, None] * width / 2
    wing = left_of(forward) * max(0.38 * head, 0.95 * width)
    back = tip - head * forward
    corners = np.concatenate([stem + side, [back + wing, tip, back - wing], (stem - side)[::-1]])
    return Path(np.concatenate([corners, corners[:1]]), closed=True)


def overlap(centres: np.ndarray, size: np.ndarray, other: np.ndarray, other_size: np.ndarray) -> np.ndarray:
    """Whether the box `size` at each of `centres` (n, 2) overlaps the box `other_size` at `other`; bool (n,)."""
    return (np.abs(centres - other) < (size + other_size) / 2).all(axis=1)


def place_labels(curves: Sequence[np.ndarray], sizes: np.ndarray, nodes: np.ndarray, node_radius: float) -> np.ndarray:
    """Centres (n, 2) of boxes of `sizes` (n, 2), each near its own curve and clear of nodes, boxes and other curves.

    Greedy, from the shortest curve (the fewest choices) to the longest, then twice more with all others in place.
    """
    owners = np.concatenate([np.full(len(curve), i) for i, curve in enumerate(curves)])
    # An arrow's head is worth more than its stem.
    weights = np.concatenate([np.where(np.arange(len(curve)) < len(curve) - 4, 1.0, 3.0) for curve in curves])
    points = np.concatenate(curves)
    options = [_label_options(curve, size) for curve, size in zip(curves, sizes, strict=True)]
    fixed_costs = [
        habit + _cost_of_surroundings(centres, sizes[i], points, weights, owners == i, nodes, node_radius)
        for i, (centres, habit) in enumerate(options)
    ]
    placed: dict[int, np.ndarray] = {}
    for i in sorted(range(len(curves)), key=lambda i: len(curves[i])) * 3:
        centres, cost = options[i][0], fixed_costs[i].copy()
        for j, other in placed.items():
            if j != i:
                cost += 60 * overlap(centres, sizes[i] + 0.05, other, sizes[j])
                cost += 5 * overlap(centres, sizes[i] + 0.24, other, sizes[j])
        placed[i] = centres[np.argmin(cost)]
    return np.array([placed[i] for i in range(len(curves))]).reshape(-1, 2)


def _label_options(curve: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places that a label may take, (n, 2), and how unusual each is, (n,): the middle of the curve is the best."""
    shares = np.array([0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74, 0.2])
    rows = (shares * (len(curve) - 1)).round().astype(int)
    normal = left_of(np.gradient(curve, axis=0)[rows])
    normal = normal / np.hypot(*normal.T)[:, None]
    reach = np.abs(normal) @ size[:, None] / 2 + 0.05
    sides = [-1.0, 1.0, 0.0]
    centres = np.concatenate([curve[rows] + side * reach * normal for side in sides])
    return centres, np.tile(8 * np.abs(shares - 0.5), len(sides))


def _cost_of_surroundings(
    centres: np.ndarray,
    size: np.ndarray,
    points: np.ndarray,
    weights: np.ndarray,
    own: np.ndarray,
    nodes: np.ndarray,
    node_radius: float,
) -> np.ndarray:
    """How much a label at each centre covers: never a node, and another curve is worse than its own."""
    away = np.abs(points[None] - centres[:, None])  # (places, points, 2)
    covered = (away < size / 2 + 0.015).all(axis=-1) * weights
    near = (away < size / 2 + 0.11).all(axis=-1)
    beyond = np.maximum(np.abs(nodes[None] - centres[:, None]) - size / 2, 0)
    on_node = np.hypot(beyond[..., 0], beyond[..., 1]) < node_radius + 0.05
    others = ~own
    return (
        100 * on_node.sum(axis=1)
        + 2.0 * covered[:, others].sum(axis=1)
        + 0.8 * near[:, others].sum(axis=1)
        + 16 * covered[:, own].sum(axis=1) / own.sum()
    )
