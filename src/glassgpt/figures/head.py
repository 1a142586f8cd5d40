"""One head of attention, step by step: queries and keys, their scores, the mask, softmax, values, and what they mix to.

Matrices stand as they are multiplied: what a matrix's rows come from is at its left, what its columns come from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, PowerNorm
from matplotlib.patches import Rectangle

from glassgpt.errors import UsageError
from glassgpt.figures.embeddings import DIVERGING
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import GREY, INK, in_house_style, text_width
from glassgpt.figures.margins import HINTING, caption_room, title_room, write_margins
from glassgpt.figures.next_token import clipped
from glassgpt.figures.states import percent

MOST_TOKENS = 24
MOST_TOLD, LEAST_TOLD = 3, 0.01  # tokens that the caption names, and the least weight of one of them
NAME_TYPE, TITLE_TYPE, SCALE_TYPE = 8.5, 9, 7.5
NUMBER_TYPES = (8.5, 7.5, 7.0)  # the first that fits every cell of a panel
LONGEST_NAME = 0.95  # inches
MATRIX, CELL = 3.3, (0.14, 0.48)  # inches: a matrix of many tokens; one of its cells, at least and at most
STRIP, STRIP_CELL = 1.2, 0.38  # of a head's width: of many numbers; of one, at most
LEAST = 1.0  # inches that the name and the scale of a panel need
KEY_CELL = 0.22  # of a number of a key, and of a row of values, at most
GAP, ARROW = 0.22, 0.62  # between panels; where softmax stands
SCALE, TITLE = 0.46, 0.26  # the room for a scale of colours and for a panel's name


@dataclass(frozen=True)
class HeadSteps:
    """What a head computes over a text, as `models.trace.Trace.steps_of` gives it.

    tokens: as texts (T,). queries, keys, values: float arrays (T, D). scores (T, T): query times key / sqrt(D), before
    anything lies on them. weights (T, T): rows sum to 1 and are 0 ahead of their token. mix (T, D): weights times
    values. written (T, C): what the head adds to the stream. slope (1,): what each token of distance takes from the
    scores (ALiBi), None if nothing.
    """

    tokens: Sequence[str]
    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    scores: np.ndarray
    weights: np.ndarray
    mix: np.ndarray
    written: np.ndarray | None = None
    slope: np.ndarray | None = None

    @property
    def lowered(self) -> np.ndarray:
        """The scores that softmax is taken of: less the slope for each token of distance, if there is one."""
        back = np.subtract.outer(range(len(self.tokens)), range(len(self.tokens)))
        return self.scores if self.slope is None else self.scores - float(self.slope[0]) * back


@in_house_style
def draw_head(data: HeadSteps, layer: int, head: int, title: str | None = None, at: int | None = None) -> Figure:
    """The steps from left to right over the whole text; `at` is the token whose row is framed, the last by default.

    Queries and keys, values and their mix share a scale of colours; scores have one of their own. What lies ahead of a
    token is hatched. Cells have numbers where these fit. Raises UsageError for arrays that don't fit the tokens,
    weights that are none, no such token, and more than 24 tokens.
    """
    _check(data)
    T = len(data.tokens)
    at = T - 1 if at is None else at
    if not 0 <= at < T:
        raise UsageError(f"these are tokens 0 to {T - 1}; got at={at}")
    plan = _Plan(data, layer, head, at, title)
    figure = Figure(figsize=(plan.width, plan.height))
    _draw_lower(figure, data, plan)
    _draw_upper(figure, data, plan)
    write_margins(figure, title, plan.caption)
    return figure


class _Plan:
    """Where everything stands, in inches from the lower left corner."""

    def __init__(self, data: HeadSteps, layer: int, head: int, at: int, title: str | None) -> None:
        T, D = data.queries.shape
        self.at = at
        self.names = [clipped(token, LONGEST_NAME, NAME_TYPE) for token in data.tokens]
        longest = max(text_width(name, NAME_TYPE) for name in self.names)
        self.cell = float(np.clip(MATRIX / T, *CELL))
        self.body, self.strip = self.cell * T, min(STRIP_CELL * D, STRIP) if D > 4 else STRIP_CELL * D
        self.keys_tall, self.values_tall = min(KEY_CELL * D, STRIP), max(0.14 * T, min(KEY_CELL * T, 1.9))
        self.is_flat = longest + 0.08 < self.cell
        self.left = longest + 0.35
        room, matrix_room = max(self.strip, LEAST), max(self.body, LEAST)
        self.scores = self.left + room + GAP
        self.weights = self.scores + matrix_room + ARROW
        self.mix = self.weights + matrix_room + GAP + 0.1
        self.width = self.mix + room + 0.25
        self.caption = _caption(data, layer, head, at)
        self.bottom = caption_room(self.caption, self.width) + SCALE
        self.top = self.bottom + self.body  # of the lower row of panels
        self.names_top = self.top + (0.16 if self.is_flat else longest) + 0.08
        self.upper = self.names_top + TITLE + 0.08
        highest = self.upper + max(self.keys_tall, self.values_tall)
        self.height = highest + TITLE + title_room(title)

    def add(self, figure: Figure, name: str, left: float, bottom: float, width: float, height: float) -> Axes:
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return figure.add_axes(place, gid=name)


@dataclass(frozen=True)
class _Panel:
    """Numbers as cells. A panel over tokens both ways is hatched ahead of each; `is_share`: these are weights."""

    name: str
    title: str
    values: np.ndarray
    norm: Normalize
    is_matrix: bool = False
    is_share: bool = False

    @property
    def colours(self) -> Colormap:
        return colormaps["cividis"] if self.is_share else DIVERGING

    def draw(self, axes: Axes, width: float, height: float, title_at: float = 0.06) -> None:
        """Into axes of so many inches; the title so many above them."""
        rows, columns = self.values.shape
        hidden = np.triu(np.ones((rows, columns), dtype=bool), 1) if self.is_matrix else False
        cells = np.ma.array(self.values, mask=hidden)
        axes.imshow(cells, cmap=self.colours, norm=self.norm, aspect="auto", interpolation="nearest")
        for row in range(rows - 1 if self.is_matrix else 0):
            ahead = Rectangle((row + 0.5, row - 0.5), rows - row - 1, 1, facecolor="white", edgecolor=GREY, gid="ahead")
            ahead.set(hatch="////", linewidth=0)
            axes.add_patch(ahead)
        axes.set(xticks=[], yticks=[])
        axes.tick_params(which="both", length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        self._write(axes, cells, width / columns, height / rows)
        name = axes.text(0, 1 + title_at / height, self.title, transform=axes.transAxes, va="bottom", gid="title")
        name.set(size=TITLE_TYPE, weight="bold")

    def _write(self, axes: Axes, cells: np.ma.MaskedArray, width: float, height: float) -> None:
        """A number into every cell, if there is a size in which all of them fit."""
        seen = [(int(row), int(column)) for row, column in np.argwhere(~np.ma.getmaskarray(cells))]
        for digits, size in self._ways():
            texts = {at: self._number(float(cells[at]), digits) for at in seen}
            widest = max(text_width(text, size) for text in texts.values())
            if widest * HINTING + 0.02 <= width and size / 72 <= height:
                break
        else:
            return
        for (row, column), text in texts.items():
            r, g, b, _ = self.colours(self.norm(cells[row, column]))
            is_dark = 0.299 * r + 0.587 * g + 0.114 * b < 0.55
            written = axes.text(column, row, text, ha="center", va="center_baseline", size=size, gid="number")
            written.set_color("white" if is_dark else INK)

    def _ways(self) -> list[tuple[int, float]]:
        """How many digits and which size to try, the best first; no fewer digits than the greatest number needs."""
        top = float(self.norm.vmax or 1.0)
        fewest = 0 if self.is_share or top >= 10 else 1 if top >= 1 else 2
        most = 0 if self.is_share else max(fewest, 2 if top < 10 else 1)
        return [(digits, size) for digits in range(most, fewest - 1, -1) for size in NUMBER_TYPES]

    def _number(self, value: float, digits: int) -> str:
        return percent(value).rstrip("%") if self.is_share else number(value, digits)


def number(value: float, digits: int = 2) -> str:
    """
    >>> number(-0.004), number(-1.25), number(0.36, 1)
    ('0.00', '−1.25', '0.4')
    """
    text = f"{value:.{digits}f}"
    return text.replace("-", "−" if float(text) else "")


def _draw_lower(figure: Figure, data: HeadSteps, plan: _Plan) -> None:
    """Queries, scores, weights and mix: each a row for a token, that of the chosen one framed."""
    of_queries, of_scores, of_values = _scales(data)
    shares = PowerNorm(0.5, 0.0, 1.0)  # a tenth among many can be seen beside a whole
    scores = f"3  scores {formula_of(data)}"
    if text_width(scores, TITLE_TYPE, "bold") * HINTING > plan.weights - plan.scores - 0.1:
        scores = "3  scores"
    panels = {
        plan.left: (_Panel("queries", "1  queries q", data.queries, of_queries), "scale of q and k"),
        plan.scores: (_Panel("scores", scores, data.lowered, of_scores, is_matrix=True), "scale of scores"),
        plan.weights: (_Panel("weights", "4  weights in %", data.weights, shares, True, True), "scale of weights"),
        plan.mix: (_Panel("mix", "6  mix", data.mix, of_values), "scale of v and mix"),
    }
    for left, (panel, scale) in panels.items():
        width = plan.body if panel.is_matrix else plan.strip
        axes = plan.add(figure, panel.name, left, plan.bottom, width, plan.body)
        panel.draw(axes, width, plan.body, plan.names_top - plan.top + 0.04 if panel.is_matrix else 0.06)
        frame = Rectangle((-0.5, plan.at - 0.5), panel.values.shape[1], 1, fill=False, edgecolor=INK, gid="frame")
        frame.set(linewidth=1.6, clip_on=False, zorder=5)
        axes.add_patch(frame)
        if panel.name == "queries":
            axes.set_yticks(range(len(plan.names)), plan.names, size=NAME_TYPE, parse_math=False)
            axes.get_yticklabels()[plan.at].set_fontweight("bold")
        if panel.is_matrix:
            axes.xaxis.tick_top()
            turned = 0 if plan.is_flat else 90
            axes.set_xticks(range(len(plan.names)), plan.names, size=NAME_TYPE, rotation=turned, parse_math=False)
        _colour_bar(figure, plan, panel, scale, left, float(np.clip(width, LEAST, 1.5)))
    middle = (plan.scores + plan.body + plan.weights) / 2 / plan.width
    arrow = figure.text(middle, (plan.bottom + plan.body / 2) / plan.height, "softmax\n→", ha="center", va="center")
    arrow.set(size=SCALE_TYPE, color=INK, gid="arrow")


def _draw_upper(figure: Figure, data: HeadSteps, plan: _Plan) -> None:
    """Keys above the scores, a column for each token; values above the mix, a row for each with its weight."""
    of_queries, _, of_values = _scales(data)
    keys = plan.add(figure, "keys", plan.scores, plan.upper, plan.body, plan.keys_tall)
    _Panel("keys", "2  keys k", data.keys.T, of_queries).draw(keys, plan.body, plan.keys_tall)
    values = plan.add(figure, "values", plan.mix, plan.upper, plan.strip, plan.values_tall)
    _Panel("values", "5  values v", data.values, of_values).draw(values, plan.strip, plan.values_tall)
    shares = [percent(float(weight)) for weight in data.weights[plan.at]]
    parts = [
        f"{share} × v({name})" if token <= plan.at else f"unseen: {name}"
        for token, (share, name) in enumerate(zip(shares, plan.names, strict=True))
    ]
    values.set_yticks(range(len(parts)), parts, size=NAME_TYPE, parse_math=False)


def _colour_bar(figure: Figure, plan: _Plan, panel: _Panel, label: str, left: float, width: float) -> None:
    inset = 0.17  # so that the numbers at its ends have room
    axes = plan.add(figure, f"scale of {panel.name}", left + inset, plan.bottom - 0.16, width - 2 * inset, 0.08)
    bar = figure.colorbar(ScalarMappable(panel.norm, panel.colours), cax=axes, orientation="horizontal")
    bar.outline.set_visible(False)
    top = float(panel.norm.vmax or 1.0)
    ends = {-top: f"−{top:.2g}", 0.0: "0", top: f"{top:.2g}"}
    if panel.is_share:
        ends = {0.0: "0%", 0.2: "20%", 1.0: "100%"}
    bar.set_ticks(list(ends), labels=list(ends.values()), size=SCALE_TYPE)
    bar.minorticks_off()
    axes.tick_params(length=2, pad=1)
    bar.set_label(label, size=SCALE_TYPE, color=GREY, labelpad=1)


def _scales(data: HeadSteps) -> tuple[Normalize, Normalize, Normalize]:
    """From minus the greatest to the greatest: of queries and keys, of the scores that are seen, of values and mix."""
    arrays = ((data.queries, data.keys), (np.tril(data.lowered),), (data.values, data.mix))
    tops = [max(float(np.abs(one).max()) for one in some) or 1.0 for some in arrays]
    first, second, third = (Normalize(-top, top) for top in tops)
    return first, second, third


def formula_of(data: HeadSteps) -> str:
    """What the scores are that softmax is taken of."""
    lowered = "" if data.slope is None else f" − {float(data.slope[0]):.3g}·distance"
    return f"q·k/√{data.queries.shape[1]}{lowered}"


def _caption(data: HeadSteps, layer: int, head: int, at: int) -> str:
    """softmax(q·k/√d) v with the numbers of one token, of as many tokens that it looks at as a sentence can bear."""
    weights = data.weights[at, : at + 1]
    order = np.argsort(-weights, kind="stable")
    top = [token for token in order[:MOST_TOLD] if token == order[0] or weights[token] >= LEAST_TOLD]
    if len(top) == len(weights):
        top.sort()
    names = [f"“{clipped(token, LONGEST_NAME, NAME_TYPE)}”" for token in data.tokens]
    shares = [percent(float(weights[token])) for token in top]
    scores = ", ".join(f"{number(float(data.lowered[at, token]))} for {names[token]}" for token in top)
    products = [f"{share} × {number(float(data.values[token, 0]))}" for share, token in zip(shares, top, strict=True)]
    others = ""
    if left := len(weights) - len(top):
        others = f" ({percent(max(float(weights.sum() - weights[top].sum()), 0.0))} for the other {left})"
        products.append("...")
    told = [
        f"Layer {layer}, head {head} (both counted from 0): softmax({formula_of(data)}) v.",
        f"In the frame, at {names[at]} (token {at}): scores of {scores}; softmax makes "
        f"them {', '.join(shares)}{others};",
        f"the first number of the mix is {' + '.join(products)} = {number(float(data.mix[at, 0]))}.",
        "Hatched: what lies ahead, which no token sees.",
    ]
    if data.written is not None:
        length = float(np.linalg.norm(data.written[at]))
        told.append(f"Through its rows of the output matrix the head adds a vector of length {length:.2g}.")
    return " ".join(told)


def _check(data: HeadSteps) -> None:
    T = len(data.tokens)
    strips = [np.shape(one) for one in (data.queries, data.keys, data.values, data.mix)]
    if not T or len(strips[0]) != 2 or strips[0][0] != T or len(set(strips)) > 1 or not strips[0][1]:
        raise UsageError(f"queries, keys, values and mix of {T} tokens are all of shape ({T}, width); got {strips}")
    if np.shape(data.scores) != (T, T) or np.shape(data.weights) != (T, T):
        shapes = np.shape(data.scores), np.shape(data.weights)
        raise UsageError(f"scores and weights of {T} tokens are of shape ({T}, {T}); got {shapes}")
    sums = np.sum(data.weights, axis=-1)
    if not (data.weights >= 0).all() or not np.allclose(sums, 1.0, atol=1e-3) or np.triu(data.weights, 1).any():
        raise UsageError("attention weights are 0 or more, sum to 1 in each row and are 0 ahead of their token")
    if T > MOST_TOKENS:
        raise UsageError(f"{MOST_TOKENS} tokens have room beside each other here, and this text has {T}: shorten it")
