"""The next token as bars: how likely each is, and what temperature, top-k, top-p and min-p make of them."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from unicodedata import combining

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style, line_height, shown, text_width
from glassgpt.figures.margins import EDGE, HINTING, caption_room, title_room, write_margins

if TYPE_CHECKING:
    from glassgpt.decoding.next_token import NextTokens

NAME_TYPE, NUMBER_TYPE, SMALL = 10, 9, 8.5
LONGEST_NAME = 1.7  # inches
ROW, GAP = 0.27, 0.4  # inches; rows between the last token and the rest
BAR, NUMBERS = 4.4, 1.0  # inches: the longest bar, and the room for what is written behind it
PANEL_BAR, SUM, BETWEEN = 1.35, 0.42, 0.25
PANEL = PANEL_BAR + 0.68 + SUM
COLUMNS = 3
DRAWN, REST, HATCH = CATEGORIES[0], CATEGORIES[4], "/////"


@in_house_style
def draw_next_token(found: NextTokens, context: str = "", title: str | None = None) -> Figure:
    """The likeliest tokens as bars with their probabilities; the others of the vocabulary are summed in the last bar.

    context: the text that the tokens follow, written above the bars as far as there is room for its end. What a sampler
    has cut is hatched. Raises UsageError for probabilities that are none.
    """
    _check([found])
    names = _names(found)
    left = max(text_width(name, NAME_TYPE) for name in names) + 0.3
    width, caption = left + BAR + NUMBERS, _sentence(found)
    above, below = title_room(title) + (0.32 if context else 0.0), 0.45 + caption_room(caption, width)
    height = above + ROW * (_places(found)[-1] + 1) + below
    figure = Figure(figsize=(width, height))
    body = height - above - below
    axes = figure.add_axes((left / width, below / height, (BAR + NUMBERS) / width, body / height))
    _bars(axes, found, _longest([found]), (BAR, NUMBERS), NUMBER_TYPE)
    _write_names(axes, found, names, NAME_TYPE)
    axes.set_xlabel("probability of being the next token", x=BAR / 2 / (BAR + NUMBERS))
    _write_context(figure, context, title)
    write_margins(figure, title, caption)
    return figure


@in_house_style
def draw_samplers(panels: Sequence[NextTokens], context: str = "", title: str | None = None) -> Figure:
    """The same tokens under several samplers, a panel each, on one scale: what each makes of them and what it cuts.

    Filled bars are what the next token is drawn from; a cut token's bar is hatched, as long as it was before the cut,
    with a dashed line where the cut goes through the list. A tick marks the probability under the model itself. The
    numbers at the right of a panel are the running sum before the cut, by which top-p cuts. Raises UsageError for no
    panel, panels that list different tokens, and for probabilities that are none.
    """
    _check(panels)
    names = _names(panels[0])
    left = max(text_width(name, NAME_TYPE) for name in names) + 0.3
    n_rows = -(-len(panels) // COLUMNS)
    columns = -(-len(panels) // n_rows)
    heads = [_setting(found) for found in panels]
    head = max(line_height(text, SMALL) for text in heads) + line_height("\n", SMALL) + 0.2
    body, foot = ROW * (_places(panels[0])[-1] + 1), 0.4
    width = max(left + columns * PANEL + (columns - 1) * BETWEEN + 0.15, 5.0)
    above, below = title_room(title) + (0.32 if context else 0.0), 0.3 + caption_room(_HOW_TO_READ, width)
    height = above + n_rows * (head + body + foot) + below
    figure = Figure(figsize=(width, height))
    for i, found in enumerate(panels):
        row, column = divmod(i, columns)
        x, y = left + column * (PANEL + BETWEEN), height - above - row * (head + body + foot) - head - body
        axes = figure.add_axes((x / width, y / height, PANEL / width, body / height))
        _bars(axes, found, _longest(panels), (PANEL_BAR, PANEL - PANEL_BAR), SMALL, compared=True)
        _write_names(axes, found, names if column == 0 else [""] * len(names), NAME_TYPE)
        _write_sums(axes, found)
        _cut_line(axes, found, 1 - SUM / PANEL)
        _write_head(axes, found, heads[i], body)
    _write_context(figure, context, title)
    _legend(figure, below - 0.35)
    write_margins(figure, title, _HOW_TO_READ)
    return figure


_HOW_TO_READ = (
    "Temperature only stretches or squeezes; a cut gives the mass of the tail to what stays. "
    "Grey numbers: the running sum of the probabilities before the cut."
)


def share(probability: float) -> str:
    """A probability in percent with one digit behind the point, or two below 1 %; never 0% or 100% unless it is.

    >>> share(0.4137), share(0.0052), share(1e-9), share(0.99999), share(1.0), share(0.0)
    ('41.4%', '0.52%', '<0.01%', '>99.9%', '100%', '0%')
    """
    if probability in (0.0, 1.0):
        return f"{100 * probability:.0f}%"
    if probability < 1e-4:
        return "<0.01%"
    if probability > 0.999:
        return ">99.9%"
    return f"{100 * probability:.1f}%" if probability >= 0.01 else f"{100 * probability:.2f}%"


def clipped(text: str, width: float, size: float, weight: str = "normal", from_end: bool = False) -> str:
    """The text as a figure writes it, no more than `width` inches wide: an ellipsis stands for what has no room.

    Marks that would be stacked on the letter before them (a token may hold hundreds) are written as their codes.
    from_end: it is the beginning that is left out.
    """
    most = min(len(text), int(width * 72 / size * 5))  # no glyph is narrower than a fifth of the type's size

    def part(n: int) -> str:
        if n == len(text):
            return apart(text)
        if n == 0:
            return "…"
        return "…" + apart(text[-n:]) if from_end else apart(text[:n]) + "…"

    def is_too_wide(n: int) -> bool:
        return HINTING * text_width(part(n), size, weight) > width

    if most == len(text) and not is_too_wide(most):
        return part(most)
    return part(bisect_left(range(1, most), True, key=is_too_wide))


def filled(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """The text in lines at most `width` inches long, broken between words, and within one that is longer than that."""
    per_letter = text_width(text[:200], size, weight) / max(len(text[:200]), 1)
    n = max(int(1.2 * width / max(per_letter, 1e-3)), 1)
    while True:
        lines = textwrap.wrap(text, n, break_on_hyphens=False) or [""]
        longest = HINTING * max(text_width(line, size, weight) for line in lines)
        if n == 1 or longest <= width:
            return lines
        n = max(1, min(n - 1, int(n * width / longest) + 2))


def apart(text: str) -> str:
    """As `shown`, with marks that have no place of their own as their codes."""
    return "".join(c.encode("unicode_escape").decode() if combining(c) else c for c in shown(text))


def _check(panels: Sequence[NextTokens]) -> None:
    if not panels:
        raise UsageError("a comparison of samplers needs at least one; got none")
    for found in panels:
        columns = np.array([found.model, found.uncut, found.cut, found.drawn])
        if columns.shape != (4, len(found.tokens) + 1) or not len(found.tokens):
            raise UsageError(
                f"expected one token or more and a number for each and the rest, got shape {columns.shape}"
            )
        if not ((columns >= 0) & (columns <= 1 + 1e-9)).all():
            raise UsageError("probabilities must lie between 0 and 1; got values outside, or NaN")
        if found.tokens != panels[0].tokens:
            raise UsageError(f"panels must list the same tokens; {found.setting} lists others than the first")


def _names(found: NextTokens) -> list[str]:
    names = [clipped(token, LONGEST_NAME, NAME_TYPE) for token in found.tokens]
    return [*names, f"{found.n_rest:,} other{'s' * (found.n_rest != 1)}"] if found.n_rest else names


def _places(found: NextTokens) -> np.ndarray:
    """Where the bars stand, in rows from the top: the listed tokens, and apart from them the rest, if there is any."""
    rows = np.arange(len(found.tokens), dtype=np.float64)
    return np.append(rows, len(rows) + GAP) if found.n_rest else rows


def _longest(panels: Sequence[NextTokens]) -> float:
    return max(float(np.max([found.drawn, found.cut, found.model])) for found in panels)


def _bars(
    axes: Axes, found: NextTokens, longest: float, inches: tuple[float, float], size: float, compared: bool = False
) -> None:
    """Bars from 0 to at most inches[0] and their numbers behind them; `compared`: with the model itself as ticks.

    Of the rest a part may be cut: then it has two bars of half the height, one under the other.
    """
    places = _places(found)
    drawn, cut, model = (column[: len(places)] for column in (found.drawn, found.cut, found.model))
    half = np.where((drawn > 0) & (cut > 0), 0.2, 0.0)
    bars = axes.barh(places - half, drawn, height=np.where(half > 0, 0.36, 0.7), color=DRAWN, gid="drawn")
    if found.n_rest:
        bars[-1].set(facecolor=REST, edgecolor=DRAWN)
    style: dict[str, Any] = {"facecolor": "white", "edgecolor": GREY, "hatch": HATCH, "linewidth": 0.8, "gid": "cut"}
    axes.barh((places + half)[cut > 0], cut[cut > 0], height=np.where(half > 0, 0.36, 0.7)[cut > 0], **style)
    shift = np.zeros(len(places))  # of the numbers, which stand behind the ticks too
    if compared:
        differs = np.abs(model - drawn - cut) > 0.006 * longest  # else the bar's own end shows it
        tops, feet = places[differs] - 0.46, places[differs] + 0.46
        axes.vlines(model[differs], tops, feet, color=INK, linewidth=1.3, gid="model")
        shift = np.where(differs, model, 0.0)
    inch = longest / inches[0]
    for row, place in enumerate(places):
        for words, at, length in _numbers(float(drawn[row]), float(cut[row]), float(half[row])):
            x, smaller = max(length, shift[row]) + 0.06 * inch, 1.5 if half[row] else 0.0
            number = axes.text(x, place + at, words, size=size - smaller, va="center", gid="number")
            number.set_color(GREY if words.endswith("cut") else INK)
    axes.set_xlim(0, inch * sum(inches))
    axes.set_ylim(places[-1] + 0.5, -0.5)
    ticks = MaxNLocator(5 if inches[0] > 2 else 4, steps=[1, 2, 5, 10]).tick_values(0, longest)
    axes.set_xticks([tick for tick in ticks if 0 <= tick <= longest * 1.001])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{100 * tick:.6g}%"))
    axes.tick_params(axis="x", labelsize=size)
    axes.spines["bottom"].set_bounds(0, longest)


def _numbers(drawn: float, cut: float, half: float) -> list[tuple[str, float, float]]:
    """What is written behind the bars of a row: the words, how far below its middle, and the bar's length."""
    found = [(share(drawn), -half, drawn)] if drawn or not cut else []
    return [*found, (f"{share(cut)} cut", half, cut)] if cut else found


