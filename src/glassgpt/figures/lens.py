"""The logit lens: what a GPT would answer if it stopped after each layer, at every token of a text.

The stream behind each layer goes through the final norm and the output layer, which were trained for the last layer
alone (nostalgebraist, "interpreting GPT: the logit lens", 2020). Early rows say less about what a layer knows than
about how far it writes in the last layer's language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import GREY, INK, in_house_style, text_width
from glassgpt.figures.margins import caption_room, title_room, write_margins
from glassgpt.figures.next_token import clipped
from glassgpt.figures.states import percent

SMALL, TYPE = 8.0, 8.5
ROW = 0.23  # inches
COLUMN = (0.42, 0.9)  # inches, at least and at most
BODY = 6.6  # inches that columns share; more positions go below
HEADING, GAP = 0.3, 0.28
MOST_POSITIONS = 96
BOLDNESS = 1.14  # how much wider a bold text is


@dataclass(frozen=True)
class LensGrid:
    """The likeliest next token by layer and position.

    tokens, ids: the text (T,), as texts and numbers. answers: texts, answers[layer][position], and answer_ids: int
    array (L + 1, T), the same as numbers; the first row is the embeddings', the last the model's answer.
    probabilities: float array (L + 1, T).
    """

    tokens: Sequence[str]
    ids: Sequence[int]
    answers: Sequence[Sequence[str]]
    answer_ids: np.ndarray
    probabilities: np.ndarray

    @property
    def is_final(self) -> np.ndarray:
        """Where a layer has the model's answer on top already: bool (L + 1, T)."""
        return np.asarray(self.answer_ids) == np.asarray(self.answer_ids)[-1]

    @property
    def is_right(self) -> np.ndarray:
        """Where the text goes on as the model answers: bool (T,), False at the end."""
        return np.append(np.asarray(self.answer_ids)[-1, :-1] == np.asarray(self.ids)[1:], False)


