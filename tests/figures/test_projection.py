"""Views of many dimensions: against scikit-learn, and against what is known of random directions."""

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.figures.projection import honesty, principal_projection, random_projection

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(30, 12)) * np.linspace(3, 0.5, 12) + 5


def test_the_principal_view_is_scikit_learns():
    decomposition = pytest.importorskip("sklearn.decomposition")
    theirs = decomposition.PCA(3).fit(POINTS)
    ours = principal_projection(POINTS, 3)
    np.testing.assert_allclose(np.abs(np.sum(ours.axes * theirs.components_, axis=1)), 1.0)
    np.testing.assert_allclose(np.abs(ours(POINTS)), np.abs(theirs.transform(POINTS)), atol=1e-9)
    np.testing.assert_allclose(ours.kept(POINTS), theirs.explained_variance_ratio_)


def test_a_principal_axis_points_where_its_largest_number_is_positive():
    for points in (POINTS, -POINTS):
        axes = principal_projection(points).axes
        assert (axes[np.arange(2), np.abs(axes).argmax(axis=1)] > 0).all()


def test_other_points_are_seen_by_the_same_axes():
    view = principal_projection(POINTS)
    other = RNG.normal(size=(4, 5, 12))
    np.testing.assert_allclose(view(other), (other - POINTS.mean(axis=0)) @ view.axes.T)


def test_all_axes_keep_everything():
    assert principal_projection(POINTS, 12).kept(POINTS).sum() == pytest.approx(1.0)


def test_random_axes_are_orthonormal_and_follow_the_seed():
    first, again, other = (random_projection(POINTS, 3, seed).axes for seed in (1, 1, 2))
    np.testing.assert_allclose(first @ first.T, np.eye(3), atol=1e-12)
    assert np.array_equal(first, again) and not np.allclose(first, other)


def test_a_random_view_keeps_its_share_of_the_dimensions():
    """Its expectation is d / C, whatever the points; DRAWS draws of these come near it."""
    points = np.random.default_rng(1).normal(size=(100, 60))
    assert honesty(points, principal_projection(points)).random == pytest.approx(2 / 60, rel=0.1)


def test_points_without_a_pattern_keep_no_more_than_their_shuffled_selves():
    points = np.random.default_rng(1).normal(size=(40, 60))
    found = honesty(points, principal_projection(points))
    assert found.kept == pytest.approx(found.shuffled, rel=0.15)
    assert found.kept > 2 * found.random


def test_a_pattern_keeps_far_more_than_its_shuffled_self():
    plane = RNG.normal(size=(40, 2)) @ RNG.normal(size=(2, 60))
    found = honesty(plane, principal_projection(plane))
    assert found.kept == pytest.approx(1.0) and found.shuffled < 0.3 and found.random < 0.1


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (POINTS[:2], "3 points"),
        (np.repeat(POINTS[:2], 4, axis=0), "3 points"),
        (np.ones((5, 4)), "all points are the same"),
        (np.full((5, 4), np.nan), "finite"),
        (POINTS[0], "shape"),
        (POINTS[:, :1], "3 points"),
    ],
)
def test_points_that_show_nothing_are_refused(points, message):
    with pytest.raises(UsageError, match=message):
        principal_projection(points)