def _write_names(axes: Axes, found: NextTokens, names: Sequence[str], size: float) -> None:
    axes.set_yticks(_places(found), names, parse_math=False, size=size)
    axes.tick_params(axis="y", length=0)
    if found.n_rest:
        axes.get_yticklabels()[-1].set(color=GREY, style="italic")


def _write_sums(axes: Axes, found: NextTokens) -> None:
    """The running sum before the cut, in a column at the panel's right edge."""
    places = _places(found)
    for place, total in zip(places, np.cumsum(found.uncut), strict=False):
        words = share(min(float(total), 1.0)) if place < places[-1] or not found.n_rest else "100%"
        number = axes.text(1.0, place, words, transform=axes.get_yaxis_transform(), va="center", ha="right")
        number.set(size=SMALL - 1, color=GREY, gid="sum")


def _cut_line(axes: Axes, found: NextTokens, length: float) -> None:
    """A dashed line under the last token that stays, where those that stay are the first of the list."""
    n = len(found.tokens)
    is_cut = found.cut[:n] > 0
    n_kept = int(np.sum(~is_cut))
    if found.n_kept == found.n_uncut or is_cut[:n_kept].any() or found.drawn[n] > 0:
        return
    at = n_kept - 0.5 if n_kept < n else n - 0.5 + GAP / 2
    axes.plot([0, length], [at, at], transform=axes.get_yaxis_transform(), color=INK, linestyle=(0, (4, 2)), gid="line")


