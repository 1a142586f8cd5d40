"""What each step of history bought: a row for each model of the ladder, and the yardsticks as lines through all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes

from glassgpt.errors import UsageError
from glassgpt.figures.curves import draw_probabilities_over_training, shown_words, spread
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style, text_width

ROW = 0.3  # inches
PLOT_WIDTH = 5.2
NAME_TYPE, NUMBER_TYPE, YARDSTICK_TYPE = 10, 9, 8.5
GAP = 0.25  # inches between columns
TURN = 40  # degrees by which a yardstick's name rises


@dataclass(frozen=True)
class LadderRow:
    """One model: how many tokens it looks back at, what it costs in bits per byte, and in parameters (or counts)."""

    name: str
    history: int
    bits_per_byte: float
    parameters: int
    seconds: float


@in_house_style
def draw_ladder(
    rows: Sequence[LadderRow], yardsticks: Mapping[str, float] = MappingProxyType({}), title: str | None = None
) -> Figure:
    """Bits per byte of each model as a bar from 0, in the order given, with its numbers in columns beside it.

    yardsticks: name -> bits per byte, dashed lines through all rows with their names above; those far beyond the worst
    model (uniform, say) would squeeze the rest, and are named at the foot. The best model's bar is darker than the
    others. Raises UsageError for no rows, and for bits that are not finite and above 0.
    """
    if not rows:
        raise UsageError("a ladder needs at least one rung; got none")
    values = np.array([row.bits_per_byte for row in rows] + list(yardsticks.values()), dtype=np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise UsageError(f"bits per byte must be finite and above 0; got {values.tolist()}")
    edge = 1.06 * float(max(row.bits_per_byte for row in rows))
    inside = {name: level for name, level in yardsticks.items() if level <= edge}
    beyond = [f"{shown_words(name)} {level:.2f}" for name, level in yardsticks.items() if level > edge]
    columns = _columns(rows)
    widths = [max(text_width(text, NUMBER_TYPE) for text in column) for column in columns]
    left = max(text_width(shown_words(row.name), NAME_TYPE) for row in rows) + 0.25
    right = sum(widths) + GAP * (len(widths) + 1)
    labels = max((_label_height(name, level) for name, level in inside.items()), default=0.25)
    above, below = labels + 0.2 + (0.4 if title else 0.0), 0.6 + (0.2 if beyond else 0.0)
    width, height = left + PLOT_WIDTH + right, above + ROW * len(rows) + below
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, PLOT_WIDTH / width, ROW * len(rows) / height))
    axes.set_xlim(0, edge)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    _bars(axes, rows)
    _write_columns(axes, columns, widths)
    _rule_yardsticks(axes, inside, edge)
    axes.set_xlabel("bits per byte of the validation part (less is better)")
    if beyond:
        note = "beyond the right edge: " + ", ".join(beyond)
        figure.text(left / width, 0.08 / height, note, size=NUMBER_TYPE, color=GREY, va="bottom", parse_math=False)
    if title:
        top = 1 - 0.12 / height
        figure.text(left / width, top, title, weight="bold", size=12, va="top", parse_math=False)
    return figure


@in_house_style
def draw_attention(
    lengths: Sequence[int], shares: Mapping[str, Sequence[float]], guessing: float, trained_to: int
) -> Figure:
    """The share of symbols that are right against a text's length, a line for each net, named at its end.

    guessing: what drawing symbols blindly gets right, a dashed line. trained_to: the longest text trained on, a dotted
    line. Raises UsageError for shares outside [0, 1] or another number of them than of lengths.
    """
    figure = draw_probabilities_over_training(lengths, np.array(list(shares.values())).T, list(shares))
    axes = figure.axes[0]
    axes.set_xlabel("symbols in the text to be reversed")
    axes.set_ylabel("symbols that are right")
    axes.axhline(guessing, color=GREY, linestyle=(0, (5, 3)), linewidth=1.0, gid="guessing")
    axes.text(lengths[0], guessing - 0.02, " guessing", color=GREY, size=NUMBER_TYPE, va="top")
    axes.axvline(trained_to, color=GREY, linestyle=":", linewidth=1.2, gid="trained-to")
    axes.text(trained_to, 0.0, " trained to here", color=GREY, size=NUMBER_TYPE, va="bottom")
    return figure


def _columns(rows: Sequence[LadderRow]) -> list[list[str]]:
    """The numbers of each row as texts, a column each, with a heading."""
    return [
        ["bits", *(f"{row.bits_per_byte:.2f}" for row in rows)],
        ["history", *(str(row.history) for row in rows)],
        ["numbers", *(counted(row.parameters) for row in rows)],
        ["seconds", *(f"{row.seconds:.2g}" if row.seconds < 10 else f"{row.seconds:.0f}" for row in rows)],
    ]


def counted(n: int) -> str:
    """A count as a person says it, three digits or less.

    >>> counted(65), counted(1445), counted(459128), counted(10_600_000)
    ('65', '1.4k', '459k', '10.6M')
    """
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if n >= size:
            return f"{n / size:.1f}{unit}" if n < 100 * size else f"{n / size:.0f}{unit}"
    return str(n)


def _bars(axes: Axes, rows: Sequence[LadderRow]) -> None:
    bits = [row.bits_per_byte for row in rows]
    bars = axes.barh(range(len(rows)), bits, height=0.62, color=CATEGORIES[4], zorder=1)
    bars[int(np.argmin(bits))].set_facecolor(CATEGORIES[0])
    axes.set_yticks(range(len(rows)), [shown_words(row.name) for row in rows], parse_math=False, size=NAME_TYPE)
    axes.tick_params(axis="y", length=0)
    for label in axes.get_yticklabels():
        label.set_color(INK)


def _write_columns(axes: Axes, columns: Sequence[Sequence[str]], widths: Sequence[float]) -> None:
    """Right-aligned columns to the right of the bars, each under its heading."""
    right = PLOT_WIDTH
    for column, width in zip(columns, widths, strict=True):
        right += GAP + width
        for row, text in enumerate(column, start=-1):
            place, height = axes.get_yaxis_transform(), row + (0.25 if row < 0 else 0.0)
            number = axes.text(right / PLOT_WIDTH, height, text, transform=place, va="center", ha="right")
            number.set(color=GREY if row < 0 else INK, size=NUMBER_TYPE, gid="number")


def _label_height(name: str, level: float) -> float:
    along = text_width(_yardstick_label(name, level), YARDSTICK_TYPE)
    return 0.3 + float(np.sin(np.radians(TURN))) * along


def _yardstick_label(name: str, level: float) -> str:
    return f"{shown_words(name)} {level:.2f}"


def _rule_yardsticks(axes: Axes, yardsticks: Mapping[str, float], edge: float) -> None:
    """A dashed line for each yardstick, and its name above, turned so that near neighbours stand side by side."""
    if not yardsticks:
        return
    shares = [level / edge for level in yardsticks.values()]
    places = spread(shares, gap=0.24 / PLOT_WIDTH, low=0.0, high=1.0)
    above = 1 + 0.16 / (ROW * axes.get_ylim()[0] + ROW / 2)
    for (name, level), share, place in zip(yardsticks.items(), shares, places, strict=True):
        axes.axvline(level, color=GREY, linestyle=(0, (5, 3)), linewidth=1.0, zorder=2, gid="yardstick")
        axes.plot([share, place], [1, above], transform=axes.transAxes, color=GREY, linewidth=0.8, clip_on=False)
        label = axes.text(place, above, _yardstick_label(name, level), transform=axes.transAxes, parse_math=False)
        label.set(rotation=TURN, rotation_mode="anchor", size=YARDSTICK_TYPE, color=GREY, gid="yardstick-label")