@in_house_style
def draw_lens(data: LensGrid, title: str | None = None) -> Figure:
    """Layers downwards, positions across: the top token in each cell, its probability as colour.

    Bold: the same as the model's answer in the last row. Long texts are broken into several strips. Raises UsageError
    for rows that don't fit the text, numbers that are no probabilities, or more than 96 positions.
    """
    n_rows, T = _checked(data).shape
    column = _column_width(data)
    n_strips = -(-T // int(BODY / column))
    across = -(-T // n_strips)
    starts = range(0, T, across)
    left, body = 1.25, across * column
    width = left + max(body, 2.6) + 1.4
    caption = _caption(data)
    below, strip = caption_room(caption, width) + 0.2, n_rows * ROW + HEADING + GAP
    height = below + len(starts) * strip - GAP + 0.15 + title_room(title)
    figure = Figure(figsize=(width, height))
    for i, start in enumerate(starts):
        n = min(across, T - start)
        bottom = below + (len(starts) - 1 - i) * strip
        axes = figure.add_axes((left / width, bottom / height, n * column / width, n_rows * ROW / height))
        _draw_strip(axes, data, range(start, start + n), column)
        if i == 0:
            _write_shares(axes, data.is_final.mean(axis=1), column)
    top = below + (len(starts) - 1) * strip
    _colour_bar(figure, ((width - 0.62) / width, top / height, 0.11 / width, n_rows * ROW / height))
    write_margins(figure, title, caption)
    return figure


def _column_width(data: LensGrid) -> float:
    """Inches in which the longest answer has room, unless it is very long; then it is cut."""
    texts = {text for row in data.answers for text in row} | set(data.tokens)
    widths = [BOLDNESS * text_width(clipped(text, COLUMN[1], TYPE), TYPE) + 0.1 for text in texts]
    return float(np.clip(max(widths), *COLUMN))


def _draw_strip(axes: Axes, data: LensGrid, positions: range, column: float) -> None:
    part = slice(positions.start, positions.stop)
    probabilities = np.asarray(data.probabilities, dtype=np.float64)[:, part]
    n_rows, n = probabilities.shape
    picture = axes.imshow(probabilities, cmap="cividis", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    picture.set_gid("probabilities")
    room = (column - 0.06) / BOLDNESS
    is_final, is_right = data.is_final, data.is_right
    for place, position in enumerate(positions):
        if is_right[position]:
            axes.text(place, n_rows - 0.45, "✓", ha="center", va="top", size=TYPE, gid="right")
        for row in range(n_rows):
            text = clipped(data.answers[row][position], room, TYPE)
            cell = axes.text(place, row, text, ha="center", va="center", size=TYPE, parse_math=False, gid="answer")
            cell.set_color("white" if probabilities[row, place] < 0.6 else INK)  # cividis is dark below its middle
            cell.set_fontweight("bold" if is_final[row, position] else "normal")
    axes.add_patch(Rectangle((-0.5, n_rows - 1.5), n, 1, fill=False, edgecolor=INK, linewidth=1.6, clip_on=False))
    names = [clipped(data.tokens[position], room, TYPE) for position in positions]
    axes.xaxis.tick_top()
    axes.set_xticks(range(n), names, size=TYPE, weight="bold", parse_math=False)
    axes.set_yticks(range(n_rows), _row_names(n_rows), size=TYPE)
    axes.set_xticks(np.arange(1, n) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, n_rows) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _row_names(n_rows: int) -> list[str]:
    return ["embeddings", *(f"after layer {layer}" for layer in range(n_rows - 2)), "model's answer"]


def _write_shares(axes: Axes, shares: np.ndarray, column: float) -> None:
    """At the right of the rows, at how many positions a layer has the model's answer on top already."""
    n = round(axes.get_xlim()[1] + 0.5)
    x = n - 0.5 + 0.42 / column
    axes.text(x, -0.72, "same", ha="right", va="bottom", size=SMALL, color=GREY)
    for row, share in enumerate(shares):
        axes.text(x, row, percent(float(share)), ha="right", va="center", size=SMALL, color=GREY, gid="same")


def _caption(data: LensGrid) -> str:
    T = len(data.tokens)
    shares = data.is_final.mean(axis=1)
    half = int(np.argmax(shares >= 0.5))
    parts = [
        "Below each token what would come next if the model stopped there, and how probable it holds it. Bold: the "
        f"model's answer already; the column \u201csame\u201d says at how many of the {T} positions."
    ]
    if 0 < half < len(shares) - 1 and (shares[half:] >= 0.5).all():
        parts.append(f"From layer {half - 1} on it stands at half of them or more.")
    if T > 1:
        parts.append(f"✓: the text goes on so ({int(data.is_right.sum())} of {T - 1}).")
    return " ".join(parts)


def _colour_bar(figure: Figure, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place, gid="scale")
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "cividis"), cax=axes)
    bar.outline.set_visible(False)
    ticks = [0.0, 0.5, 1.0]
    bar.set_ticks(ticks, labels=[percent(tick) for tick in ticks], size=SMALL)


def _checked(data: LensGrid) -> np.ndarray:
    T, probabilities = len(data.tokens), np.asarray(data.probabilities, dtype=np.float64)
    shape = probabilities.shape
    if len(shape) != 2 or shape[0] < 2 or shape[1] != T or not T or len(data.ids) != T:
        raise UsageError(f"a lens over {T} tokens has probabilities (2 rows or more, {T}) and {T} ids; got {shape}")
    if np.shape(data.answer_ids) != shape or [len(row) for row in data.answers] != [T] * shape[0]:
        raise UsageError(f"a lens has an answer for each of the {shape} probabilities, as a text and as an id")
    if T > MOST_POSITIONS:
        raise UsageError(f"a lens shows up to {MOST_POSITIONS} positions, and this text has {T}: shorten it")
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise UsageError("probabilities must lie between 0 and 1; got values outside, or NaN")
    return probabilities
