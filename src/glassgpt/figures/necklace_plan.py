"""Where everything in a picture of a state graph stands on the necklace layout: nodes, curved arrows, labels.

Nodes carry their names inside, whatever their number: between rings there is no room for lists. All lengths are inches.
"""

from __future__ import annotations

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.figures import geometry
from glassgpt.figures.house_style import POINT, shown, text_width
from glassgpt.figures.necklaces import necklace_layout
from glassgpt.figures.ring_plan import Plan, Sizes, extent, has_labelled_arrows, nearest, place_edge_labels
from glassgpt.figures.states import StateGraph

BOW = 0.1  # of an arrow between rings, to its left, as a share of its length: so that two ways stay apart
FROM_NODES = (0.2, 0.06)  # inches that arrows keep from nodes, with labels and without
MOST_BENT = 300  # arrows each of which finds its own way past the states
TOO_NEAR = 0.13  # inches between arrows that look like one


def plan_necklaces(graph: StateGraph) -> Plan:
    """The plan of a graph whose contexts are all full. Raises UsageError for one with contexts that still grow."""
    if len(graph.labels) > graph.n_full:
        raise UsageError(
            "necklaces are classes of full contexts, and this graph has shorter ones too: leave out --every-length, or "
            "draw it as a ring"
        )
    sizes, labelled = _sizes(graph), has_labelled_arrows(graph)
    unit = max(1.35, 2 * sizes.node_radius + 0.8) if labelled else max(0.62, 2 * sizes.node_radius + 0.28)
    positions, centres = (unit * places for places in necklace_layout(graph.vocab_size, graph.context_length))
    outward = _outward(positions, centres)
    curves = _curves(graph, positions, centres, outward, sizes)
    label_centres, label_sizes = place_edge_labels(graph, curves, positions, sizes)
    low, high = extent(positions, sizes, curves, label_centres, label_sizes)
    starts = np.full(len(positions), sizes.node_radius + 0.07)
    return Plan(positions, outward, sizes, curves, label_centres, label_sizes, starts, low, high, has_lists=False)


def _sizes(graph: StateGraph) -> Sizes:
    """As on a ring where arrows carry labels; else as small as names allow."""
    is_large = has_labelled_arrows(graph)
    node_type, margin, least = (11.0, 0.09, 0.27) if is_large else (8.0, 0.06, 0.16)
    radius = max(least, max(text_width(shown(label), node_type, "bold") for label in graph.labels) / 2 + margin)
    if is_large:
        return Sizes(node_type, 8.5, radius, 0.42 + radius * 1.9, 0.9 * POINT, 4.5 * POINT, 0.17)
    return Sizes(node_type, 8.0, radius, 0.2 + radius * 1.9, 0.5 * POINT, 3.0 * POINT, 0.11)


def _outward(positions: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Away from the ring's centre; of a state that stands alone, away from the picture's."""
    away = positions - centres
    alone = np.hypot(*away.T) < 1e-9
    away[alone] = positions[alone]
    away[np.hypot(*away.T) < 1e-9] = (0.0, 1.0)
    return away / np.hypot(*away.T)[:, None]


def _curves(
    graph: StateGraph, positions: np.ndarray, centres: np.ndarray, outward: np.ndarray, sizes: Sizes
) -> list[np.ndarray]:
    """A curve for each edge, from the rim of its source to just before the rim of its target. Rings come first."""
    V, n = graph.vocab_size, graph.n_full
    labelled = has_labelled_arrows(graph)
    bows = _bows(21 if labelled else 11 if len(graph.edges) <= MOST_BENT else 1)
    curves: dict[int, np.ndarray] = {}
    turning = {i for i, edge in enumerate(graph.edges) if edge.target == edge.source * V % n + edge.source * V // n}
    for index in sorted(range(len(graph.edges)), key=lambda index: index not in turning):
        edge = graph.edges[index]
        start, end = positions[edge.source], positions[edge.target]
        if edge.source == edge.target:
            curve = geometry.loop_at(start, outward[edge.source], sizes.loop)
        elif index in turning:
            curve = _along(start, end, centres[edge.source])
        else:
            others = [other[::2] for other in curves.values()] if labelled else []
            drawn = np.concatenate([np.zeros((0, 2)), *others])
            curve = _across(start, end, positions, sizes, bows, drawn)
        curves[index] = geometry.between_nodes(curve, sizes.node_radius, gap=0.02 + 0.05 * (edge.target in graph.red))
    return [curves[index] for index in range(len(graph.edges))]


def _along(start: np.ndarray, end: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The arc of a ring, clockwise."""
    (a, b), (c, d) = start - centre, end - centre
    turn = (np.arctan2(b, a) - np.arctan2(d, c)) % (2 * np.pi)
    return centre + geometry.unit(np.arctan2(b, a) - np.linspace(0, 1, 200) * turn) * np.hypot(a, b)


def _across(
    start: np.ndarray, end: np.ndarray, nodes: np.ndarray, sizes: Sizes, bows: list[float], drawn: np.ndarray
) -> np.ndarray:
    """The curve with nearly the usual bow that runs through no other state and along no other arrow.

    drawn: points of other arrows, float array (points, 2).
    """
    way, clear = end - start, sizes.node_radius + FROM_NODES[0 if len(drawn) else 1]
    is_other = ~(np.isclose(nodes, start).all(axis=1) | np.isclose(nodes, end).all(axis=1))
    best, best_cost = np.zeros((0, 2)), np.inf
    for bow in bows:
        if 9 * abs(bow - BOW) >= best_cost:
            break  # the others are no better whatever they run through
        curve = geometry.curve_through(start, (start + end) / 2 + bow * geometry.left_of(way), end)
        if len(bows) == 1:
            return curve
        touched = np.maximum(clear - nearest(nodes[is_other], curve[::4]), 0).sum() if is_other.any() else 0.0
        own = geometry.between_nodes(curve, sizes.node_radius, gap=0.0)[::2]
        shared = (nearest(own, drawn) < TOO_NEAR).sum() if len(drawn) else 0
        cost = 40 * touched + 0.3 * shared + 9 * abs(bow - BOW)
        if cost < best_cost - 1e-9:
            best, best_cost = curve, cost
    return best


def _bows(n: int) -> list[float]:
    """Ways to bend, the usual one first."""
    if n == 1:
        return [BOW]
    return sorted(np.linspace(-0.5, 0.5, n).tolist(), key=lambda bow: (round(abs(bow - BOW), 9), bow))
