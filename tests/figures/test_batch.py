"""A batch: each target below its input, joined to the place where it is read."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines, texts

from glassgpt.errors import UsageError
from glassgpt.figures.batch import MOST_COLUMNS, MOST_ROWS, BatchRows, draw_batch


def batch(B=2, T=4, last_only=False, word="w"):
    tokens = [[f"{word}{row}.{place}" for place in range(T + 1)] for row in range(B)]
    return BatchRows((B, T), [row[:-1] for row in tokens], [row[1:] for row in tokens], last_only)


def test_each_target_stands_below_its_input_and_a_line_leads_to_where_it_is_read():
    figure = draw_batch(batch())
    axes = figure.axes[0]
    found = {text.get_text(): text for text in axes.texts if text.get_gid() == "input"}
    targets = [text for text in axes.texts if text.get_gid() == "target"]
    assert len(found) == len(targets) == 8
    joined = [np.array(line.get_data()) for line in lines(figure, "shift")]
    assert len(joined) == 2 * 3  # all but the last target, which no place reads
    ends = {(round(x, 6), round(u, 6)) for (x, u), _ in joined}
    for target in targets:
        if (again := found.get(target.get_text())) is not None:
            assert (round(again.get_position()[0], 6), round(target.get_position()[0], 6)) in ends
            assert target.get_position()[0] < again.get_position()[0]
            assert target.get_position()[1] < again.get_position()[1]


def test_of_a_large_batch_the_beginning_is_shown_and_said():
    figure = draw_batch(batch(8, 256))
    assert len(texts(figure, "input")) == MOST_ROWS * MOST_COLUMNS
    assert caption(figure).startswith(f"The first {MOST_ROWS} of 8 rows, the first {MOST_COLUMNS} of 256 tokens.")
    assert "8 × 256 = 2,048 answers" in caption(figure)
    assert "All 2 rows of 4 tokens." in caption(draw_batch(batch()))


def test_where_only_the_last_target_counts_it_alone_is_filled():
    figure = draw_batch(batch(last_only=True))
    colours = [text.get_color() for text in figure.axes[0].texts if text.get_gid() == "target"]
    assert len(set(colours)) == 2 and [colours.index(colour) for colour in colours[:4]] == [0, 0, 0, 3]
    assert "learns from 2 answers" in caption(figure)


@pytest.mark.parametrize("data", [batch(1, 1), batch(4, 9, word="$x$ <"), batch(3, 12, word="a very long token ")])
def test_what_is_written_stands_apart_inside(data):
    assert_writing_stands_apart_inside(draw_batch(data, "A batch"))


def test_rows_that_do_not_fit_are_refused():
    good = batch()
    for wrong in (
        BatchRows((2, 4), [], []),
        BatchRows((2, 4), good.inputs, good.targets[:1]),
        BatchRows((2, 3), good.inputs, good.targets),
        BatchRows((1, 4), good.inputs, good.targets),
    ):
        with pytest.raises(UsageError, match="a batch"):
            draw_batch(wrong)
