"""Loss landscapes: planes that scikit-learn finds too, losses known in closed form, and the baby GPT's own path."""

from itertools import pairwise

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.evaluation.landscape import (
    loss_of,
    next_token_loss,
    parameters_of,
    principal_plane,
    random_landscape,
    random_plane,
    random_walk_share,
    trajectory_landscape,
)
from glassgpt.models.gpt_array import language_model_loss
from glassgpt.models.gpt_torch import GPT
from glassgpt.weights.tensors import tensors_of

RNG = np.random.default_rng(0)
LENGTHS = np.array([1.0, 2.0, 0.5, 3.0, 1.0])


def valley(vector):
    """A quadratic loss with its minimum 0.5 at (1, 2, 3, 4, 5)."""
    return 0.5 + float(np.sum(LENGTHS * (np.asarray(vector) - np.arange(1, 6)) ** 2))


def wandering(n, dimensions):
    return np.cumsum(RNG.normal(size=(n, dimensions)), axis=0)


def test_the_plane_is_that_of_scikit_learn_s_principal_components():
    pca = pytest.importorskip("sklearn.decomposition").PCA(n_components=2)
    points = wandering(12, 40)
    pca.fit(points)
    plane, explained = principal_plane(points)
    np.testing.assert_allclose(explained, pca.explained_variance_ratio_)
    for own, theirs in zip((plane.across, plane.up), pca.components_, strict=True):
        assert abs(own @ theirs) == pytest.approx(1.0)
        assert np.linalg.norm(own) == pytest.approx(1.0)
    np.testing.assert_array_equal(plane.centre, points[-1])
    assert (points[0] - points[-1]) @ plane.across <= 0  # the path comes from the left


def test_a_path_in_a_plane_is_its_own_shadow_and_the_grid_holds_the_losses_of_the_plane():
    flat = wandering(8, 2) @ RNG.normal(size=(2, 5)) + RNG.normal(size=5)
    land = trajectory_landscape(flat, valley, size=7)
    np.testing.assert_allclose(land.off_plane, 0, atol=1e-9)
    np.testing.assert_allclose(land.path_losses, [valley(point) for point in flat])
    np.testing.assert_allclose(land.shadow_losses, land.path_losses)
    assert land.explained.sum() == pytest.approx(1.0)
    plane, _ = principal_plane(flat)
    for i, j in ((0, 0), (6, 2), (3, 6)):
        point = flat[-1] + land.across[j] * plane.across + land.up[i] * plane.up
        assert land.losses[i, j] == pytest.approx(valley(point))
    assert land.path[-1] == pytest.approx([0, 0])
    assert (land.across[0] < land.path[:, 0]).all() and (land.path[:, 1] < land.up[-1]).all()


def test_beside_the_plane_a_model_and_its_shadow_have_losses_of_their_own():
    points = wandering(9, 5)
    land = trajectory_landscape(points, valley, steps=range(0, 90, 10), size=2)
    from_end = np.linalg.norm(points - points[-1], axis=1)
    np.testing.assert_allclose(land.off_plane**2 + (land.path**2).sum(axis=1), from_end**2)  # Pythagoras
    np.testing.assert_allclose(land.path_losses, [valley(point) for point in points])
    assert np.abs(land.path_losses - land.shadow_losses)[:-1].max() > 0.1
    assert land.path_losses[-1] == pytest.approx(land.shadow_losses[-1])
    assert land.travelled == pytest.approx(sum(np.linalg.norm(b - a) for a, b in pairwise(points)))
    assert land.steps.tolist() == list(range(0, 90, 10)) and land.n_parameters == 5


def test_parameters_by_name_are_the_same_landscape_as_one_vector():
    points = wandering(6, 5)
    states = [{"w": point[:4].reshape(2, 2), "b": point[4:]} for point in points]

    def of_state(state):
        assert state["w"].shape == (2, 2)
        return valley(np.concatenate([state["w"].ravel(), state["b"]]))

    one, other = trajectory_landscape(points, valley, size=4), trajectory_landscape(states, of_state, size=4)
    np.testing.assert_array_equal(one.losses, other.losses)


def test_a_walk_without_aim_has_most_of_its_variance_on_a_plane_too():
    assert random_walk_share(np.ones(300)) == pytest.approx(1.25 * 6 / np.pi**2, abs=3e-3)
    lengths = np.linspace(3, 1, 30)
    steps = RNG.normal(size=(30, 5000))
    steps *= lengths[:, None] / np.linalg.norm(steps, axis=1, keepdims=True)
    walk = np.concatenate([np.zeros((1, 5000)), np.cumsum(steps, axis=0)])
    assert principal_plane(walk)[1].sum() == pytest.approx(random_walk_share(lengths), abs=0.01)


