"""A batch as training reads it: rows of tokens, and below each token the one that is to be predicted there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style, inch_axes, text_width
from glassgpt.figures.margins import HINTING, caption_room, title_room, write_margins
from glassgpt.figures.next_token import clipped

MOST_ROWS, MOST_COLUMNS = 4, 9
CELL, LONGEST = 0.26, 0.86  # inches: a cell's height, and at most its width
APART, BETWEEN = 0.2, 0.3  # inches from a row's inputs to its targets, and to the next row
LEFT, RIGHT, NARROWEST, TYPE, SMALL = 0.85, 0.45, 4.6, 9, 8.5
GIVEN, ASKED = "#dcebf5", "#fbe8c8"


@dataclass(frozen=True)
class BatchRows:
    """The first rows of a batch of `shape` (B, T), as texts: inputs[row][place], and targets, one token later.

    last_only: only the last target of each row counts in the loss.
    """

    shape: tuple[int, int]
    inputs: Sequence[Sequence[str]]
    targets: Sequence[Sequence[str]]
    last_only: bool = False


@in_house_style
def draw_batch(data: BatchRows, title: str | None = None) -> Figure:
    """Up to 4 rows and 9 places of a batch: what the model reads, below it what it should say, and how they shift.

    A line joins each target to the same token where it is read, one place further on. Raises UsageError for no rows,
    and for inputs and targets that don't fit each other or the shape.
    """
    inputs, targets = _checked(data)
    T = data.shape[1]
    columns = min(T, MOST_COLUMNS)
    texts = {text for row in (*inputs, *targets) for text in row[:columns]}
    widest = max(HINTING * text_width(clipped(text, LONGEST, TYPE), TYPE) for text in texts)
    cell, deep = max(widest + 0.12, min(0.6, (NARROWEST - LEFT - RIGHT) / columns)), 2 * CELL + APART
    caption = _caption(data, len(inputs), columns)
    width = max(LEFT + columns * cell + RIGHT, NARROWEST)
    below = caption_room(caption, width) + 0.1
    height = below + len(inputs) * deep + (len(inputs) - 1) * BETWEEN + 0.15 + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = inch_axes(figure, 0.0, 0.0, np.zeros(2), np.array([width, height]))
    for row, (read, asked) in enumerate(zip(inputs, targets, strict=True)):
        top = height - 0.15 - title_room(title) - row * (deep + BETWEEN)
        _draw_row(axes, top, cell, read[:columns], asked[:columns], data.last_only and columns == T)
        if columns < T:
            axes.text(LEFT + columns * cell + 0.08, top - deep / 2, "…", va="center", color=GREY)
    write_margins(figure, title, caption)
    return figure


def _draw_row(axes: Axes, top: float, cell: float, read: Sequence[str], asked: Sequence[str], last_only: bool) -> None:
    lower = top - CELL - APART
    for name, y in (("reads", top - CELL / 2), ("should say", lower - CELL / 2)):
        axes.text(LEFT - 0.08, y, name, size=SMALL, color=GREY, ha="right", va="center")
    for place, (given, wanted) in enumerate(zip(read, asked, strict=True)):
        x = LEFT + place * cell
        counts = not last_only or place == len(asked) - 1
        for text, y, colour, gid in (
            (given, top, GIVEN, "input"),
            (wanted, lower, ASKED if counts else "white", "target"),
        ):
            axes.add_patch(Rectangle((x, y - CELL), cell, CELL, facecolor=colour, edgecolor="white", linewidth=1.2))
            shown = axes.text(x + cell / 2, y - CELL / 2, clipped(text, LONGEST, TYPE), size=TYPE, ha="center")
            shown.set(va="center", parse_math=False, gid=gid, color=INK if counts or gid == "input" else GREY)
        if place:
            ends = [x + cell / 2, x - cell / 2], [top - CELL, lower]
            axes.plot(*ends, color=CATEGORIES[0], linewidth=0.8, gid="shift")


def _caption(data: BatchRows, rows: int, columns: int) -> str:
    B, T = data.shape
    part = f"The first {rows} of {B:,} rows" if rows < B else f"All {B:,} rows"
    part += f", the first {columns} of {T:,} tokens" if columns < T else f" of {T:,} tokens"
    if data.last_only:
        return f"{part}. Only what follows a whole row is asked: a step learns from {B:,} answers."
    return (
        f"{part}. Below each token stands the next one of the text, which the model should say having read so far. "
        f"So every place is a question, and a step learns from {B:,} × {T:,} = {B * T:,} answers."
    )


def _checked(data: BatchRows) -> tuple[list[list[str]], list[list[str]]]:
    inputs, targets = ([list(row) for row in rows][:MOST_ROWS] for rows in (data.inputs, data.targets))
    B, T = data.shape
    lengths = {len(row) for row in (*inputs, *targets)}
    if not inputs or len(inputs) != len(targets) or len(inputs) > B or len(lengths) != 1 or not 0 < lengths.pop() <= T:
        raise UsageError(f"a batch {data.shape} has as many inputs as targets, in rows of at most {T}; got others")
    return inputs, targets
