"""What tests of figures read off them: lines and texts by their names, and whether what is written stands apart."""

from __future__ import annotations

import itertools

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def lines(figure: Figure, gid: str) -> list:
    return [line for axes in figure.axes for line in axes.lines if line.get_gid() == gid]


def texts(figure: Figure, gid: str) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts if text.get_gid() == gid]


def caption(figure: Figure) -> str:
    """What is written at the foot, on one line."""
    return next(text.get_text() for text in figure.texts if text.get_gid() == "caption").replace("\n", " ")


def assert_writing_stands_apart_inside(figure: Figure) -> None:
    """No two texts of the figure overlap (titles, axes' names and numbers, labels, legends), and none is cut off."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [(artist.get_window_extent(renderer), artist) for artist in written(figure)]
    width, height = figure.get_size_inches() * figure.dpi
    for box, artist in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, f"{artist} is cut off"
    for (box, artist), (other_box, other) in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(other_box), f"{artist} overlaps {other}"


def written(figure: Figure) -> list[Artist]:
    found: list = [*figure.texts, *figure.legends]
    for axes in figure.axes:
        if not axes.get_visible():
            continue
        found += [axes.title, axes._left_title, axes._right_title, *axes.texts]
        if axes.axison:
            found += [label for axis in (axes.xaxis, axes.yaxis) for label in (axis.label, *tick_labels(axis))]
    return [one for one in found if one.get_visible() and (one in figure.legends or one.get_text().strip())]


def tick_labels(axis) -> list:
    """Those of places within the axis's limits, which are the ones that are drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]
