"""Three attractors: the right answer by a search tree, and nets that learn as much of it as their size allows."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from glassgpt.errors import UsageError
from glassgpt.evaluation.attractors import POINTS, answer, attractor_nets, nearest_code

FOUND = attractor_nets([(), (1,), (3, 3)], n_examples=300, starts=2, steps=80, places=61)


def test_the_right_code_is_that_of_the_nearest_point():
    x, y = np.meshgrid(FOUND.places, FOUND.places)
    _, index = cKDTree(np.array(POINTS)).query(np.column_stack([x.ravel(), y.ravel()]))
    np.testing.assert_array_equal(FOUND.nearest, (index - 1).reshape(61, 61))
    assert nearest_code(np.array(POINTS), np.array(POINTS)).tolist() == [-1, 0, 1]


def test_the_net_answers_with_the_nearest_code():
    outputs = np.linspace(-3, 3, 600)
    by_distance = np.array([-1, 0, 1])[np.abs(outputs[:, None] - [-1, 0, 1]).argmin(axis=1)]
    np.testing.assert_array_equal(answer(outputs), by_distance)


def test_a_net_without_a_hidden_layer_is_the_plane_through_the_codes():
    x, y = np.meshgrid(FOUND.places, FOUND.places)
    examples = np.random.default_rng(0).uniform(-1, 1, (300, 2))
    columns = np.column_stack([examples, np.ones(300)])
    plane = np.linalg.lstsq(columns, nearest_code(examples, np.array(POINTS)), rcond=None)[0]
    linear = FOUND.nets[0]
    assert linear.n_parameters == 3
    np.testing.assert_allclose(linear.outputs, plane[0] * x + plane[1] * y + plane[2], atol=1e-4)


def test_what_is_right_is_counted_over_the_square_and_grows_with_the_net():
    for net in FOUND.nets:
        assert net.outputs.shape == (61, 61)
        codes = np.array([-1, 0, 1])[np.abs(net.outputs[..., None] - [-1, 0, 1]).argmin(axis=-1)]
        assert net.right == pytest.approx((codes == FOUND.nearest).sum() / 61**2)
    linear, one, six = FOUND.nets
    assert one.n_parameters == 5 and six.n_parameters == 25
    assert linear.right < 0.75 and one.right < 0.75 and six.right > 0.9
    assert six.loss < 0.3 * min(linear.loss, one.loss)


def test_the_same_seed_gives_the_same_nets_and_more_starts_are_never_worse():
    one, same = (attractor_nets([(2,)], n_examples=100, starts=1, steps=30, places=11) for _ in range(2))
    np.testing.assert_array_equal(one.nets[0].outputs, same.nets[0].outputs)
    losses = [attractor_nets([(2,)], n_examples=100, starts=n, steps=30, places=11).nets[0].loss for n in (1, 3)]
    assert losses[1] <= losses[0]


@pytest.mark.parametrize(
    ("points", "settings", "message"),
    [
        ([(0, 0), (1, 1)], {}, "three different"),
        ([(0, 0), (1, 1), (1, 1)], {}, "three different"),
        ([(0, 0), (1, 1), (2, 0)], {}, "three different"),
        ([(0, 0), (1, 1), (np.nan, 0)], {}, "three different"),
        (POINTS, {"starts": 0}, "1 or more"),
        (POINTS, {"places": 1}, "2 or more"),
    ],
)
def test_what_is_no_task_is_refused(points, settings, message):
    with pytest.raises(UsageError, match=message):
        attractor_nets([(1,)], points, **settings)
