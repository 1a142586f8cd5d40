"""Where everything in a picture of a state graph stands: nodes on a ring, curved arrows, labels.

Full contexts stand on a ring in de Bruijn order, so the arrow to the neighbour is always a legal transition and runs
along the ring; all others are chords. Contexts that are not full yet stand on an outer ring, each tree of growing
contexts in the order in which its nodes are met from left to right. All lengths are inches; angles are radians.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from glassgpt.figures import geometry
from glassgpt.figures.house_style import POINT, shown, text_width
from glassgpt.figures.states import StateGraph, de_bruijn_order, percent

MOST_LABELLED_ARROWS = 48
"""Up to this many arrows each carries its label; with more, the tokens are listed beside their state."""

MOST_LISTED_TOKENS = 4
"""With a larger vocabulary only this many of the likeliest tokens are listed."""


@dataclass(frozen=True)
class Sizes:
    """Type in points and lengths in inches, chosen by the number of states and arrows."""

    node_type: float
    label_type: float
    node_radius: float
    loop: float
    thinnest: float
    thickest: float
    head: float


@dataclass(frozen=True)
class Plan:
    """Positions (states, 2) and outward directions (states, 2), sizes, and a curve for each edge."""

    positions: np.ndarray
    outward: np.ndarray
    sizes: Sizes
    curves: list[np.ndarray]
    label_centres: np.ndarray  # (edges, 2); empty where arrows carry no labels
    label_sizes: np.ndarray  # (edges, 2)
    list_starts: np.ndarray  # distance from a node's centre to the text beside it, (states,)
    low: np.ndarray
    high: np.ndarray
    has_lists: bool  # whether names and tokens stand beside the nodes, not in them

    @property
    def node_radius(self) -> float:
        return self.sizes.node_radius


def has_labelled_arrows(graph: StateGraph) -> bool:
    """Whether the arrows of a graph of this size carry labels; it does not depend on probabilities."""
    return graph.vocab_size * len(graph.labels) <= MOST_LABELLED_ARROWS


def sizes_for(graph: StateGraph) -> Sizes:
    """Sizes for arrows that carry labels, or for small nodes with the tokens listed beside them."""
    if not has_labelled_arrows(graph):
        return Sizes(9, 8.5, 0.065, 0.32, 0.5 * POINT, 3.0 * POINT, 0.11)
    widest = max(text_width(shown(label), 11) for label in graph.labels)
    radius = max(0.27, widest / 2 + 0.09)
    return Sizes(11, 8.5, radius, 0.42 + radius * 1.9, 0.9 * POINT, 4.5 * POINT, 0.17)


def plan_ring(graph: StateGraph) -> Plan:
    """The plan of a graph of any size; where it puts things depends on labels and edges, not on probabilities."""
    sizes = sizes_for(graph)
    labelled = has_labelled_arrows(graph)
    positions, outward = _stand(graph, sizes, labelled)
    curves = _curves(graph, positions, outward, sizes)
    label_centres, label_sizes = place_edge_labels(graph, curves, positions, sizes)
    list_starts = _list_starts(graph, sizes)
    low, high = extent(positions, sizes, curves, label_centres, label_sizes)
    if not labelled:
        low, high = _with_lists(graph, sizes, positions, outward, list_starts, low, high)
    return Plan(positions, outward, sizes, curves, label_centres, label_sizes, list_starts, low, high, not labelled)


def place_edge_labels(
    graph: StateGraph, curves: list[np.ndarray], positions: np.ndarray, sizes: Sizes
) -> tuple[np.ndarray, np.ndarray]:
    """Centres and sizes of the arrows' labels, (edges, 2) each; none where arrows carry none."""
    if not (has_labelled_arrows(graph) and curves):
        return np.zeros((0, 2)), np.zeros((0, 2))
    # One width whatever the probability, so that two tables of one machine get the same plan.
    widths = [text_width(edge_label(edge.token, 0.88), sizes.label_type) for edge in graph.edges]
    label_sizes = np.array([[width + 0.03, 1.15 * sizes.label_type * POINT] for width in widths])
    return geometry.place_labels(curves, label_sizes, positions, sizes.node_radius), label_sizes


def edge_label(token: str, probability: float) -> str:
    """A token and its probability, such as `1 (79%)`."""
    return f"{shown(token)} ({percent(probability)})"


def token_list(graph: StateGraph, state: int) -> str:
    """The next tokens of a state with their probabilities: all in their order, or only the likeliest of many."""
    edges = [edge for edge in graph.edges if edge.source == state]
    if graph.vocab_size > MOST_LISTED_TOKENS:
        edges = sorted(edges, key=lambda edge: -edge.probability)[:MOST_LISTED_TOKENS]
    return "   ".join(f"{shown(edge.token)}: {percent(edge.probability)}" for edge in edges)


