"""What preference training bought, on one page: reward against distance, entropy, the reward model, the arena.

`alignment_page` draws all four panels; each is a function of its own that draws on any axes. A panel without numbers
says so. A method has one colour and one marker on the whole page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.curves import shown_words
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, in_house_style, line_height, wrapped

WIDTH, HEIGHT = 10.0, 8.5  # inches of the page
TITLE_ROOM = 0.4
SMALL, TITLE = 8.5, 11
SMOOTH = 0.08  # of a curve's reach: the standard deviation of the weights with which it is smoothed
FEW = 25  # points of a curve up to which each is marked
LEFT, BOTTOM, ACROSS, UP = 0.85, 0.6, 5.25, 4.2  # inches: the lower left panel, and from a panel to its neighbours
PANEL = (3.35, 2.85)
COLUMNS = 4  # of a legend
SAID_TYPE, SAID_WIDTH, NAMES, HEAD = 8.5, 7.6, 0.75, 0.45  # points; inches of text, of the names before it, and above
MOST_SAID = 400  # characters of an answer that are shown

_LOOKS = ((0, "o"), (2, "s"), (3, "^"), (4, "D"), (5, "v"), (1, "P"), (7, "X"))  # colour and marker, by turns


_RING: dict[str, Any] = {"marker": "o", "markersize": 9, "markerfacecolor": "none", "markeredgewidth": 1.5}


@dataclass(frozen=True)
class RewardCurve:
    """A method on its way from the SFT model: KL to it in nats, the learned reward, and gold, of each point."""

    method: str
    kl: Sequence[float]
    learned: Sequence[float]
    gold: Sequence[float]


@dataclass(frozen=True)
class EntropyCurve:
    """A policy's mean entropy in nats a token, of each step given."""

    method: str
    steps: Sequence[float]
    entropy: Sequence[float]


@dataclass(frozen=True)
class ReliabilityBins:
    """The fields of `evaluation.calibration.Reliability`. `note`: a line such as "accuracy 0.81, at most 0.85"."""

    predicted: Sequence[float]
    observed: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    counts: Sequence[int]
    note: str = ""


@dataclass(frozen=True)
class PlayerRating:
    """A player's rating on Elo's scale and the ends of its interval."""

    player: str
    elo: float
    low: float
    high: float


@dataclass(frozen=True)
class Sample:
    """What each player, by name, said to one prompt."""

    prompt: str
    answers: Mapping[str, str]


@dataclass(frozen=True)
class AlignmentData:
    """What the page shows; None for what was not measured."""

    rewards: Sequence[RewardCurve] | None = None
    entropies: Sequence[EntropyCurve] | None = None
    reliability: ReliabilityBins | None = None
    ratings: Sequence[PlayerRating] | None = None
    samples: Sequence[Sample] = ()


@dataclass(frozen=True)
class Look:
    """A method's colour and marker."""

    colour: str
    marker: str


@in_house_style
def alignment_page(data: AlignmentData, title: str | None = None) -> Figure:
    """The four panels on one page, and below them what was said. Raises UsageError for numbers that are not finite or
    do not belong together."""
    said = [line for sample in data.samples for line in lines_of(sample)]
    foot = sum(line_height(text, SAID_TYPE) for _, text in said) + (HEAD if said else 0.0)
    height = HEIGHT + foot + (TITLE_ROOM if title else 0.0)
    figure, looks = Figure(figsize=(WIDTH, height)), looks_of(data)
    a, b, c, d = (
        figure.add_axes((x / WIDTH, (y + foot) / height, PANEL[0] / WIDTH, PANEL[1] / height))
        for y in (BOTTOM + UP, BOTTOM)
        for x in (LEFT, LEFT + ACROSS)
    )
    draw_rewards(a, data.rewards, looks)
    draw_entropies(b, data.entropies, looks)
    draw_reliability(c, data.reliability)
    draw_ratings(d, data.ratings, looks)
    for letter, axes in zip("abcd", (a, b, c, d), strict=True):
        _title(axes, f"{letter}  {axes.get_title(loc='left')}")
    write_samples(figure, said, foot)
    if title:
        top = 1 - 0.15 / height
        figure.text(LEFT / WIDTH, top, title, weight="bold", size=13, va="top", parse_math=False)
    return figure


