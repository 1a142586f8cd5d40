"""The ladder's figure: a bar for each rung, lines for yardsticks, texts that stand apart."""

import itertools

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glassgpt.errors import UsageError
from glassgpt.figures.ladder import LadderRow, counted, draw_ladder

ROWS = [
    LadderRow("unigram", 0, 4.83, 65, 0.05),
    LadderRow("6-gram", 5, 2.25, 459_128, 0.71),
    LadderRow("GRU", 64, 2.23, 165_313, 101.5),
    LadderRow("GPT", 64, 2.41, 345_504, 229.3),
]
YARDSTICKS = {"uniform over bytes": 8.0, "byte trigram": 2.95, "gzip": 3.10, "bz2": 2.40, "xz": 2.52}


def texts(figure, gid):
    return [text for text in figure.axes[0].texts if text.get_gid() == gid]


def test_a_bar_is_as_long_as_its_bits_and_the_best_is_told_apart():
    figure = draw_ladder(ROWS, YARDSTICKS)
    bars = figure.axes[0].patches
    assert [bar.get_width() for bar in bars] == [4.83, 2.25, 2.23, 2.41]
    assert len({bar.get_facecolor() for bar in bars}) == 2
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["unigram", "6-gram", "GRU", "GPT"]


def test_the_numbers_stand_beside_the_bars():
    numbers = [text.get_text() for text in texts(draw_ladder(ROWS), "number")]
    assert numbers[:5] == ["bits", "4.83", "2.25", "2.23", "2.41"]
    assert numbers[10:] == ["numbers", "65", "459k", "165k", "346k", "seconds", "0.05", "0.71", "102", "229"]


def test_a_yardstick_is_a_line_and_one_far_beyond_is_named_at_the_foot():
    figure = draw_ladder(ROWS, YARDSTICKS, "title")
    lines = [line for line in figure.axes[0].lines if line.get_gid() == "yardstick"]
    assert [line.get_xdata()[0] for line in lines] == [2.95, 3.10, 2.40, 2.52]
    assert texts(figure, "yardstick-label")[0].get_text() == "byte trigram 2.95"
    assert "beyond the right edge: uniform over bytes 8.00" in [text.get_text() for text in figure.texts]


def test_all_that_is_written_is_inside_and_apart():
    figure = draw_ladder(ROWS, YARDSTICKS, "What each step of history bought")
    renderer = FigureCanvasAgg(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    numbers = [text.get_window_extent(renderer) for text in texts(figure, "number")]
    assert not any(one.padded(-1).overlaps(other) for one, other in itertools.combinations(numbers, 2))
    written = numbers + [
        text.get_window_extent(renderer) for text in [*texts(figure, "yardstick-label"), *figure.texts]
    ]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height for box in written)


def test_one_rung_without_yardsticks_is_a_ladder():
    FigureCanvasAgg(draw_ladder(ROWS[:1])).draw()


@pytest.mark.parametrize(("n", "text"), [(0, "0"), (999, "999"), (1000, "1.0k"), (99_999, "100.0k"), (124e6, "124M")])
def test_counts_are_short(n, text):
    assert counted(int(n)) == text


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(UsageError, match="at least one rung"):
        draw_ladder([])
    with pytest.raises(UsageError, match="inf"):
        draw_ladder([LadderRow("unsmoothed", 5, float("inf"), 3, 0.1)])
