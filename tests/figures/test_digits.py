"""The digits' figures: bars are the probabilities, mistakes are named, each digit is its own marker."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines, texts

from glassgpt.errors import UsageError
from glassgpt.evaluation.digits import Answers, Blurred, DigitMap, Examples
from glassgpt.evaluation.intervals import wilson
from glassgpt.figures.digits import INKS, draw_blurred_digit, draw_digit_answers, draw_digit_map, named_digits

RNG = np.random.default_rng(0)


def answers(labels, likeliest):
    probabilities = np.full((len(labels), 10), 0.01)
    probabilities[np.arange(len(labels)), likeliest] = 0.91
    return Answers(RNG.random((len(labels), 8, 8)), np.array(labels, dtype=int), probabilities)


FOUND = Examples(answers(range(10), range(10)), answers([3, 8, 2], [5, 2, 1]), 11, wilson(489, 500), 500, 1297, 2410)
WIDTHS = np.linspace(0, 2, 21)
SURE = np.array([np.interp(WIDTHS, [0, 1, 2], line) for line in ([0.9, 0.3, 0.1], [0.05, 0.6, 0.2], [0.0, 0.05, 0.65])])
PROBABILITIES = np.zeros((21, 10))
PROBABILITIES[:, [2, 8, 4]] = SURE.T
PROBABILITIES[:, 0] = 1 - SURE.sum(axis=0)
BLURRED = Blurred(2, WIDTHS, RNG.random((21, 8, 8)), PROBABILITIES)
LABELS = np.repeat(np.arange(10), 20)
ANSWERS = np.where(np.arange(200) == 45, 7, LABELS)
FLAT = np.zeros(32), np.eye(2, 32)  # the mean and the axes, which are not drawn
MAP = DigitMap(RNG.normal(size=(200, 2)) + LABELS[:, None], LABELS, ANSWERS, np.array([0.31, 0.19]), *FLAT)


def test_each_digit_stands_beside_the_probabilities_of_its_answers():
    figure = draw_digit_answers(FOUND)
    images = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(images, np.concatenate([FOUND.typical.images, FOUND.misread.images]))
    bars = [[bar.get_height() for bar in axes.patches] for axes in figure.axes if not axes.images]
    np.testing.assert_array_equal(bars, np.concatenate([FOUND.typical.probabilities, FOUND.misread.probabilities]))


def test_an_answer_that_is_wrong_says_what_the_digit_is():
    figure = draw_digit_answers(FOUND)
    said = texts(figure, "answer")
    assert said[0] == "0: 91%" and said[9] == "9: 91%"
    assert said[10:] == ["5: 91%, is 3", "2: 91%, is 8", "1: 91%, is 2"]
    headings = [text.get_text() for text in figure.texts if text.get_gid() == "heading"]
    assert headings == ["the first example of each digit", "misread: 3 of 11, the surest first"]
    assert "Of 500 it reads 97.8% right (95% interval 96.1% to 98.8%)" in caption(figure)


def test_a_net_that_misreads_nothing_has_one_group():
    perfect = Examples(FOUND.typical, answers([], []), 0, wilson(500, 500), 500, 1297, 2410)
    assert len([text for text in draw_digit_answers(perfect).texts if text.get_gid() == "heading"]) == 1


def test_every_answer_s_probability_is_a_line_and_those_that_matter_are_named():
    figure = draw_blurred_digit(BLURRED)
    for digit in range(10):
        np.testing.assert_array_equal(lines(figure, f"digit {digit}")[0].get_ydata(), PROBABILITIES[:, digit])
    assert named_digits(PROBABILITIES) == [2, 4, 8]
    assert texts(figure, "digit-name") == ["2", "4", "8"]
    dashes = {lines(figure, f"digit {digit}")[0].get_linestyle() for digit in (2, 4, 8)}
    assert len(dashes) == 3


def test_pictures_stand_above_their_widths_and_say_the_likeliest_answer():
    figure = draw_blurred_digit(BLURRED)
    pictures = [axes for axes in figure.axes if axes.images]
    np.testing.assert_array_equal(pictures[0].images[0].get_array(), BLURRED.images[0])
    assert pictures[0].get_title() == "2: 90%" and pictures[-1].get_title() == "4: 65%"
    graph = figure.axes[0].get_position()
    middles = [(axes.get_position().x0 + axes.get_position().x1) / 2 for axes in pictures]
    np.testing.assert_allclose((middles[0], middles[-1]), (graph.x0, graph.x1), atol=1e-9)


def test_the_caption_says_where_the_answer_turns():
    turns = [
        width
        for width, a, b in zip(WIDTHS[1:], PROBABILITIES, PROBABILITIES[1:], strict=False)
        if a.argmax() != b.argmax()
    ]
    said = caption(draw_blurred_digit(BLURRED))
    assert (
        f"The likeliest answer is 2, then 8 from {turns[0]:.2f} pixels on and 4 from {turns[1]:.2f} pixels on" in said
    )
    assert "still the net gives 65%" in said
    steady = Blurred(2, WIDTHS, BLURRED.images, np.tile(PROBABILITIES[:1], (21, 1)))
    assert "stays 2 throughout" in caption(draw_blurred_digit(steady))


def test_each_digit_of_the_map_is_its_own_marker_where_it_belongs():
    figure = draw_digit_map(MAP)
    axes = figure.axes[0]
    clouds = {cloud.get_gid(): cloud for cloud in axes.collections}
    shapes = []
    for digit in range(10):
        mine = MAP.places[20 * digit : 20 * digit + 20]
        np.testing.assert_array_equal(clouds[f"digit {digit}"].get_offsets(), mine)
        shapes.append(clouds[f"digit {digit}"].get_paths()[0].vertices.tobytes())
    assert len(set(shapes)) == len(set(INKS)) == 10
    assert axes.get_aspect() == 1.0
    assert "31% of the variance" in axes.get_xlabel() and "19% of the variance" in axes.get_ylabel()
    assert "holds 50% of their variance" in caption(figure) and "32 activations" in caption(figure)


def test_what_is_misread_has_a_ring_and_its_answer():
    figure = draw_digit_map(MAP)
    rings = next(cloud for cloud in figure.axes[0].collections if cloud.get_gid() == "misread")
    np.testing.assert_array_equal(rings.get_offsets(), MAP.places[[45]])
    assert texts(figure, "answer") == ["→7"]
    assert "the 1 that are misread" not in caption(figure) and "the one that is misread" in caption(figure)


def test_what_is_written_stands_apart_inside():
    for figure in (
        draw_digit_answers(FOUND, "Digits"),
        draw_blurred_digit(BLURRED, "Blur"),
        draw_digit_map(MAP, "Map"),
    ):
        assert_writing_stands_apart_inside(figure)


def test_no_digit_is_refused():
    with pytest.raises(UsageError, match="no digit to show"):
        draw_digit_answers(Examples(answers([], []), answers([], []), 0, wilson(1, 1), 1, 1, 1))
    with pytest.raises(UsageError, match="no digit to show"):
        draw_digit_map(DigitMap(np.zeros((0, 2)), LABELS[:0], LABELS[:0], np.array([0.5, 0.1]), *FLAT))
