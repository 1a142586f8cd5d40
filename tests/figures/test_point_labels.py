"""Names beside points: apart where there is room, inside, near their own, and the same every time."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.figures.reading import assert_writing_stands_apart_inside

from glassgpt.figures.geometry import overlap
from glassgpt.figures.point_labels import label_points, place_beside

LOW, HIGH = np.zeros(2), np.array([5.0, 4.0])
SIZE = np.array([0.5, 0.14])


def pairs_that_overlap(centres, sizes):
    pairs = itertools.combinations(range(len(centres)), 2)
    return [(i, j) for i, j in pairs if overlap(centres[[i]], sizes[i], centres[j], sizes[j])[0]]


@pytest.mark.parametrize("seed", range(2))
def test_forty_names_find_room(seed):
    points = np.random.default_rng(seed).uniform(LOW, HIGH, (40, 2))
    sizes = np.tile(SIZE, (40, 1))
    centres = place_beside(points, sizes, LOW, HIGH)
    assert not pairs_that_overlap(centres, sizes)
    assert (centres - sizes / 2 >= LOW).all() and (centres + sizes / 2 <= HIGH).all()
    away = np.maximum(np.abs(centres - points) - sizes / 2, 0)
    assert np.linalg.norm(away, axis=1).max() <= 0.5
    covered = (np.abs(points[None] - centres[:, None]) < sizes / 2).all(axis=-1)
    assert covered.sum() <= 1


def test_points_in_one_place_get_their_names_around_it():
    sizes = np.tile(SIZE, (5, 1))
    centres = place_beside(np.full((5, 2), 2.0), sizes, LOW, HIGH)
    assert not pairs_that_overlap(centres, sizes)


def test_a_lone_point_has_its_name_at_its_right():
    [centre] = place_beside(np.array([[1.0, 1.0]]), SIZE[None], LOW, HIGH)
    assert centre == pytest.approx([1.0 + 0.05 + 0.25, 1.0])


def test_a_name_keeps_off_obstacles_and_within_the_edge():
    [centre] = place_beside(np.array([[1.0, 1.0]]), SIZE[None], LOW, HIGH, obstacles=np.array([[1.3, 1.0]]))
    assert not (np.abs(centre - [1.3, 1.0]) < SIZE / 2).all()
    [centre] = place_beside(np.array([[4.9, 3.98]]), SIZE[None], LOW, HIGH)
    assert (centre + SIZE / 2 <= HIGH).all()


def test_no_points_have_no_names():
    assert place_beside(np.empty((0, 2)), np.empty((0, 2)), LOW, HIGH).shape == (0, 2)


def test_names_are_written_as_plain_text_where_they_do_not_cover_each_other():
    figure = Figure(figsize=(5, 4))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 10), ylim=(0, 8))
    axes.set_axis_off()
    points = np.random.default_rng(2).uniform([1, 1], [9, 7], (25, 2))
    names = [f"word{i}" for i in range(23)] + ["$x^2$", "␣a"]
    label_points(axes, points, names)
    assert [text.get_text() for text in axes.texts] == names
    assert not any(text.get_parse_math() for text in axes.texts)
    assert_writing_stands_apart_inside(figure)
