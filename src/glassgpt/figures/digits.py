"""A net that reads digits: its answers, what blur does to them, and where its last hidden layer puts each digit."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter

from glassgpt.errors import UsageError
from glassgpt.figures.curves import DASHES
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style
from glassgpt.figures.margins import caption_room, title_room, write_margins
from glassgpt.figures.states import percent

COLUMNS = 5
IMAGE, BARS, CELL_GAP, ROW_GAP = 0.85, 0.95, 0.3, 0.55  # inches
HEADING = 0.28
TYPE, SMALL = 10, 8.5
RIGHT, WRONG = CATEGORIES[0], CATEGORIES[5]
BLUR_WIDTH, BLUR_HEIGHT, SHOWN_BLURS, BLUR_IMAGE = 7.2, 3.0, 7, 0.8
NAMED = 0.1  # a digit whose probability never comes so high has a grey line
MAP_SIDE = 6.4
# A colour for each digit: those of the house that are dark enough to be read on white, and three more.
INKS = ("#0072B2", "#B07300", "#007A5A", "#A8477F", "#2A8CC4", "#D55E00", "#5B4FB5", "#000000", "#7A5230", "#6B7A00")


class Answers(Protocol):
    """The fields of `evaluation.digits.Answers`."""

    @property
    def images(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def probabilities(self) -> np.ndarray: ...


class Share(Protocol):
    """The fields of `evaluation.intervals.Interval`."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


class Examples(Protocol):
    """The fields of `evaluation.digits.Examples`."""

    @property
    def typical(self) -> Answers: ...
    @property
    def misread(self) -> Answers: ...
    @property
    def n_misread(self) -> int: ...
    @property
    def right(self) -> Share: ...
    @property
    def n_held_out(self) -> int: ...
    @property
    def n_training(self) -> int: ...
    @property
    def n_parameters(self) -> int: ...


class Blurred(Protocol):
    """The fields of `evaluation.digits.Blurred`."""

    @property
    def label(self) -> int: ...
    @property
    def widths(self) -> np.ndarray: ...
    @property
    def images(self) -> np.ndarray: ...
    @property
    def probabilities(self) -> np.ndarray: ...