def lines_of(sample: Sample) -> list[tuple[str, str]]:
    """Names and texts, broken into lines: the prompt without a name, then each player's answer."""
    words = [
        ("", f"\N{LEFT DOUBLE QUOTATION MARK}{sample.prompt}\N{RIGHT DOUBLE QUOTATION MARK}"),
        *sample.answers.items(),
    ]
    return [(shown_words(name), wrapped(_at_most(shown_words(text)), SAID_WIDTH, SAID_TYPE)) for name, text in words]


def _at_most(text: str) -> str:
    return text if len(text) <= MOST_SAID else text[: MOST_SAID - 1] + "\N{HORIZONTAL ELLIPSIS}"


def write_samples(figure: Figure, said: Sequence[tuple[str, str]], top: float) -> None:
    """The lines from `top` inches above the figure's foot downwards, under a heading of their own."""
    if not said:
        return
    width, height = figure.get_size_inches()
    place: dict[str, Any] = {"va": "top", "parse_math": False}
    figure.text(LEFT / width, top / height, "e  What they say", size=11, weight="bold", gid="heading", **place)
    y = top - HEAD * 0.7
    for name, text in said:
        figure.text(LEFT / width, y / height, name, size=SAID_TYPE, weight="bold", gid="player", **place)
        x = (LEFT + (NAMES if name else 0.0)) / width
        figure.text(x, y / height, text, size=SAID_TYPE, style="normal" if name else "italic", gid="said", **place)
        y -= line_height(text, SAID_TYPE)


def looks_of(data: AlignmentData) -> dict[str, Look]:
    """A look for each method in the order in which they come up in curves. Players without a curve are grey."""
    named = [curve.method for curve in data.rewards or ()] + [curve.method for curve in data.entropies or ()]
    methods = list(dict.fromkeys(named))
    turns = [_LOOKS[i % len(_LOOKS)] for i in range(len(methods))]
    return {name: Look(CATEGORIES[colour], marker) for name, (colour, marker) in zip(methods, turns, strict=True)}


# --- Panels -----------------------------------------------------------------------------------------------------------


def draw_rewards(
    axes: Axes, curves: Sequence[RewardCurve] | None, looks: Mapping[str, Look] = MappingProxyType({})
) -> None:
    """Gold (solid, left scale) and the learned reward (dashed, right scale) against the square root of KL to SFT.

    Gao et al. 2022 (arXiv 2210.10760) take this root, along which both rise at first as straight lines. Points are
    joined in the order of KL; gold is smoothed, with its points behind it, and where the smooth curve turns before its
    end a ring and a line down to the axis say where.
    """
    title = "Reward against distance from SFT"
    if not curves:
        return _say_missing(axes, title, "rewards were not measured")
    looks = looks or looks_of(AlignmentData(rewards=curves))
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    for curve in curves:
        name, look = curve.method, looks[curve.method]
        distance, learned, gold = _by_distance(curve)
        faint = 0.6 if len(distance) <= FEW else 0.25
        points = axes.plot(distance, gold, color=look.colour, marker=look.marker, gid=f"gold {name}")[0]
        points.set(linestyle="", markersize=3, markeredgewidth=0, alpha=faint)
        axes.plot(distance, smoothed_gold(curve), color=look.colour, linewidth=1.9, gid=f"smooth {name}")
        line = other.plot(distance, learned, color=look.colour, linewidth=1.1, gid=f"learned {name}")[0]
        line.set_linestyle((0, (4, 2)))
    axes.set_xlabel("square root of KL to the SFT model (√nats)")
    axes.set_ylabel("gold (solid)")
    other.set_ylabel("learned reward (dashed)")
    axes.set_xlim(left=0)
    _mark_turns(axes, curves, looks)
    _legend(axes, [curve.method for curve in curves], looks)
    _title(axes, title)


