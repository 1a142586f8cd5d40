"""Activation functions and their slopes as small multiples, all on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from glassgpt.errors import UsageError
from glassgpt.figures.curves import shown_words
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, in_house_style
from glassgpt.figures.margins import EDGE, caption_room, title_room, write_margins

COLUMNS = 4
PANEL, GAP_ACROSS, GAP_UP = (2.05, 1.75), 0.25, 0.62  # inches
LEFT, BELOW, ABOVE = 0.5, 0.5, 0.75
TYPE, SMALL = 10, 8.5
VALUE, SLOPE = CATEGORIES[0], CATEGORIES[5]
LOW, HIGH = -1.25, 2.25  # of f(x), the same in all panels
FOUND_IN = {
    "sigmoid": "the gates of a GRU",
    "tanh": "the MLP, the RNN",
    "relu": "the net that reads digits",
    "relu2": "Primer",
    "gelu": "the baby GPT",
    "gelu_tanh": "GPT-2",
    "swiglu": "Llama and Qwen3: the gate",
}


class Curves(Protocol):
    """The fields of `evaluation.activations.ActivationCurves`."""

    @property
    def x(self) -> np.ndarray: ...
    @property
    def values(self) -> Mapping[str, np.ndarray]: ...
    @property
    def slopes(self) -> Mapping[str, np.ndarray]: ...


@in_house_style
def draw_activations(curves: Curves, title: str | None = None) -> Figure:
    """A panel for each function, solid, and its slope, dashed, on the same axes; where to find it stands above it.

    A last panel shows by how much gelu_tanh, the approximation that GPT-2 has, is off gelu, if both are there. Raises
    UsageError without a function, and for a function without as many slopes as there are x.
    """
    names = list(curves.values)
    if not names or any(curves.slopes.get(name, np.empty(0)).shape != curves.x.shape for name in names):
        raise UsageError(f"each function needs a value and a slope at each x; got functions {names}")
    has_difference = {"gelu", "gelu_tanh"} <= set(names)
    n_panels = len(names) + has_difference
    n_columns, n_rows = min(COLUMNS, n_panels), -(-n_panels // COLUMNS)
    width = LEFT + n_columns * PANEL[0] + (n_columns - 1) * GAP_ACROSS + (0.5 if has_difference else 0.2)
    caption = _caption(curves, has_difference)
    below, above = caption_room(caption, width) + BELOW, title_room(title) + ABOVE
    height = below + n_rows * PANEL[1] + (n_rows - 1) * GAP_UP + above
    figure = Figure(figsize=(width, height))
    for place in range(n_panels):
        row, column = divmod(place, COLUMNS)
        left, bottom = LEFT + column * (PANEL[0] + GAP_ACROSS), below + (n_rows - 1 - row) * (PANEL[1] + GAP_UP)
        axes = figure.add_axes((left / width, bottom / height, PANEL[0] / width, PANEL[1] / height))
        axes.tick_params(labelsize=SMALL, length=3)
        axes.set_xlim(curves.x[0], curves.x[-1])
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, prune="both"))
        is_lowest = place + COLUMNS >= n_panels
        axes.set_xlabel("x" if is_lowest else "", size=SMALL, labelpad=1)
        axes.tick_params(labelbottom=is_lowest)
        if place < len(names):
            _draw_function(axes, curves, names[place])
            axes.tick_params(labelleft=column == 0)
        else:
            _draw_difference(axes, curves)
    _legend(figure, 1 - title_room(title) / height)
    write_margins(figure, title, caption)
    return figure


def largest_difference(curves: Curves) -> float:
    """The most by which gelu_tanh is off gelu."""
    return float(np.abs(curves.values["gelu_tanh"] - curves.values["gelu"]).max())


def _draw_function(axes: Axes, curves: Curves, name: str) -> None:
    for level in (0.0, 1.0):
        axes.axhline(level, color=GREY, linewidth=0.6, alpha=0.6 if level == 0 else 0.3, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, alpha=0.6, zorder=0)
    x, slopes = _without_jumps(curves.x, curves.slopes[name])
    axes.plot(x, slopes, color=SLOPE, linestyle=(0, (4, 2)), linewidth=1.4, zorder=3, gid=f"slope {name}")
    axes.plot(curves.x, curves.values[name], color=VALUE, linewidth=1.9, gid=f"value {name}")
    axes.set_ylim(LOW, HIGH)
    axes.yaxis.set_major_locator(MultipleLocator(1))
    _head(axes, shown_words(name), FOUND_IN.get(name, ""))


def _draw_difference(axes: Axes, curves: Curves) -> None:
    difference = curves.values["gelu_tanh"] - curves.values["gelu"]
    axes.axhline(0, color=GREY, linewidth=0.6, alpha=0.6, zorder=0)
    axes.axvline(0, color=GREY, linewidth=0.6, alpha=0.6, zorder=0)
    axes.plot(curves.x, 1000 * difference, color=CATEGORIES[7], linewidth=1.4, gid="difference")
    axes.yaxis.tick_right()
    axes.spines["left"].set_visible(False)
    axes.spines["right"].set_visible(True)
    _head(axes, "gelu_tanh less gelu", "in thousandths (scale at the right)")


def _head(axes: Axes, name: str, about: str) -> None:
    axes.set_title(name, loc="left", size=TYPE, weight="bold", pad=16, parse_math=False)
    axes.text(0, 1.03, about, transform=axes.transAxes, size=SMALL, va="bottom", gid="found-in")


def _without_jumps(x: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A gap where the slope jumps, as relu's does at 0: a line up would be a slope that no place has."""
    steps = np.abs(np.diff(slopes))
    jumps = np.flatnonzero(steps > 0.25 * max(float(np.ptp(slopes)), 1e-300)) + 1
    return np.insert(x, jumps, np.nan), np.insert(slopes, jumps, np.nan)


def _legend(figure: Figure, top: float) -> None:
    handles = [
        Line2D([], [], color=VALUE, linewidth=1.9, label="f(x)"),
        Line2D([], [], color=SLOPE, linewidth=1.4, linestyle=(0, (4, 2)), label="its slope f′(x)"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(EDGE / figure.get_figwidth(), top),
        ncols=2,
        frameon=False,
        fontsize=9,
        borderaxespad=0.0,
        borderpad=0.0,
    )


def _caption(curves: Curves, has_difference: bool) -> str:
    text = (
        "What bends a net: without one of these between them, layers of matrices are one matrix. Where the slope is 0, "
        "or nearly, a unit learns nothing, or nearly: look at both ends of the dashed lines."
    )
    if has_difference:
        text += (
            f" gelu_tanh is off gelu by {largest_difference(curves):.1g} at most, so that their panels look the same."
        )
    return text
