"""Captions: broken between words within the figure, and as high as was reckoned."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tests.figures.reading import caption

from glassgpt.figures.margins import caption_room, title_room, write_margins

TEXT = "What is to be seen: a $curve$ {that} bends, and $\\frac$ stays as it is written. " * 4


@pytest.mark.parametrize("width", [3.0, 7.5, 12.0])
def test_a_caption_fits_into_its_room_whatever_the_width(width):
    height = caption_room(TEXT, width) + title_room("title") + 1
    figure = Figure(figsize=(width, height))
    write_margins(figure, "$title", TEXT)
    renderer = FigureCanvasAgg(figure).get_renderer()
    title, foot = (text.get_window_extent(renderer) for text in figure.texts)
    assert foot.x0 >= 0 and foot.x1 <= width * figure.dpi
    assert foot.y0 >= 0 and foot.y1 <= caption_room(TEXT, width) * figure.dpi
    assert title.y0 >= (height - title_room("title")) * figure.dpi
    assert caption(figure) == " ".join(TEXT.split())


def test_no_title_and_no_caption_take_little_room():
    assert title_room(None) < title_room("x") and caption_room("", 5.0) < caption_room("x", 5.0)
    figure = Figure()
    write_margins(figure, None, "")
    assert [text.get_text() for text in figure.texts] == [""]
