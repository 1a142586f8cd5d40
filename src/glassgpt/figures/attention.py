"""Where the heads of a GPT look: all of them as small squares, one of them large, and a few numbers that say its habit.

A head's weights are a lower triangle: row t says how much of its mixture at token t comes from each token up to t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import GREY, INK, in_house_style, shown, text_width
from glassgpt.figures.margins import caption_room, title_room, write_margins
from glassgpt.figures.states import percent

COLOURS = colormaps["cividis"].with_extremes(bad="#e8ecf0")  # grey is what lies ahead
SMALL, TYPE = 8.5, 10
GRID_WIDTH = 7.4  # inches that the squares of a row share
SQUARE = (0.58, 1.35)  # inches of a square, at least and at most
NOTE_TYPE = 7.0
MOST_NAMED = 64  # tokens on an axis
MOST_NUMBERED = 12  # tokens up to which every cell has its number
HALF = 0.5
EVEN = 0.9  # share of the greatest entropy above which a head has no habit


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights of some layers over one text.

    tokens: as texts (T,); ids: the same as numbers, which say what is equal. layers: which layers these are, from 0.
    weights: float array (layers, H, T, T); rows sum to 1 and are 0 ahead of their token.
    """

    tokens: Sequence[str]
    ids: Sequence[int]
    layers: Sequence[int]
    weights: np.ndarray


@dataclass(frozen=True)
class HeadHabits:
    """What heads do on average, float64 (layers, H): shares in [0, 1] of what a token looks at, and entropy in nats.

    previous: the token before. first: the first token of the text. itself. repeat: tokens that stood behind an earlier
    copy of the token that looks, which is where a head must look to go on as the text went on before ("induction
    heads", Olsson et al. 2022, arXiv 2209.11895); NaN in a text without repeats. Means over all tokens but the first
    two, for which these are the same thing, and for `repeat` over those that have an earlier copy. entropy: of a row,
    0 where it looks at one token alone; evenness: entropy as a share of the most that is possible at its place.
    """

    previous: np.ndarray
    first: np.ndarray
    itself: np.ndarray
    repeat: np.ndarray
    entropy: np.ndarray
    evenness: np.ndarray

    def strongest(self, layer: int, head: int) -> tuple[str, float]:
        """The habit with the greatest share, by its name, and that share."""
        shares = {name: float(getattr(self, name)[layer, head]) for name in HABITS}
        name = max(shares, key=lambda name: -1.0 if np.isnan(shares[name]) else shares[name])
        return name, shares[name]


HABITS = {
    "previous": "the previous token",
    "first": "the first token",
    "itself": "itself",
    "repeat": "what followed an earlier copy of it",
}
SHORT = {"previous": "prev", "first": "first", "itself": "self", "repeat": "rep"}


def head_habits(data: AttentionMaps) -> HeadHabits:
    """The habits of every head. Raises UsageError as the figures do, and for fewer than 3 tokens."""
    weights = _checked(data)
    T = weights.shape[-1]
    if T < 3:
        raise UsageError(f"a head shows its habits from the third token on, and this text has {T}: give a longer one")
    at = np.arange(2, T)
    rows = weights[..., at, :]  # (layers, H, T - 2, T)
    follows = np.zeros((T, T), dtype=bool)  # whether j stands behind an earlier copy of t
    follows[:, 1:] = np.tril(np.equal.outer(data.ids, data.ids), -1)[:, :-1]
    repeated = follows.any(axis=1)
    repeat = np.sum(weights * follows, axis=-1)[..., repeated]
    entropy = -np.sum(rows * np.log(np.where(rows > 0, rows, 1.0)), axis=-1)
    return HeadHabits(
        previous=weights[..., at, at - 1].mean(axis=-1),
        first=weights[..., at, 0].mean(axis=-1),
        itself=weights[..., at, at].mean(axis=-1),
        repeat=repeat.mean(axis=-1) if repeated.any() else np.full(weights.shape[:2], np.nan),
        entropy=entropy.mean(axis=-1),
        evenness=(entropy / np.log(at + 1)).mean(axis=-1),
    )


