"""Words as vectors: what a GPT adds up before its first block, a map of words, and the words next to one.

All of it is drawn from rows of numbers; `models.trace` gives those of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.lines import Line2D

from glassgpt.errors import UsageError
from glassgpt.figures.curves import shown_words
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, in_house_style, shown, text_width
from glassgpt.figures.margins import EDGE, caption_room, title_room, write_margins
from glassgpt.figures.next_token import clipped
from glassgpt.figures.point_labels import label_points
from glassgpt.figures.projection import Honesty, honesty, principal_projection, random_projection
from glassgpt.figures.states import percent

DIVERGING = LinearSegmentedColormap.from_list("blue-orange", ["#003a5c", "#0072B2", "#f7f7f7", "#D55E00", "#6e3000"])
SMALL, TYPE = 8.5, 10

# --- Token plus position ----------------------------------------------------------------------------------------------

MOST_TOKENS = 64
MOST_NUMBERS = 256  # of a vector; of a longer one as many are shown, evenly spaced
STRIP_HEIGHT, STRIP_GAP = 1.35, 0.42  # inches
WITHIN = 99.0  # percent of all numbers that the scale of colours reaches to


@dataclass(frozen=True)
class EmbeddingSum:
    """A text's tokens (T,) as texts, and what the model adds up for them, float arrays (T, C).

    `position` is None where nothing is added; `positions` is the config's word for how the model tells places apart.
    """

    tokens: Sequence[str]
    token: np.ndarray
    position: np.ndarray | None
    total: np.ndarray
    positions: str = "learned"


@in_house_style
def draw_embedding_sum(data: EmbeddingSum, title: str | None = None) -> Figure:
    """Token embeddings plus position embeddings is the input of the first block: three strips over the same tokens.

    A column is a token's vector, in colours about zero whose scale the strips share; 1 % of the numbers may lie beyond
    its ends. Of vectors of more than 256 numbers 256 are shown. Without position embeddings there is one strip. Raises
    UsageError for arrays that don't fit the tokens or each other, or more than 64 tokens.
    """
    strips = _strips(data)
    names = [shown(token) for token in data.tokens]
    column = min(0.3, max(0.13, 6.2 / len(names)))
    left = 0.75
    width = max(left + column * len(names) + 1.05, 6.0)
    body = width - left - 1.05
    longest = max(text_width(name, SMALL) for name in names)
    is_flat = longest < 0.8 * body / len(names)  # else the tokens are written upwards
    foot = (0.16 if is_flat else longest) + 0.12
    caption = _sum_caption(data)
    below = caption_room(caption, width) + foot
    height = below + len(strips) * STRIP_HEIGHT + (len(strips) - 1) * STRIP_GAP + 0.3 + title_room(title)
    figure = Figure(figsize=(width, height))
    limit = float(np.percentile(np.abs(np.concatenate([strip for _, strip in strips])), WITHIN)) or 1.0
    shown_numbers = _evenly(data.token.shape[1], MOST_NUMBERS)
    for i, (name, strip) in enumerate(reversed(strips)):
        bottom = below + i * (STRIP_HEIGHT + STRIP_GAP)
        axes = figure.add_axes((left / width, bottom / height, body / width, STRIP_HEIGHT / height))
        axes.imshow(
            strip[:, shown_numbers].T, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
        )
        _plain(axes)
        axes.set_title(name, loc="left", size=TYPE, pad=4)
        ends = [0, len(shown_numbers) - 1]
        axes.set_yticks(ends, [str(shown_numbers[end]) for end in ends], size=SMALL)
        axes.set_xticks([])
        if i == 0:
            axes.set_xticks(range(len(names)), names, rotation=0 if is_flat else 90, size=SMALL, parse_math=False)
        if i == len(strips) // 2:
            axes.set_ylabel("number of the vector", size=SMALL, color=GREY)
    tall = height - below - 0.3 - title_room(title)
    place = ((left + body + 0.22) / width, below / height, 0.13 / width, tall / height)
    _colour_bar(figure, place, limit, strips)
    write_margins(figure, title, caption)
    return figure


def _strips(data: EmbeddingSum) -> list[tuple[str, np.ndarray]]:
    n = len(data.tokens)
    arrays = [data.token, data.total] if data.position is None else [data.token, data.position, data.total]
    shapes = [np.shape(array) for array in arrays]
    if not n or any(len(shape) != 2 or shape[0] != n or shape != shapes[0] for shape in shapes):
        raise UsageError(f"embeddings of {n} tokens are arrays of shape ({n}, numbers), all alike; got {shapes}")
    if n > MOST_TOKENS:
        raise UsageError(
            f"{MOST_TOKENS} tokens can be named below the strips, and the text has {n}: give a shorter one"
        )
    if data.position is None:
        return [("token embeddings", np.asarray(data.token))]
    kind = f" ({data.positions})"
    names = ["token embeddings", f"+ position embeddings{kind}", "= what the first block reads"]
    return list(zip(names, map(np.asarray, arrays), strict=True))


def _evenly(n: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(int))


def _sum_caption(data: EmbeddingSum) -> str:
    n, numbers = data.token.shape
    words = len(np.unique(data.token, axis=0))
    sums = len(np.unique(data.total, axis=0))
    parts = [f"A column is a token's vector of {numbers} numbers"]
    parts[0] += f", of which {MOST_NUMBERS} are shown, evenly spaced." if numbers > MOST_NUMBERS else "."
    if words < n:
        parts.append(f"Equal tokens have equal vectors: the {n} tokens have {words} different ones.")
    length = float(np.linalg.norm(data.token, axis=1).mean())
    if data.position is None:
        inside = {"rope": "turns queries and keys", "alibi": "lowers scores with distance"}.get(data.positions)
        how = f"{data.positions} {inside} inside attention" if inside else "it reads no positions here"
        parts.append(f"This model adds nothing to them: {how}. Their mean length is {length:.2f}.")
        return " ".join(parts)
    other = float(np.linalg.norm(data.position, axis=1).mean()) if data.position is not None else 0.0
    parts.append(
        f"With the positions added there are {sums}. Mean length of a token's vector {length:.2f}, of a position's "
        f"{other:.2f}."
    )
    return " ".join(parts)


def _colour_bar(
    figure: Figure, place: tuple[float, float, float, float], limit: float, strips: Sequence[tuple[str, np.ndarray]]
) -> None:
    beyond = any((np.abs(strip) > limit).any() for _, strip in strips)
    axes = figure.add_axes(place)
    scale = ScalarMappable(Normalize(-limit, limit), DIVERGING)
    bar = figure.colorbar(scale, cax=axes, extend="both" if beyond else "neither", extendfrac=0.03)
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=SMALL)


def _plain(axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(which="both", length=0)


# --- A map of words ---------------------------------------------------------------------------------------------------

MAP = (5.6, 4.9)  # inches
INSET = 2.0
MOST_WORDS = 80
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class GroupNeighbours:
    """How many words have a word of their own group nearest to them: in the whole space, in the view, in a random view,
    and how many would by chance."""

    whole: int
    view: int
    random: int
    chance: float


@dataclass(frozen=True)
class EmbeddingMap:
    """Words in the plane in which they differ most, and the same words in a random plane.

    points, random_points: float64 (words, 2). kept: the share of variance of each axis (2,). groups: a name for each
    word, or None. neighbours: of those groups.
    """

    words: Sequence[str]
    points: np.ndarray
    random_points: np.ndarray
    kept: np.ndarray
    honesty: Honesty
    n_dimensions: int
    groups: Sequence[str] | None = None
    neighbours: GroupNeighbours | None = None


def embedding_map(
    rows: np.ndarray, words: Sequence[str], groups: Sequence[str] | None = None, seed: int = 0
) -> EmbeddingMap:
    """The principal plane of the words' embedding rows, float array (words, C), and a random one, drawn from `seed`.

    groups: a name for each word, such as what kind of word it is, which the model was never told. Raises UsageError for
    fewer than 3 words that differ, more than 80, or another number of rows or groups.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or len(rows) != len(words) or len(words) > MOST_WORDS:
        raise UsageError(
            f"a map is of 3 to {MOST_WORDS} words with a row of numbers each; got {len(words)} words and shape "
            f"{rows.shape}"
        )
    if groups is not None and len(groups) != len(words):
        raise UsageError(f"groups are a name for each of the {len(words)} words; got {len(groups)}")
    view, other = principal_projection(rows), random_projection(rows, seed=seed)
    return EmbeddingMap(
        words=words,
        points=view(rows),
        random_points=other(rows),
        kept=view.kept(rows),
        honesty=honesty(rows, view, seed),
        n_dimensions=rows.shape[1],
        groups=groups,
        neighbours=None if groups is None else _group_neighbours(rows, view(rows), other(rows), groups),
    )


