"""Which of three points is nearest, learned by nets of growing sizes from examples alone.

Every location of a square belongs to the nearest of three points (attractors), coded -1, 0 and 1. A net takes the two
coordinates and gives one number, and the code nearest to that number is its answer: from -1 to 1 the output must pass
0, or jump, so that the borders have to be bent. (With an output for each point and a softmax there would be nothing to
learn: the squared distances differ by linear functions, and a net without a hidden layer would be exact.)

The example is Wolfram's ("What is ChatGPT doing ... and why does it work?", 2023, Neural Nets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from glassgpt.errors import UsageError
from glassgpt.models.dense import Activation, Dense, fit

POINTS = ((-0.6, -0.5), (0.65, -0.35), (-0.05, 0.7))
CODES = (-1, 0, 1)
SHAPES = tuple((width,) * depth for depth in (1, 2, 3) for width in (1, 2, 4, 8))
HALF_SIDE = 1.0


@dataclass(frozen=True)
class TrainedNet:
    """A net of `hidden` units in each hidden layer. outputs: float64 (places, places), its number at each place, first
    index y, second x. right: the share of places where the code nearest to it is the right one, in [0, 1]. loss: the
    mean squared error of its examples after training."""

    hidden: tuple[int, ...]
    n_parameters: int
    outputs: np.ndarray
    right: float
    loss: float


@dataclass(frozen=True)
class AttractorNets:
    """What nets made of one task. points: float64 (3, 2), coded -1, 0, 1 in this order. places: float64 (places,), the
    coordinates of the grid in x and y alike. nearest: int64 (places, places), the right code at each place [y, x]."""

    points: np.ndarray
    places: np.ndarray
    nearest: np.ndarray
    nets: tuple[TrainedNet, ...]
    n_examples: int
    starts: int


def attractor_nets(
    shapes: Sequence[Sequence[int]] = SHAPES,
    points: Sequence[Sequence[float]] = POINTS,
    *,
    n_examples: int = 1000,
    starts: int = 2,
    steps: int = 150,
    activation: Activation = "tanh",
    places: int = 201,
    seed: int = 0,
) -> AttractorNets:
    """Train a net of each shape (the sizes of its hidden layers) on the same examples and look at all of the square.

    Examples are drawn evenly from the square from `seed`. Each net begins `starts` times from other weights, `steps`
    iterations each, and the one with the least error on the examples stays. Raises UsageError for points that are not
    three different ones in the square from -1 to 1.
    """
    attractors = np.asarray(points, dtype=np.float64)
    if (
        attractors.shape != (3, 2)
        or not (np.abs(attractors) <= HALF_SIDE).all()
        or len(np.unique(attractors, axis=0)) < 3
    ):
        raise UsageError(
            f"points must be three different ones with coordinates from -1 to 1; got {attractors.tolist()}"
        )
    if min(n_examples, starts, steps) < 1 or places < 2:
        raise UsageError(
            f"examples, starts and steps must be 1 or more, and places 2 or more; got {n_examples}, {starts}, {steps} "
            f"and {places}"
        )
    examples = np.random.default_rng(seed).uniform(-HALF_SIDE, HALF_SIDE, (n_examples, 2))
    side = np.linspace(-HALF_SIDE, HALF_SIDE, places)
    grid = np.stack(np.meshgrid(side, side), axis=-1)  # (y, x, 2)
    nearest = nearest_code(grid, attractors)
    nets = []
    for shape in shapes:
        net, loss = _best_of(shape, examples, nearest_code(examples, attractors), starts, steps, activation, seed)
        outputs = _outputs(net, grid)
        right = float((answer(outputs) == nearest).mean())
        nets.append(TrainedNet(tuple(shape), net.n_parameters, outputs, right, loss))
    return AttractorNets(attractors, side, nearest, tuple(nets), n_examples, starts)


def nearest_code(locations: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The code of the point nearest to each location: float (..., 2) and (3, 2) to int64 (...)."""
    distances = np.linalg.norm(locations[..., None, :] - points, axis=-1)  # (..., 3)
    return np.asarray(CODES)[np.argmin(distances, axis=-1)]


def answer(outputs: np.ndarray) -> np.ndarray:
    """The code nearest to each output, int64.

    >>> answer(np.array([-7.0, -0.51, -0.4, 0.3, 0.6]))
    array([-1, -1,  0,  0,  1])
    """
    return np.clip(np.rint(outputs), CODES[0], CODES[-1]).astype(np.int64)


def _best_of(
    shape: Sequence[int],
    examples: np.ndarray,
    codes: np.ndarray,
    starts: int,
    steps: int,
    activation: Activation,
    seed: int,
) -> tuple[Dense, float]:
    inputs = torch.tensor(examples, dtype=torch.float32)
    targets = torch.tensor(codes, dtype=torch.float32)[:, None]
    trained = []
    for start in range(starts):
        net = Dense([2, *shape, 1], activation, seed=seed * starts + start)
        loss = fit(net, lambda net=net: torch.mean((net(inputs) - targets) ** 2), steps)  # type: ignore[misc]
        trained.append((net, loss))
    return min(trained, key=lambda pair: pair[1])


@torch.no_grad()
def _outputs(net: Dense, grid: np.ndarray) -> np.ndarray:
    return net(torch.tensor(grid, dtype=torch.float32))[..., 0].numpy().astype(np.float64)