def state_name(graph: StateGraph, state: int) -> str:
    """The context as the figure writes it; a red one says so where there is room beside the node."""
    return shown(graph.labels[state]) + (" red" if state in graph.red else "")


def outer_order(vocab_size: int, lengths: range) -> list[tuple[int, int]]:
    """The contexts (length, code) of these lengths as trees of growing contexts, from left to right.

    The children of a context stand to both sides of it, so the arrows of growth along the ring do not cross.

    >>> outer_order(2, range(1, 3))
    [(2, 0), (1, 0), (2, 1), (2, 2), (1, 1), (2, 3)]
    """

    def walk(length: int, code: int) -> Iterator[tuple[int, int]]:
        children = range(code * vocab_size, (code + 1) * vocab_size) if length < lengths[-1] else range(0)
        half = len(children) // 2
        for child in children[:half]:
            yield from walk(length + 1, child)
        yield length, code
        for child in children[half:]:
            yield from walk(length + 1, child)

    return [place for code in range(vocab_size ** lengths[0]) for place in walk(lengths[0], code)]


def _stand(graph: StateGraph, sizes: Sizes, labelled: bool) -> tuple[np.ndarray, np.ndarray]:
    """Positions and outward directions of all states."""
    n_full = graph.n_full
    n_growing = len(graph.labels) - n_full
    angles = np.zeros(len(graph.labels))
    order = de_bruijn_order(graph.vocab_size, graph.context_length)
    angles[n_growing + np.array(order)] = np.pi / 2 - 2 * np.pi * np.arange(n_full) / n_full
    radius = max(1.55, n_full * 0.2 + 0.6) if labelled else max(1.6, n_full * 0.37 / (2 * np.pi))
    radii = np.full(len(graph.labels), radius)
    if n_growing:
        radii[:n_growing] = radius + (1.35 if labelled else 1.5 + _widest_list(graph, sizes))
        angles[:n_growing] = _growing_angles(graph, n_growing, angles)
    outward = geometry.unit(angles)
    return outward * radii[:, None], outward


def _growing_angles(graph: StateGraph, n_growing: int, angles: np.ndarray) -> np.ndarray:
    """Angles of the contexts that are not full, each near the full contexts that it grows into."""
    v = graph.vocab_size
    starts = {}
    length, start = graph.context_length, n_growing
    while start > 0:
        length -= 1
        start -= v**length
        starts[length] = start
    order = outer_order(v, range(length, graph.context_length))
    states = np.array([starts[length] + code for length, code in order])
    last = states >= starts[graph.context_length - 1]
    children = n_growing + (states[last] - starts[graph.context_length - 1])[:, None] * v + np.arange(v)
    slots = np.arange(n_growing) * 2 * np.pi / n_growing
    best, best_cost = slots, np.inf
    # Turn (and mirror) the outer ring until the arrows from it to the inner ring are as short as possible.
    for mirror in (1, -1):
        for turn in np.arange(6 * n_growing) * 2 * np.pi / (6 * n_growing):
            tried = mirror * slots + turn
            cost = (1 - np.cos(tried[last][:, None] - angles[children])).sum()
            if cost < best_cost - 1e-9:
                best, best_cost = tried, cost
    result = np.zeros(n_growing)
    result[states] = best
    return result


def _curves(graph: StateGraph, positions: np.ndarray, outward: np.ndarray, sizes: Sizes) -> list[np.ndarray]:
    """A curve for each edge, from the rim of its source to just before the rim of its target."""
    n_growing = len(graph.labels) - graph.n_full
    labelled = has_labelled_arrows(graph)
    place = {n_growing + code: i for i, code in enumerate(de_bruijn_order(graph.vocab_size, graph.context_length))}
    curves: dict[int, np.ndarray] = {}
    # The arrows of the ring first: those that come in from outside then find their way between them.
    for index in sorted(range(len(graph.edges)), key=lambda index: graph.edges[index].source < n_growing):
        edge = graph.edges[index]
        start, end = positions[edge.source], positions[edge.target]
        if edge.source == edge.target:
            curve = geometry.loop_at(start, outward[edge.source], sizes.loop)
        elif edge.source >= n_growing:
            is_next = (place[edge.target] - place[edge.source]) % graph.n_full == 1
            curve = _along_ring(start, end) if is_next else _chord(start, end)
        elif edge.target < n_growing:
            curve = _along_outer_ring(start, end, n_growing, side=1 if labelled else -1)
        else:
            curve = _inward(start, end, positions, sizes.node_radius, list(curves.values()))
        curves[index] = geometry.between_nodes(curve, sizes.node_radius, gap=0.02 + 0.05 * (edge.target in graph.red))
    return [curves[index] for index in range(len(graph.edges))]