def _group_neighbours(rows: np.ndarray, view: np.ndarray, random: np.ndarray, groups: Sequence[str]) -> GroupNeighbours:
    others = sum(list(groups).count(group) - 1 for group in groups)
    whole, seen, by_chance = (nearest_of_own_group(points, groups) for points in (rows, view, random))
    return GroupNeighbours(whole, seen, by_chance, chance=others / (len(groups) - 1))


def nearest_of_own_group(points: np.ndarray, groups: Sequence[str]) -> int:
    """Of how many points (n, d) the nearest other one is of the same group.

    >>> nearest_of_own_group(np.array([[0.0], [1.0], [2.5], [9.0]]), ["a", "a", "b", "b"])
    3
    """
    away = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(away, np.inf)
    return sum(groups[i] == groups[int(j)] for i, j in enumerate(away.argmin(axis=1)))


@in_house_style
def draw_embedding_map(data: EmbeddingMap, title: str | None = None) -> Figure:
    """Words where their embeddings lie, on axes of equal scale; at the side the same words in a random plane."""
    caption = _map_caption(data)
    kinds = list(dict.fromkeys(data.groups)) if data.groups else []
    width = 0.7 + MAP[0] + 0.35 + INSET + EDGE
    below = caption_room(caption, width) + 0.45
    height = below + MAP[1] + 0.1 + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.7 / width, below / height, MAP[0] / width, MAP[1] / height))
    _equal_limits(axes, data.points, MAP[0] / MAP[1], room=0.09)
    _scatter(axes, data.points, data.groups, kinds, 18)
    axes.set_xlabel(f"first principal axis ({percent(data.kept[0])} of the variance)")
    axes.set_ylabel(f"second ({percent(data.kept[1])})")
    axes.tick_params(labelsize=SMALL)
    label_points(axes, data.points, [shown(word) for word in data.words])
    left = 0.7 + MAP[0] + 0.35
    side = figure.add_axes((left / width, below / height, INSET / width, INSET / height))
    _equal_limits(side, data.random_points, 1.0, room=0.06)
    _scatter(side, data.random_points, data.groups, kinds, 12)
    side.set(xticks=[], yticks=[])
    side.set_title("the same in a random plane", size=SMALL, color=GREY, loc="left")
    side.spines[["top", "right"]].set_visible(True)
    if kinds:
        place = (left / width, (below + MAP[1]) / height)
        figure.legend(
            handles=[_handle(kinds, kind) for kind in kinds], loc="upper left", bbox_to_anchor=place, frameon=False,
            fontsize=TYPE, borderaxespad=0, borderpad=0, handletextpad=0.3, title="groups, not told to the model",
            title_fontsize=SMALL, alignment="left",
        )  # fmt: skip
    write_margins(figure, title, caption)
    return figure


