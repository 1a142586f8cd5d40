"""Curves through noisy points: too few parameters miss the shape, too many learn the noise.

Only points that no curve was fitted to can tell the two apart, so that every fit is measured on some of both kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.polynomial import Chebyshev

from glassgpt.errors import UsageError
from glassgpt.figures.curves import spread
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, in_house_style, text_width
from glassgpt.figures.margins import EDGE, caption_room, title_room, write_margins

PLACES = 400  # at which a curve is drawn
COLUMNS = 3
PANEL = (2.3, 1.65)  # inches
LEFT, GAP_ACROSS, GAP_UP = 0.6, 0.3, 0.62
ERRORS_HEIGHT = 2.6
TYPE, SMALL = 10, 8.5
TRAINING, HELD_OUT = CATEGORIES[0], CATEGORIES[5]


@dataclass(frozen=True)
class CurveFits:
    """Polynomials of several numbers of parameters, fitted to the same points.

    x, y: float64 (points,), what they were fitted to. held_out_x, held_out_y: float64 (held out,), what they were not.
    parameters: int64 (fits,), ascending; a polynomial of degree d has d + 1. places: float64 (PLACES,), from end to end
    of x. curves: float64 (fits, PLACES). training_error, held_out_error: float64 (fits,), root mean squares in y's
    unit. truth: float64 (PLACES,), what the points were scattered about, and noise: by how much (standard deviation),
    where that is known.
    """

    x: np.ndarray
    y: np.ndarray
    held_out_x: np.ndarray
    held_out_y: np.ndarray
    parameters: np.ndarray
    places: np.ndarray
    curves: np.ndarray
    training_error: np.ndarray
    held_out_error: np.ndarray
    truth: np.ndarray | None = None
    noise: float | None = None

    @property
    def best(self) -> int:
        """The index of the fit with the least error on the points held out."""
        return int(np.argmin(self.held_out_error))


def noisy_fits(
    parameters: Sequence[int] = tuple(range(1, 17)),
    n_points: int = 20,
    n_held_out: int = 200,
    noise: float = 0.25,
    seed: int = 0,
) -> CurveFits:
    """Points scattered about sin(5 x) + x on [-1, 1] with normally distributed noise, and polynomials fitted to them.

    The points fitted lie near even distances, those held out anywhere between the outermost of them: between points
    is where a curve is asked, beyond them every polynomial runs away. All is drawn from `seed`. Raises UsageError as
    `polynomial_fits`, and for noise below 0.
    """
    if not (noise >= 0 and np.isfinite(noise)):
        raise UsageError(f"noise is a standard deviation of 0 or more, got {noise}")
    if n_points < 2 or n_held_out < 1:
        raise UsageError(f"a fit needs 2 points or more and 1 held out, got {n_points} and {n_held_out}")
    rng = np.random.default_rng(seed)
    step = 2 / n_points
    x = np.linspace(-1 + step / 2, 1 - step / 2, n_points) + rng.uniform(-0.4, 0.4, n_points) * step
    held_out_x = np.sort(rng.uniform(x[0], x[-1], n_held_out))
    y, held_out_y = (_wave(at) + noise * rng.standard_normal(len(at)) for at in (x, held_out_x))
    fits = polynomial_fits(x, y, held_out_x, held_out_y, parameters)
    return replace(fits, truth=_wave(fits.places), noise=noise)


def polynomial_fits(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    held_out_x: Sequence[float] | np.ndarray,
    held_out_y: Sequence[float] | np.ndarray,
    parameters: Sequence[int],
) -> CurveFits:
    """The polynomial of each number of parameters with the least squared error on (x, y), and its error elsewhere.

    Polynomials are sums of Chebyshev's on the range of x, not of powers: of those, 15 in a row are so nearly dependent
    that float64 would lose the fit. Raises UsageError for columns of unequal length or numbers that are not finite, and
    for more parameters than different x, where there is no one best fit.
    """
    x, y = _columns("the points to fit", x, y)
    held_out_x, held_out_y = _columns("the points held out", held_out_x, held_out_y)
    sizes = np.unique(np.asarray(parameters, dtype=np.int64))
    different = len(np.unique(x))
    if different < 2 or not len(sizes) or sizes[0] < 1 or sizes[-1] > different:
        raise UsageError(
            f"{different} different points hold from 1 to {different} parameters (and there must be 2 points); "
            f"got {sizes.tolist()}"
        )
    fits = [Chebyshev.fit(x, y, size - 1, domain=[x.min(), x.max()]) for size in sizes]
    places = np.linspace(x.min(), x.max(), PLACES)
    return CurveFits(
        x=x,
        y=y,
        held_out_x=held_out_x,
        held_out_y=held_out_y,
        parameters=sizes,
        places=places,
        curves=np.array([fit(places) for fit in fits]),
        training_error=np.array([_root_mean_square(fit(x) - y) for fit in fits]),
        held_out_error=np.array([_root_mean_square(fit(held_out_x) - held_out_y) for fit in fits]),
    )


@in_house_style
def draw_fits(fits: CurveFits, shown: Sequence[int] | None = None, title: str | None = None) -> Figure:
    """A panel for some of the fits with both its errors, and below them the errors of all against their parameters.

    shown: the numbers of parameters that get a panel; by default 6 or fewer, the fit that is best on the points held
    out among them. Raises UsageError for a number that was not fitted.
    """
    chosen = _indices(fits, shown)
    n_rows = -(-len(chosen) // COLUMNS)
    width = LEFT + COLUMNS * PANEL[0] + (COLUMNS - 1) * GAP_ACROSS + 0.2
    below = caption_room(_caption(fits), width) + 0.45
    panels, above = below + ERRORS_HEIGHT + 0.72, title_room(title) + 0.65
    height = panels + n_rows * PANEL[1] + (n_rows - 1) * GAP_UP + above
    figure = Figure(figsize=(width, height))
    for place, index in enumerate(chosen):
        row, column = divmod(place, COLUMNS)
        left = LEFT + column * (PANEL[0] + GAP_ACROSS)
        bottom = panels + (n_rows - 1 - row) * (PANEL[1] + GAP_UP)
        axes = figure.add_axes((left / width, bottom / height, PANEL[0] / width, PANEL[1] / height))
        _draw_fit(axes, fits, index)
        axes.tick_params(labelleft=column == 0, labelbottom=place + COLUMNS >= len(chosen))
        axes.set_xlabel("x" if place + COLUMNS >= len(chosen) else "", size=SMALL, labelpad=1)
        axes.set_ylabel("y" if column == 0 else "", size=SMALL, labelpad=0)
    right = max(text_width(label, SMALL) for label in ("training 0.00", "held out 0.00", "noise 0.00")) + 0.15
    errors = figure.add_axes(
        ((LEFT + 0.2) / width, below / height, (width - LEFT - 0.2 - right) / width, ERRORS_HEIGHT / height)
    )
    _draw_errors(errors, fits)
    _legend(figure, fits, 1 - title_room(title) / height)
    write_margins(figure, title, _caption(fits))
    return figure


def _draw_fit(axes: Axes, fits: CurveFits, index: int) -> None:
    heights = np.concatenate([fits.y, fits.held_out_y])
    room = 0.12 * float(np.ptp(heights)) or 1.0
    axes.plot(fits.held_out_x, fits.held_out_y, ".", color=GREY, markersize=2.2, alpha=0.55, gid="held-out")
    if fits.truth is not None:
        axes.plot(fits.places, fits.truth, color=GREY, linestyle=(0, (4, 2)), linewidth=1.1, gid="truth")
    axes.plot(fits.places, fits.curves[index], color=CATEGORIES[2], linewidth=1.8, gid="fit")
    axes.plot(fits.x, fits.y, "o", color=TRAINING, markersize=3.8, markeredgewidth=0, gid="training")
    axes.set_ylim(heights.min() - room, heights.max() + room)
    axes.set_xlim(fits.x.min() - 0.03 * np.ptp(fits.x), fits.x.max() + 0.03 * np.ptp(fits.x))
    is_best = index == fits.best
    name = parameters_of(int(fits.parameters[index])) + (": best" if is_best else "")
    axes.set_title(name, loc="left", size=TYPE, weight="bold" if is_best else "normal", pad=17)
    errors = f"training {error_text(fits.training_error[index])}, held out {error_text(fits.held_out_error[index])}"
    axes.text(0, 1.03, errors, transform=axes.transAxes, size=SMALL, va="bottom", gid="errors")
    axes.tick_params(labelsize=SMALL, length=3)
    for spine in ("left", "bottom"):
        axes.spines[spine].set(color=HELD_OUT if is_best else GREY, linewidth=1.6 if is_best else 0.8)


def _draw_errors(axes: Axes, fits: CurveFits) -> None:
    lines = (("training", fits.training_error, TRAINING, "o"), ("held out", fits.held_out_error, HELD_OUT, "s"))
    # What goes through every point has no error but rounding, which would stretch the axis over fifteen decades.
    floor = 0.5 * min(float(fits.held_out_error.min()), _least_above_rounding(fits.training_error))
    for name, errors, colour, marker in lines:
        axes.plot(fits.parameters, np.maximum(errors, floor), color=colour, linewidth=1.5, gid=f"errors {name}")
        is_seen = errors > floor
        points = axes.plot(fits.parameters[is_seen], errors[is_seen], linestyle="", color=colour, marker=marker)[0]
        points.set(markersize=4.5, gid=f"points {name}")
    axes.axvline(fits.parameters[fits.best], color=HELD_OUT, linestyle=":", linewidth=1.2, zorder=0, gid="best")
    _scale_errors(axes, floor, 1.25 * float(max(fits.held_out_error.max(), fits.training_error.max())))
    axes.set_xticks(fits.parameters)
    axes.margins(x=0.03)
    axes.set_xlabel("parameters of the curve")
    axes.set_ylabel("error (root mean square)")
    _name_both_sides(axes, fits)
    ends = [(name, float(errors[-1]), colour) for name, errors, colour, _ in lines]
    if fits.noise:
        axes.axhline(fits.noise, color=GREY, linestyle=(0, (5, 3)), linewidth=1.0, zorder=0, gid="noise")
        ends.append(("noise", fits.noise, GREY))
    _label_ends(axes, ends)


def _scale_errors(axes: Axes, low: float, high: float) -> None:
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator([a * 10.0**b for b in range(-9, 10) for a in (1, 2, 5)]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    low, high = axes.get_ylim()
    shares = [np.log(max(value, low) / low) / np.log(high / low) for _, value, _ in ends]
    places = spread(shares, gap=0.16 / ERRORS_HEIGHT, low=0.02, high=0.98)
    for place, (name, value, colour) in zip(places, ends, strict=True):
        label = axes.text(1.012, place, f"{name} {error_text(value)}", transform=axes.transAxes, va="center")
        label.set(size=SMALL, color=colour, gid="end-label")


def _name_both_sides(axes: Axes, fits: CurveFits) -> None:
    """What is wrong with fewer and with more parameters than the best, where there are any."""
    sides = (
        ("underfitting  ", "right", fits.best > 0),
        ("  overfitting", "left", fits.best < len(fits.parameters) - 1),
    )
    for text, alignment, is_there in sides:
        if is_there:
            place = (fits.parameters[fits.best], 0.03)
            label = axes.text(*place, text, transform=axes.get_xaxis_transform(), ha=alignment, va="bottom")
            label.set(size=SMALL, color=HELD_OUT, gid="side")


def _least_above_rounding(errors: np.ndarray) -> float:
    above = errors[errors > 1e-9 * errors.max()]
    return float(above.min()) if len(above) else float("inf")


def _legend(figure: Figure, fits: CurveFits, top: float) -> None:
    handles = [
        Line2D([], [], color=TRAINING, marker="o", linestyle="", markersize=4, label="points fitted"),
        Line2D([], [], color=GREY, marker=".", linestyle="", markersize=4, label="points held out"),
        Line2D([], [], color=CATEGORIES[2], linewidth=1.8, label="curve fitted"),
    ]
    if fits.truth is not None:
        handles.append(Line2D([], [], color=GREY, linestyle=(0, (4, 2)), linewidth=1.1, label="what is behind them"))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(EDGE / figure.get_figwidth(), top),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        borderaxespad=0.0,
        borderpad=0.0,
        handletextpad=0.5,
        columnspacing=1.6,
    )


def _caption(fits: CurveFits) -> str:
    text = (
        f"{len(fits.x)} points fitted, {len(fits.held_out_x)} held out. More parameters always fit the points better; "
        f"those held out are met best by {parameters_of(int(fits.parameters[fits.best]))}."
    )
    if fits.best > 0:
        text += " With fewer the curve is too stiff for the shape."
    if fits.best < len(fits.parameters) - 1:
        text += " With more it bends after the noise."
    return text


def _indices(fits: CurveFits, shown: Sequence[int] | None) -> list[int]:
    """Where in the fits those stand that get a panel."""
    if shown is None:
        last = len(fits.parameters) - 1
        spaced = np.ceil([*np.linspace(0, fits.best, 3), *np.linspace(fits.best, last, 4)])
        return sorted({int(i) for i in spaced})
    missing = sorted(set(shown) - set(fits.parameters.tolist()))
    if missing or not shown:
        raise UsageError(
            f"shown must be some of the fits' numbers of parameters {fits.parameters.tolist()}; got {shown}"
        )
    return [int(np.flatnonzero(fits.parameters == size)[0]) for size in shown]


def parameters_of(n: int) -> str:
    """The number in words: "1 parameter", "2 parameters"."""
    return f"{n} parameter" + ("" if n == 1 else "s")


def error_text(value: float) -> str:
    """An error with two digits behind the point, or as few as say something.

    >>> error_text(0.2512), error_text(31.7), error_text(0.0004), error_text(1e-15)
    ('0.25', '32', '0.0004', '0')
    """
    if value < 1e-9:
        return "0"
    return f"{value:.2f}" if 0.01 <= value < 10 else f"{value:.1g}" if value < 1 else f"{value:.0f}"


def _wave(x: np.ndarray) -> np.ndarray:
    return np.sin(5 * x) + x


def _root_mean_square(differences: np.ndarray) -> float:
    return float(np.sqrt(np.mean(differences**2)))


def _columns(
    name: str, x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    at, heights = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if at.ndim != 1 or at.shape != heights.shape or not len(at):
        raise UsageError(f"{name} need as many x as y, 1 or more; got shapes {at.shape} and {heights.shape}")
    if not (np.isfinite(at).all() and np.isfinite(heights).all()):
        raise UsageError(f"{name} must be finite numbers; got NaN or infinity among them")
    return at, heights
