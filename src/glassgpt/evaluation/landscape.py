"""The loss as a landscape over a plane through the space of a model's parameters, and training's path through it.

A model of P parameters is a point in P dimensions, and its loss a height above it. A picture has room for a plane: the
one along which training moved most (its two principal components), or a random one around the end. Both are those of
Li et al., "Visualizing the loss landscape of neural nets", 2018 (arXiv 1712.09913), sections 7 and 4. What a plane
shows is exact on the plane alone: the path runs beside it, so that its own losses are measured too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.models.threads import threads_for

Parameters = np.ndarray | Mapping[str, np.ndarray]
"""One vector, or arrays by name."""

SIZE = 31
MARGIN = 0.3  # of the path's extent, on every side of it
NARROWEST = 0.6  # the shorter side of the plane's part that is shown, in shares of the longer


@dataclass(frozen=True)
class Landscape:
    """A loss over the part of a plane where across and up (float64, ascending) are a point's coordinates.

    losses: float64 (up, across), in nats, infinite where the loss was not finite. steps: int64 (points,), the training
    steps of the path. path: float64 (points, 2), the coordinates of its shadow, the nearest points of the plane.
    path_losses: float64 (points,), of the models themselves; shadow_losses, of their shadows. off_plane: float64
    (points,), the distance between the two. travelled: the path's length. explained: float64 (2,), which shares of the
    path's variance run across and up; random_walk: the share that both together would have of a walk with steps as long
    and directions that have nothing to do with each other. Of a random plane, explained and random_walk are None, the
    path is its end, and coordinates are in multiples of the weights' own size; else they are distances.
    """

    across: np.ndarray
    up: np.ndarray
    losses: np.ndarray
    steps: np.ndarray
    path: np.ndarray
    path_losses: np.ndarray
    shadow_losses: np.ndarray
    off_plane: np.ndarray
    n_parameters: int
    travelled: float = 0.0
    explained: np.ndarray | None = None
    random_walk: float | None = None


@dataclass(frozen=True)
class Plane:
    """The points centre + a across + b up: float64 (P,) each."""

    centre: np.ndarray
    across: np.ndarray
    up: np.ndarray

    def point(self, a: float, b: float) -> np.ndarray:
        return self.centre + a * self.across + b * self.up


@dataclass(frozen=True)
class Survey:
    """A landscape whose losses are still to be measured, one after another and by whoever has the time.

    `points()` gives the parameters at which to measure, one at a time: all of them at once would fill the memory. Of a
    path they are its own states, then their shadows; then follows the grid, row by row. `landscape(losses)` makes what
    was measured there, float (n_points,), into the landscape.
    """

    n_points: int
    n_parameters: int
    points: Callable[[], Iterator[Parameters]]
    landscape: Callable[[np.ndarray], Landscape]

    def measured(self, loss: Callable[[Parameters], float]) -> Landscape:
        """All of them at once.

        Threads cost more than they bring where a model is small, and changing their number for each loss as much again.
        """
        with threads_for(self.n_parameters):
            return self.landscape(np.array([loss(state) for state in self.points()]))


def trajectory_landscape(
    states: Sequence[Parameters],
    loss: Callable[[Parameters], float],
    steps: Sequence[int] | None = None,
    size: int = SIZE,
) -> Landscape:
    """The loss on the plane through the last of `states` that is spanned by the two principal components of them all.

    states: parameters in the order of training, 3 or more. loss: of parameters in the form of the states. steps: the
    training steps that they are of, by default 0, 1, 2... size: so many points along both sides of the grid.
    Costs size**2 + 2 * len(states) losses, and an array of all states in float64. Raises UsageError for states of
    different shapes, too few of them, or a path that lies on a line, through which there is no one plane.
    """
    return trajectory_survey(states, steps, size).measured(loss)


def trajectory_survey(states: Sequence[Parameters], steps: Sequence[int] | None = None, size: int = SIZE) -> Survey:
    """What there is to be measured for a `trajectory_landscape`, which raises as this does."""
    layout = _Layout(states[0] if len(states) else np.empty(0))
    points = np.array([layout.vector(state) for state in states])
    at = np.arange(len(points)) if steps is None else np.asarray(steps, dtype=np.int64)
    if len(points) < 3 or at.shape != (len(points),) or size < 2:
        raise UsageError(
            f"a landscape needs 3 states or more, a step for each, and 2 places or more a side; got {len(points)} "
            f"states, {len(at)} steps and {size}"
        )
    plane, explained = principal_plane(points)
    away = points - plane.centre
    path = np.column_stack([away @ plane.across, away @ plane.up])
    shadows = path @ np.array([plane.across, plane.up])
    across, up = _part_shown(path, size)
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)

    def landscape(losses: np.ndarray) -> Landscape:
        own, of_shadows, grid = np.split(_finite_or_infinite(losses), [len(points), 2 * len(points)])
        return Landscape(
            across=across,
            up=up,
            losses=grid.reshape(size, size),
            steps=at,
            path=path,
            path_losses=own,
            shadow_losses=of_shadows,
            off_plane=np.linalg.norm(away - shadows, axis=1),
            n_parameters=points.shape[1],
            travelled=float(lengths.sum()),
            explained=explained,
            random_walk=random_walk_share(lengths),
        )

    def where() -> Iterator[Parameters]:
        return map(layout.state, chain(points, (plane.centre + shadow for shadow in shadows), _grid(plane, across, up)))

    return Survey(2 * len(points) + size**2, points.shape[1], where, landscape)


def random_landscape(
    state: Parameters,
    loss: Callable[[Parameters], float],
    step: int = 0,
    size: int = SIZE,
    reach: float = 1.0,
    seed: int = 0,
) -> Landscape:
    """The loss around one state on a random plane, from -reach to reach in multiples of the weights' own size.

    Both directions are drawn from `seed` and normalised filter by filter: a row of a matrix (what one unit reads, or
    one token's vector) is made as long as that row of the weights, so that the scale of a layer, which a norm after it
    takes away, does not decide how flat the picture looks. Biases and the weights of norms stay (Li et al. 2018,
    section 4, and their code). Raises UsageError for parameters without a matrix, or a reach that is not above 0.
    """
    return random_survey(state, step, size, reach, seed).measured(loss)


def random_survey(state: Parameters, step: int = 0, size: int = SIZE, reach: float = 1.0, seed: int = 0) -> Survey:
    """What there is to be measured for a `random_landscape`, which raises as this does: the state, and the grid."""
    if not 0 < reach < np.inf or size < 2:
        raise UsageError(f"reach must be a number above 0, and size 2 or more; got {reach} and {size}")
    layout = _Layout(state)
    plane = random_plane(state, seed)
    side = np.linspace(-reach, reach, size)

    def landscape(losses: np.ndarray) -> Landscape:
        own, grid = np.split(_finite_or_infinite(losses), [1])
        return Landscape(
            across=side,
            up=side,
            losses=grid.reshape(size, size),
            steps=np.array([step]),
            path=np.zeros((1, 2)),
            path_losses=own,
            shadow_losses=own,
            off_plane=np.zeros(1),
            n_parameters=len(plane.centre),
        )

    def where() -> Iterator[Parameters]:
        return map(layout.state, chain([plane.centre], _grid(plane, side, side)))

    return Survey(1 + size**2, len(plane.centre), where, landscape)


def principal_plane(points: np.ndarray) -> tuple[Plane, np.ndarray]:
    """The plane through the last of points (n, P) along the two directions in which they vary most, of length 1 and at
    right angles, and the shares of their variance that these have.

    The path comes from the left, and its point furthest from the end in the other direction lies above it.
    """
    from_mean = points - points.mean(axis=0)
    # The eigenvectors of the n x n products are those of the P x P covariance, seen from the points.
    variances, weights = np.linalg.eigh(from_mean @ from_mean.T)
    if variances[-2] <= 1e-12 * variances[-1]:
        raise UsageError("the states lie on a line, or are all the same: there is no one plane through them")
    directions = weights[:, [-1, -2]].T @ from_mean
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    path = (points - points[-1]) @ directions.T
    signs = [-1.0 if path[0, 0] > 0 else 1.0, 1.0 if path[np.argmax(np.abs(path[:, 1])), 1] > 0 else -1.0]
    across, up = directions * np.array(signs)[:, None]
    return Plane(points[-1], across, up), variances[[-1, -2]] / variances.sum()


def random_plane(state: Parameters, seed: int = 0) -> Plane:
    """Two random directions around a state, each row of each matrix as long as the state's own."""
    rng = np.random.default_rng(seed)
    arrays = state if isinstance(state, Mapping) else {"": state}
    if not any(np.ndim(array) >= 2 for array in arrays.values()):
        raise UsageError("filter-normalised directions need weights in matrices, and there are none: give them by name")
    directions = [
        np.concatenate([_filters_like(np.asarray(array, dtype=np.float64), rng).ravel() for array in arrays.values()])
        for _ in range(2)
    ]
    return Plane(_Layout(state).vector(state), *directions)


def random_walk_share(lengths: np.ndarray) -> float:
    """The share of variance on the plane of its two principal components of a walk whose steps have these lengths and
    are at right angles to all others, as random directions in many dimensions nearly are.

    Principal components find a plane in anything that moves on: of many equal steps, (1 + 1/4) 6 / pi^2 = 76 % of the
    variance (Antognini and Sohl-Dickstein 2018, arXiv 1806.08805). What training shows beyond that is its own.
    """
    squares = np.concatenate([[0.0], np.cumsum(np.asarray(lengths, dtype=np.float64) ** 2)])
    products = np.minimum.outer(squares, squares)  # of two points: what both have walked
    products -= products.mean(axis=0)
    products -= products.mean(axis=1, keepdims=True)
    variances = np.linalg.eigvalsh(products)
    return float(variances[-2:].sum() / variances.sum())


# ---- losses of models ------------------------------------------------------------------------------------------------


def parameters_of(model: nn.Module) -> dict[str, np.ndarray]:
    """A model's parameters by name, each once even if it is used twice, as NumPy arrays of their own."""
    return {name: parameter.detach().cpu().numpy().copy() for name, parameter in model.named_parameters()}


def loss_of(model: nn.Module, measure: Callable[[nn.Module], Tensor]) -> Callable[[Parameters], float]:
    """A loss as a function of parameters alone: they are put into a copy of the model, which `measure` is given."""
    model = copy.deepcopy(model)
    places = dict(model.named_parameters())

    @torch.no_grad()
    def loss(state: Parameters) -> float:
        assert isinstance(state, Mapping)
        for name, place in places.items():
            place.copy_(torch.from_numpy(np.asarray(state[name])))
        return float(measure(model))

    return loss


def next_token_loss(
    inputs: np.ndarray, targets: np.ndarray, last_position_only: bool = False
) -> Callable[[nn.Module], Tensor]:
    """The mean surprise, in nats, of the targets, int (B, T), after the inputs, int (B, T); or of the last ones."""
    contexts, following = (torch.tensor(np.asarray(part, dtype=np.int64)) for part in (inputs, targets))

    def measure(model: nn.Module) -> Tensor:
        logits = model(contexts)
        first = -1 if last_position_only else 0
        return F.cross_entropy(logits[:, first:].flatten(0, 1).double(), following[:, first:].flatten())

    return measure


# ---- inside ----------------------------------------------------------------------------------------------------------


class _Layout:
    """How parameters lie in one vector."""

    def __init__(self, like: Parameters) -> None:
        self.names = list(like) if isinstance(like, Mapping) else None
        arrays = list(like.values()) if isinstance(like, Mapping) else [like]
        self.shapes = [np.shape(array) for array in arrays]
        self.dtypes = [np.asarray(array).dtype for array in arrays]
        self.ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])

    def vector(self, state: Parameters) -> np.ndarray:
        if (list(state) if isinstance(state, Mapping) else None) != self.names:
            raise UsageError("all states must have the same parameters by the same names, in the same order")
        arrays = [np.asarray(a) for a in (state.values() if isinstance(state, Mapping) else [state])]
        if [array.shape for array in arrays] != self.shapes:
            raise UsageError(f"all states must have parameters of the same shapes; got {[a.shape for a in arrays]}")
        return np.concatenate([array.ravel() for array in arrays], dtype=np.float64)

    def state(self, vector: np.ndarray) -> Parameters:
        parts = [
            part.reshape(shape).astype(dtype)
            for part, shape, dtype in zip(np.split(vector, self.ends[:-1]), self.shapes, self.dtypes, strict=True)
        ]
        return parts[0] if self.names is None else dict(zip(self.names, parts, strict=True))


