"""Decision regions: each point lies in the region of its code, borders where the output changes its answer."""

import numpy as np
import pytest
from tests.figures.reading import assert_writing_stands_apart_inside, caption, lines, texts

from glassgpt.errors import UsageError
from glassgpt.evaluation.attractors import AttractorNets, TrainedNet, nearest_code
from glassgpt.figures.attractors import HATCHES, TINTS, draw_attractors

PLACES = np.linspace(-1, 1, 41)
POINTS = np.array([[-0.6, -0.5], [0.65, -0.35], [-0.05, 0.7]])
GRID = np.stack(np.meshgrid(PLACES, PLACES), axis=-1)
NEAREST = nearest_code(GRID, POINTS)


def net(hidden, n_parameters, outputs, right):
    return TrainedNet(hidden, n_parameters, outputs, right, loss=0.0)


NETS = (
    net((2, 2), 15, 40 * GRID[..., 1], 0.5),  # far beyond the codes
    net((1,), 5, GRID[..., 0], 0.671),  # -1 left of -0.5, +1 right of 0.5
    net((8,), 33, np.full((41, 41), 0.2), 1 / 3),  # 0 everywhere
)
FOUND = AttractorNets(POINTS, PLACES, NEAREST, NETS, n_examples=1000, starts=2)
FIGURE = draw_attractors(FOUND)


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def regions(axes, name):
    """Of what was filled in one call, the outlines by colour, hatch and order."""
    filled = next(collection for collection in axes.collections if collection.get_gid() == f"regions {name}")
    return filled.get_paths(), filled.get_facecolor()


def test_the_true_regions_hold_their_points_and_are_told_apart_by_colour_hatch_and_name():
    truth = panel(FIGURE, "the nearest point")
    for i, name in enumerate(("−1", "0", "+1")):
        (path,), _ = regions(truth, name)
        inside = path.contains_points(GRID.reshape(-1, 2) * 0.999)
        is_nearest = NEAREST.ravel() == i - 1
        assert is_nearest[inside].mean() > 0.98 and inside.sum() > 0.97 * is_nearest.sum()
        assert path.contains_point(POINTS[i]) and not path.contains_point(POINTS[i - 1])
    assert len(set(TINTS)) == len(set(HATCHES)) == 3
    assert [text.get_text() for text in truth.texts if text.get_gid() == "code"] == ["−1", "0", "+1"]


def test_a_net_s_regions_end_where_its_output_is_half_way_between_codes():
    paths, colours = regions(panel(FIGURE, "1 unit"), "−1 0 +1")
    assert len(paths) == len(colours) == 3
    edges = [(path.vertices[:, 0].min(), path.vertices[:, 0].max()) for path in paths]
    np.testing.assert_allclose(edges, [(-1, -0.5), (-0.5, 0.5), (0.5, 1)], atol=1e-9)
    only_zero, _ = regions(panel(FIGURE, "8 units"), "−1 0 +1")
    assert [len(path.vertices) > 0 for path in only_zero] == [False, True, False]


def test_each_net_says_its_parameters_and_how_much_is_right():
    assert texts(FIGURE, "numbers") == ["5 parameters: 67.1%", "33 parameters: 33.3%", "15 parameters: 50.0%"]
    assert panel(FIGURE, "2 + 2 units").get_ylabel() == "2 hidden layers"
    assert "1,000 examples" in caption(FIGURE) and "Of 2 trainings" in caption(FIGURE)


def test_what_is_right_stands_against_the_parameters_by_depth():
    (one,) = lines(FIGURE, "shares 1")
    assert one.get_xdata().tolist() == [5, 33]
    np.testing.assert_allclose(one.get_ydata(), [67.1, 100 / 3])
    assert lines(FIGURE, "shares 2")[0].get_marker() != one.get_marker()


def test_what_is_written_stands_apart_inside():
    assert_writing_stands_apart_inside(FIGURE)
    many = [net((8,) * depth, 177, np.zeros((41, 41)), 1.0) for depth in (1, 2, 3) for _ in range(4)]
    assert_writing_stands_apart_inside(
        draw_attractors(AttractorNets(POINTS, PLACES, NEAREST, tuple(many), 10, 1), title="Nets of growing sizes")
    )


def test_a_net_without_hidden_layers_is_drawn_and_no_net_is_refused():
    linear = AttractorNets(POINTS, PLACES, NEAREST, (net((), 3, GRID[..., 0], 0.4),), 10, 1)
    assert panel(draw_attractors(linear), "no units").get_ylabel() == "no hidden layer"
    with pytest.raises(UsageError, match="no net to draw"):
        draw_attractors(AttractorNets(POINTS, PLACES, NEAREST, (), 10, 1))
