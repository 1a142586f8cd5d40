"""Curves: what is drawn, what is said instead, and that labels stand apart."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from glassgpt.errors import UsageError
from glassgpt.figures.curves import (
    draw_loss_curve,
    draw_probabilities_over_training,
    draw_red_over_steps,
    draw_red_over_training,
    draw_training_curves,
    power_of_ten,
    spread,
)


def lines(figure, name):
    return [line for line in figure.axes[0].lines if (line.get_gid() or "").startswith(name)]


def end_labels(figure):
    return [text for text in figure.axes[0].texts if text.get_gid() == "end-label"]


def assert_labels_stand_apart_inside(figure):
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = [text.get_window_extent(renderer) for text in end_labels(figure)]
    assert found
    assert all(box.x1 <= figure.get_figwidth() * figure.dpi for box in found)
    assert not any(one.padded(-1).overlaps(other) for one, other in itertools.combinations(found, 2))


def test_spread_keeps_the_order_and_the_gap():
    places = spread([0.5, 0.5, 0.5, 0.1, 1.0], gap=0.2, low=0.0, high=1.0)
    assert np.diff(np.sort(places)).min() >= 0.2 - 1e-9
    assert places.min() >= 0 and places.max() <= 1 + 1e-9
    assert np.argmin(places) == 3 and np.argmax(places) == 4


def test_spread_shrinks_the_gap_when_there_is_no_room():
    assert spread([0.5] * 5, gap=1.0, low=0.0, high=1.0) == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_yardsticks_are_named_with_their_value():
    figure = draw_loss_curve([0.9, 0.5, 0.36], {"entropy of the data": 0.347, "uniform": 0.693}, "loss")
    assert [text.get_text() for text in end_labels(figure)] == [
        "loss 0.360",
        "entropy of the data 0.347",
        "uniform 0.693",
    ]
    assert lines(figure, "loss")[0].get_ydata().tolist() == [0.9, 0.5, 0.36]
    assert_labels_stand_apart_inside(figure)


def test_a_loss_that_is_not_finite_is_refused_with_its_step():
    with pytest.raises(UsageError, match="nan at step 1"):
        draw_loss_curve([0.9, np.nan])
    with pytest.raises(UsageError, match="at least one"):
        draw_loss_curve([])


def test_probabilities_far_below_the_smallest_float_are_drawn():
    figure = draw_red_over_steps([1, 10, 100], [-3000.0, -2999.0, -2998.0])
    assert lines(figure, "line-0")[0].get_ydata().tolist() == [-3000, -2999, -2998]
    assert figure.axes[0].yaxis.get_major_formatter()(-3000.0, 0) == "$10^{-3000}$"
    FigureCanvasAgg(figure).draw()


@pytest.mark.parametrize(
    ("exponent", "text"), [(0.0, "1"), (-1.0, "0.1"), (-3.0, "$10^{-3}$"), (-0.5, "0.316"), (-9.25, "$10^{-9.25}$")]
)
def test_powers_of_ten_are_spelled(exponent, text):
    assert power_of_ten(exponent) == text


def test_exactly_zero_is_not_drawn_but_said():
    figure = draw_red_over_steps([1, 2, 3], [-np.inf, -np.inf, -0.5], [0.0, 0.0, np.log10(0.7)])
    assert np.isfinite(lines(figure, "line-0")[0].get_ydata()).tolist() == [False, False, True]
    assert "red reached: exactly zero at 2 points from n = 1 to 2 (not drawn)" in [t.get_text() for t in figure.texts]
    assert_labels_stand_apart_inside(figure)


def test_zero_everywhere_gives_an_empty_picture_that_says_so():
    figure = draw_red_over_steps([1, 2, 3], [-np.inf] * 3)
    assert "exactly zero everywhere" in [text.get_text() for text in figure.axes[0].texts]
    FigureCanvasAgg(figure).draw()


def test_a_line_that_ends_at_zero_is_labelled_zero():
    figure = draw_red_over_training([0, 10, 20], {"within 10": [-1, -2, -np.inf], "within 100": [-1, -1, -1]})
    assert [text.get_text() for text in end_labels(figure)] == ["within 10: 0", "within 100"]
    assert len(lines(figure, "fall")) == 1
    assert_labels_stand_apart_inside(figure)


@pytest.mark.parametrize("wrong", [[0.5, 0.1], [np.nan, -1.0], [-1.0]])
def test_values_that_are_no_logarithms_of_probabilities_are_refused(wrong):
    with pytest.raises(UsageError, match="red"):
        draw_red_over_training([0, 1], {"red": wrong})


def test_many_lines_have_labels_that_stand_apart():
    labels = [f"{i:04b} → 1" for i in range(16)]
    figure = draw_probabilities_over_training(range(5), np.full((5, 16), 0.5), labels)
    assert end_labels(figure)[0].get_text() == "0000 → 1  50%"
    assert len(lines(figure, "line-")) == 16
    assert_labels_stand_apart_inside(figure)


def test_probabilities_of_another_shape_or_above_one_are_refused():
    with pytest.raises(UsageError, match=r"\(3, 1\).*got \(3, 2\)"):
        draw_probabilities_over_training(range(3), np.zeros((3, 2)), ["a"])
    with pytest.raises(UsageError, match="between 0 and 1"):
        draw_probabilities_over_training(range(3), np.full((3, 1), 1.5), ["a"])


def test_training_curves_stand_in_bits_per_byte_beside_what_counts_and_compresses():
    nats = np.array([4.0, 2.0, 1.0]) * np.log(2)  # two bytes a token: half of that in bits per byte
    figure = draw_training_curves(nats, {0: 2.1, 3: 0.6}, {"uniform": 8.0, "xz": 0.9}, bytes_per_token=2.0)
    assert lines(figure, "raw")[0].get_ydata() == pytest.approx([2.0, 1.0, 0.5])
    assert lines(figure, "validation")[0].get_xdata().tolist() == [0, 3]
    assert [line.get_ydata()[0] for line in lines(figure, "yardstick")] == [0.9]
    assert "above the upper edge: uniform 8.00" in [text.get_text() for text in figure.texts]
    assert "validation 0.600" in [text.get_text() for text in end_labels(figure)]
    assert_labels_stand_apart_inside(figure)


def test_training_curves_without_validation_are_refused():
    with pytest.raises(UsageError, match="validation"):
        draw_training_curves([1.0], {}, {}, bytes_per_token=1.0)
    with pytest.raises(UsageError, match="finite"):
        draw_training_curves([np.inf], {1: 1.0}, {}, bytes_per_token=1.0)


LOGS = [-2.0, -1.0]
FIGURES = {
    "How surprised the model is": draw_loss_curve([0.7, 0.5], {"uniform": 0.69}),
    "text that was kept back": draw_training_curves([0.7, 0.5], {0: 1.0}, {"xz": 9.0}, bytes_per_token=1.0),
    "has met red by then": draw_red_over_steps([1, 2], LOGS),
    "How likely red is": draw_red_over_training([0, 10], {"within 10 tokens": LOGS}),
    "one next token after each context": draw_probabilities_over_training([0, 10], np.full((2, 1), 0.5), ["1 → 0"]),
}


@pytest.mark.parametrize("words", FIGURES)
def test_a_caption_says_what_is_to_be_seen_and_has_room(words):
    figure = FIGURES[words]
    assert words in " ".join(text.get_text() for text in figure.texts)
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in [*figure.texts, figure.axes[0].xaxis.label]]
    assert all(box.x0 >= 0 and box.x1 <= figure.get_figwidth() * figure.dpi for box in boxes)
    assert not any(one.padded(-1).overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_points_at_the_ends_of_training_are_drawn_whole():
    figure = draw_training_curves([0.7, 0.5], {0: 1.0, 2: 0.5}, {}, bytes_per_token=1.0)
    assert not lines(figure, "validation")[0].get_clip_on()