class DigitMap(Protocol):
    """The fields of `evaluation.digits.DigitMap`."""

    @property
    def places(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def answers(self) -> np.ndarray: ...
    @property
    def explained(self) -> np.ndarray: ...
    @property
    def n_units(self) -> int: ...


# ---- answers ---------------------------------------------------------------------------------------------------------


@in_house_style
def draw_digit_answers(found: Examples, title: str | None = None) -> Figure:
    """Each digit with the probabilities of all ten answers as bars: one example of each, then some that were misread.

    The likeliest answer's bar is blue and named if it is right, orange and named with what the digit is if not. Raises
    UsageError if there is no digit to show.
    """
    if not len(found.typical.labels):
        raise UsageError("there is no digit to show: hold some out (glassgpt.evaluation.digits)")
    groups = [("the first example of each digit", found.typical)]
    if len(found.misread.labels):
        groups.append((f"misread: {len(found.misread.labels)} of {found.n_misread}, the surest first", found.misread))
    rows = [-(-len(answers.labels) // COLUMNS) for _, answers in groups]
    cell = IMAGE + BARS + CELL_GAP
    width = 0.2 + COLUMNS * cell
    caption = _answers_caption(found)
    below, above = caption_room(caption, width) + 0.1, title_room(title)
    height = below + above + sum(rows) * (IMAGE + ROW_GAP) + HEADING * len(groups)
    figure = Figure(figsize=(width, height))
    top = height - above
    for (name, answers), n_rows in zip(groups, rows, strict=True):
        heading = figure.text(0.2 / width, (top - 0.05) / height, name, size=TYPE, weight="bold", va="top")
        heading.set_gid("heading")
        for i in range(len(answers.labels)):
            row, column = divmod(i, COLUMNS)
            left, bottom = 0.2 + column * cell, top - HEADING - row * (IMAGE + ROW_GAP) - 0.2 - IMAGE
            image = figure.add_axes((left / width, bottom / height, IMAGE / width, IMAGE / height))
            _draw_image(image, answers.images[i])
            bars = figure.add_axes(((left + IMAGE + 0.08) / width, bottom / height, BARS / width, IMAGE / height))
            _draw_bars(bars, answers.probabilities[i], int(answers.labels[i]))
        top -= HEADING + n_rows * (IMAGE + ROW_GAP)
    write_margins(figure, title, caption)
    return figure


def _draw_image(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.6)
    axes.set_gid("image")


def _draw_bars(axes: Axes, probabilities: np.ndarray, label: int) -> None:
    likeliest = int(np.argmax(probabilities))
    is_right = likeliest == label
    bars = axes.bar(range(10), probabilities, width=0.8, color=GREY, gid="probability")
    bars[likeliest].set_color(RIGHT if is_right else WRONG)
    axes.set(ylim=(0, 1), xlim=(-0.7, 9.7), yticks=[])
    axes.set_xticks(range(10), [str(digit) for digit in range(10)], size=6.5)
    axes.tick_params(length=0, pad=1.5)
    axes.spines["left"].set_visible(False)
    answer = f"{likeliest}: {percent(probabilities[likeliest])}" + ("" if is_right else f", is {label}")
    text = axes.text(0.5, 1.03, answer, transform=axes.transAxes, size=SMALL, ha="center", va="bottom")
    text.set(color=INK if is_right else WRONG, weight="normal" if is_right else "bold", gid="answer")


def _answers_caption(found: Examples) -> str:
    right = found.right
    return (
        f"A net of {found.n_parameters:,} parameters that learned from {found.n_training:,} digits, and the "
        f"probability that it gives each answer for digits that it never saw. Of {found.n_held_out:,} it reads "
        f"{100 * right.value:.1f}% right (95% interval {100 * right.low:.1f}% to {100 * right.high:.1f}%)."
    )


# ---- blur ------------------------------------------------------------------------------------------------------------


@in_house_style
def draw_blurred_digit(found: Blurred, title: str | None = None) -> Figure:
    """Above, the digit at some widths of the blur; below, each answer's probability against the width.

    A line is named by its digit where it is highest; those that never reach 10 % are grey and nameless.
    """
    left, top_room = 0.8, 0.3
    width = left + BLUR_WIDTH + 0.5
    caption = _blur_caption(found)
    below, above = caption_room(caption, width) + 0.5, title_room(title) + top_room
    height = below + BLUR_HEIGHT + 0.2 + BLUR_IMAGE + above
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, BLUR_WIDTH / width, BLUR_HEIGHT / height))
    _draw_probabilities(axes, found)
    for i in np.linspace(0, len(found.widths) - 1, min(SHOWN_BLURS, len(found.widths))).round().astype(int):
        share = (found.widths[i] - found.widths[0]) / (np.ptp(found.widths) or 1.0)
        middle, bottom = left + share * BLUR_WIDTH, below + BLUR_HEIGHT + 0.2
        image = figure.add_axes(
            ((middle - BLUR_IMAGE / 2) / width, bottom / height, BLUR_IMAGE / width, BLUR_IMAGE / height)
        )
        _draw_image(image, found.images[i])
        likeliest = int(np.argmax(found.probabilities[i]))
        said = f"{likeliest}: {percent(found.probabilities[i, likeliest])}"
        image.set_title(said, size=SMALL, pad=3, color=INK if likeliest == found.label else WRONG)
        axes.axvline(found.widths[i], color=GREY, linewidth=0.6, alpha=0.35, zorder=0)
    write_margins(figure, title, caption)
    return figure


def named_digits(probabilities: np.ndarray) -> list[int]:
    """The digits whose probability reaches 10 % somewhere."""
    return [digit for digit in range(probabilities.shape[1]) if probabilities[:, digit].max() >= NAMED]


def _draw_probabilities(axes: Axes, found: Blurred) -> None:
    named = named_digits(found.probabilities)
    for digit in range(found.probabilities.shape[1]):
        line = found.probabilities[:, digit]
        if digit not in named:
            axes.plot(found.widths, line, color=GREY, linewidth=0.8, alpha=0.5, gid=f"digit {digit}")
            continue
        is_label = digit == found.label
        drawn = axes.plot(found.widths, line, color=INKS[digit], linewidth=2.6 if is_label else 1.6)[0]
        drawn.set(linestyle=DASHES[named.index(digit) % 4] if not is_label else "-", gid=f"digit {digit}")
        peak = int(np.argmax(line))
        name = axes.annotate(
            str(digit),
            (found.widths[peak], line[peak]),
            (8, 0) if peak == len(line) - 1 else (8 if peak == 0 else 0, 8),
            textcoords="offset points",
            ha="center",
            va="center",
            annotation_clip=False,
        )
        name.set(color=INKS[digit], weight="bold", size=12, gid="digit-name")
        name.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.set_xlim(found.widths[0], found.widths[-1])
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}%"))
    axes.set_xlabel("width of the blur (standard deviation in pixels, of 8 a side)", size=SMALL)
    axes.set_ylabel("probability of the answer", size=SMALL, labelpad=10)
    axes.tick_params(labelsize=SMALL, length=3)