@in_house_style
def draw_attention_grid(data: AttentionMaps, title: str | None = None) -> Figure:
    """Every head of the layers given as a square, a row for each layer, with its strongest habit below it.

    Raises UsageError for weights that are none, that look ahead or don't fit the tokens, or fewer than 3 tokens.
    """
    weights, habits = _checked(data), head_habits(data)
    n_layers, H = weights.shape[:2]
    square = float(np.clip(GRID_WIDTH / H - 0.08, *SQUARE))
    across, down, left = square + 0.08, square + 0.24, 0.75
    width = max(left + H * across + 0.95, 5.2)
    notes = [[_note(habits, row, head, square) for head in range(H)] for row in range(n_layers)]
    caption = _grid_caption(habits, weights.shape[-1], _meanings([note for line in notes for note in line]))
    below = caption_room(caption, width)
    height = below + n_layers * down + 0.3 + title_room(title)
    figure = Figure(figsize=(width, height))
    for row, layer in enumerate(data.layers):
        bottom = below + (n_layers - 1 - row) * down + 0.2
        for head in range(H):
            place = ((left + head * across) / width, bottom / height, square / width, square / height)
            axes = figure.add_axes(place, gid=f"layer {layer} head {head}")
            _paint(axes, weights[row, head])
            axes.set(xticks=[], yticks=[])
            note = axes.text(0.5, -0.04, notes[row][head], transform=axes.transAxes, ha="center", va="top")
            note.set(size=NOTE_TYPE, gid="note")
            if row == 0:
                axes.set_title(f"head {head}" if square > 0.7 else str(head), size=SMALL, pad=3)
            if head == 0:
                axes.set_ylabel(f"layer {layer}", size=SMALL, rotation=0, ha="right", va="center", labelpad=6)
    x, y, tall = left + H * across + 0.2, below + 0.2, min(n_layers * down - 0.24, 2.6)
    _colour_bar(figure, (x / width, y / height, 0.13 / width, tall / height))
    write_margins(figure, title, caption)
    return figure


def _note(habits: HeadHabits, layer: int, head: int, room: float) -> str:
    """The strongest habit, or that there is none, in as many letters as there is room for."""
    evenness = float(habits.evenness[layer, head])
    if evenness > EVEN:
        return f"even {percent(evenness)}"
    name, share = habits.strongest(layer, head)
    return f"{name if _has_room(room) else SHORT[name]} {percent(share)}"


def _has_room(square: float) -> bool:
    """Whether the names of habits stand below squares of so many inches in full: all of them, or none."""
    return max(text_width(f"{name} 100%", NOTE_TYPE) for name in HABITS) <= square


def _meanings(notes: Sequence[str]) -> str:
    """What the names below the squares stand for, of those that are there."""
    meanings = {"even": "nearly the same at all"}
    meanings |= {key: meaning for name, meaning in HABITS.items() for key in (name, SHORT[name])}
    found = {note.split()[0] for note in notes} - {"previous", "first", "itself", "self"}  # which say it themselves
    told = "; ".join(f"{name}: {meaning}" for name, meaning in meanings.items() if name in found)
    return f" ({told})" if told else ""


def _grid_caption(habits: HeadHabits, T: int, meanings: str) -> str:
    n_layers, H = habits.entropy.shape
    uneven = [(layer, head) for layer in range(n_layers) for head in range(H) if habits.evenness[layer, head] <= EVEN]
    strongest = [habits.strongest(layer, head) for layer, head in uneven]  # an even look repeats much of a dull text
    sure = [name for name, share in strongest if share > HALF]
    counts = ", ".join(f"{sure.count(name)} at {meaning}" for name, meaning in HABITS.items() if name in sure)
    return (
        f"{n_layers * H} heads over {T} tokens. In a square each row is a token that looks, each column one that is "
        f"looked at, brighter for more; grey lies ahead. Below it the token's strongest habit{meanings}. "
        f"Looking more than half at one thing: {f'{len(sure)} of them ({counts})' if sure else 'none of them'}. "
        f"Mean entropy {habits.entropy.mean():.2f} nats, {percent(habits.evenness.mean())} of an even look's."
    )


