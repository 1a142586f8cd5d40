"""Numbers against steps: the loss, probabilities in training, and red states reached, as lines labelled at their ends.

Probabilities of red can be as small as 10^-3000, where no float reaches, so they come as base-10 logarithms.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, POINT, RED, in_house_style, shown, text_width, wrapped
from glassgpt.figures.states import percent

DASHES = ("-", "--", "-.", ":")
LABEL_TYPE = 9.5
NOTE_TYPE = 9
HEIGHT = 4.2
PLOT_WIDTH = 5.6


@in_house_style
def draw_loss_curve(
    losses: Sequence[float], yardsticks: Mapping[str, float] = MappingProxyType({}), title: str | None = None
) -> Figure:
    """Training loss in nats against the updates made before it was taken, with levels to judge it by.

    yardsticks: name -> nats, such as {"entropy of the data": 0.347, "uniform": 0.693}; dashed lines with their names.
    Raises UsageError for no losses, and for losses that are not finite.
    """
    values = _series("losses", losses)
    if not np.isfinite(values).all():
        raise UsageError(f"losses must be finite; got {values[~np.isfinite(values)][0]} at step {_first_bad(values)}")
    steps = np.arange(len(values))
    ends = [(float(values[-1]), f"loss {values[-1]:.3f}", CATEGORIES[0])]
    ends += [(float(level), f"{shown_words(name)} {level:.3f}", GREY) for name, level in yardsticks.items()]
    caption = "How surprised the model is by what it learns from, before each update."
    caption += " Dashed: levels to judge it by." if yardsticks else ""
    figure, axes = _axes(title, [text for _, text, _ in ends], notes=[caption])
    axes.plot(steps, values, color=CATEGORIES[0], linewidth=1.6, marker="o" if len(values) == 1 else "", gid="loss")
    for level in yardsticks.values():
        axes.axhline(level, color=GREY, linestyle=(0, (5, 3)), linewidth=1.1, zorder=1)
    axes.set_xlabel("training step")
    axes.set_ylabel("loss (nats per token)")
    _whole_steps(axes)
    _label_ends(axes, ends)
    return figure


@in_house_style
def draw_training_curves(
    losses: Sequence[float],
    validation: Mapping[int, float],
    yardsticks: Mapping[str, float],
    bytes_per_token: float,
    title: str | None = None,
) -> Figure:
    """Training loss and validation points in bits per byte against steps, with nats a token on the other axis.

    losses: nats a token, of each step before its update; drawn raw and faint, and smoothed (a mean whose weights fall
    by half each fiftieth of the run). validation: step -> bits per byte. yardsticks: name -> bits per byte, dashed
    lines with their names; those above all losses are named at the foot. bytes_per_token: of the validation part, which
    turns nats into bits per byte. Raises UsageError for no losses or no validation, and for what isn't finite.
    """
    values = _series("losses", losses) / (np.log(2) * bytes_per_token)
    points = _series("validation", list(validation.values()))
    if not (np.isfinite(values).all() and np.isfinite(points).all()):
        raise UsageError("losses must be finite; got some that are not")
    top = 1.03 * float(max(values.max(), points.max()))
    beside = {name: level for name, level in yardsticks.items() if level <= top}
    beyond = [f"{shown_words(name)} {level:.2f}" for name, level in yardsticks.items() if level > top]
    smooth = smoothed(values, half_life=len(values) / 50)
    ends = [
        (float(points[-1]), f"validation {points[-1]:.3f}", CATEGORIES[5]),
        (float(smooth[-1]), f"training {smooth[-1]:.3f}", CATEGORIES[0]),
        *((level, f"{shown_words(name)} {level:.3f}", GREY) for name, level in beside.items()),
    ]
    room = " 00.0"  # of the other axis's numbers, which stand between the plot and the labels
    caption = (
        "Points: text that was kept back. Faint: the batches of training; thick: their running mean, which lags. "
        "Dashed: what counting and compressors need."
    )
    notes = [_above(beyond), caption] if beyond else [caption]
    figure, axes = _axes(title, [room + text for _, text, _ in ends], notes=notes)
    axes.plot(np.arange(len(values)), values, color=CATEGORIES[0], linewidth=0.6, alpha=0.3, gid="raw")
    axes.plot(np.arange(len(values)), smooth, color=CATEGORIES[0], linewidth=1.7, gid="smooth")
    style: dict[str, Any] = {"color": CATEGORIES[5], "linewidth": 1.0, "marker": "o", "markersize": 4}
    axes.plot(list(validation), points, clip_on=False, zorder=3, gid="validation", **style)
    for level in beside.values():
        axes.axhline(level, color=GREY, linestyle=(0, (5, 3)), linewidth=1.0, zorder=1, gid="yardstick")
    axes.set_xlabel("training step")
    axes.set_ylabel("bits per byte")
    axes.set_ylim(0, top)
    _whole_steps(axes)
    _add_nats(axes, bytes_per_token)
    _label_ends(axes, ends, beyond_numbers=text_width(room, 10))
    return figure


def smoothed(values: np.ndarray, half_life: float) -> np.ndarray:
    """At each place the mean of the values up to it, whose weights fall by half every `half_life` places back.

    >>> smoothed(np.array([4.0, 1.0]), half_life=1.0)
    array([4., 2.])
    """
    keep = 0.5 ** (1 / max(half_life, 1e-9))
    total = weight = 0.0
    means = np.empty(len(values))
    for i, value in enumerate(values):
        total, weight = keep * total + value, keep * weight + 1
        means[i] = total / weight
    return means


def _above(names: Sequence[str]) -> str:
    return "above the upper edge: " + ", ".join(names)


def _add_nats(axes: Axes, bytes_per_token: float) -> None:
    """The same scale in nats a token, on the right."""
    factor = float(np.log(2)) * bytes_per_token

    def to_nats(bits: np.ndarray) -> np.ndarray:
        return np.asarray(bits) * factor

    def to_bits(nats: np.ndarray) -> np.ndarray:
        return np.asarray(nats) / factor

    other = axes.secondary_yaxis("right", functions=(to_nats, to_bits))  # type: ignore[arg-type]
    axes.set_title("nats a token", size=9, color=GREY, loc="right", pad=4)
    other.spines["right"].set_visible(True)


@in_house_style
def draw_red_over_steps(
    steps: Sequence[float],
    log10_within: Sequence[float],
    log10_survival: Sequence[float] | None = None,
    title: str | None = None,
) -> Figure:
    """Probability of having reached a red state within n tokens, and of not having, against n.

    log10_within, log10_survival: base-10 logarithms, one for each of `steps`; minus infinity is exactly zero, which a
    logarithmic axis cannot show, so the figure says at which n. Raises UsageError for NaN or probabilities above 1.
    """
    series = {"red reached": log10_within}
    if log10_survival is not None:
        series["not yet reached"] = log10_survival
    colours = [RED, CATEGORIES[0]]
    caption = "The probability that a text has met red by then, on a logarithmic scale."
    figure, axes = _draw_logarithms(steps, series, colours, title, "n", caption)
    axes.set_xlabel("n, tokens generated")
    axes.set_ylabel("probability within n tokens")
    return figure


@in_house_style
def draw_red_over_training(
    training_steps: Sequence[float],
    series: Mapping[str, Sequence[float]],
    title: str | None = None,
    caption: str = "How likely red is under the model of each step of training, on a logarithmic scale.",
) -> Figure:
    """Probability of red against training step, as base-10 logarithms, one line for each name in `series`.

    Minus infinity is exactly zero: not drawn, but said. Raises UsageError for NaN or probabilities above 1.
    """
    if not series:
        raise UsageError("draw_red_over_training needs at least one series; got none")
    figure, axes = _draw_logarithms(training_steps, series, CATEGORIES, title, "step", caption)
    axes.set_xlabel("training step")
    axes.set_ylabel("probability of red")
    return figure


@in_house_style
def draw_probabilities_over_training(
    training_steps: Sequence[float], probabilities: np.ndarray, labels: Sequence[str], title: str | None = None
) -> Figure:
    """Named transition probabilities against training step, each line labelled at its end.

    probabilities: float array (training steps, labels), values in [0, 1]. labels: such as "101 → 1".
    Raises UsageError when the shapes do not fit or a value is no probability.
    """
    steps = _series("training_steps", training_steps)
    values = np.asarray(probabilities, dtype=np.float64)
    if values.shape != (len(steps), len(labels)) or not len(labels):
        raise UsageError(
            f"probabilities must have the shape (training steps, labels) = ({len(steps)}, {len(labels)}), "
            f"with at least one label; got {values.shape}"
        )
    if not ((values >= 0) & (values <= 1)).all():
        raise UsageError("probabilities must lie between 0 and 1; got values outside, or NaN")
    ends = [
        (values[-1, i], f"{shown_words(label)}  {percent(values[-1, i])}", _colour(i)) for i, label in enumerate(labels)
    ]
    caption = "The probability of one next token after each context, under the model of each step of training."
    figure, axes = _axes(title, [text for _, text, _ in ends], rows=len(labels), notes=[caption])
    for i in range(len(labels)):
        _line(axes, steps, values[:, i], i, _colour(i))
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}%"))
    axes.set_xlabel("training step")
    axes.set_ylabel("probability of the next token")
    _whole_steps(axes)
    _label_ends(axes, ends)
    return figure


def spread(positions: Sequence[float], gap: float, low: float, high: float) -> np.ndarray:
    """Places for labels as near to their positions as they can stand with `gap` between neighbours, within [low, high].

    Neighbours that are too close form a block round the mean of their wishes (isotonic regression, by pooling). When
    all of them do not fit, the gap shrinks.

    >>> spread([0.0, 0.1, 5.0], gap=1.0, low=-1.0, high=9.0)
    array([-0.45,  0.55,  5.  ])
    """
    wishes = np.asarray(positions, dtype=np.float64)
    order = np.argsort(wishes, kind="stable")
    gap = min(gap, (high - low) / max(len(wishes) - 1, 1))
    blocks: list[list[float]] = []  # of wishes less the room that the labels below take
    for rank, index in enumerate(order):
        blocks.append([wishes[index] - rank * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    base = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    base = np.clip(base, low, high - (len(wishes) - 1) * gap)
    places = np.empty(len(wishes))
    places[order] = base + np.arange(len(wishes)) * gap
    return places


def shown_words(text: str) -> str:
    """A name of several words as a figure writes it: its blanks stay blanks."""
    return " ".join(shown(word) for word in text.split(" ") if word)


def _draw_logarithms(
    steps: Sequence[float],
    series: Mapping[str, Sequence[float]],
    colours: Sequence[str],
    title: str | None,
    step_name: str,
    caption: str,
) -> tuple[Figure, Axes]:
    at = _series("steps", steps)
    values = {name: _logarithms(name, line, len(at)) for name, line in series.items()}
    texts = [f"{shown_words(name)}: 0" for name in values]
    notes = [note for name, line in values.items() if (note := _zero_note(name, at, line, step_name))]
    figure, axes = _axes(title, texts, rows=len(texts), notes=[*notes, caption])
    for i, line in enumerate(values.values()):
        _line(axes, at, np.where(np.isfinite(line), line, np.nan), i, colours[i % len(colours)])
    _step_scale(axes, at)
    _probability_scale(axes, [line[np.isfinite(line)] for line in values.values()])
    ends = [
        _end_of_line(axes, shown_words(name), at, line, colours[i % len(colours)])
        for i, (name, line) in enumerate(values.items())
    ]
    _label_ends(axes, ends)
    if not any(np.isfinite(line).any() for line in values.values()):
        axes.text(0.5, 0.5, "exactly zero everywhere", transform=axes.transAxes, ha="center", va="center", color=GREY)
    return figure, axes


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, index: int, colour: str) -> None:
    # A point with no neighbour to join would be invisible as a line.
    lonely = np.isfinite(values).sum() == 1 or len(values) <= 12
    style: dict[str, Any] = {"linestyle": DASHES[index % len(DASHES)], "linewidth": 1.7, "color": colour}
    axes.plot(steps, values, marker="o" if lonely else "", markersize=3.5, gid=f"line-{index}", **style)


def _end_of_line(axes: Axes, text: str, steps: np.ndarray, line: np.ndarray, colour: str) -> tuple[float, str, str]:
    """Height, text and colour of the label; a line that ends at exactly zero falls off the axis before its end."""
    floor = axes.get_ylim()[0]
    drawn = np.flatnonzero(np.isfinite(line))
    if len(drawn) and drawn[-1] == len(line) - 1:
        return float(line[-1]), text, colour
    if len(drawn):
        last = drawn[-1]
        style: dict[str, Any] = {"linestyle": ":", "linewidth": 1.1, "marker": "v", "markevery": [1], "clip_on": False}
        axes.plot([steps[last]] * 2, [line[last], floor], color=colour, gid="fall", **style)
    return floor, f"{text}: 0", colour


def _zero_note(name: str, steps: np.ndarray, values: np.ndarray, step_name: str) -> str:
    zero = np.isneginf(values)
    if not zero.any():
        return ""
    if zero.all():
        where = "everywhere"
    elif zero.sum() == 1:
        where = f"at {step_name} = {steps[zero][0]:g}"
    else:
        where = f"at {zero.sum()} points from {step_name} = {steps[zero][0]:g} to {steps[zero][-1]:g}"
    return f"{shown_words(name)}: exactly zero {where} (not drawn)"


def _logarithms(name: str, values: Sequence[float], n_steps: int) -> np.ndarray:
    logarithms = _series(name, values)
    if len(logarithms) != n_steps:
        raise UsageError(f"{name!r} must have one value for each of the {n_steps} steps; got {len(logarithms)}")
    bad = np.isnan(logarithms) | (logarithms > 1e-9)
    if bad.any():
        raise UsageError(
            f"{name!r} must be base-10 logarithms of probabilities, at most 0; got {logarithms[bad][0]} "
            f"(pass numpy.log10 of a probability)"
        )
    return np.minimum(logarithms, 0.0)


def _series(name: str, values: Sequence[float]) -> np.ndarray:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1 or not len(series):
        raise UsageError(f"{name} must be a list of at least one number; got an array of shape {series.shape}")
    return series


def _first_bad(values: np.ndarray) -> int:
    return int(np.argmin(np.isfinite(values)))


def _axes(
    title: str | None, end_labels: Sequence[str], rows: int = 0, notes: Sequence[str] = ()
) -> tuple[Figure, Axes]:
    """A figure whose right margin has room for the labels of line ends, and at its foot notes, each from a new line."""
    right = max([text_width(text, LABEL_TYPE) for text in end_labels], default=0.0) * 1.06 + 0.35
    left, top = 1.05, 0.5 if title else 0.2
    width = left + PLOT_WIDTH + right
    lines = [line for note in notes for line in wrapped(note, 0.96 * (width - left), NOTE_TYPE).split("\n")]
    bottom, height = 0.6 + 0.2 * len(lines), max(HEIGHT, 0.19 * rows + 0.8) + 0.2 * len(lines)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, PLOT_WIDTH / width, (height - bottom - top) / height))
    if title:
        axes.set_title(title, loc="left", weight="bold", size=12, pad=10, parse_math=False)
    for row, line in enumerate(lines):
        y = (0.1 + 0.2 * (len(lines) - 1 - row)) / height
        figure.text(left / width, y, line, size=NOTE_TYPE, color=GREY, va="bottom", parse_math=False)
    return figure, axes


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]], beyond_numbers: float = 0.0) -> None:
    """Write each (value, text, colour) to the right of the axes, joined to its value by a thin line; `beyond_numbers`:
    so many inches further right, where an axis has its numbers."""
    gap = beyond_numbers / PLOT_WIDTH
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    inches = axes.get_window_extent().height / axes.figure.dpi
    shares = [(value - low) / (high - low) for value, _, _ in ends]
    places = spread(shares, gap=1.35 * LABEL_TYPE * POINT / inches, low=0.0, high=1.0)
    for share, place, (_, text, colour) in zip(shares, places, ends, strict=True):
        axes.plot(
            [1.0 + gap, 1.03 + gap],
            [share, place],
            transform=axes.transAxes,
            color=colour,
            linewidth=0.8,
            clip_on=False,
            gid="leader",
        )
        label = axes.text(
            1.037 + gap, place, text, transform=axes.transAxes, size=LABEL_TYPE, va="center", parse_math=False
        )
        label.set(color=INK if colour in (CATEGORIES[6], CATEGORIES[1], CATEGORIES[4]) else colour, gid="end-label")


def _colour(index: int) -> str:
    # Yellow is left out: it is too pale for a line on white.
    usable = [colour for colour in CATEGORIES if colour != "#F0E442"]
    return usable[index % len(usable)]


def _whole_steps(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7, steps=[1, 2, 5, 10]))
    axes.margins(x=0.0)


def _step_scale(axes: Axes, steps: np.ndarray) -> None:
    """Steps of many sizes stand on a logarithmic scale; lines reach to both ends of the axis."""
    positive = steps[steps > 0]
    if len(positive) and positive.max() / positive.min() > 1000:
        if len(positive) == len(steps):
            axes.set_xscale("log")
        else:
            axes.set_xscale("symlog", linthresh=float(positive.min()))
    else:
        _whole_steps(axes)
    if steps.max() > steps.min():
        axes.set_xlim(steps.min(), steps.max())


def _probability_scale(axes: Axes, lines: Sequence[np.ndarray]) -> None:
    """Ticks 10^k for an axis of base-10 logarithms."""
    values = np.concatenate(lines)
    if not len(values):
        axes.set_ylim(-1, 0)
        values = np.array([-1.0, 0.0])
    low, high = float(values.min()), float(values.max())
    room = max(0.05 * (high - low), 0.02)
    axes.set_ylim(low - room, min(high + room, max(0.0, high) + 0.3 * room))
    # matplotlib makes every tick that it is told of, seen or not, and a thousand take seconds.
    near = [tick for tick in _ONE_TWO_FIVE if low - 1 <= tick <= high + 1]
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=7) if high - low > 2.5 else FixedLocator(near))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda exponent, _: power_of_ten(exponent)))


# Logarithms of 1, 2 and 5 times the powers of ten that a probability can be read off at.
_ONE_TWO_FIVE = [
    exponent + step for exponent in range(-400, 1) for step in (0.0, float(np.log10(2)), float(np.log10(5)))
]


def power_of_ten(exponent: float) -> str:
    """The number 10^exponent as an axis writes it, without computing it where no float could hold it.

    >>> power_of_ten(-3000.0), power_of_ten(0.0), power_of_ten(-0.5)
    ('$10^{-3000}$', '1', '0.316')
    """
    whole = round(exponent)
    if abs(exponent - whole) < 1e-6:
        return f"{10.0**whole:g}" if -3 < whole <= 0 else f"$10^{{{whole}}}$"
    return f"{10**exponent:.3g}" if exponent > -4 else f"$10^{{{exponent:.2f}}}$"