def draw_entropies(
    axes: Axes, curves: Sequence[EntropyCurve] | None, looks: Mapping[str, Look] = MappingProxyType({})
) -> None:
    """A policy's entropy against the step: what has fallen to 0 always says the same, and can learn no more."""
    title = "Entropy of the policy"
    if not curves:
        return _say_missing(axes, title, "entropy was not measured")
    looks = looks or looks_of(AlignmentData(entropies=curves))
    for curve in curves:
        steps, entropy = _aligned(curve.method, curve.steps, curve.entropy)
        look = looks[curve.method]
        marker = look.marker if len(steps) <= FEW else ""
        axes.plot(
            steps,
            entropy,
            color=look.colour,
            linewidth=1.5,
            marker=marker,
            markersize=3.5,
            gid=f"entropy {curve.method}",
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("training step")
    axes.set_ylabel("entropy (nats a token)")
    axes.set_ylim(0, 1.08 * max(max(curve.entropy) for curve in curves) or 1.0)
    axes.margins(x=0.02)
    _legend(axes, [curve.method for curve in curves], looks)
    _title(axes, title)


def draw_reliability(axes: Axes, bins: ReliabilityBins | None) -> None:
    """How often the answer was preferred that the reward model gives each probability, with intervals; honest
    probabilities lie on the diagonal."""
    title = "Is the reward model as sure as it is right?"
    if bins is None:
        return _say_missing(axes, title, "the reward model was not judged")
    columns = _aligned("reliability", bins.predicted, bins.observed, bins.low, bins.high, bins.counts)
    predicted, observed, low, high, counts = columns
    colour = CATEGORIES[0]
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (5, 3)), linewidth=1.0, gid="diagonal")
    axes.vlines(predicted, low, high, color=colour, linewidth=1.3, gid="intervals")
    axes.plot(predicted, observed, color=colour, linewidth=1.0, marker="o", markersize=5, gid="observed")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=np.arange(0, 1.1, 0.2), yticks=np.arange(0, 1.1, 0.2))
    axes.set_xlabel("predicted: the first answer is preferred")
    axes.set_ylabel("share that was preferred")
    about = f"{int(counts.sum()):,} pairs in {len(counts)} bins"
    note = "\n".join([*map(shown_words, bins.note.splitlines()), about])
    label = axes.text(0.98, 0.03, note, transform=axes.transAxes, ha="right", va="bottom", parse_math=False)
    label.set(size=SMALL, gid="note")
    _title(axes, title)


