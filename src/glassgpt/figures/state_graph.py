"""Pictures of the state graph: a GPT as the finite-state Markov chain over contexts that it is.

`states` holds the data (and its Graphviz text), `ring_plan` and `necklace_plan` say where everything stands; this file
paints it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Circle, PathPatch
from matplotlib.patheffects import withStroke

from glassgpt.errors import UsageError
from glassgpt.figures import geometry
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import (
    GREY,
    INK,
    NODE_TINT,
    RED,
    RED_TINT,
    in_house_style,
    inch_axes,
    line_height,
    shown,
    text_width,
    wrapped,
)
from glassgpt.figures.necklace_plan import plan_necklaces
from glassgpt.figures.ring_plan import (
    MOST_LISTED_TOKENS,
    Plan,
    edge_label,
    has_labelled_arrows,
    plan_ring,
    state_name,
    token_list,
)
from glassgpt.figures.states import Edge, StateGraph, de_bruijn_order, graph_from_tables, percent, to_dot

__all__ = [
    "LAYOUTS",
    "MOST_STATES",
    "Edge",
    "Layout",
    "StateGraph",
    "de_bruijn_order",
    "draw_before_after",
    "draw_state_graph",
    "graph_from_tables",
    "percent",
    "to_dot",
]

MOST_STATES = 64
"""A ring of more states than this cannot be read on a page."""

Layout = Literal["ring", "necklace"]
LAYOUTS: dict[Layout, Any] = {"ring": plan_ring, "necklace": plan_necklaces}

TONES = LinearSegmentedColormap.from_list("tones", ["#a7b7c9", "#7391b2", "#33618f", "#0b2a4a"])
TITLE_TYPE = 13.0
CAPTION_TYPE = 9.0


@in_house_style
def draw_state_graph(graph: StateGraph, title: str | None = None, layout: Layout = "ring") -> Figure:
    """The states on a ring, each next token an arrow to the state that it leads to.

    Full contexts stand in de Bruijn order, clockwise from the top. An arrow is the thicker and the darker, the likelier
    its token. With few arrows each carries its token and probability; with more than 48 they are listed beside the
    state. Contexts that are not full yet stand on an outer ring. Red states have a second ring and the word "red".

    As a "necklace" contexts that are rotations of one another stand on a ring of their own (see `necklaces`), with
    their names inside; beyond 48 arrows these are without labels.

    Raises UsageError above 64 states, and for a necklace of contexts that are not all full.
    """
    return _draw_side_by_side([graph], [title or ""], layout)


@in_house_style
def draw_before_after(
    before: StateGraph,
    after: StateGraph,
    titles: tuple[str, str] = ("before training", "after training"),
    layout: Layout = "ring",
) -> Figure:
    """Two tables of one machine side by side, with the same layout and the same scales of thickness and tone.

    Raises UsageError as `draw_state_graph`, and when the two graphs do not have the same states.
    """
    if before.labels != after.labels:
        raise UsageError(
            f"before and after must be graphs of the same states; "
            f"got {len(before.labels)} and {len(after.labels)} states, or other labels"
        )
    return _draw_side_by_side([before, after], list(titles), layout)


def _draw_side_by_side(graphs: Sequence[StateGraph], titles: Sequence[str], layout: Layout) -> Figure:
    if layout not in LAYOUTS:
        raise UsageError(f"a graph is laid out as {' or '.join(LAYOUTS)}, got {layout!r}")
    for graph in graphs:
        _check_size(graph)
    plans = [LAYOUTS[layout](graph) for graph in graphs]
    low = np.min([plan.low for plan in plans], axis=0)
    high = np.max([plan.high for plan in plans], axis=0)
    width, height = high - low
    margin, between = 0.15, 0.4
    total = len(graphs) * width + (len(graphs) - 1) * between + 2 * margin
    caption = wrapped(_caption(graphs, layout), 0.96 * (total - 2 * margin), CAPTION_TYPE)  # lines differ in width
    below = margin + line_height(caption, CAPTION_TYPE) + 0.1
    above = line_height(max(titles, key=len), TITLE_TYPE) + margin
    figure = Figure(figsize=(total, below + height + above))
    for column, (graph, plan, title) in enumerate(zip(graphs, plans, titles, strict=True)):
        axes = inch_axes(figure, margin + column * (width + between), below, low, high)
        _paint(axes, graph, plan)
        centre = (margin + column * (width + between) + width / 2) / total
        figure.text(centre, 1 - 0.6 * margin / figure.get_figheight(), title, size=TITLE_TYPE, **_HEADING)
    figure.text(0.5, margin / figure.get_figheight(), caption, size=CAPTION_TYPE, **_FOOTNOTE)
    return figure


_HEADING: dict[str, Any] = {"ha": "center", "va": "top", "weight": "bold", "parse_math": False}
_FOOTNOTE: dict[str, Any] = {"ha": "center", "va": "bottom", "color": GREY, "linespacing": 1.3, "parse_math": False}


def _check_size(graph: StateGraph) -> None:
    if len(graph.labels) > MOST_STATES:
        raise UsageError(
            f"a ring can show at most {MOST_STATES} states and this graph has {len(graph.labels):,}; "
            f"use the heat map (draw_transition_heat_map), or Graphviz with the text of to_dot"
        )


def _caption(graphs: Sequence[StateGraph], layout: Layout) -> str:
    graph = graphs[0]
    parts = ["An arrow is a next token, thicker and darker the likelier it is."]
    if layout == "necklace":
        parts.append(
            "On a ring stand contexts that are rotations of one another: along it the token that drops out comes "
            "again, and a text that stays on it is periodic. From left to right the sum of the tokens' numbers grows."
        )
    elif not has_labelled_arrows(graph):
        listed = "its next tokens" if graph.vocab_size <= MOST_LISTED_TOKENS else f"its {MOST_LISTED_TOKENS} likeliest"
        ending = "" if graph.vocab_size <= MOST_LISTED_TOKENS else f" of {graph.vocab_size} next tokens"
        parts.append(f"Beside each state: {listed}{ending}; a token is the last symbol of the state it leads to.")
    if len(graph.labels) > graph.n_full:
        parts.append("Outer ring: contexts that are still growing.")
    if any(g.red for g in graphs):
        parts.append("Double ring: red.")
    return " ".join(parts)


def _paint(axes: Axes, graph: StateGraph, plan: Plan) -> None:
    _paint_arrows(axes, graph, plan)
    _paint_nodes(axes, graph, plan)
    if plan.has_lists:
        _write_beside_nodes(axes, graph, plan)
    else:
        _write_on_nodes(axes, graph, plan)
    if len(plan.label_centres):
        _write_on_arrows(axes, graph, plan)


def _paint_arrows(axes: Axes, graph: StateGraph, plan: Plan) -> None:
    sizes = plan.sizes
    for index, (edge, curve) in enumerate(zip(graph.edges, plan.curves, strict=True)):
        width = sizes.thinnest + (sizes.thickest - sizes.thinnest) * edge.probability
        outline = geometry.arrow_outline(curve, width, sizes.head * (0.6 + 0.5 * edge.probability))
        # A thin white edge lets the likelier of two crossing arrows pass over the other.
        patch = PathPatch(outline, facecolor=TONES(edge.probability), edgecolor="white", linewidth=0.5)
        patch.set(zorder=1 + edge.probability, gid=f"edge-{index}", joinstyle="round")
        axes.add_artist(patch)


def _paint_nodes(axes: Axes, graph: StateGraph, plan: Plan) -> None:
    radius = plan.node_radius
    for state, centre in enumerate(plan.positions):
        is_red = state in graph.red
        if is_red:
            ring = Circle(centre, radius + 0.05, facecolor="white", edgecolor=RED, linewidth=1.6, zorder=3)
            axes.add_artist(ring)
        node = Circle(centre, radius, linewidth=1.6 if is_red else 1.1, zorder=3.1)
        node.set(facecolor=RED_TINT if is_red else NODE_TINT, edgecolor=RED if is_red else INK, gid=f"state-{state}")
        axes.add_artist(node)


def _write_on_nodes(axes: Axes, graph: StateGraph, plan: Plan) -> None:
    size, low = plan.sizes.node_type, min(plan.node_radius, 0.27)  # how much lower "red" stands
    for state, (x, y) in enumerate(plan.positions):
        is_red = state in graph.red
        style: dict[str, Any] = {"ha": "center", "va": "center", "parse_math": False, "zorder": 4}
        name = axes.text(x, y + 0.22 * low * is_red, shown(graph.labels[state]), size=size, weight="bold", **style)
        name.set_gid(f"name-{state}")
        if is_red:
            axes.text(x, y - 0.41 * low, "red", size=0.73 * size, color=RED, weight="bold", **style)


def _write_on_arrows(axes: Axes, graph: StateGraph, plan: Plan) -> None:
    for index, edge in enumerate(graph.edges):
        label = edge_label(edge.token, edge.probability)
        x, y = _beside_curve(plan, index, text_width(label, plan.sizes.label_type))
        text = axes.text(x, y, label, size=plan.sizes.label_type, ha="center")
        text.set(va="center", parse_math=False, zorder=2.5, gid=f"label-{index}")
        text.set_bbox({"boxstyle": "square,pad=0.08", "facecolor": "white", "edgecolor": "none", "alpha": 0.85})


def _beside_curve(plan: Plan, index: int, width: float) -> np.ndarray:
    """The centre of a label that is wider or narrower than was planned: its side next to the arrow stays in place."""
    centre, curve = plan.label_centres[index], plan.curves[index]
    away = centre[0] - curve[np.argmin(np.hypot(*(curve - centre).T)), 0]
    planned = plan.label_sizes[index, 0]
    is_beside = abs(away) > 0.3 * planned
    return centre + np.array([is_beside * np.sign(away) * (width + 0.03 - planned) / 2, 0.0])


def _write_beside_nodes(axes: Axes, graph: StateGraph, plan: Plan) -> None:
    """Name and tokens of each state as a line that points away from the centre and is never upside down."""
    for state, direction in enumerate(plan.outward):
        name = state_name(graph, state)
        points_left = direction[0] < -1e-9
        turn = np.degrees(np.arctan2(direction[1], direction[0])) + 180 * points_left
        style: dict[str, Any] = {"rotation": turn, "rotation_mode": "anchor", "parse_math": False, "zorder": 4}
        style.update(va="center", ha="right" if points_left else "left")
        x, y = plan.positions[state] + direction * plan.list_starts[state]
        colour = RED if state in graph.red else INK
        first = axes.text(x, y, name, size=plan.sizes.node_type, weight="bold", color=colour, **style)
        first.set_gid(f"name-{state}")
        offset = plan.list_starts[state] + text_width(name, plan.sizes.node_type, "bold") + 0.16
        x, y = plan.positions[state] + direction * offset
        second = axes.text(x, y, token_list(graph, state), size=plan.sizes.label_type, **style)
        for text in (first, second):
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])
