"""The path of a text through meaning space while a model writes it, and at each step the fan of where it could go.

A text stands at the state that the model's last layer makes of it, after the final norm: a point of C numbers, from
which alone the next token is read. An end of the fan is the point where the text would stand with another next token
(`evaluation.meaning_space` computes both). All is seen from the front of the path: on the axes along which its own
points vary most, which the fans don't change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from mpl_toolkits.mplot3d import Axes3D, proj3d  # type: ignore[import-untyped]

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style, inch_axes
from glassgpt.figures.margins import EDGE, caption_room, title_room, write_margins
from glassgpt.figures.next_token import clipped
from glassgpt.figures.point_labels import label_points
from glassgpt.figures.projection import Honesty, Projection, honesty, principal_projection
from glassgpt.figures.states import percent

PATH, FAN = CATEGORIES[0], CATEGORIES[1]
LEAST = 0.01  # probability below which an end of a fan is not drawn
PAGE = (7.0, 5.6)  # inches of the plane
SMALL, TYPE = 8.0, 10
MOST_STEPS = 60
LONGEST = 0.9  # inches of a name


@dataclass(frozen=True)
class MeaningSpace:
    """A path of N steps on its three principal axes, and of each step a fan of m next tokens.

    points: float64 (N + 1, 3), the first that of the prompt. words: the tokens written (N,), start: the prompt's last.
    fan: float64 (N, m, 3), fan_words: their tokens, fan_probs: float64 (N, m), their probabilities, is_written: bool
    (N, m), whether it is the token that was written. kept: the share of the path's variance along each axis (3,).
    flat, solid: what two axes keep of it, and three. fan_kept: of the steps from path to fan, the share of their
    squared length that lies within two axes and within three.
    """

    start: str
    words: Sequence[str]
    points: np.ndarray
    fan_words: Sequence[Sequence[str]]
    fan: np.ndarray
    fan_probs: np.ndarray
    is_written: np.ndarray
    kept: np.ndarray
    flat: Honesty
    solid: Honesty
    fan_kept: tuple[float, float]
    n_dimensions: int

    @property
    def is_drawn(self) -> np.ndarray:
        """Which ends of fans are drawn: those of 1 % or more that weren't written, bool (N, m)."""
        return (self.fan_probs >= LEAST) & ~self.is_written


def meaning_space(
    states: np.ndarray,
    tokens: np.ndarray,
    fan_states: np.ndarray,
    fan_tokens: np.ndarray,
    fan_probs: np.ndarray,
    piece: Callable[[int], str],
    start: str,
    seed: int = 0,
) -> MeaningSpace:
    """States (N + 1, C) and fans (N, m, C), (N, m), (N, m) as `meaning_path` gives them, on the path's principal axes.

    piece: the text of a token. start: of the prompt's last token. seed: of the random planes to compare with. Raises
    UsageError for fewer than 3 steps or more than 60, arrays that don't fit each other, or states that don't differ.
    """
    states, fan_states = (np.asarray(array, dtype=np.float64) for array in (states, fan_states))
    N, m = np.shape(fan_tokens) if np.ndim(fan_tokens) == 2 else (0, 0)
    shapes = (states.shape[:1], np.shape(tokens), fan_states.shape[:2], np.shape(fan_probs))
    if shapes != ((N + 1,), (N,), (N, m), (N, m)) or states.shape[-1] != fan_states.shape[-1]:
        raise UsageError(
            f"a path of N tokens has states (N + 1, C) and fans (N, m, C), (N, m), (N, m); got {states.shape}, "
            f"{fan_states.shape}, {np.shape(fan_tokens)} and {np.shape(fan_probs)} for {np.shape(tokens)} tokens"
        )
    if not 3 <= N <= MOST_STEPS:
        raise UsageError(f"a path of 3 to {MOST_STEPS} steps can be drawn; got {N}")
    view = principal_projection(states, 3)
    flat = Projection(view.centre, view.axes[:2])
    steps = fan_states - states[:-1, None]
    within = np.sum((steps @ view.axes.T) ** 2, axis=(0, 1)) / max(float(np.sum(steps**2)), 1e-300)
    return MeaningSpace(
        start=start,
        words=[piece(int(token)) for token in tokens],
        points=view(states),
        fan_words=[[piece(int(token)) for token in row] for row in fan_tokens],
        fan=view(fan_states),
        fan_probs=np.asarray(fan_probs, dtype=np.float64),
        is_written=np.asarray(fan_tokens) == np.asarray(tokens)[:, None],
        kept=view.kept(states),
        flat=honesty(states, flat, seed),
        solid=honesty(states, view, seed),
        fan_kept=(float(within[:2].sum()), float(within.sum())),
        n_dimensions=states.shape[1],
    )


