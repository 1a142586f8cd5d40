"""The table of next-token probabilities as a picture, for as many states as there are.

Few states are rows with numbers; some hundreds are rows of plain colour; more stand in a square, one pixel a state.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import GREY, INK, RED, in_house_style, line_height, shown, text_width, wrapped
from glassgpt.figures.states import percent

MOST_NUMBERED_ROWS = 64
MOST_NUMBERED_COLUMNS = 12
MOST_ROWS = 512
"""A table of more states than this is drawn as a square with one pixel a state."""

CELL_WIDTH, CELL_HEIGHT = 0.56, 0.25
NARROWEST = 3.6  # inches of a picture whose caption can be read
MOST_CIRCLED = 100


@in_house_style
def draw_transition_heat_map(
    probabilities: np.ndarray,
    row_labels: Sequence[str],
    symbols: Sequence[str],
    title: str | None = None,
    red: Iterable[int] = (),
) -> Figure:
    """Next-token probabilities of all states as colours from 0 (dark) to 1, or the greatest there is (bright).

    probabilities: float array (states, V). row_labels: the states' contexts; only those that are written are looked at.
    Up to 64 states and 12 tokens: a row for each state, with its numbers in percent. Up to 512 states: rows of plain
    colour with some contexts at the side. More: a square with one pixel a state; if the states are all contexts of
    one length T, the row is the context's first T // 2 tokens and the column the rest, so states with the same recent
    past stand below one another. Its colour is, for two tokens, the probability of the second (the whole
    distribution), otherwise the entropy in nats. Red states are marked, and counted where they are too many to mark.

    Raises UsageError when the shapes do not fit or a value is no probability.
    """
    table = _checked(probabilities, row_labels, symbols)
    red_states = sorted({int(state) for state in red})
    if red_states and not 0 <= red_states[0] <= red_states[-1] < len(table):
        raise UsageError(f"red states are indices from 0 to {len(table) - 1}; got {red_states}")
    if len(table) <= MOST_NUMBERED_ROWS and len(symbols) <= MOST_NUMBERED_COLUMNS:
        return _draw_numbered(table, row_labels, symbols, title, red_states)
    if len(table) <= MOST_ROWS:
        return _draw_rows(table, row_labels, symbols, title, red_states)
    return _draw_square(table, row_labels, symbols, title, red_states)


def _draw_numbered(
    table: np.ndarray, row_labels: Sequence[str], symbols: Sequence[str], title: str | None, red: Sequence[int]
) -> Figure:
    names = [shown(row_labels[row]) + (" red" if row in red else "") for row in range(len(table))]
    margin = max(text_width(name, 9, "bold") for name in names) + 0.2
    n_blocks = _blocks(len(table), margin + len(symbols) * CELL_WIDTH)
    per_block = -(-len(table) // n_blocks)
    block_width = margin + len(symbols) * CELL_WIDTH + 0.25
    width = max(n_blocks * block_width + 0.85, text_width(title or "", 13, "bold") + 0.3, NARROWEST)
    meaning = "A row is a state, and a number in it the probability that the token above comes next."
    caption = wrapped(meaning, 0.94 * width - 0.3, 9)
    below = 0.2 + line_height(caption, 9)
    height = per_block * CELL_HEIGHT + below + 0.6 + (0.4 if title else 0.0)
    figure = Figure(figsize=(width, height))
    figure.text(0.15 / width, 0.1 / height, caption, size=9, color=GREY, va="bottom", gid="caption")
    for block in range(n_blocks):
        rows = range(block * per_block, min((block + 1) * per_block, len(table)))
        box_height = len(rows) * CELL_HEIGHT
        bottom = below + (per_block - len(rows)) * CELL_HEIGHT
        left = block * block_width + margin
        axes = figure.add_axes((left / width, bottom / height, len(symbols) * CELL_WIDTH / width, box_height / height))
        _paint_cells(axes, table, rows, names, symbols, red)
    beside = (n_blocks * block_width + 0.23) / width
    _colour_bar(figure, (beside, below / height, 0.12 / width, per_block * CELL_HEIGHT / height), 1.0, "%")
    _write_title(figure, title)
    return figure


def _blocks(n_rows: int, block_width: float) -> int:
    """Into how many columns of rows to break a table so that the picture is about as wide as high."""
    choices = range(1, -(-n_rows // 8) + 1)
    return min(choices, key=lambda n: abs(np.log(1.25 * (-(-n_rows // n) * CELL_HEIGHT) / (n * block_width))))


def _paint_cells(
    axes: Axes, table: np.ndarray, rows: range, names: Sequence[str], symbols: Sequence[str], red: Sequence[int]
) -> None:
    axes.imshow(table[rows.start : rows.stop], cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    _hide_frame(axes)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(symbols)), [shown(symbol) for symbol in symbols], parse_math=False, size=10)
    axes.set_xlabel("next token", size=9, color=GREY)
    axes.xaxis.set_label_position("top")
    axes.set_yticks(range(len(rows)), [names[row] for row in rows], parse_math=False, size=9)
    axes.set_xticks(np.arange(1, len(symbols)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, len(rows)) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    for place, row in enumerate(rows):
        for column, share in enumerate(table[row]):
            # Cividis is dark below and bright above its middle.
            colour = "white" if share < 0.6 else INK
            axes.text(column, place, percent(share), size=8.5, color=colour, ha="center", va="center")
        if row in red:
            box = Rectangle((-0.5, place - 0.5), len(symbols), 1, fill=False, edgecolor=RED, linewidth=2, clip_on=False)
            axes.add_patch(box)
            axes.get_yticklabels()[place].set(color=RED, weight="bold")


def _draw_rows(
    table: np.ndarray, row_labels: Sequence[str], symbols: Sequence[str], title: str | None, red: Sequence[int]
) -> Figure:
    many = len(symbols) > 40
    column = min(max(4.5 / len(symbols), 0.16), 0.8)
    body = min(column * len(symbols), 12.0)
    ticks = np.unique(np.linspace(0, len(table) - 1, min(len(table), 33)).round().astype(int))
    margin = max(text_width(shown(row_labels[row]), 8.5) for row in ticks) + 0.3
    width, height = margin + body + 1.35, min(7.2, 0.22 * len(table)) + 0.85 + (0.4 if title else 0.0)
    figure = Figure(figsize=(width, height))
    box_height = height - 0.85 - (0.4 if title else 0.0)
    axes = figure.add_axes((margin / width, 0.25 / height, body / width, box_height / height))
    top = float(np.ceil(20 * table.max()) / 20)
    axes.imshow(table, cmap="cividis", vmin=0, vmax=top, aspect="auto", interpolation="nearest")
    _hide_frame(axes)
    axes.xaxis.tick_top()
    columns = np.unique(np.linspace(0, len(symbols) - 1, 20).round().astype(int)) if many else range(len(symbols))
    axes.set_xticks(columns, [shown(symbols[i]) for i in columns], parse_math=False, size=8.5)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("next token", size=9, color=GREY)
    axes.set_yticks(ticks, [shown(row_labels[row]) for row in ticks], parse_math=False, size=8.5)
    for row in red:
        mark = axes.plot([len(symbols) - 0.42], [row], marker="<", color=RED, markersize=5, clip_on=False, linestyle="")
        mark[0].set_gid(f"red-{row}")
    if red:
        y = 0.08 / height
        figure.text(margin / width, y, f"◂ red states ({len(red)})", size=9, color=RED, va="bottom")
    _colour_bar(figure, ((margin + body + 0.4) / width, 0.25 / height, 0.14 / width, box_height / height), top, "%")
    _write_title(figure, title)
    return figure


def _draw_square(
    table: np.ndarray, row_labels: Sequence[str], symbols: Sequence[str], title: str | None, red: Sequence[int]
) -> Figure:
    v = len(symbols)
    length = _whole_power(len(table), v)
    n_columns = v ** (length - length // 2) if length else int(np.ceil(len(table) ** 0.5))
    values = table[:, 1] if v == 2 else entropy_nats(table)
    top = 1.0 if v == 2 else float(np.log(v))
    n_rows = -(-len(table) // n_columns)
    pixels = np.full((n_rows, n_columns), np.nan)
    pixels.flat[: len(table)] = values
    aspect = pixels.shape[0] / pixels.shape[1]
    body = (6.1, 6.1 * aspect) if aspect <= 1 else (6.1 / aspect, 6.1)
    left = 0.65 + text_width(shown(row_labels[len(table) - 1]), 8.5)
    width, height = body[0] + left + 1.05, body[1] + 1.35 + (0.45 if title else 0.0)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, 1.05 / height, body[0] / width, body[1] / height))
    axes.imshow(pixels, cmap="cividis", vmin=0, vmax=top, interpolation="nearest", aspect="auto")
    _hide_frame(axes)
    _square_ticks(axes, pixels.shape, length, row_labels)
    _circle_red(axes, red, n_columns)
    caption = _square_caption(len(table), symbols, length, len(red))
    figure.text(0.5, 0.1 / height, wrapped(caption, width - 0.4, 9), size=9, color=GREY, ha="center", va="bottom")
    unit = "%" if v == 2 else "nats"
    place = ((left + body[0] + 0.25) / width, 1.05 / height, 0.15 / width, body[1] / height)
    _colour_bar(figure, place, top, unit)
    _write_title(figure, title)
    return figure


def entropy_nats(table: np.ndarray) -> np.ndarray:
    """Entropy of each row in nats, from 0 (one token is certain) to ln V (all are equally likely).

    >>> entropy_nats(np.array([[0.5, 0.5], [1.0, 0.0]])).round(3).tolist()
    [0.693, 0.0]
    """
    logarithms = np.log(np.where(table > 0, table, 1.0))
    return -(table * logarithms).sum(axis=1) + 0.0  # no minus zero


def _whole_power(n_rows: int, vocab_size: int) -> int:
    """The T with vocab_size**T = n_rows, or 0 if there is none."""
    length, size = 0, 1
    while size < n_rows and vocab_size > 1:
        size *= vocab_size
        length += 1
    return length if size == n_rows else 0


def _square_ticks(axes: Axes, shape: tuple[int, ...], length: int, row_labels: Sequence[str]) -> None:
    """Some rows and columns named by the part of the context that they share; an ellipsis stands for the rest."""
    rows = np.unique(np.linspace(0, shape[0] - 1, 9).round().astype(int))
    starts = [shown(row_labels[row * shape[1]]) for row in rows]
    shared = length // 2
    is_plain = length and all(len(name) == length for name in starts)
    if is_plain:
        columns = np.unique(np.linspace(0, shape[1] - 1, 5).round().astype(int))
        ends = [shown(row_labels[column])[shared:] for column in columns]
        axes.set_xticks(columns, [f"…{end}" for end in ends], parse_math=False, size=8.5)
        starts = [f"{name[:shared]}…" for name in starts]
        axes.set_xlabel("how the context ends", color=GREY, size=9)
        axes.set_ylabel("how the context begins", color=GREY, size=9)
    else:
        axes.set_xticks([])
        axes.set_ylabel("first state of the row", color=GREY, size=9)
    axes.set_yticks(rows, starts, parse_math=False, size=8.5)


def _circle_red(axes: Axes, red: Sequence[int], n_columns: int) -> None:
    if not red or len(red) > MOST_CIRCLED:
        return
    rows, columns = np.divmod(np.array(red), n_columns)
    style: dict[str, Any] = {"marker": "o", "s": 60, "linewidths": 1.6, "clip_on": False, "zorder": 5}
    axes.scatter(columns, rows, facecolors="none", edgecolors="white", **{**style, "linewidths": 3.2})
    axes.scatter(columns, rows, facecolors="none", edgecolors=RED, gid="red", **style)


def _square_caption(n_states: int, symbols: Sequence[str], length: int, n_red: int) -> str:
    meaning = (
        f"the probability that {shown(symbols[1])} comes next"
        if len(symbols) == 2
        else "how open the next token is (entropy; 0 = one token is certain)"
    )
    parts = [f"{n_states:,} states, one pixel each; colour: {meaning}."]
    if not length:
        parts.append("States stand in their order, row by row.")
    if n_red:
        parts.append(
            f"Circles: red states ({n_red})." if n_red <= MOST_CIRCLED else f"Red states: {n_red:,}, not marked."
        )
    return " ".join(parts)


def _colour_bar(figure: Figure, place: tuple[float, float, float, float], top: float, unit: str) -> None:
    axes = figure.add_axes(place)
    bar = figure.colorbar(ScalarMappable(Normalize(0, top), "cividis"), cax=axes)
    bar.outline.set_visible(False)
    ticks = [
        tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, top) if -1e-9 <= tick <= top + 1e-9
    ]
    texts = [f"{100 * tick:.0f}%" for tick in ticks] if unit == "%" else [f"{tick:.2f}" for tick in ticks]
    bar.set_ticks(ticks, labels=texts, size=8.5)
    if unit != "%":
        axes.set_title(unit, size=9, color=GREY)


def _hide_frame(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0)


def _write_title(figure: Figure, title: str | None) -> None:
    if title:
        y = 1 - 0.12 / figure.get_figheight()
        figure.text(0.5, y, title, ha="center", va="top", size=13, weight="bold", parse_math=False)


def _checked(probabilities: np.ndarray, row_labels: Sequence[str], symbols: Sequence[str]) -> np.ndarray:
    table = np.asarray(probabilities, dtype=np.float64)
    if table.shape != (len(row_labels), len(symbols)) or table.size == 0:
        raise UsageError(
            f"probabilities must have the shape (row labels, symbols) = ({len(row_labels)}, {len(symbols)}), "
            f"neither of them 0; got {table.shape}"
        )
    if not ((table >= 0) & (table <= 1)).all():
        raise UsageError("probabilities must lie between 0 and 1; got values outside, or NaN")
    return table