def test_a_random_direction_is_row_by_row_as_long_as_the_weights_and_leaves_vectors_alone():
    state = {"w": RNG.normal(size=(3, 8)) * [[1], [10], [0]], "ln": np.ones(4)}
    plane = random_plane(state, seed=1)
    for direction in (plane.across, plane.up):
        np.testing.assert_allclose(
            np.linalg.norm(direction[:24].reshape(3, 8), axis=1), np.linalg.norm(state["w"], axis=1)
        )
        assert not direction[24:].any()
    assert abs(plane.across @ plane.up) < 0.9 * (plane.across @ plane.across)
    np.testing.assert_array_equal(random_plane(state, seed=1).up, plane.up)
    assert not np.array_equal(random_plane(state, seed=2).up, plane.up)


def test_the_middle_of_a_random_plane_is_the_model_itself():
    state = {"w": RNG.normal(size=(1, 5))}
    land = random_landscape(state, lambda s: valley(s["w"][0]), step=9, size=5, reach=0.5)
    assert land.losses[2, 2] == pytest.approx(valley(state["w"][0]))
    plane = random_plane(state)
    assert land.losses[4, 0] == pytest.approx(valley(plane.centre - 0.5 * plane.across + 0.5 * plane.up))
    assert land.explained is None and land.steps.tolist() == [9] and len(land.path) == 1


def test_a_loss_that_is_not_finite_is_infinite():
    losses = iter([1.0, np.nan, -np.inf, np.inf, 2.0])
    land = random_landscape({"w": np.ones((1, 2))}, lambda state: next(losses), size=2)
    assert land.path_losses.tolist() == [1.0]
    assert land.losses.ravel().tolist() == [np.inf, np.inf, np.inf, 2.0]


def test_the_loss_of_a_model_is_a_function_of_parameters_that_leaves_the_model_alone(baby_run):
    model = baby_run.model()
    before = parameters_of(model)
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, 2, (5, 4))
    other = GPT(baby_run.config, seed=9)
    loss = loss_of(model, next_token_loss(tokens[:, :3], tokens[:, 1:]))
    by_arrays = float(language_model_loss(tensors_of(other), tokens, other.config))
    assert loss(parameters_of(other)) == pytest.approx(by_arrays, abs=1e-6)
    assert all(np.array_equal(before[name], parameter) for name, parameter in parameters_of(model).items())
    assert sum(array.size for array in before.values()) == baby_run.config.n_parameters == 12_656


def test_the_baby_gpt_s_path_has_the_losses_that_training_wrote_down(baby_run):
    steps = baby_run.steps[::5]
    models = [baby_run.model(step) for step in steps]
    tokens = np.array(baby_run.tokenizer.encode(baby_run.recipe["data"]["sequence"]))
    windows = np.lib.stride_tricks.sliding_window_view(tokens, 4)
    loss = loss_of(models[0], next_token_loss(windows[:, :3], windows[:, 1:], last_position_only=True))
    land = trajectory_landscape([parameters_of(model) for model in models], loss, steps, size=3)
    written = [row["loss"] for row in baby_run.metrics()]
    np.testing.assert_allclose(land.path_losses[:-1], written[::5], atol=1e-6)
    assert land.path_losses[-1] < 0.48 and land.n_parameters == 12_656
    assert land.random_walk < land.explained.sum() < 1
    assert np.isfinite(land.losses).all()


def test_what_has_no_plane_is_refused():
    line = np.outer(np.arange(4), np.ones(5))
    with pytest.raises(UsageError, match="lie on a line"):
        trajectory_landscape(line, valley)
    with pytest.raises(UsageError, match="3 states or more"):
        trajectory_landscape(line[:2], valley)
    with pytest.raises(UsageError, match="a step for each"):
        trajectory_landscape(wandering(4, 5), valley, steps=[1, 2])
    with pytest.raises(UsageError, match="same shapes"):
        trajectory_landscape([np.ones(5), np.ones(5), np.ones(4)], valley)
    with pytest.raises(UsageError, match="same names"):
        trajectory_landscape([{"a": np.ones(5)}, {"b": np.ones(5)}, {"a": np.ones(5)}], valley)
    with pytest.raises(UsageError, match="weights in matrices"):
        random_landscape(np.ones(5), valley)
    with pytest.raises(UsageError, match="above 0"):
        random_landscape({"w": np.ones((2, 2))}, lambda state: 0.0, reach=-1)
