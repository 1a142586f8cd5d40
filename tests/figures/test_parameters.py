"""Parameters counted and shown: numbers that add up, and every one of them in its place."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, texts

from glassgpt.errors import UsageError
from glassgpt.figures.parameters import MOST_BANDS, MOST_NUMBERS, draw_parameter_counts, draw_weights

RNG = np.random.default_rng(0)
COUNTS = {"token embeddings": 600, "norms": 0, "into the MLP": 1_400}


def bands(n=2, rows=4, columns=6):
    return {
        f"layer {i}": {"in": RNG.normal(size=(rows, columns)), "out": RNG.normal(size=(columns, rows))}
        for i in range(n)
    }


def pictures(figure):
    return {axes.get_gid(): axes.images[0] for axes in figure.axes if axes.images}


def test_each_part_has_a_bar_as_long_as_its_number():
    figure = draw_parameter_counts(COUNTS, 4)
    axes = figure.axes[0]
    assert [patch.get_width() for patch in axes.patches] == [600, 0, 1_400]
    assert texts(figure, "number") == ["600  (30.0%)", "0  (0%)", "1,400  (70.0%)"]
    assert caption(figure).startswith("2,000 parameters")
    assert_writing_stands_apart_inside(draw_parameter_counts(COUNTS, 4, "Parameters"))


@pytest.mark.parametrize("counts", [{}, {"norms": 0}, {"norms": -1, "wte": 2}])
def test_numbers_that_are_none_are_refused(counts):
    with pytest.raises(UsageError, match="parts"):
        draw_parameter_counts(counts, 2)


def test_every_number_is_in_its_place_on_a_scale_about_zero():
    given = bands()
    figure = draw_weights(given, 100)
    found = pictures(figure)
    for band, matrices in given.items():
        for name, values in matrices.items():
            picture = found[f"{band} {name}"]
            np.testing.assert_array_equal(picture.get_array(), values)
            low, high = picture.get_clim()
            assert low == -high and np.mean(np.abs(values) <= high) >= 0.95
    assert "All 96 numbers" in caption(figure) and "other 4 parameters are norms and biases" in caption(figure)
    assert "norms" not in caption(draw_weights(given, 96))


def test_of_large_models_evenly_spaced_numbers_and_the_first_layers_are_shown_and_it_is_said():
    given = bands(8, 2, 255)
    figure = draw_weights(given, 8 * 4 * 255)
    found = pictures(figure)
    assert len(found) == 2 * MOST_BANDS
    np.testing.assert_array_equal(found["layer 0 in"].get_array(), given["layer 0"]["in"][:, ::2])
    seen = MOST_BANDS * 4 * MOST_NUMBERS
    assert f"{seen:,} of 8,160 numbers, evenly spaced in the first {MOST_BANDS} of 8 bands" in caption(figure)


@pytest.mark.parametrize("given", [bands(1, 2, 16), bands(4, 16, 48), bands(2, 128, 128), bands(1, 1, 1)])
def test_what_is_written_stands_apart_inside(given):
    assert_writing_stands_apart_inside(draw_weights(given, 10_000, "Weights"))


@pytest.mark.parametrize(
    "wrong", [{}, {"layer 0": {}}, {"layer 0": {"in": np.zeros(3)}}, {"layer 0": {"in": np.full((2, 2), np.nan)}}]
)
def test_what_is_no_matrix_is_refused(wrong):
    with pytest.raises(UsageError, match="weights"):
        draw_weights(wrong, 1)
