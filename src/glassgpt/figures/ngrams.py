"""What counting finds in a text, drawn: letters, pairs of letters, words, and what n-grams write that counted them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import FuncFormatter, MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import (
    CATEGORIES,
    GREY,
    INK,
    in_house_style,
    inch_axes,
    line_height,
    text_width,
)
from glassgpt.figures.margins import caption_room, title_room, write_margins
from glassgpt.figures.next_token import apart, clipped, filled, share

NAME_TYPE, NUMBER_TYPE, SMALL, CELL_TYPE = 10, 9, 8, 6.5
MOST_LETTERS, MOST_WORDS = 36, 20
COLUMN, ROW, CELL = 0.28, 0.25, 0.27  # inches
LONGEST_WORD, SHARES, RANKS = 1.6, 2.7, 3.6  # inches: a name, and the two panels of words
CURVE_POINTS, NAMED = 200, 6
READABLE = 0.1  # a pair that is likelier has its percentage written in its cell
TEXT_WIDTH, TEXT_TYPE = 6.2, 9.5


@dataclass(frozen=True)
class NGramText:
    """What an n-gram model wrote, a row of the table.

    unit: what is counted, "letters" say; n of them together. known: the share of its words that the counted text has
    too, None where that says nothing. copied: how many units of it in a row stand in the counted text just so.
    """

    unit: str
    n: int
    text: str
    known: float | None
    copied: int


# --- Letters and words ------------------------------------------------------------------------------------------------


@in_house_style
def draw_letter_bars(letters: Sequence[str], counts: np.ndarray, title: str | None = None) -> Figure:
    """How often each letter occurs, as bars in the order given, the most frequent first say.

    counts: whole numbers (letters,). Of more than 36 letters the first 36 are drawn, and the others counted in the
    caption. Raises UsageError for no letters, and for counts that are no counts of them.
    """
    shares = _checked(letters, counts)
    n = min(len(letters), MOST_LETTERS)
    width = max(COLUMN * n + 0.9, 5.0)
    caption = _letters_told(shares, int(np.sum(counts)), n)
    below = 0.48 + caption_room(caption, width)
    height = 2.6 + below + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.75 / width, below / height, 1 - 0.9 / width, 2.6 / height))
    bars = axes.bar(range(n), shares[:n], width=0.72, color=CATEGORIES[0])
    for place, bar in enumerate(bars):
        number = axes.text(place, bar.get_height() + 0.012 * shares.max(), _short(shares[place]), ha="center")
        number.set(size=SMALL - 0.5, va="bottom", gid="number")
    axes.set_xticks(range(n), [apart(letter) for letter in letters[:n]], parse_math=False, size=NAME_TYPE + 1)
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, n - 0.4)
    axes.set_ylim(0, 1.08 * shares.max())
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{100 * tick:.6g}%"))
    axes.set_ylabel("share of the text")
    axes.set_xlabel("letter (␣ stands between two words)")
    write_margins(figure, title, caption)
    return figure


@in_house_style
def draw_word_bars(words: Sequence[str], counts: np.ndarray, title: str | None = None) -> Figure:
    """How often the most frequent words occur, as bars, and beside them how often each word does, by its rank.

    words: the most frequent first; counts: whole numbers (words,). The second panel has logarithmic axes, on which
    Zipf's law (a word's frequency falls as its rank grows, "Human Behavior and the Principle of Least Effort", 1949) is
    the dashed straight line, drawn through the first word. Raises UsageError for no words, and for counts that are no
    counts of them or don't fall.
    """
    shares = _checked(words, counts)
    if (np.diff(shares) > 0).any():
        raise UsageError("words must come with the most frequent first; got counts that rise")
    n = min(len(words), MOST_WORDS)
    names = [clipped(word, LONGEST_WORD, NAME_TYPE) for word in words[:n]]
    left, body = max(text_width(name, NAME_TYPE) for name in names) + 0.3, max(ROW * n, 3.0)
    width = left + SHARES + 0.9 + RANKS + 0.15
    caption = _words_told(shares, int(np.sum(counts)), n)
    below = 0.48 + caption_room(caption, width)
    height = body + below + title_room(title)
    figure = Figure(figsize=(width, height))
    bars = figure.add_axes((left / width, below / height, SHARES / width, body / height))
    _paint_word_bars(bars, names, shares[:n])
    ranks = figure.add_axes(((left + SHARES + 0.9) / width, below / height, RANKS / width, body / height))
    _paint_ranks(ranks, words, np.asarray(counts))
    write_margins(figure, title, caption)
    return figure


def _letters_told(shares: np.ndarray, total: int, n: int) -> str:
    bits = float(-np.sum(shares[shares > 0] * np.log2(shares[shares > 0]))) + 0.0
    told = f"{total:,} letters and spaces, of {len(shares):,} kinds. Their entropy is {bits:.2f} bits"
    if len(shares) > 1:
        told += f"; if all were equally frequent, it would be {np.log2(len(shares)):.2f}"
    if n < len(shares):
        told += f". {len(shares) - n:,} rarer kinds, {share(float(shares[n:].sum()))} in all, are left out"
    return f"{told}."


def _words_told(shares: np.ndarray, total: int, n: int) -> str:
    once = int(np.sum(shares * total < 1.5))
    kinds = f"{total:,} words, {len(shares):,} of them different; {once:,} occur only once."
    first = f"The {n:,} most frequent make up {share(float(shares[:n].sum()))} of the text."
    return f"{kinds} {first} On the dashed line the word of rank r is r times as rare as the first."


def _paint_word_bars(axes: Axes, names: Sequence[str], shares: np.ndarray) -> None:
    axes.barh(range(len(names)), shares, height=0.7, color=CATEGORIES[0])
    for row, p in enumerate(shares):
        number = axes.text(p + 0.02 * shares[0], row, share(float(p)), va="center", size=NUMBER_TYPE, gid="number")
        number.set_color(INK)
    axes.set_yticks(range(len(names)), names, parse_math=False, size=NAME_TYPE)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(len(names), 12) - 0.5, -0.6)
    axes.set_xlim(0, 1.22 * shares[0])
    axes.set_xticks(
        [tick for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, shares[0]) if 0 <= tick <= shares[0]]
    )
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{100 * tick:.6g}%"))
    axes.set_xlabel("share of the text")


def _paint_ranks(axes: Axes, words: Sequence[str], counts: np.ndarray) -> None:
    """Counts against ranks on logarithmic axes; of many words, some that stand equally far apart there."""
    ranks = np.unique(np.geomspace(1, len(words), CURVE_POINTS).round().astype(int))
    axes.loglog(ranks, counts[0] / ranks, color=GREY, linestyle=(0, (5, 3)), linewidth=1.1, gid="zipf")
    axes.loglog(ranks, counts[ranks - 1], color=CATEGORIES[0], marker="o", markersize=3, linewidth=1.2, gid="ranks")
    middle = float(np.sqrt(len(words)))
    law = axes.annotate("1 / rank", (middle, counts[0] / middle), (-6, -4), textcoords="offset points", ha="right")
    law.set(size=NUMBER_TYPE, color=GREY, va="top")
    for rank in dict.fromkeys(np.geomspace(1, len(words), NAMED).round().astype(int).tolist()):
        room = RANKS * (1 - np.log(rank) / np.log(max(len(words), 2)))  # inches up to the right edge
        if room > 0.5:
            name = clipped(words[rank - 1], min(1.0, room), NUMBER_TYPE)
            label = axes.annotate(name, (rank, counts[rank - 1]), (5, 6), textcoords="offset points")
            label.set(size=NUMBER_TYPE, parse_math=False, gid="name")
    axes.set_ylim(0.6, counts[0] * 2.0)
    axes.set_xlabel("rank of the word")
    axes.set_ylabel("how often it occurs")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.6g}"))


# --- Pairs ------------------------------------------------------------------------------------------------------------


@in_house_style
def draw_letter_pairs(signs: Sequence[str], counts: np.ndarray, totals: np.ndarray, title: str | None = None) -> Figure:
    """The probability of the next letter (column) after each letter (row), as colours.

    counts: whole numbers (signs, signs), how often the column's letter follows the row's. totals: (signs,), how often
    the row's is followed by any letter. Pairs of 10 % and more have their percentage written in. The colour scale
    is of square roots, so that the unlikely are told apart too. A row whose letter is never followed stays empty.
    Raises UsageError for other shapes, and for counts that are no counts.
    """
    table = _conditional(signs, counts, totals)
    names = [apart(sign) for sign in signs]
    side, left, above = CELL * max(len(signs), 8), 0.75, 0.52 + title_room(title)
    width = left + side + 1.1
    caption = _pairs_told(signs, table)
    below = caption_room(caption, width)
    height = above + side + below
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, side / width, side / height))
    top = float(np.nanmax(table)) if np.isfinite(table).any() else 1.0
    image = axes.imshow(
        table, cmap="cividis", norm=PowerNorm(0.5, 0.0, top or 1.0), interpolation="nearest", aspect="auto"
    )
    for row, column in np.argwhere(np.nan_to_num(table) >= READABLE):
        p = table[row, column]
        number = axes.text(column, row, f"{100 * p:.0f}", ha="center", va="center", size=CELL_TYPE, gid="number")
        number.set_color("white" if p < 0.29 * top else INK)  # cividis turns bright at about sqrt(0.29)
    _square(axes, names)
    place = ((left + side + 0.2) / width, below / height, 0.14 / width, side / height)
    bar = figure.colorbar(image, cax=figure.add_axes(place))
    bar.outline.set_visible(False)
    bar.set_label("probability", size=NUMBER_TYPE, color=GREY)
    ticks = [tick for tick in (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0) if tick <= top]
    bar.set_ticks(ticks, labels=[f"{100 * tick:.0f}%" for tick in ticks], size=NUMBER_TYPE)
    write_margins(figure, title, caption)
    return figure


def _conditional(signs: Sequence[str], counts: np.ndarray, totals: np.ndarray) -> np.ndarray:
    n, pairs, followed = len(signs), np.asarray(counts, dtype=np.float64), np.asarray(totals, dtype=np.float64)
    if not n or pairs.shape != (n, n) or followed.shape != (n,):
        raise UsageError(
            f"pairs of {n} signs need counts of shape ({n}, {n}) and totals of shape ({n},), at least one sign; "
            f"got {pairs.shape} and {followed.shape}"
        )
    if not (np.isfinite(followed).all() and (pairs >= 0).all() and (pairs.sum(axis=1) <= followed).all()):
        raise UsageError("counts must be 0 or more and add up to no more than the totals of their rows; got others")
    return np.where(followed[:, None] > 0, pairs / np.maximum(followed, 1)[:, None], np.nan)


def _square(axes: Axes, names: Sequence[str]) -> None:
    axes.set_xticks(range(len(names)), names, parse_math=False, size=NAME_TYPE)
    axes.set_yticks(range(len(names)), names, parse_math=False, size=NAME_TYPE)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("the next letter (␣ stands between two words)", color=GREY, size=NUMBER_TYPE)
    axes.set_ylabel("after this letter", color=GREY, size=NUMBER_TYPE)
    axes.tick_params(length=0, pad=5)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _pairs_told(signs: Sequence[str], table: np.ndarray) -> str:
    """What the map shows, with its surest row by name."""
    words = "Each row adds up to 100%"
    if (np.nansum(table, axis=1) < 1 - 1e-9)[~np.isnan(table).all(axis=1)].any():
        words += " with letters that are too rare to be drawn"
    words += f". Pairs of {100 * READABLE:.0f}% and more have their percentage written in."
    if np.isnan(table).all():
        return words
    row, column = divmod(int(np.nanargmax(table)), len(signs))
    surest = share(float(table[row, column]))
    return f"{words} The surest: {apart(signs[row])} is followed by {apart(signs[column])} in {surest} of cases."


# --- Texts ------------------------------------------------------------------------------------------------------------


@in_house_style
def draw_ngram_texts(texts: Sequence[NGramText], title: str | None = None) -> Figure:
    """What n-grams of growing n write, a table: n, the text, how many of its words are words, how much is copied.

    Texts of one unit stand together, in the order given. Raises UsageError for no texts.
    """
    if not texts:
        raise UsageError("a table of texts needs at least one; got none")
    units = list(dict.fromkeys(text.unit for text in texts))
    lines = [_lines(row.text) for row in texts]
    width, caption = sum(_COLUMNS) + TEXT_WIDTH, _TEXTS_TOLD
    tables = sum(map(_row_height, lines)) + 0.5 * len(units)
    height = title_room(title) + tables + caption_room(caption, width)
    figure = Figure(figsize=(width, height))
    axes = inch_axes(figure, 0.0, 0.0, np.array([0.0, 0.0]), np.array([width, height]))
    y = height - title_room(title)
    for unit in units:
        y = _write_heading(axes, unit, any(row.known is not None for row in texts if row.unit == unit), y)
        for row, written in zip(texts, lines, strict=True):
            if row.unit == unit:
                y = _write_row(axes, row, written, y)
    write_margins(figure, title, caption)
    return figure


_COLUMNS = (0.6, 0.95, 1.05)  # inches: n, and behind the text the known words and the longest copy
_ENDS = (_COLUMNS[0] + TEXT_WIDTH + _COLUMNS[1] - 0.15, sum(_COLUMNS) + TEXT_WIDTH - 0.15)  # of the last two
_TEXTS_TOLD = (
    "Each text is drawn from n-grams that are mixed with shorter ones (Kneser-Ney), so that nothing is impossible. "
    "Known words: the share of its words that the counted text has too. Longest copy: how much of it in a row stands "
    "in the counted text just so."
)


def _lines(text: str) -> list[str]:
    """The text in lines that fit the column, its blanks as blanks and all else that can't be seen as its code."""
    words = " ".join(apart(word) if word else "" for word in text.split(" "))
    return filled(words or "∅", TEXT_WIDTH - 0.1, TEXT_TYPE)