def _map_caption(data: EmbeddingMap) -> str:
    found = data.honesty
    parts = [
        f"{len(data.words)} words by the {data.n_dimensions} numbers of their token embeddings. The plane keeps "
        f"{percent(found.kept)} of their variance, random planes {percent(found.random)} on average, and the best "
        f"plane of the same numbers shuffled {percent(found.shuffled)}."
    ]
    if (near := data.neighbours) is not None:
        parts.append(
            f"The nearest word is of the same group for {near.whole} words in all {data.n_dimensions} dimensions, for "
            f"{near.view} in this plane and {near.random} in the random one; chance would be {near.chance:.0f}."
        )
    return " ".join(parts)


def _look(kinds: Sequence[str], kind: str) -> tuple[str, str]:
    i = kinds.index(kind)
    return CATEGORIES[i % len(CATEGORIES)], MARKERS[(i + i // len(CATEGORIES)) % len(MARKERS)]


def _handle(kinds: Sequence[str], kind: str) -> Line2D:
    colour, marker = _look(kinds, kind)
    return Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5, label=shown_words(kind))


def _scatter(axes: Axes, points: np.ndarray, groups: Sequence[str] | None, kinds: Sequence[str], size: float) -> None:
    if groups is None:
        axes.scatter(points[:, 0], points[:, 1], s=size, color=CATEGORIES[0], linewidths=0, gid="words", zorder=3)
        return
    for kind in kinds:
        colour, marker = _look(kinds, kind)
        own = points[[group == kind for group in groups]]
        dots = axes.scatter(own[:, 0], own[:, 1], s=size, color=colour, marker=marker, linewidths=0, zorder=3)
        dots.set_gid(f"words {kind}")


def _equal_limits(axes: Axes, points: np.ndarray, shape: float, room: float) -> None:
    """Limits round the points in which a unit is as long across as up; `shape`: width over height of the axes."""
    low, high = points.min(axis=0), points.max(axis=0)
    middle, span = (low + high) / 2, (1 + 2 * room) * (high - low)
    up = max(span[1], span[0] / shape)
    axes.set_xlim(middle[0] - up * shape / 2, middle[0] + up * shape / 2)
    axes.set_ylim(middle[1] - up / 2, middle[1] + up / 2)


# --- Neighbours -------------------------------------------------------------------------------------------------------

MOST_PANELS, PANELS_ACROSS = 4, 2
BARS, BAR = 1.75, 0.24  # inches: as wide as a cosine of 1, and as high as each neighbour


@dataclass(frozen=True)
class Neighbours:
    """The tokens whose vectors point most nearly where a word's does.

    names, cosines: the nearest first. middle, high: the median and the 99th percentile of the word's cosines with all
    other tokens: what is usual here, for vectors of a model often share a direction.
    """

    word: str
    names: Sequence[str]
    cosines: Sequence[float]
    middle: float
    high: float


def nearest_rows(rows: np.ndarray, row: int, n: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """The other rows of (V, C) with the greatest cosine to `row`: int64 (n,) and float64 (V,), its cosines with all.

    A row of zeros has cosine 0 with everything. Raises UsageError for a row that isn't there, or n of 0 or V or more.
    """
    vectors = np.asarray(rows, dtype=np.float64)
    if vectors.ndim != 2 or not 0 <= row < len(vectors) or not 1 <= n < len(vectors):
        raise UsageError(
            f"neighbours are 1 to {len(vectors) - 1} rows beside one of rows 0 to {len(vectors) - 1}; got n = {n}, row "
            f"{row}"
        )
    lengths = np.linalg.norm(vectors, axis=1)
    directions = vectors / np.where(lengths > 0, lengths, 1.0)[:, None]
    cosines = directions @ directions[row]
    order = np.argsort(-cosines, kind="stable")
    return order[order != row][:n], cosines


def neighbours_of(rows: np.ndarray, row: int, names: Sequence[str], n: int = 8) -> Neighbours:
    """`nearest_rows` with the names of all rows (V,)."""
    nearest, cosines = nearest_rows(rows, row, n)
    middle, high = np.percentile(np.delete(cosines, row), [50, 99])
    return Neighbours(
        names[row], [names[int(i)] for i in nearest], cosines[nearest].tolist(), float(middle), float(high)
    )


@in_house_style
def draw_neighbours(panels: Sequence[Neighbours], title: str | None = None) -> Figure:
    """For each of 1 to 4 words its nearest tokens as bars of their cosines, beside what is usual."""
    if not 1 <= len(panels) <= MOST_PANELS or any(len(p.names) != len(p.cosines) or not p.names for p in panels):
        raise UsageError(f"neighbours of 1 to {MOST_PANELS} words can be drawn, each with names and as many cosines")
    caption = (
        "Cosine of the angle between token embeddings: 1 the same direction, 0 unrelated. Dotted: the median over all "
        "other tokens; dashed: what 1% of them exceed."
    )
    rows = max(len(panel.names) for panel in panels)
    across = min(len(panels), PANELS_ACROSS)
    down = -(-len(panels) // across)
    margin = max(text_width(_short(name), TYPE) for panel in panels for name in panel.names) + 0.15
    step_across, step_down = margin + BARS + 0.6, rows * BAR + 0.95
    width = max(EDGE + across * step_across, 4.6)
    below = caption_room(caption, width) + 0.45
    height = below + down * step_down - 0.6 + title_room(title)
    figure = Figure(figsize=(width, height))
    lowest = min(0.0, *(min(min(panel.cosines), panel.middle) for panel in panels))
    for i, panel in enumerate(panels):
        left = EDGE + i % across * step_across + margin
        bottom = below + (down - 1 - i // across) * step_down
        axes = figure.add_axes((left / width, bottom / height, BARS / width, rows * BAR / height))
        _draw_bars(axes, panel, rows, lowest)
    write_margins(figure, title, caption)
    return figure


def _draw_bars(axes: Axes, panel: Neighbours, rows: int, lowest: float) -> None:
    axes.barh(range(len(panel.names)), panel.cosines, height=0.72, color=CATEGORIES[0], gid="cosines")
    axes.set_ylim(rows - 0.45, -0.55)
    axes.set_xlim(lowest, 1.0)
    axes.set_yticks(range(len(panel.names)), [_short(name) for name in panel.names], parse_math=False, size=TYPE)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.axvline(panel.middle, color=INK, linestyle=":", linewidth=1.2, gid="middle")
    axes.axvline(panel.high, color=INK, linestyle="--", linewidth=1.0, gid="high")
    for row, cosine in enumerate(panel.cosines):
        number = axes.text(1.02, row, f"{cosine:.2f}", transform=axes.get_yaxis_transform(), va="center", size=SMALL)
        number.set(color=INK, gid="cosine")
    axes.set_title(f"next to {clipped(panel.word, 1.4, TYPE)}", loc="left", size=TYPE, weight="bold", parse_math=False)
    axes.set_xlabel("cosine", size=9)


def _short(name: str) -> str:
    return clipped(name, 1.3, TYPE)
