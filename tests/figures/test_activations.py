"""Activation curves: a panel for each with its value and slope, gaps where a slope jumps."""

from dataclasses import replace

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines, texts

from glassgpt.errors import UsageError
from glassgpt.evaluation.activations import activation_curves
from glassgpt.figures.activations import draw_activations, largest_difference

CURVES = activation_curves()
FIGURE = draw_activations(CURVES)


def test_each_function_is_drawn_with_its_slope():
    for name in CURVES.values:
        np.testing.assert_array_equal(lines(FIGURE, f"value {name}")[0].get_ydata(), CURVES.values[name])
        drawn = lines(FIGURE, f"slope {name}")[0].get_ydata()
        np.testing.assert_array_equal(drawn[~np.isnan(drawn)], CURVES.slopes[name])
    assert [axes.get_title(loc="left") for axes in FIGURE.axes] == [*CURVES.values, "gelu_tanh less gelu"]
    assert len(texts(FIGURE, "found-in")) == 8 and all(texts(FIGURE, "found-in"))
    assert lines(FIGURE, "value tanh")[0].get_linestyle() != lines(FIGURE, "slope tanh")[0].get_linestyle()


def test_a_slope_that_equals_its_function_is_seen_upon_it():
    for name in CURVES.values:
        assert lines(FIGURE, f"slope {name}")[0].get_zorder() > lines(FIGURE, f"value {name}")[0].get_zorder()


def test_only_a_slope_that_jumps_has_a_gap_and_it_is_at_0():
    for name in CURVES.values:
        line = lines(FIGURE, f"slope {name}")[0]
        gaps = np.flatnonzero(np.isnan(line.get_ydata()))
        assert len(gaps) == (name == "relu"), name
        for gap in gaps:
            left, right = line.get_xdata()[gap - 1], line.get_xdata()[gap + 1]
            assert left <= 0 < right and right - left < 0.02


def test_the_difference_of_the_two_gelus_is_drawn_in_thousandths_and_said():
    assert largest_difference(CURVES) == pytest.approx(0.00047, abs=1e-5)
    assert np.abs(lines(FIGURE, "difference")[0].get_ydata()).max() == pytest.approx(0.473, abs=1e-3)
    assert "off gelu by 0.0005 at most" in caption(FIGURE)


def test_what_is_written_stands_apart_inside():
    assert_writing_stands_apart_inside(FIGURE)
    assert_writing_stands_apart_inside(draw_activations(activation_curves(reach=12), "What bends a net"))


def test_some_functions_alone_can_be_drawn_and_no_function_is_refused():
    some = replace(CURVES, values={name: CURVES.values[name] for name in ("tanh", "gelu")})
    assert len(draw_activations(some).axes) == 2
    with pytest.raises(UsageError, match="a value and a slope"):
        draw_activations(replace(CURVES, values={}))
    with pytest.raises(UsageError, match="a value and a slope"):
        draw_activations(replace(CURVES, slopes={}))