def draw_ratings(
    axes: Axes, ratings: Sequence[PlayerRating] | None, looks: Mapping[str, Look] = MappingProxyType({})
) -> None:
    """A row for each player, the best above, with its interval as a line and its rating as a number."""
    title = "Ratings of the arena"
    if not ratings:
        return _say_missing(axes, title, "no games were played")
    ordered = sorted(ratings, key=lambda rating: -rating.elo)
    _aligned("ratings", *zip(*((r.elo, r.low, r.high) for r in ordered), strict=True))
    for row, rating in enumerate(ordered):
        look = looks.get(rating.player, Look(GREY, "o"))
        axes.plot(
            [rating.low, rating.high], [row, row], color=look.colour, linewidth=1.6, gid=f"interval {rating.player}"
        )
        axes.plot(
            [rating.elo], [row], color=look.colour, marker=look.marker, markersize=6.5, gid=f"elo {rating.player}"
        )
        number = axes.text(1.02, row, f"{rating.elo:.0f}", transform=axes.get_yaxis_transform(), va="center", size=9)
        number.set_gid("number")
    axes.set_yticks(range(len(ordered)), [shown_words(rating.player) for rating in ordered], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.grid(axis="x", color=GREY, alpha=0.2, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.margins(x=0.06)
    axes.set_xlabel("rating (400 points: odds of ten to one)")
    _title(axes, title)


# --- Where gold turns -------------------------------------------------------------------------------------------------


def smoothed_gold(curve: RewardCurve) -> np.ndarray:
    """Gold in the order of KL, each point on the straight line through its neighbours: float64 (points,).

    Local linear regression (Cleveland 1979): a mean of neighbours would be too flat at both ends. The weights fall as a
    normal density with the distance in sqrt(KL), whose standard deviation is 8 % of the curve's reach.
    """
    distance, _, gold = _by_distance(curve)
    away = (distance - distance[:, None]) / (SMOOTH * float(np.ptp(distance)) or 1.0)
    weights = np.exp(-0.5 * away**2)
    w0, w1, w2 = (np.sum(weights * away**power, axis=1) for power in range(3))
    y0, y1 = (np.sum(weights * away**power * gold, axis=1) for power in range(2))
    spread = w0 * w2 - w1**2
    has_line = spread > 1e-9 * w0**2  # else all that counts lies in one place
    return np.where(has_line, (w2 * y0 - w1 * y1) / np.where(has_line, spread, 1.0), y0 / w0)


def turn(curve: RewardCurve) -> tuple[float, float] | None:
    """(sqrt(KL), smoothed gold) where gold is highest, from which on more reward is worth less; None if that is less
    than a width of the smoothing before the curve's end, so that gold can't be said to have turned. Of noisy gold
    this is a reading of the curve, no test."""
    distance, smooth = _by_distance(curve)[0], smoothed_gold(curve)
    at = int(np.argmax(smooth))
    if distance[-1] - distance[at] <= SMOOTH * np.ptp(distance):
        return None
    return float(distance[at]), float(smooth[at])


def _by_distance(curve: RewardCurve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sqrt(KL) in ascending order, learned reward and gold. An estimate of KL below 0 is 0."""
    kl, learned, gold = _aligned(curve.method, curve.kl, curve.learned, curve.gold)
    order = np.argsort(kl, kind="stable")
    return np.sqrt(np.maximum(kl[order], 0.0)), learned[order], gold[order]


def _mark_turns(axes: Axes, curves: Sequence[RewardCurve], looks: Mapping[str, Look]) -> None:
    axes.set_ylim(axes.get_ylim())
    for curve in curves:
        if (found := turn(curve)) is not None:
            distance, gold = found
            colour = looks[curve.method].colour
            axes.plot([distance] * 2, [axes.get_ylim()[0], gold], color=colour, linestyle=":", gid="fall of the turn")
            ring = axes.plot([distance], [gold], color=colour, gid=f"turn {curve.method}")[0]
            ring.set(**_RING)


# --- What panels share ------------------------------------------------------------------------------------------------


def _aligned(name: str, *columns: Sequence[float]) -> list[np.ndarray]:
    """Columns of equally many finite numbers as float64 arrays."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1 or not len(arrays[0]):
        shapes = ", ".join(str(array.shape) for array in arrays)
        raise UsageError(f"the numbers of {name!r} must be columns of equal length, 1 or more; got shapes {shapes}")
    if not all(np.isfinite(array).all() for array in arrays):
        raise UsageError(f"the numbers of {name!r} must be finite; got some that are not")
    return arrays


def _title(axes: Axes, text: str) -> None:
    """Above the panel, and above its legend where it has one."""
    legend = axes.get_legend()
    rows = math.ceil(len(legend.legend_handles) / COLUMNS) if legend else 0
    axes.set_title(text, loc="left", size=TITLE, weight="bold", pad=8 + 16 * rows)


def _legend(axes: Axes, methods: Sequence[str], looks: Mapping[str, Look]) -> None:
    """The methods in lines above the panel, where no curve runs."""
    handles = [
        Line2D([], [], color=looks[name].colour, marker=looks[name].marker, markersize=4.5, label=shown_words(name))
        for name in dict.fromkeys(methods)
    ]
    if any((line.get_gid() or "").startswith("turn ") for line in axes.lines):
        handles.append(Line2D([], [], color=GREY, label="gold turns", linestyle=":", **_RING))
    axes.legend(
        handles=handles,
        ncols=min(COLUMNS, len(handles)),
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        borderaxespad=0.1,
        borderpad=0.2,
        frameon=False,
        fontsize=SMALL,
        handlelength=1.5,
        handletextpad=0.5,
        columnspacing=1.0,
    )


def _say_missing(axes: Axes, title: str, text: str) -> None:
    _title(axes, title)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY, gid="missing")