@in_house_style
def draw_attention_head(data: AttentionMaps, layer: int, head: int, title: str | None = None) -> Figure:
    """One head's weights, the tokens that look at the left and those looked at above; up to 12 tokens with numbers.

    `layer` as in `data.layers`. Raises UsageError as `draw_attention_grid`, for a layer or head that isn't there, and
    for more than 64 tokens.
    """
    weights, habits = _checked(data), head_habits(data)
    T = weights.shape[-1]
    if layer not in data.layers or not 0 <= head < weights.shape[1]:
        layers = ", ".join(str(one) for one in data.layers)
        raise UsageError(
            f"these are layers {layers} and heads 0 to {weights.shape[1] - 1}; got layer {layer}, head {head}"
        )
    if T > MOST_NAMED:
        raise UsageError(f"{MOST_NAMED} tokens can be named on each axis, and this text has {T}: shorten it")
    row = list(data.layers).index(layer)
    names = [shown(token) for token in data.tokens]
    cell = float(np.clip(6.0 / T, 0.14, 0.42))
    margin = max(text_width(name, TYPE) for name in names) + 0.15
    left, body = margin + 0.4, cell * T
    width = max(left + body + 1.0, 5.2)
    caption = _head_caption(habits, row, layer, head)
    below = caption_room(caption, width)
    height = below + body + margin + 0.35 + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, body / width, body / height))
    _paint(axes, weights[row, head])
    size = TYPE if cell > 0.17 else SMALL
    axes.xaxis.tick_top()
    axes.set_xticks(range(T), names, rotation=90, size=size, parse_math=False)
    axes.set_yticks(range(T), names, size=size, parse_math=False)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel("looked at", size=9, color=GREY)
    axes.set_ylabel("the token that looks", size=9, color=GREY)
    if T <= MOST_NUMBERED:
        _write_numbers(axes, weights[row, head])
    _colour_bar(figure, ((left + body + 0.2) / width, below / height, 0.13 / width, min(body, 2.6) / height))
    write_margins(figure, title, caption)
    return figure


def _head_caption(habits: HeadHabits, row: int, layer: int, head: int) -> str:
    shares = {meaning: float(getattr(habits, name)[row, head]) for name, meaning in HABITS.items()}
    looks = ", ".join(f"{percent(share)} at {meaning}" for meaning, share in shares.items() if not np.isnan(share))
    return (
        f"Layer {layer}, head {head} (both counted from 0). From the third token on it looks {looks}, on average. "
        f"Entropy of a look {habits.entropy[row, head]:.2f} nats, {percent(habits.evenness[row, head])} of an even "
        "one's."
    )


def _write_numbers(axes: Axes, weights: np.ndarray) -> None:
    for row in range(len(weights)):
        for column in range(row + 1):
            weight = float(weights[row, column])
            number = axes.text(column, row, percent(weight), ha="center", va="center", size=SMALL, gid="number")
            number.set_color("white" if weight < 0.36 else INK)  # cividis, by the root of the weight


def _paint(axes: Axes, weights: np.ndarray) -> None:
    T = len(weights)
    ahead = np.triu(np.ones((T, T), dtype=bool), 1)
    picture = axes.imshow(np.ma.array(weights, mask=ahead), cmap=COLOURS, norm=_scale(), aspect="auto")
    picture.set_interpolation("nearest")
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _scale() -> PowerNorm:
    """Colour goes by the root of the weight, so that a tenth among many can be seen beside a whole."""
    return PowerNorm(0.5, 0.0, 1.0)


def _colour_bar(figure: Figure, place: tuple[float, float, float, float]) -> None:
    axes = figure.add_axes(place, gid="scale")
    bar = figure.colorbar(ScalarMappable(_scale(), "cividis"), cax=axes)
    bar.outline.set_visible(False)
    shares = [0.0, 0.05, 0.2, 0.5, 1.0]
    bar.set_ticks(shares, labels=[percent(share) for share in shares], size=SMALL)
    bar.minorticks_off()


def _checked(data: AttentionMaps) -> np.ndarray:
    weights = np.asarray(data.weights, dtype=np.float64)
    T, layers = len(data.tokens), len(data.layers)
    if weights.ndim != 4 or weights.shape[::3] != (layers, T) or weights.shape[2] != T or not weights.size:
        raise UsageError(
            f"attention of {layers} layers over {T} tokens is of shape ({layers}, heads, {T}, {T}); got {weights.shape}"
        )
    if len(data.ids) != T:
        raise UsageError(f"ids are a number for each of the {T} tokens; got {len(data.ids)}")
    if not (weights >= 0).all() or not np.allclose(weights.sum(axis=-1), 1.0, atol=1e-3) or np.triu(weights, 1).any():
        raise UsageError("attention weights are 0 or more, sum to 1 in each row and are 0 ahead of their token")
    return weights