def _write_heading(axes: Axes, unit: str, has_known: bool, y: float) -> float:
    """The name of the unit and of the columns, with a line under them; returns where the rows begin."""
    axes.text(0.15, y - 0.3, "n", size=NUMBER_TYPE, color=GREY)
    axes.text(_COLUMNS[0], y - 0.3, f"n-grams of {unit}", size=TEXT_TYPE + 1, weight="bold", parse_math=False)
    for x, name in zip(_ENDS, ("known words" if has_known else "", "longest copy"), strict=True):
        axes.text(x, y - 0.3, name, size=NUMBER_TYPE, color=GREY, ha="right")
    axes.plot([0.15, _ENDS[-1]], [y - 0.38] * 2, color=GREY, linewidth=0.8)
    return y - 0.44


def _write_row(axes: Axes, row: NGramText, lines: Sequence[str], y: float) -> float:
    baseline = y - 0.19
    axes.text(0.15, baseline, str(row.n), size=TEXT_TYPE + 1, weight="bold", color=CATEGORIES[0], gid="n")
    for i, line in enumerate(lines):
        place = baseline - i * line_height(line, TEXT_TYPE)
        axes.text(_COLUMNS[0], place, line, size=TEXT_TYPE, parse_math=False, gid="text")
    known = "" if row.known is None else f"{100 * row.known:.0f}%"
    copied = f"{row.copied:,} {row.unit if row.copied != 1 else row.unit.removesuffix('s')}"
    for x, number in zip(_ENDS, (known, copied), strict=True):
        axes.text(x, baseline, number, size=NUMBER_TYPE, ha="right", parse_math=False, gid="number")
    return y - _row_height(lines)


def _row_height(lines: Sequence[str]) -> float:
    return line_height("\n".join(lines), TEXT_TYPE) + 0.14


# --- What they share --------------------------------------------------------------------------------------------------


def _checked(names: Sequence[str], counts: np.ndarray) -> np.ndarray:
    """Counts as shares of their sum: float64 (names,)."""
    numbers = np.asarray(counts, dtype=np.float64)
    if not len(names) or numbers.shape != (len(names),):
        raise UsageError(
            f"expected a count for each of one name or more; got {len(names)} names, {numbers.shape} counts"
        )
    if not (np.isfinite(numbers).all() and (numbers >= 0).all() and numbers.sum() > 0):
        raise UsageError("counts must be 0 or more, and not all of them 0; got others")
    return numbers / numbers.sum()


def _short(p: float) -> str:
    """A share in percent without its sign, for where there is little room.

    >>> _short(0.1704), _short(0.00072)
    ('17.0', '0.1')
    """
    return f"{100 * p:.1f}" if p >= 0.0005 or p == 0 else "<.1"