def _setting(found: NextTokens) -> str:
    """The sampler in lines as wide as a panel, broken behind its commas."""
    joined = found.setting.replace(" ", "\u00a0").replace(",\u00a0", ", ")
    return "\n".join(filled(joined, PANEL, SMALL, "bold")).replace("\u00a0", " ")


def _write_head(axes: Axes, found: NextTokens, setting: str, body: float) -> None:
    """Above a panel: the sampler, the entropy, and how much stays."""
    is_cut = found.n_kept < found.n_uncut
    bits = f"{found.drawn_bits:.2f} bits" + (f" (before the cut {found.uncut_bits:.2f})" if is_cut else "")
    words = f"{bits}\n{_kept(found)}"
    y = 0.12 / body
    label = axes.text(0, 1 + y, words, transform=axes.transAxes, va="bottom", size=SMALL, gid="numbers")
    label.set(linespacing=1.25, color=GREY)
    y += line_height(words, SMALL) / body
    name = axes.text(0, 1 + y, setting, transform=axes.transAxes, va="bottom", size=SMALL, parse_math=False)
    name.set(weight="bold", gid="setting")
    axes.text(1, 1 + 0.03 / body, "sum", transform=axes.transAxes, va="bottom", ha="right", size=SMALL - 1, color=GREY)


