"""The loss over a plane through the space of a model's parameters as contours, with training's path across it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from glassgpt.errors import UsageError
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, INK, in_house_style
from glassgpt.figures.margins import caption_room, title_room, write_margins
from glassgpt.figures.states import percent

MAP_WIDTH, MOST_HEIGHT = 5.0, 5.0  # inches
CURVES_WIDTH = 2.8
LEFT, BELOW = 0.95, 0.5
SMALL = 8.5
LEVELS = 16
LABELLED_STEPS = 6
ON_PATH, IN_SHADOW = CATEGORIES[5], CATEGORIES[0]


class Land(Protocol):
    """The fields of `evaluation.landscape.Landscape`."""

    @property
    def across(self) -> np.ndarray: ...
    @property
    def up(self) -> np.ndarray: ...
    @property
    def losses(self) -> np.ndarray: ...
    @property
    def steps(self) -> np.ndarray: ...
    @property
    def path(self) -> np.ndarray: ...
    @property
    def path_losses(self) -> np.ndarray: ...
    @property
    def shadow_losses(self) -> np.ndarray: ...
    @property
    def off_plane(self) -> np.ndarray: ...
    @property
    def n_parameters(self) -> int: ...
    @property
    def travelled(self) -> float: ...
    @property
    def explained(self) -> np.ndarray | None: ...
    @property
    def random_walk(self) -> float | None: ...


@in_house_style
def draw_landscape(land: Land, title: str | None = None) -> Figure:
    """Contours of the loss, and of a plane of principal components the path on it with some of its steps.

    The path runs beside the plane, and what is drawn is its shadow. So a second panel shows both losses at each step:
    that of the model itself, and that of its shadow, which is what the contours say there. Raises UsageError for losses
    that don't fit the grid, or none of which is finite.
    """
    if land.losses.shape != (len(land.up), len(land.across)) or not np.isfinite(land.losses).any():
        raise UsageError(
            f"losses must be finite numbers of the shape (up, across) = ({len(land.up)}, {len(land.across)}); got "
            f"shape {land.losses.shape}"
        )
    has_path = len(land.path) > 1
    aspect = float(np.ptp(land.up) / np.ptp(land.across))
    body = (MAP_WIDTH, MAP_WIDTH * aspect) if aspect <= 1 else (MOST_HEIGHT / aspect, MOST_HEIGHT)
    curves_left = LEFT + body[0] + 1.6
    width = curves_left + CURVES_WIDTH + 0.25 if has_path else LEFT + body[0] + 1.1
    caption = _caption(land)
    below, above = caption_room(caption, width) + BELOW, title_room(title) + 0.3
    height = below + body[1] + above
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((LEFT / width, below / height, body[0] / width, body[1] / height))
    filled = _draw_contours(axes, land)
    _draw_path(axes, land)
    without_covered_levels(axes)
    _name_axes(axes, land)
    bar_axes = figure.add_axes(((LEFT + body[0] + 0.2) / width, below / height, 0.16 / width, body[1] / height))
    bar = figure.colorbar(filled, cax=bar_axes)
    bar.outline.set_visible(False)
    bar_axes.tick_params(labelsize=SMALL, length=3)
    bar_axes.set_title("loss (nats)", size=SMALL, loc="left", pad=6)
    if has_path:
        curves = figure.add_axes((curves_left / width, below / height, CURVES_WIDTH / width, body[1] / height))
        _draw_losses(curves, land)
    write_margins(figure, title, caption)
    return figure


def shown_levels(land: Land) -> np.ndarray:
    """Heights of contours: some 16 round numbers from the lowest loss to one well above the path's; what lies higher is
    one colour, since far from the path a loss can be thousands."""
    finite = land.losses[np.isfinite(land.losses)]
    low = float(finite.min())
    path = np.concatenate([land.path_losses, land.shadow_losses])
    path = path[np.isfinite(path)]
    top = float(path.max()) if len(path) > 2 else low
    top = min(float(finite.max()), max(top + 0.5 * (top - low), float(np.quantile(finite, 0.9))))
    levels = np.asarray(MaxNLocator(LEVELS, steps=[1, 2, 2.5, 5, 10]).tick_values(low, max(top, low + 1e-9)))
    return levels[np.concatenate([levels[1:] > low, [True]])]


def _draw_contours(axes: Axes, land: Land) -> QuadContourSet:
    levels = shown_levels(land)
    losses = np.where(np.isfinite(land.losses), land.losses, 10 * levels[-1] + 1)
    above = "max" if losses.max() > levels[-1] else "neither"
    filled = axes.contourf(land.across, land.up, losses, levels=levels, cmap="cividis", extend=above)
    filled.set_gid("landscape")
    lines = axes.contour(land.across, land.up, losses, levels=levels, colors="white", linewidths=0.5, alpha=0.7)
    digits = max(len(f"{level:.6g}".partition(".")[2]) for level in levels)
    for number in axes.clabel(lines, levels[::2].tolist(), fontsize=7, fmt=f"%.{digits}f", inline=False):
        shares = axes.transAxes.inverted().transform(axes.transData.transform(number.get_position()))
        if not ((shares > 0.05) & (shares < 0.95)).all():
            number.remove()  # it would be cut off
        number.set(color="white", path_effects=[withStroke(linewidth=1.8, foreground=INK)], gid="level")
    axes.set_aspect("equal")
    return filled


def _draw_path(axes: Axes, land: Land) -> None:
    halo = [withStroke(linewidth=4.0, foreground="white")]
    axes.plot(*land.path.T, color=ON_PATH, linewidth=1.8, path_effects=halo, gid="path")
    axes.plot(*land.path.T, "o", color=ON_PATH, markersize=2.6, markeredgewidth=0, gid="steps")
    for i in labelled(land.steps):
        axes.plot(*land.path[i], "o", color="white", markeredgecolor=ON_PATH, markeredgewidth=1.6, markersize=6)
        side = _clear_side(land.path, i)
        label = axes.annotate(
            f"step {land.steps[i]}" if len(land.steps) > 1 else f"the model, loss {land.path_losses[i]:.3f}",
            land.path[i],
            tuple(13 * side),
            textcoords="offset points",
            ha="left" if side[0] > 0.5 else "right" if side[0] < -0.5 else "center",
            va="bottom" if side[1] > 0.5 else "top" if side[1] < -0.5 else "center",
        )
        label.set(size=SMALL, weight="bold", path_effects=[withStroke(linewidth=2.6, foreground="white")], gid="step")


def without_covered_levels(axes: Axes) -> None:
    """The numbers of contours that would stand under the names of steps."""
    names = [text.get_window_extent() for text in axes.texts if text.get_gid() == "step"]
    for number in [text for text in axes.texts if text.get_gid() == "level"]:
        if any(number.get_window_extent().padded(2).overlaps(name) for name in names):
            number.remove()


def labelled(steps: np.ndarray) -> list[int]:
    """The places of at most 6 steps, evenly far apart, the first and the last among them."""
    last = len(steps) - 1
    wishes = np.linspace(steps[0], steps[-1], min(LABELLED_STEPS, last + 1))
    return sorted({0, last, *(int(np.argmin(np.abs(steps - wish))) for wish in wishes)})


def _clear_side(path: np.ndarray, i: int) -> np.ndarray:
    """The direction, of eight, in which a label is furthest from the rest of the path: a unit vector."""
    angles = np.arange(8) * np.pi / 4
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    if len(path) < 2:
        return directions[1]
    extent = float(np.ptp(path, axis=0).max())
    places = path[i] + 0.12 * extent * directions
    shares = np.linspace(0, 1, 12)[:, None, None]
    line = (path[:-1] + shares * np.diff(path, axis=0)).reshape(-1, 2)  # not its corners alone
    away = np.linalg.norm(places[:, None] - line[None], axis=2).min(axis=1)
    return directions[int(np.argmax(away.round(9)))]


def _name_axes(axes: Axes, land: Land) -> None:
    axes.tick_params(labelsize=SMALL, length=3)
    if land.explained is None:
        names = ["a random direction", "another random direction"]
        unit = "in multiples of the weights' own size"
    else:
        names = [
            f"{order} principal component ({percent(share)} of the variance)"
            for order, share in zip(("first", "second"), land.explained, strict=True)
        ]
        unit = "distance in parameters"
    axes.set_xlabel(f"{names[0]}: {unit}", size=SMALL)
    axes.set_ylabel(f"{names[1]}:\n{unit}", size=SMALL)


def _draw_losses(axes: Axes, land: Land) -> None:
    """Both losses at each step: their distance is what the plane does not show."""
    axes.plot(land.steps, land.path_losses, color=ON_PATH, linewidth=1.8, label="the model", gid="own")
    shadow = axes.plot(land.steps, land.shadow_losses, color=IN_SHADOW, linewidth=1.6, label="its shadow", gid="shadow")
    shadow[0].set_linestyle((0, (4, 2)))
    for i in labelled(land.steps):
        axes.plot(land.steps[i], land.path_losses[i], "o", color="white", markeredgecolor=ON_PATH, markeredgewidth=1.6)
    worst = furthest_apart(land)
    both = [land.path_losses[worst], land.shadow_losses[worst]]
    axes.plot([land.steps[worst]] * 2, both, color=INK, linewidth=1.0, gid="worst")
    axes.set_xlabel("training step", size=SMALL)
    axes.set_title("loss (nats)", loc="left", size=SMALL, pad=6)
    axes.tick_params(labelsize=SMALL, length=3)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.legend(loc="upper right", frameon=False, fontsize=SMALL)


def furthest_apart(land: Land) -> int:
    """Where on the path the model's own loss and its shadow's differ most."""
    return int(np.argmax(np.abs(land.shadow_losses - land.path_losses)))


def _caption(land: Land) -> str:
    text = f"The loss of a model of {land.n_parameters:,} parameters over "
    if land.explained is None or land.random_walk is None:
        return text + (
            "a plane through it that is spanned by two random directions, each as long, unit by unit, as the weights "
            "themselves. Other directions give other pictures; what is drawn is exact on this plane alone."
        )
    furthest = int(np.argmax(land.off_plane))
    worst = furthest_apart(land)
    return text + (
        f"the plane along which training moved most: it holds {percent(float(land.explained.sum()))} of the path's "
        f"variance (of a walk with steps as long in random directions it would hold {percent(land.random_walk)}). "
        f"The path runs beside the plane, up to {land.off_plane[furthest]:.2f} away (step {land.steps[furthest]}; it "
        f"is {land.travelled:.2f} long), and its shadow is drawn: at step {land.steps[worst]} the model's own loss is "
        f"{land.path_losses[worst]:.3f}, its shadow's {land.shadow_losses[worst]:.3f}. The lowest loss found on the "
        f"plane is {land.losses.min():.3f}, the end's {land.path_losses[-1]:.3f}."
    )
