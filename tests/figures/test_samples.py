"""What a model wrote as it was trained: steps, texts as texts, and bits per byte where there are any."""

import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.samples import MOST, TrainingSample, draw_samples

ROWS = [
    TrainingSample(0, "\x07 $x$ <b>\n\u202e 🜏", 8.0),
    TrainingSample(1_000, "Mira has a lamp. " * 40, 0.5),
    TrainingSample(2_000, "", None),
]


def test_each_step_has_its_text_and_how_good_the_model_was():
    figure = draw_samples(ROWS)
    assert texts(figure, "step") == ["0", "1,000", "2,000"] and texts(figure, "bits") == ["8.000", "0.500"]
    said = texts(figure, "text")
    assert said[0].startswith("\\x07 $x$ <b>↵") and said[-1] == "∅"
    assert "Bits per byte" in caption(figure) and "Bits per byte" not in caption(draw_samples(ROWS[2:]))


def test_of_a_long_text_the_beginning_is_shown():
    said = " ".join(texts(draw_samples(ROWS[1:2]), "text"))
    assert said.endswith("…") and ROWS[1].text.startswith(said[:-1]) and MOST - 10 < len(said) <= MOST


@pytest.mark.parametrize("title", [None, "Better and better"])
def test_what_is_written_stands_apart_inside(title):
    assert_writing_stands_apart_inside(draw_samples(ROWS, title))


def test_no_samples_are_refused():
    with pytest.raises(UsageError, match="at least one"):
        draw_samples([])