def _kept(found: NextTokens) -> str:
    if found.n_kept < found.n_uncut:
        return f"keeps {found.n_kept:,} of {found.n_uncut:,}: {share(found.kept_mass)}"
    whole = found.n_kept == found.vocab_size
    return f"{'all' if whole else f'{found.n_kept:,} of'} {found.vocab_size:,} tokens possible"


def _sentence(found: NextTokens) -> str:
    n, sampler = len(found.tokens), "" if found.setting == "the model itself" else f" at {found.setting}"
    most = f"{np.log2(found.vocab_size):.1f}" if found.vocab_size > 1 else "0"
    which = f"The model's {n:,} likeliest of {found.vocab_size:,}" if found.n_rest else f"All {n:,}"
    listed = f"{which} tokens{sampler}; entropy {found.drawn_bits:.2f} of at most "
    is_cut = found.n_kept < found.n_uncut
    cut = f" It {_kept(found)} of the mass; what it cuts is hatched, as long as it was before." if is_cut else ""
    return f"{listed}{most} bits.{cut}"


def _write_context(figure: Figure, context: str, title: str | None) -> None:
    if context:
        width, height = figure.get_size_inches()
        words = "after  " + clipped(context, width - 2 * EDGE - 0.6, NAME_TYPE, from_end=True)
        y = 1 - (title_room(title) + 0.04) / height
        figure.text(EDGE / width, y, words, size=NAME_TYPE, va="top", parse_math=False, gid="context")


def _legend(figure: Figure, y: float) -> None:
    width, height = figure.get_size_inches()
    handles = [
        Patch(facecolor=DRAWN, label="drawn from"),
        Patch(facecolor="white", edgecolor=GREY, hatch=HATCH, label="cut, as it was before"),
        Line2D(
            [], [], color=INK, marker="|", markersize=11, markeredgewidth=1.3, linestyle="", label="the model itself"
        ),
        Line2D([], [], color=INK, linestyle=(0, (4, 2)), label="where it is cut"),
    ]
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0.05 / width, y / height),
        ncols=4,
        frameon=False,
        fontsize=NUMBER_TYPE,
        handlelength=1.6,
        columnspacing=1.4,
    )