def _grid(plane: Plane, across: np.ndarray, up: np.ndarray) -> Iterator[np.ndarray]:
    """The plane's points row by row."""
    return (plane.point(a, b) for b in up for a in across)


def _finite_or_infinite(losses: np.ndarray) -> np.ndarray:
    """float64, infinity for what is not finite."""
    return np.where(np.isfinite(losses), losses, np.inf).astype(np.float64)


def _part_shown(path: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The grid's coordinates in both directions: the path with a margin, one side not much shorter than the other."""
    middle, extent = (path.max(axis=0) + path.min(axis=0)) / 2, np.ptp(path, axis=0)
    half = np.maximum(extent, NARROWEST * extent.max()) * (0.5 + MARGIN)
    across, up = (np.linspace(m - h, m + h, size) for m, h in zip(middle, half, strict=True))
    return across, up


def _filters_like(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random array whose rows are as long as those of the weights; zeros for what is no matrix."""
    drawn = rng.standard_normal(weights.shape)
    if weights.ndim < 2:
        return np.zeros(weights.shape)
    rows, own = drawn.reshape(len(drawn), -1), weights.reshape(len(weights), -1)
    lengths = np.linalg.norm(own, axis=1) / np.maximum(np.linalg.norm(rows, axis=1), 1e-300)
    return (rows * lengths[:, None]).reshape(weights.shape)