# --- The whole path in the plane --------------------------------------------------------------------------------------


@in_house_style
def draw_path(data: MeaningSpace, title: str | None = None) -> Figure:
    """The path in its principal plane, its tokens in order, and the fans: orange, thicker for the more probable."""
    caption = _caption(data, "plane", data.flat, data.fan_kept[0])
    left = 0.8
    width = left + PAGE[0] + EDGE
    below = caption_room(caption, width) + 0.45
    height = below + PAGE[1] + 0.3 + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, PAGE[0] / width, PAGE[1] / height))
    ends = data.fan[data.is_drawn][:, :2]
    _limits(axes, np.concatenate([data.points[:, :2], ends]), PAGE[0] / PAGE[1])
    _draw_fans(axes, data)
    _draw_line(axes, data.points[:, :2])
    axes.set_xlabel(f"first principal axis of the path ({percent(float(data.kept[0]))} of its variance)")
    axes.set_ylabel(f"second ({percent(float(data.kept[1]))})")
    axes.tick_params(labelsize=SMALL)
    label_points(axes, data.points[:, :2], _names(data), SMALL, obstacles=ends)
    _legend(figure, left, below + PAGE[1] + 0.27)
    write_margins(figure, title, caption)
    return figure


def _names(data: MeaningSpace) -> list[str]:
    """Of each point of the path: its number and the token that led there."""
    return [f"0 {clipped(data.start, LONGEST, SMALL)}"] + [
        f"{i} {clipped(word, LONGEST, SMALL)}" for i, word in enumerate(data.words, start=1)
    ]


def _draw_fans(axes: Axes, data: MeaningSpace) -> None:
    for i, j in zip(*np.nonzero(data.is_drawn), strict=True):
        probability = float(data.fan_probs[i, j])
        ends = np.array([data.points[i, :2], data.fan[i, j, :2]])
        line = axes.plot(ends[:, 0], ends[:, 1], color=FAN, linewidth=0.5 + 2.5 * probability, alpha=0.75, zorder=1)[0]
        line.set_gid(f"fan {i}")
        axes.plot(*ends[1], color=FAN, marker="o", markersize=2.2, zorder=1)


def _draw_line(axes: Axes, points: np.ndarray) -> None:
    axes.plot(points[:, 0], points[:, 1], color=PATH, linewidth=1.3, marker="o", markersize=4, zorder=3, gid="path")
    axes.plot(*points[0], color=PATH, marker="s", markersize=8, zorder=3, gid="start")
    for before, after in pairwise(points):
        if np.any(before != after):
            angle = float(np.degrees(np.arctan2(*(after - before)[::-1])))
            axes.plot(*((before + after) / 2), marker=(3, 0, angle - 90), color=PATH, markersize=6, zorder=3)


