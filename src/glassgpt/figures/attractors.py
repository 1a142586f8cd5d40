"""Three points and the regions nearest to them: the true ones beside what nets of growing sizes make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style
from glassgpt.figures.margins import caption_room, title_room, write_margins

SQUARE, GAP_ACROSS, GAP_UP = 1.55, 0.2, 0.5  # inches
TRUTH = 2.4
SHARES_HEIGHT = 1.7
LEFT, BELOW, ABOVE = 0.6, 0.2, 0.42
TYPE, SMALL = 10, 8.5
CODES, NAMES = (-1, 0, 1), ("−1", "0", "+1")
TINTS = ("#8fc1e3", "#fbd38a", "#8ed6bb")  # blue, orange and green of the house, lightened
INKS = (CATEGORIES[0], "#8a5f00", "#006a4e")
HATCHES = ("////", "", "....")
MARKERS = ("o", "s", "^", "D", "v")


class Net(Protocol):
    """The fields of `evaluation.attractors.TrainedNet` that are drawn."""

    @property
    def hidden(self) -> tuple[int, ...]: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def outputs(self) -> np.ndarray: ...
    @property
    def right(self) -> float: ...


class Nets(Protocol):
    """The fields of `evaluation.attractors.AttractorNets`."""

    @property
    def points(self) -> np.ndarray: ...
    @property
    def places(self) -> np.ndarray: ...
    @property
    def nets(self) -> Sequence[Net]: ...
    @property
    def n_examples(self) -> int: ...
    @property
    def starts(self) -> int: ...


@in_house_style
def draw_attractors(found: Nets, title: str | None = None) -> Figure:
    """The true regions at the left, and a square for each net, a row for each number of hidden layers.

    A net's region of a code is where its output is nearest to that code; the true borders run through it as dashed
    lines. Above it stand the units of its hidden layers, its parameters, and the share of the square in which it is
    right, which a curve at the left shows against the parameters. Raises UsageError without a net.
    """
    if not found.nets:
        raise UsageError("there is no net to draw: train one or more (glassgpt.evaluation.attractors)")
    rows = by_depth(found.nets)
    n_rows, n_columns = len(rows), max(len(row) for row in rows)
    nets_left = LEFT + TRUTH + 0.7
    width = nets_left + n_columns * SQUARE + (n_columns - 1) * GAP_ACROSS + 0.2
    below, above = caption_room(_caption(found), width) + BELOW, title_room(title) + ABOVE
    grid = max(n_rows * SQUARE + (n_rows - 1) * GAP_UP, TRUTH + SHARES_HEIGHT + 1.3)
    height = below + grid + above
    figure = Figure(figsize=(width, height))

    def place(left: float, top: float, across: float, up: float) -> Axes:
        """Axes whose upper left corner is so many inches from the left and below the grid's top."""
        bottom = height - above - top - up
        return figure.add_axes((left / width, bottom / height, across / width, up / height))

    _draw_truth(place(LEFT, 0.0, TRUTH, TRUTH), found)
    _draw_shares(place(LEFT, grid - SHARES_HEIGHT - 0.4, TRUTH, SHARES_HEIGHT), rows)
    for i, row in enumerate(rows):
        for j, net in enumerate(row):
            axes = place(nets_left + j * (SQUARE + GAP_ACROSS), i * (SQUARE + GAP_UP), SQUARE, SQUARE)
            _draw_net(axes, found, net)
            if j == 0:
                axes.set_ylabel(depth_name(len(net.hidden)), size=TYPE, labelpad=6)
    write_margins(figure, title, _caption(found))
    return figure


def by_depth(nets: Sequence[Net]) -> list[list[Net]]:
    """The nets in rows of equally many hidden layers, in each row by their parameters."""
    depths = sorted({len(net.hidden) for net in nets})
    return [sorted((n for n in nets if len(n.hidden) == d), key=lambda net: net.n_parameters) for d in depths]


def depth_name(depth: int) -> str:
    return "no hidden layer" if depth == 0 else f"{depth} hidden layer" + ("s" if depth > 1 else "")


def units_name(hidden: tuple[int, ...]) -> str:
    """The units of the hidden layers in short.

    >>> units_name((8, 8)), units_name((1,)), units_name(())
    ('8 + 8 units', '1 unit', 'no units')
    """
    return (" + ".join(map(str, hidden)) or "no") + (" unit" if hidden == (1,) else " units")


def _draw_truth(axes: Axes, found: Nets) -> None:
    leads = _leads(found)
    for code in range(3):
        _fill(axes, found.places, leads[code], [0.0, np.inf], [code])
    _draw_borders(axes, found.places, leads, "-")
    _frame(axes, found)
    _mark_points(axes, found, 10)
    axes.set_title("the nearest point", loc="left", size=TYPE, weight="bold")
    axes.set(xticks=[-1, 0, 1], yticks=[-1, 0, 1])
    axes.tick_params(labelsize=SMALL, length=3)
    axes.set_xlabel("x", size=SMALL, labelpad=1)
    axes.set_ylabel("y", size=SMALL, labelpad=-2)


