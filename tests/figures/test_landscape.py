"""The landscape's figure: contours of the grid, the path's shadow on it, and both losses of each step beside it."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines

from glassgpt.errors import UsageError
from glassgpt.evaluation.landscape import random_landscape, trajectory_landscape
from glassgpt.figures.landscape import draw_landscape, labelled, shown_levels, without_covered_levels

RNG = np.random.default_rng(0)


def valley(vector):
    return 0.3 + 0.02 * float(np.sum(np.asarray(vector) ** 2))


# Falls into the minimum, with some noise in every direction.
PATH = np.linspace(1, 0.1, 40)[:, None] * RNG.normal(size=6) * 3 + np.cumsum(0.2 * RNG.normal(size=(40, 6)), axis=0)
LAND = trajectory_landscape(PATH, valley, steps=range(0, 400, 10), size=15)
FIGURE = draw_landscape(LAND)


def filled(figure):
    return next(one for axes in figure.axes for one in axes.collections if one.get_gid() == "landscape")


def test_the_shadow_of_the_path_is_drawn_on_the_plane():
    np.testing.assert_array_equal(np.column_stack(lines(FIGURE, "path")[0].get_data()), LAND.path)
    names = [text.get_text() for text in FIGURE.axes[0].texts if text.get_gid() == "step"]
    assert names[0] == "step 0" and names[-1] == "step 390" and len(names) == 6


def test_both_losses_of_each_step_stand_beside_it_and_where_they_differ_most_is_said():
    np.testing.assert_array_equal(lines(FIGURE, "own")[0].get_ydata(), LAND.path_losses)
    np.testing.assert_array_equal(lines(FIGURE, "shadow")[0].get_ydata(), LAND.shadow_losses)
    assert lines(FIGURE, "own")[0].get_linestyle() != lines(FIGURE, "shadow")[0].get_linestyle()
    worst = int(np.abs(LAND.path_losses - LAND.shadow_losses).argmax())
    assert lines(FIGURE, "worst")[0].get_xdata()[0] == LAND.steps[worst]
    said = caption(FIGURE)
    assert f"at step {LAND.steps[worst]} the model's own loss is {LAND.path_losses[worst]:.3f}" in said
    assert f"holds {100 * LAND.explained.sum():.0f}% of the path's variance" in said
    assert f"it would hold {100 * LAND.random_walk:.0f}%" in said
    assert f"up to {LAND.off_plane.max():.2f} away" in said


def test_axes_say_how_much_of_the_variance_runs_along_them_and_distances_are_alike_on_both():
    axes = FIGURE.axes[0]
    assert f"first principal component ({100 * LAND.explained[0]:.0f}% of the variance)" in axes.get_xlabel()
    assert axes.get_aspect() == 1.0
    assert filled(FIGURE).get_cmap().name == "cividis"


def test_levels_span_the_losses_of_the_path_and_of_most_of_the_plane():
    levels = shown_levels(LAND)
    assert 6 <= len(levels) <= 25 and (np.diff(levels) > 0).all()
    assert levels[0] <= LAND.losses.min() < levels[1]
    assert levels[-1] >= max(LAND.path_losses.max(), np.quantile(LAND.losses, 0.9))


def test_losses_out_of_reach_and_infinite_ones_are_one_colour_and_do_not_flatten_the_rest():
    losses = LAND.losses.copy()
    losses[0, :] = 1e6
    losses[-1, -1] = np.inf
    levels = shown_levels(replace(LAND, losses=losses))
    assert levels[-1] < 10 * LAND.losses.max()
    assert filled(draw_landscape(replace(LAND, losses=losses))).extend == "max"


def test_numbers_of_contours_do_not_stand_under_the_names_of_steps():
    axes = Figure().add_subplot()
    for x, gid in ((0.2, "step"), (0.21, "level"), (0.9, "level")):
        axes.text(x, 0.5, "0.50", gid=gid)
    without_covered_levels(axes)
    assert [(text.get_gid(), text.get_position()[0]) for text in axes.texts] == [("step", 0.2), ("level", 0.9)]


def test_a_random_plane_shows_the_model_alone():
    land = random_landscape({"w": PATH[-1:]}, lambda state: valley(state["w"]), step=390, size=9)
    figure = draw_landscape(land, title="Around the end")
    assert not lines(figure, "own") and "random direction" in figure.axes[0].get_xlabel()
    assert f"the model, loss {land.path_losses[0]:.3f}" in [text.get_text() for text in figure.axes[0].texts]
    assert_writing_stands_apart_inside(figure)


def test_what_is_written_stands_apart_inside():
    assert_writing_stands_apart_inside(FIGURE)
    assert_writing_stands_apart_inside(draw_landscape(LAND, title="A landscape"))


def test_a_flat_landscape_can_be_drawn():
    flat = replace(LAND, losses=np.full((15, 15), 0.5), path_losses=np.full(40, 0.5), shadow_losses=np.full(40, 0.5))
    draw_landscape(flat)


def test_steps_that_are_named_are_few_and_have_both_ends():
    assert labelled(np.arange(51)) == [0, 10, 20, 30, 40, 50]
    assert labelled(np.array([7])) == [0]
    assert labelled(np.array([0, 1, 2, 100])) == [0, 2, 3]


def test_losses_that_do_not_fit_the_grid_are_refused():
    with pytest.raises(UsageError, match=r"\(15, 15\)"):
        draw_landscape(replace(LAND, losses=LAND.losses[1:]))
    with pytest.raises(UsageError, match="finite"):
        draw_landscape(replace(LAND, losses=np.full((15, 15), np.nan)))
