"""Which heads and MLPs a prediction hangs on: all of them as a map, and one of them as bars, before and after.

What *off* means, and why it is zero rather than a mean, stands in `glassgpt.models.ablation`, which computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, INK, RED, in_house_style, text_width
from glassgpt.figures.margins import EDGE, caption_room, title_room, write_margins
from glassgpt.figures.next_token import clipped, share

SMALL, TYPE = 8.0, 9.5
CELL_WIDTH, CELL_HEIGHT = (0.16, 0.44), (0.125, 0.25)  # inches, at least and at most
GRID = (4.4, 6.6)  # inches that the cells of a row and of a column share
APART, LEAST_MLP = 0.12, 0.3  # inches between heads and MLPs, and of the column of MLPs
SCALE = (0.8, 2.4)  # inches of the scale of colours, at least and at most
ROW, BAR, NUMBERS, CHANGE = 0.4, 2.3, 0.6, 0.65  # inches
LONGEST_NAME, KEY = 1.3, 0.85  # inches; what stands above the bars
LIKELIEST = 6  # tokens with the part and as many without it
MOST_LAYERS, MOST_HEADS = 200, 200
STRONGEST = 4  # heads that the caption names
POWER = 0.5  # colour goes by the root, so that a tenth of the strongest can be seen beside it
WHOLE, OFF = CATEGORIES[0], CATEGORIES[5]


@dataclass(frozen=True)
class AblationMap:
    """How far the next token's distribution moves without each part of a GPT: Jensen-Shannon divergence in bits.

    heads: float array (L, H). mlps: (L,). context: the text that the token follows.
    """

    context: str
    heads: np.ndarray
    mlps: np.ndarray

    def at(self, layer: int, head: int | None) -> float:
        return float(self.mlps[layer] if head is None else self.heads[layer, head])


@dataclass(frozen=True)
class Without:
    """Some tokens with the whole model and without one part; `head` None for the layer's MLP.

    names: texts of tokens. whole, ablated: their probabilities. kl_bits: KL(whole || ablated) over the vocabulary.
    """

    layer: int
    head: int | None
    names: Sequence[str]
    whole: np.ndarray
    ablated: np.ndarray
    kl_bits: float


def likeliest_of_both(whole: np.ndarray, ablated: np.ndarray, n: int = LIKELIEST) -> np.ndarray:
    """The ids of the n likeliest tokens of each of two distributions (V,), in the order of the first.

    >>> likeliest_of_both(np.array([0.1, 0.6, 0.3]), np.array([0.7, 0.2, 0.1]), 1).tolist()
    [1, 0]
    """
    chosen = {int(token) for probs in (whole, ablated) for token in np.argsort(-probs, kind="stable")[:n]}
    return np.array(sorted(chosen, key=lambda token: (-whole[token], token)))


@in_house_style
def draw_ablation(data: AblationMap, without: Without, title: str | None = None) -> Figure:
    """The map of all parts, layer 0 at the top, and beside it the bars of one, which is framed in the map.

    Raises UsageError for effects or probabilities that are none, or a part that isn't in the map.
    """
    _check(data, without)
    (L, H), n = data.heads.shape, len(without.names)
    cell = (float(np.clip(GRID[0] / H, *CELL_WIDTH)), float(np.clip(GRID[1] / L, *CELL_HEIGHT)))
    left, body = 0.62, (H * cell[0], L * cell[1])
    names = [clipped(name, LONGEST_NAME, TYPE) for name in without.names]
    bars_left = (
        left + body[0] + APART + max(cell[0], LEAST_MLP) + 0.95 + max(text_width(name, TYPE) for name in names) + 0.15
    )
    width = bars_left + BAR + NUMBERS + CHANGE + EDGE
    caption = _caption(data)
    below, above = caption_room(caption, width) + 0.1, title_room(title) + 0.62
    tall = n * ROW
    height = below + max(body[1], SCALE[0], KEY - 0.3 + tall + 0.5) + above
    figure = Figure(figsize=(width, height))
    _draw_map(figure, data, (left, height - above), cell, without)
    _draw_bars(figure, data, without, names, (bars_left, height - above + 0.3 - KEY - tall))
    _write_context(figure, data.context, title)
    write_margins(figure, title, caption)
    return figure


def _draw_map(
    figure: Figure, data: AblationMap, corner: tuple[float, float], cell: tuple[float, float], without: Without
) -> None:
    """corner: where the upper left cell begins, in inches."""
    (L, H), (width, height) = data.heads.shape, figure.get_size_inches()
    left, bottom, tall = corner[0], corner[1] - L * cell[1], L * cell[1]
    norm, unit = PowerNorm(POWER, 0.0, _top(data)), _unit(data)
    mlp_left, mlp_width = left + H * cell[0] + APART, max(cell[0], LEAST_MLP)
    parts = (("heads", data.heads, left, H * cell[0]), ("mlps", data.mlps[:, None], mlp_left, mlp_width))
    for name, values, x, wide in parts:
        axes = figure.add_axes((x / width, bottom / height, wide / width, tall / height), gid=name)
        axes.imshow(values, cmap="cividis", norm=norm, aspect="auto", interpolation="nearest").set_gid(name)
        axes.xaxis.tick_top()
        axes.tick_params(which="both", length=0, pad=2)
        every = int(np.ceil(0.3 / cell[0]))
        heads = range(0, H, every)
        axes.set_xticks([0] if name == "mlps" else heads, ["MLP"] if name == "mlps" else [str(h) for h in heads])
        axes.set_yticks([] if name == "mlps" else range(0, L, int(np.ceil(0.17 / cell[1]))))
        axes.tick_params(labelsize=SMALL)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if cell[0] >= 0.36 and cell[1] >= 0.16:
            _write_numbers(axes, values, norm, unit)
        if (name == "mlps") == (without.head is None):
            at = (-0.5 + (without.head or 0), without.layer - 0.5)
            axes.add_patch(Rectangle(at, 1, 1, fill=False, edgecolor=RED, linewidth=1.8, clip_on=False, gid="off"))
        if name == "heads":
            axes.xaxis.set_label_position("top")
            axes.set_xlabel("head", size=9, color=GREY, labelpad=3)
            axes.set_ylabel("layer", size=9, color=GREY)
    x, long = mlp_left + mlp_width + 0.14, float(np.clip(tall, *SCALE))
    scale = figure.add_axes((x / width, (corner[1] - long) / height, 0.11 / width, long / height))
    _colour_bar(figure, scale, norm, unit)


def _write_numbers(axes: Axes, values: np.ndarray, norm: PowerNorm, unit: _Unit) -> None:
    for (row, column), value in np.ndenumerate(values):
        text = unit.written(float(value))
        if float(text) > 0:
            number = axes.text(column, row, text, ha="center", va="center", size=7.0, gid="number")
            number.set_color("white" if norm(value) < 0.6 else INK)  # cividis is dark below its middle


def _colour_bar(figure: Figure, axes: Axes, norm: PowerNorm, unit: _Unit) -> None:
    axes.set_gid("scale")
    bar = figure.colorbar(ScalarMappable(norm, colormaps["cividis"]), cax=axes)
    bar.outline.set_visible(False)
    ticks = [float(norm.inverse(part)) for part in (0.0, 0.33, 0.67, 1.0)]
    bar.set_ticks(ticks, labels=[unit.written(tick) for tick in ticks], size=SMALL)
    bar.minorticks_off()
    axes.set_title(unit.name, size=SMALL, color=GREY, pad=7, loc="left")


def _draw_bars(
    figure: Figure, data: AblationMap, without: Without, names: Sequence[str], place: tuple[float, float]
) -> None:
    """place: the lower left corner of the bars, in inches."""
    n, (width, height) = len(names), figure.get_size_inches()
    tall, wide = n * ROW, BAR + NUMBERS + CHANGE
    axes = figure.add_axes((place[0] / width, place[1] / height, wide / width, tall / height), gid="bars")
    rows, longest = np.arange(n), max(float(np.max([without.whole, without.ablated])), 1e-9)
    inch = longest / BAR
    axes.barh(rows - 0.2, without.whole, height=0.36, color=WHOLE, gid="whole")
    axes.barh(rows + 0.2, without.ablated, height=0.36, facecolor="white", edgecolor=OFF, hatch="////", gid="ablated")
    for row in range(n):
        for value, at in ((float(without.whole[row]), row - 0.2), (float(without.ablated[row]), row + 0.2)):
            number = axes.text(value + 0.06 * inch, at, share(value), size=SMALL, va="center", gid="number")
            number.set_color(INK)
        change = 100 * float(without.ablated[row] - without.whole[row])
        text = axes.text(inch * wide, row, signed(change), size=TYPE, va="center", ha="right", gid="change")
        text.set_color(INK)
    axes.set_yticks(rows, names, parse_math=False, size=TYPE)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, inch * wide)
    axes.set_ylim(n - 0.5, -0.5)
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, longest)
    axes.set_xticks([tick for tick in ticks if 0 <= tick <= longest * 1.001])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{100 * tick:.6g}%"))
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.spines["bottom"].set_bounds(0, longest)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("probability of the next token", x=BAR / 2 / wide, size=9)
    _write_key(axes, data, without, tall)


def _write_key(axes: Axes, data: AblationMap, without: Without, tall: float) -> None:
    """Above the bars what each kind is, by a patch of it, and how far the two distributions are apart."""
    part = f"layer {without.layer}, " + ("MLP" if without.head is None else f"head {without.head}")
    unit, wide = _unit(data), BAR + NUMBERS + CHANGE
    rows = [("whole model", {"facecolor": WHOLE}, ""), (f"without {part}", {"facecolor": "white"}, "////")]
    for row, (text, look, hatch) in enumerate(rows):
        at = 1 + (KEY - 0.22 - 0.2 * row) / tall
        patch = Rectangle((0, at), 0.22 / wide, 0.12 / tall, transform=axes.transAxes, clip_on=False, hatch=hatch)
        patch.set(edgecolor=OFF if row else WHOLE, **look)
        axes.add_patch(patch)
        axes.text(0.3 / wide, at, text, transform=axes.transAxes, size=TYPE, va="bottom", gid="key")
    apart = f"{unit.written(data.at(without.layer, without.head))} {unit.name} apart (KL {without.kl_bits:.3g} bits)"
    y = 1 + (KEY - 0.62) / tall
    axes.text(0.3 / wide, y, apart, transform=axes.transAxes, size=SMALL, va="bottom", color=GREY, gid="apart")
    axes.text(1, y - 0.18 / tall, "points", transform=axes.transAxes, ha="right", va="bottom", size=SMALL, color=GREY)


def signed(points: float) -> str:
    """A change in percentage points, with its sign; none where it rounds to 0.

    >>> signed(12.34), signed(-0.06), signed(0.01)
    ('+12.3', '\u22120.1', '0.0')
    """
    text = f"{abs(points):.1f}"
    sign = "" if float(text) == 0 else "+" if points > 0 else "\u2212"
    return sign + text


def _write_context(figure: Figure, context: str, title: str | None) -> None:
    width, height = figure.get_size_inches()
    words = "after  " + clipped(context, width - 2 * EDGE - 0.6, TYPE, from_end=True)
    y = 1 - (title_room(title) + 0.02) / height
    figure.text(EDGE / width, y, words, size=TYPE, va="top", parse_math=False, gid="context")


def _caption(data: AblationMap) -> str:
    L, H = data.heads.shape
    unit = _unit(data)
    order = np.argsort(-data.heads, axis=None, kind="stable")[:STRONGEST]
    places = [divmod(int(place), H) for place in order]
    named = ", ".join(f"{layer}.{head} ({unit.written(data.at(layer, head))})" for layer, head in places)
    mlp = int(data.mlps.argmax())
    return (
        f"Each cell: how far the next token's distribution moves, in {unit.name} of Jensen-Shannon divergence (1 bit "
        "at most), when what that head or MLP adds to the stream is set to zero. Of "
        f"{L * H} head{'s' * (L * H > 1)} the strongest, as layer.head: {named}; of the MLPs that of layer {mlp} "
        f"({unit.written(float(data.mlps[mlp]))}). Points: the change of a token's probability in percentage points."
    )


@dataclass(frozen=True)
class _Unit:
    """Bits or a small part of them, with so many digits that the strongest effect has two or more."""

    name: str
    factor: float
    digits: int

    def written(self, bits: float) -> str:
        return f"{bits * self.factor:.{self.digits}f}"


def _unit(data: AblationMap) -> _Unit:
    """A divergence goes as the square of a small change, so that a head that hardly writes has a very small one."""
    top = _top(data)
    names = ("bits", "millibits", "microbits", "nanobits", "picobits")
    power = next((power for power in range(len(names)) if top * 1e3**power >= 0.1), len(names) - 1)
    scaled = top * 1e3**power
    return _Unit(names[power], 1e3**power, 2 if scaled <= 1 else 1 if scaled < 10 else 0)


def _top(data: AblationMap) -> float:
    return max(float(data.heads.max()), float(data.mlps.max()), 1e-12)


def _check(data: AblationMap, without: Without) -> None:
    heads, mlps = np.asarray(data.heads, dtype=np.float64), np.asarray(data.mlps, dtype=np.float64)
    if heads.ndim != 2 or not heads.size or mlps.shape != heads.shape[:1]:
        raise UsageError(f"effects are (layers, heads) and (layers,); got {heads.shape} and {mlps.shape}")
    L, H = heads.shape
    if L > MOST_LAYERS or H > MOST_HEADS:
        raise UsageError(f"a map shows up to {MOST_LAYERS} layers of {MOST_HEADS} heads; got {L} of {H}")
    for effects in (heads, mlps):
        if not ((effects >= 0) & (effects <= 1 + 1e-9)).all():
            raise UsageError("a Jensen-Shannon divergence lies between 0 and 1 bit; got values outside, or NaN")
    if not 0 <= without.layer < L or not (without.head is None or 0 <= without.head < H):
        raise UsageError(f"these are {L} layers of {H} heads; got layer {without.layer}, head {without.head}")
    n = len(without.names)
    if not n or np.shape(without.whole) != (n,) or np.shape(without.ablated) != (n,):
        raise UsageError(f"expected one token or more and two probabilities for each of them; got {n} tokens")
    for probabilities in map(np.asarray, (without.whole, without.ablated)):
        if not ((probabilities >= 0) & (probabilities <= 1 + 1e-9)).all():
            raise UsageError("probabilities must lie between 0 and 1; got values outside, or NaN")