def _limits(axes: Axes, points: np.ndarray, shape: float, room: float = 0.07) -> None:
    """Round the points, a unit as long across as up; `shape`: width over height of the axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, span = (low + high) / 2, (1 + 2 * room) * (high - low)
    up = max(span[1], span[0] / shape, 1e-9)
    axes.set_xlim(middle[0] - up * shape / 2, middle[0] + up * shape / 2)
    axes.set_ylim(middle[1] - up / 2, middle[1] + up / 2)


def _legend(figure: Figure, left: float, top: float) -> None:
    width, height = figure.get_size_inches()
    handles = [
        Line2D([], [], color=PATH, marker="s", linestyle="", markersize=7, label="the prompt"),
        Line2D([], [], color=PATH, marker="o", markersize=4, label="the path, numbered by tokens written"),
        Line2D([], [], color=FAN, marker="o", markersize=2.5, linewidth=1.5, label="where another token would lead"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(left / width, top / height), ncols=3, frameon=False,
        fontsize=SMALL + 0.5, borderaxespad=0, borderpad=0, columnspacing=1.4,
    )  # fmt: skip


def _caption(data: MeaningSpace, kind: str, found: Honesty, fan_kept: float) -> str:
    return (
        f"A text stands at the last layer's state behind the final norm, {data.n_dimensions} numbers; this {kind} is "
        f"the one in which the {len(data.points)} points of the path differ most. It keeps {percent(found.kept)} of "
        f"their variance, a random {kind} {percent(found.random)} on average, the best one of the same numbers "
        f"shuffled {percent(found.shuffled)}. Fans: the model run with other likely tokens, of 1% or more, in place of "
        f"the one it wrote; {percent(fan_kept)} of their squared length lies in the {kind}."
    )


# --- Single fans ------------------------------------------------------------------------------------------------------

PANEL = (3.4, 2.6)  # inches
MOST_PANELS = 6


@in_house_style
def draw_fans(data: MeaningSpace, steps: Sequence[int] | None = None, title: str | None = None) -> Figure:
    """At some steps the fan by itself: from where the text stands to where each likely token would take it.

    steps: counted from 0, up to 6; None for the four at which the fan is most open (its probabilities have the greatest
    entropy), in their order. Raises UsageError for a step that isn't there.
    """
    N = len(data.words)
    chosen = most_open(data.fan_probs, 4) if steps is None else list(steps)
    if not 1 <= len(chosen) <= MOST_PANELS or not all(0 <= step < N for step in chosen):
        raise UsageError(f"give 1 to {MOST_PANELS} steps from 0 to {N - 1}; got {chosen}")
    across = min(2, len(chosen))
    down = -(-len(chosen) // across)
    caption = (
        "Blue: the step that was taken, grey: the one before. Numbers: the model's probability of each token. All in "
        f"the principal plane of the whole path, which keeps {percent(data.fan_kept[0])} of the fans' squared length; "
        "each panel has its own scale, given by the bar."
    )
    width = EDGE + across * (PANEL[0] + 0.3)
    below = caption_room(caption, width)
    height = below + down * (PANEL[1] + 0.4) + title_room(title)
    figure = Figure(figsize=(width, height))
    for i, step in enumerate(chosen):
        x = EDGE + i % across * (PANEL[0] + 0.3)
        y = below + (down - 1 - i // across) * (PANEL[1] + 0.4)
        _draw_fan(figure.add_axes((x / width, y / height, PANEL[0] / width, PANEL[1] / height)), data, step)
    write_margins(figure, title, caption)
    return figure


def most_open(fan_probs: np.ndarray, n: int) -> list[int]:
    """The n steps whose fans have the greatest entropy, in their order."""
    probs = np.asarray(fan_probs, dtype=np.float64)
    entropy = -np.sum(probs * np.log(np.where(probs > 0, probs, 1.0)), axis=1)
    return sorted(np.argsort(-entropy, kind="stable")[:n].tolist())


def _draw_fan(axes: Axes, data: MeaningSpace, step: int) -> None:
    here, there = data.points[step, :2], data.points[step + 1, :2]
    drawn = np.flatnonzero(data.is_drawn[step]).tolist()
    ends = data.fan[step, drawn, :2]
    _limits(axes, np.concatenate([here[None], there[None], ends]), PANEL[0] / PANEL[1], room=0.16)
    if step > 0:
        before = data.points[[step - 1, step], :2]
        axes.plot(*before.T, color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1, gid="before")
    for end, colour, thick in [*((end, FAN, 1.2) for end in ends), (there, PATH, 2.0)]:
        arrow = {"arrowstyle": "->", "color": colour, "linewidth": thick, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (end[0], end[1]), (here[0], here[1]), arrowprops=arrow)
    axes.plot(*here, color=INK, marker="o", markersize=5, zorder=4, gid="here")
    axes.set(xticks=[], yticks=[])
    axes.spines[["top", "right"]].set_visible(True)
    written = data.fan_probs[step][data.is_written[step]]
    names = [_name(data.words[step], float(written[0]) if len(written) else None)]
    names += [_name(data.fan_words[step][j], float(data.fan_probs[step, j])) for j in drawn]
    tips = np.concatenate([there[None], ends])
    along = np.concatenate([here + share * (tips - here) for share in (0, 0.25, 0.5, 0.75, 0.9)])
    label_points(axes, tips, names, SMALL + 0.5, [PATH] + [INK] * len(ends), along, "end")
    last = data.words[step - 1] if step else data.start
    axes.set_title(f"{step}: after {clipped(last, 1.2, TYPE)}", loc="left", size=TYPE, weight="bold", parse_math=False)
    _scale_bar(axes)


def _name(word: str, probability: float | None) -> str:
    """A word and its probability, where it is known (what was written may be none of the likeliest)."""
    return clipped(word, LONGEST, SMALL) + ("" if probability is None else f" {percent(probability)}")


def _scale_bar(axes: Axes) -> None:
    """Above the right corner, as long as a round number of units."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    length = 10 ** np.floor(np.log10((right - left) / 4))
    length *= max(k for k in (1, 2, 5) if k * length <= (right - left) / 4)
    y = top + 0.05 * (top - bottom)
    bar = axes.plot([right - length, right], [y, y], color=INK, linewidth=1.5, clip_on=False, gid="scale")[0]
    bar.set_solid_capstyle("butt")
    axes.text(right - length - 0.01 * (right - left), y, f"{length:g}", ha="right", va="center", size=SMALL)


