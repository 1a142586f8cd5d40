"""What a model's parameters are: how many each part has, and every one of them as a colour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from glassgpt.errors import UsageError
from glassgpt.figures.curves import shown_words
from glassgpt.figures.embeddings import DIVERGING
from glassgpt.figures.figure import Figure
from glassgpt.figures.house_style import CATEGORIES, GREY, in_house_style, text_width
from glassgpt.figures.margins import HINTING, caption_room, title_room, write_margins
from glassgpt.figures.next_token import share

ROW, BAR, NUMBERS = 0.3, 3.6, 2.0  # inches
TYPE, SMALL = 9.5, 8.5


@in_house_style
def draw_parameter_counts(counts: Mapping[str, int], n_layer: int, title: str | None = None) -> Figure:
    """A bar for each part of a model, with how many parameters it has in all layers together, and its share.

    Raises UsageError for no parts, or numbers below 0 or 0 in all.
    """
    total = sum(counts.values())
    if not counts or min(counts.values()) < 0 or not total:
        raise UsageError(f"parts have a number of parameters each, 0 or more and not all 0; got {dict(counts)}")
    left = max(text_width(name, TYPE) for name in counts) + 0.3
    width = left + BAR + NUMBERS
    caption = f"{total:,} parameters, each part's of all {n_layer} layers together."
    below = caption_room(caption, width)
    height = below + ROW * len(counts) + title_room(title)
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, below / height, (BAR + NUMBERS) / width, ROW * len(counts) / height))
    places, values = range(len(counts)), list(counts.values())
    axes.barh(places, values, height=0.7, color=CATEGORIES[0])
    inch = max(values) / BAR
    for place, value in zip(places, values, strict=True):
        words = f"{value:,}  ({share(value / total)})"
        axes.text(value + 0.06 * inch, place, words, size=TYPE - 0.5, va="center", gid="number")
    axes.set_yticks(places, list(counts), size=TYPE, parse_math=False)
    axes.set(xlim=(0, inch * (BAR + NUMBERS)), ylim=(len(counts) - 0.5, -0.5), xticks=[])
    axes.tick_params(length=0)
    axes.spines["bottom"].set_visible(False)
    write_margins(figure, title, caption)
    return figure


# --- Every parameter --------------------------------------------------------------------------------------------------

BODY, NARROWEST = 8.0, 4.0  # inches that the matrices of a row share, at most and at least
TALLEST, THINNEST, LARGEST = 1.3, 0.16, 0.12  # inches of a matrix, and of a number
APART, HEADING, BETWEEN = 0.16, 0.2, 0.16  # inches
MOST_NUMBERS = 128  # of a matrix's side; of a longer one as many are shown, evenly spaced
MOST_BANDS = 6
WITHIN = 99.0  # percent of a matrix's numbers that its scale of colours reaches to


@in_house_style
def draw_weights(bands: Mapping[str, Mapping[str, np.ndarray]], n_parameters: int, title: str | None = None) -> Figure:
    """Every number of a model's matrices as a colour about zero, a band of pictures for each layer.

    bands: name -> name of a matrix -> float array (inputs, outputs). A matrix's scale reaches to 99 % of its numbers
    and is written above it, where there is room. Of sides longer than 128 as many numbers are shown, and of more than 6
    bands the first. n_parameters: of the model in all. Raises UsageError for no matrices, or others.
    """
    drawn = {
        name: {key: _grid(value) for key, value in band.items()} for name, band in list(bands.items())[:MOST_BANDS]
    }
    if not drawn or not all(drawn.values()):
        raise UsageError(f"a picture of weights needs a matrix or more in each band; got {list(bands)}")
    sizes = {name: _sizes(band) for name, band in drawn.items()}
    tall = {name: max(up for _, up in band.values()) + HEADING for name, band in sizes.items()}
    left = max(text_width(shown_words(name), TYPE, "bold") for name in drawn) + 0.3
    body = max(sum(across for across, _ in band.values()) + APART * (len(band) - 1) for band in sizes.values())
    width = left + max(body, NARROWEST) + 0.2
    caption = _weights_caption(bands, drawn, n_parameters)
    below = caption_room(caption, width)
    height = below + sum(tall.values()) + BETWEEN * (len(tall) - 1) + title_room(title)
    figure = Figure(figsize=(width, height))
    top = height - title_room(title)
    for name, band in drawn.items():
        x, y = left, top - HEADING
        style: dict[str, Any] = {"size": TYPE, "weight": "bold", "ha": "right", "va": "top", "parse_math": False}
        figure.text((left - 0.12) / width, y / height, shown_words(name), **style)
        for key, grid in band.items():
            across, up = sizes[name][key]
            place = (x / width, (y - up) / height, across / width, up / height)
            room = across + APART / 2 if key != list(band)[-1] else width - x - 0.1
            _paint(figure.add_axes(place, gid=f"{name} {key}"), key, grid, room)
            x += across + APART
        top -= tall[name] + BETWEEN
    write_margins(figure, title, caption)
    return figure


def _grid(values: np.ndarray) -> np.ndarray:
    """A matrix of at most 128 numbers a side, evenly spaced ones of a larger one."""
    grid = np.asarray(values, dtype=np.float64)
    if grid.ndim != 2 or not grid.size or not np.isfinite(grid).all():
        raise UsageError(f"weights are finite numbers in two dimensions; got shape {np.shape(values)}")
    rows, columns = (np.linspace(0, n - 1, min(n, MOST_NUMBERS)).round().astype(int) for n in grid.shape)
    return grid[np.ix_(rows, columns)]


def _sizes(band: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    """Inches across and up of each matrix: a number is as large in all of a band, unless that were too thin to see."""
    room = BODY - APART * (len(band) - 1)
    across, up = sum(grid.shape[1] for grid in band.values()), max(len(grid) for grid in band.values())
    number = min(room / across, TALLEST / up, LARGEST)
    return {
        key: (max(number * grid.shape[1], THINNEST), max(number * len(grid), THINNEST)) for key, grid in band.items()
    }


def _paint(axes: Axes, name: str, grid: np.ndarray, room: float) -> None:
    limit = float(np.percentile(np.abs(grid), WITHIN)) or 1.0
    axes.imshow(grid, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, linewidth=0.5)
    named = shown_words(name)
    fits = [text for text in (f"{named} ±{limit:.2g}", named) if HINTING * text_width(text, SMALL) <= room]
    axes.set_title(fits[0] if fits else "", loc="left", size=SMALL, color=GREY, pad=2, parse_math=False)


def _weights_caption(
    bands: Mapping[str, Mapping[str, np.ndarray]], drawn: Mapping[str, Mapping[str, np.ndarray]], n_parameters: int
) -> str:
    total = sum(np.size(value) for band in bands.values() for value in band.values())
    seen = sum(grid.size for band in drawn.values() for grid in band.values())
    which = (
        f"All {total:,} numbers of the matrices" if seen == total else f"{seen:,} of {total:,} numbers, evenly spaced"
    )
    which += f" in the first {len(drawn)} of {len(bands)} bands" if len(drawn) < len(bands) else ""
    vectors = f" The other {n_parameters - total:,} parameters are norms and biases." if n_parameters > total else ""
    return (
        f"{which}: blue below zero, orange above, each matrix on a scale of its own. What goes in stands from top to "
        f"bottom, what comes out from left to right.{vectors}"
    )