def _draw_net(axes: Axes, found: Nets, net: Net) -> None:
    low, high = min(float(net.outputs.min()), -1.0) - 1, max(float(net.outputs.max()), 1.0) + 1
    _fill(axes, found.places, net.outputs, [low, -0.5, 0.5, high], [0, 1, 2])
    _draw_borders(axes, found.places, _leads(found), (0, (4, 2)))
    _frame(axes, found)
    _mark_points(axes, found, 8)
    axes.set_title(units_name(net.hidden), loc="left", size=SMALL, weight="bold", pad=15)
    numbers = f"{net.n_parameters:,} parameters: {100 * net.right:.1f}%"
    axes.text(0, 1.025, numbers, transform=axes.transAxes, va="bottom", size=SMALL, gid="numbers")
    axes.set(xticks=[], yticks=[])


def _leads(found: Nets) -> np.ndarray:
    """By how much each point is nearer than the nearest other one, at each place: float64 (3, y, x), below 0 where it
    is not the nearest. Squared distances, whose differences are linear, so that borders come out straight."""
    x, y = np.meshgrid(found.places, found.places)
    away = np.array([(x - px) ** 2 + (y - py) ** 2 for px, py in found.points])
    return np.array([np.delete(away, code, axis=0).min(axis=0) - away[code] for code in range(3)])


def _fill(axes: Axes, places: np.ndarray, values: np.ndarray, levels: Sequence[float], codes: Sequence[int]) -> None:
    looks: dict[str, Any] = {"colors": [TINTS[code] for code in codes], "hatches": [HATCHES[code] for code in codes]}
    levels = [min(level, float(np.abs(values).max()) + 1) for level in levels]
    with rc_context({"hatch.color": "white", "hatch.linewidth": 0.9}):
        areas = axes.contourf(places, places, values, levels=levels, **looks)
    areas.set_gid(f"regions {' '.join(NAMES[code] for code in codes)}")


def _draw_borders(axes: Axes, places: np.ndarray, leads: np.ndarray, dashes: Any) -> None:
    first, second = leads[0], np.ma.masked_where(leads[0] > 0, leads[1])  # each border once, or dashes fill up
    for lead in (first, second):
        axes.contour(places, places, lead, levels=[0.0], colors=[INK], linewidths=0.9, linestyles=[dashes])


def _draw_shares(axes: Axes, rows: Sequence[Sequence[Net]]) -> None:
    """The share that is right against the parameters, a line for each number of hidden layers."""
    for i, row in enumerate(rows):
        colour, depth = CATEGORIES[(5, 3, 0, 7, 2)[i % 5]], len(row[0].hidden)
        line = axes.plot([net.n_parameters for net in row], [100 * net.right for net in row], color=colour)[0]
        line.set(marker=MARKERS[i % 5], markersize=4.5, linewidth=1.2, label=str(depth), gid=f"shares {depth}")
    axes.set_xscale("log")
    axes.set_ylim(top=101)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel("parameters", size=SMALL, labelpad=1)
    axes.set_title("% of the square that is right", loc="left", size=TYPE, weight="bold")
    axes.tick_params(labelsize=SMALL, length=3)
    axes.legend(title="hidden layers", title_fontsize=SMALL, fontsize=SMALL, frameon=False, loc="lower right")


def _frame(axes: Axes, found: Nets) -> None:
    axes.set(xlim=(found.places[0], found.places[-1]), ylim=(found.places[0], found.places[-1]), aspect="equal")
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)


def _mark_points(axes: Axes, found: Nets, size: float) -> None:
    for (x, y), name, ink in zip(found.points, NAMES, INKS, strict=True):
        axes.plot([x], [y], "o", color=ink, markersize=4.5, markeredgecolor="white", markeredgewidth=0.8, gid="point")
        label = axes.annotate(
            name, (x, y), (0, -4), textcoords="offset points", ha="center", va="top", annotation_clip=False
        )
        label.set(
            size=size,
            weight="bold",
            color=ink,
            gid="code",
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )


def _caption(found: Nets) -> str:
    return (
        "Every location of the square belongs to the nearest of three points, coded −1, 0 and +1 (dashed: the true "
        f"borders). Each net has x and y as its input and learned one number from {found.n_examples:,} examples, the "
        "code; it answers with the code nearest to its output, which has to pass 0 on the way from −1 to +1: hence the "
        f"seam. Of {found.starts} trainings from different weights the one with the least error on the examples is "
        "shown; %: how much of the square it has right."
    )