# --- The whole path in space ------------------------------------------------------------------------------------------

SPACE = (7.0, 5.7)  # inches
ORDINALS = ("first", "second", "third")
VIEW = (22.0, -58.0)  # degrees of elevation and azimuth


@in_house_style
def draw_path_3d(data: MeaningSpace, title: str | None = None) -> Figure:
    """The path and its fans on three principal axes, with the path's shadow on the floor; the tokens stand below."""
    caption = (
        f"{_key(data)} {_caption(data, 'space', data.solid, data.fan_kept[1])} Grey: the path's shadow on the floor."
    )
    width = SPACE[0] + 2 * EDGE
    below = caption_room(caption, width)
    height = below + SPACE[1] + 0.3 + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((EDGE / width, below / height, SPACE[0] / width, SPACE[1] / height), projection="3d")
    assert isinstance(axes, Axes3D)
    axes.view_init(*VIEW)
    _limits_3d(axes, np.concatenate([data.points, data.fan[data.is_drawn]]))
    for i, j in zip(*np.nonzero(data.is_drawn), strict=True):
        ends = np.array([data.points[i], data.fan[i, j]])
        axes.plot(*ends.T, color=FAN, linewidth=0.5 + 2.5 * float(data.fan_probs[i, j]), alpha=0.75, gid=f"fan {i}")
    floor = np.array([*data.points[:, :2].T, np.full(len(data.points), axes.get_zlim()[0])])
    axes.plot(*floor, color=GREY, linewidth=0.8, alpha=0.5, gid="shadow")
    axes.plot(*data.points.T, color=PATH, linewidth=1.3, marker="o", markersize=4, gid="path")
    axes.plot(*data.points[:1].T, color=PATH, marker="s", markersize=8, gid="start")
    names = [f"{name} axis ({percent(float(share))})" for name, share in zip(ORDINALS, data.kept, strict=True)]
    axes.set(xlabel=names[0], ylabel=names[1], zlabel=names[2])
    axes.tick_params(labelsize=7, pad=0)
    _number_points(figure, axes, data)
    _legend(figure, EDGE, below + SPACE[1] + 0.27)
    write_margins(figure, title, caption)
    return figure


def _key(data: MeaningSpace) -> str:
    """The tokens by their numbers."""
    words = [f"{i}:{clipped(word, LONGEST, SMALL)}" for i, word in enumerate([data.start, *data.words])]
    return f"Tokens: {' '.join(words)}."


def _limits_3d(axes: Axes3D, points: np.ndarray) -> None:
    """A box round the points in which a unit is as long on every axis."""
    low, high = points.min(axis=0), points.max(axis=0)
    room = 0.04 * float(np.max(high - low))
    (x, X), (y, Y), (z, Z) = zip(low - room, high + room, strict=True)
    axes.set(xlim=(x, X), ylim=(y, Y), zlim=(z, Z))
    axes.set_box_aspect(high - low + 2 * room, zoom=1.1)


def _number_points(figure: Figure, axes: Axes3D, data: MeaningSpace) -> None:
    """Numbers where the points of the path are seen, in a plane before the picture whose unit is an inch."""
    axes.apply_aspect()
    view = axes.get_proj()

    def seen(points: np.ndarray) -> np.ndarray:
        x, y, _ = proj3d.proj_transform(*points.T, view)
        return axes.transData.transform(np.stack([x, y], axis=1)) / figure.dpi

    front = inch_axes(figure, 0, 0, np.zeros(2), np.array(figure.get_size_inches()))
    numbers = [str(i) for i in range(len(data.points))]
    label_points(front, seen(data.points), numbers, SMALL, obstacles=seen(data.fan[data.is_drawn]))