def _along_ring(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The arc of the ring, clockwise, from a state to the next."""
    angle = np.arctan2(start[1], start[0])
    turn = (angle - np.arctan2(end[1], end[0])) % (2 * np.pi)
    return geometry.unit(angle - np.linspace(0, 1, 200) * turn) * np.hypot(*start)


def _chord(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """An arrow across the ring: it bends inward, past the states between, and to its left.

    The bend to the left keeps it apart from the arrow in the other direction.
    """
    middle = (start + end) / 2
    chord = end - start
    length = np.hypot(*chord)
    inward = 0.30 * length * (1 - length / (2.05 * np.hypot(*start))) * middle / max(np.hypot(*middle), 1e-9)
    return geometry.curve_through(start, middle - inward + 0.075 * geometry.left_of(chord), end)


def _along_outer_ring(start: np.ndarray, end: np.ndarray, n_outer: int, side: int) -> np.ndarray:
    """An arc along the outer ring; where it passes over states it leaves the ring, outward (side=1) or inward (-1)."""
    angle = np.arctan2(start[1], start[0])
    turn = (np.arctan2(end[1], end[0]) - angle + np.pi) % (2 * np.pi) - np.pi
    passed = max(abs(turn) * n_outer / (2 * np.pi) - 1, 0)
    t = np.linspace(0, 1, 200)
    radius = np.hypot(*start) * (1 + side * 0.35 * abs(turn) * min(passed, 1) * np.sin(np.pi * t))
    return geometry.unit(angle + t * turn) * radius[:, None]


def _inward(
    start: np.ndarray, end: np.ndarray, nodes: np.ndarray, node_radius: float, others: list[np.ndarray]
) -> np.ndarray:
    """The straightest curve from the outer ring to the inner one, off other states and along no other arrow."""
    chord = end - start
    drawn = np.concatenate([np.zeros((0, 2)), *(other[::2] for other in others)])
    best, best_cost = np.zeros((0, 2)), np.inf
    for bow in sorted(np.linspace(-0.5, 0.5, 21), key=abs):
        curve = geometry.curve_through(start, (start + end) / 2 + bow * geometry.left_of(chord), end)
        away = nearest(nodes, curve[::4])
        touched = np.maximum(node_radius + 0.2 - away, 0).sum() - 2 * (node_radius + 0.2)
        own = geometry.between_nodes(curve, node_radius, gap=0.0)[::2]
        shared = (nearest(own, drawn) < 0.13).sum() if len(drawn) else 0
        cost = 40 * touched + 0.6 * shared + 3 * abs(bow)
        if cost < best_cost - 1e-9:
            best, best_cost = curve, cost
    return best


def nearest(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance from each of `points` to the nearest of `others`, (points,)."""
    return np.hypot(*(points[:, None] - others[None]).transpose(2, 0, 1)).min(axis=1)


def _list_starts(graph: StateGraph, sizes: Sizes) -> np.ndarray:
    """How far from its centre the text beside a node starts: past its loop, if it has one."""
    starts = np.full(len(graph.labels), sizes.node_radius + 0.07)
    for edge in graph.edges:
        if edge.source == edge.target:
            starts[edge.source] = 0.75 * sizes.loop + 0.07
    starts[sorted(graph.red)] += 0.05  # the second ring
    return starts


def _list_width(graph: StateGraph, sizes: Sizes, state: int) -> float:
    name = text_width(state_name(graph, state), sizes.node_type, "bold")
    return name + 0.16 + text_width(token_list(graph, state), sizes.label_type)


def _widest_list(graph: StateGraph, sizes: Sizes) -> float:
    return max(_list_width(graph, sizes, state) for state in range(len(graph.labels)))


def extent(
    positions: np.ndarray, sizes: Sizes, curves: list[np.ndarray], centres: np.ndarray, label_sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the box that holds nodes, curves and labels."""
    margin = sizes.node_radius + 0.08
    points = [positions - margin, positions + margin, *curves, centres - label_sizes / 2, centres + label_sizes / 2]
    everything = np.concatenate(points)
    return everything.min(axis=0) - 0.05, everything.max(axis=0) + 0.05


def _with_lists(
    graph: StateGraph,
    sizes: Sizes,
    positions: np.ndarray,
    outward: np.ndarray,
    starts: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    widths = np.array([_list_width(graph, sizes, state) for state in range(len(graph.labels))])
    ends = positions + outward * (starts + widths + 0.05)[:, None]
    return np.minimum(low, ends.min(axis=0) - 0.1), np.maximum(high, ends.max(axis=0) + 0.1)