def _blur_caption(found: Blurred) -> str:
    answers = np.argmax(found.probabilities, axis=1)
    turns = np.flatnonzero(np.diff(answers)) + 1
    text = f"A {found.label} that the net never saw, blurred more and more."
    if not len(turns):
        return text + f" The likeliest answer stays {answers[0]} throughout."
    changes = [f"{answers[turn]} from {found.widths[turn]:.2f} pixels on" for turn in turns]
    listed = changes[0] if len(changes) == 1 else ", ".join(changes[:-1]) + f" and {changes[-1]}"
    return text + (
        f" The likeliest answer is {answers[0]}, then {listed}. At the end there is a blot, and still the net gives "
        f"{percent(found.probabilities[-1].max())} to one answer: its probabilities compare answers, and none of them "
        "says that this is no digit."
    )


# ---- the map ---------------------------------------------------------------------------------------------------------


@in_house_style
def draw_digit_map(found: DigitMap, title: str | None = None) -> Figure:
    """Every digit as itself, where the net's last hidden layer puts it; what it misreads has a ring, and its answer.

    Both axes have one scale, so that distances are those of the plane. Raises UsageError if there is no digit.
    """
    if not len(found.labels):
        raise UsageError("there is no digit to show: hold some out (glassgpt.evaluation.digits)")
    left, width = 0.7, 0.7 + MAP_SIDE + 0.2
    aspect = min(max(float(np.ptp(found.places[:, 1]) / (np.ptp(found.places[:, 0]) or 1.0)), 0.6), 1.2)
    caption = _map_caption(found)
    below, above = caption_room(caption, width) + 0.5, title_room(title)
    height = below + aspect * MAP_SIDE + above
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, MAP_SIDE / width, aspect * MAP_SIDE / height))
    for digit in range(10):
        x, y = found.places[found.labels == digit].T
        # The digit as a formula is the marker; formulas are made of what is in the loop, never of outside text.
        axes.scatter(x, y, marker=f"${digit}$", s=38, color=INKS[digit], linewidths=0, gid=f"digit {digit}")
    _ring_misread(axes, found)
    axes.set_aspect("equal", adjustable="datalim")
    axes.tick_params(labelsize=SMALL, length=3)
    names = [
        f"{order} principal component ({percent(share)} of the variance)"
        for order, share in zip(("first", "second"), found.explained, strict=True)
    ]
    axes.set_xlabel(names[0], size=SMALL)
    axes.set_ylabel(names[1], size=SMALL)
    write_margins(figure, title, caption)
    return figure


def _ring_misread(axes: Axes, found: DigitMap) -> None:
    wrong = np.flatnonzero(found.answers != found.labels)
    x, y = found.places[wrong].T
    axes.scatter(x, y, s=130, facecolors="none", edgecolors=WRONG, linewidths=1.3, gid="misread")
    for i in wrong:
        name = axes.annotate(f"→{found.answers[i]}", found.places[i], (8, 6), textcoords="offset points")
        name.set(size=SMALL, color=WRONG, weight="bold", gid="answer")
        name.set_path_effects([withStroke(linewidth=2.0, foreground="white")])


def _map_caption(found: DigitMap) -> str:
    wrong = int((found.answers != found.labels).sum())
    rings = f"Rings: the {wrong} that are misread" if wrong > 1 else "Ring: the one that is misread"
    return (
        f"{len(found.labels):,} digits that the net never saw, each where the {found.n_units} activations of its last "
        f"hidden layer put it: on the plane of two principal components, which holds "
        f"{percent(float(np.sum(found.explained)))} of their variance (so that groups which overlap here may be "
        f"apart in truth). " + (f"{rings}, with the answer." if wrong else "None is misread.")
    )
