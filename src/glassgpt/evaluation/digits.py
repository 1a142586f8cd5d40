"""Handwritten digits and a small net that tells them apart: what it answers, how sure it is, what it sees in between.

The 1,797 digits of 8 x 8 grey pixels are scikit-learn's (of the UCI repository's "Optical Recognition of Handwritten
Digits", Alpaydin and Kaynak 1998). A part of them, drawn at random, is held out; it is of the same writers.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.evaluation.intervals import Interval, wilson
from glassgpt.models.dense import Dense, fit

SIDE, DIGITS = 8, 10
DARKEST = 16.0  # of the files' pixels
HIDDEN = (32,)
HELD_OUT = 500
DECAY = 1e-4  # of the squared weights, which else grow without end once every training digit is right


@dataclass(frozen=True)
class Answers:
    """Digits and a net's answers. images: float64 (n, 8, 8), 0 for paper to 1 for ink. labels: int64 (n,), what they
    are. probabilities: float64 (n, 10)."""

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray

    @property
    def answers(self) -> np.ndarray:
        """The likeliest digit of each, int64 (n,)."""
        return np.argmax(self.probabilities, axis=-1)


@dataclass(frozen=True)
class DigitNet:
    """A trained net, the digits held out from its training, and how often it is right about them.

    Its weights are float32, but it answers in float64: in float32 the seventh decimal of an answer would hang on the
    order of its sums, and whoever computes the same again, as the page does, would find another one.
    """

    net: Dense
    held_out: Answers
    right: Interval
    n_training: int

    @property
    def n_parameters(self) -> int:
        return self.net.n_parameters

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Float (n, 8, 8) to float64 (n, 10)."""
        return _probabilities(self.net, images)

    def hidden(self, images: np.ndarray) -> np.ndarray:
        """The activations of the last hidden layer, float64 (n, units)."""
        with torch.no_grad():
            return _in_float64(self.net).hidden(_inputs(images)).numpy()


@dataclass(frozen=True)
class Examples:
    """Some digits held out. typical: the first one of each digit. misread: those that the net got wrong, the ones that
    it was surest of first. right: the share that it got right of all n_held_out. Its net has n_parameters, and learned
    from n_training digits."""

    typical: Answers
    misread: Answers
    n_misread: int
    right: Interval
    n_held_out: int
    n_training: int
    n_parameters: int


@dataclass(frozen=True)
class Blurred:
    """One digit, blurred more and more. widths: float64 (n,), the blur's standard deviation in pixels, ascending.
    images: float64 (n, 8, 8). probabilities: float64 (n, 10)."""

    label: int
    widths: np.ndarray
    images: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class DigitMap:
    """Hidden activations on the plane of their two principal components. places: float64 (n, 2). labels, answers: int64
    (n,). explained: float64 (2,), each one's share of the variance. mean: float64 (n_units,), the activations that lie
    in the middle. axes: float64 (2, n_units), the two directions, each of length 1."""

    places: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    explained: np.ndarray
    mean: np.ndarray
    axes: np.ndarray

    @property
    def n_units(self) -> int:
        """How many activations there are."""
        return len(self.mean)

    def place(self, activations: np.ndarray) -> np.ndarray:
        """Where other digits lie: their activations, float (..., n_units), to float64 (..., 2)."""
        return (activations - self.mean) @ self.axes.T


def digit_net(hidden: Sequence[int] = HIDDEN, *, held_out: int = HELD_OUT, steps: int = 100, seed: int = 0) -> DigitNet:
    """Train a net with hidden layers of these sizes (relu) on all digits but `held_out`, drawn from `seed`.

    Cross-entropy and a weight decay of 1e-4, all digits at each step. About a second. Raises UsageError if scikit-learn
    is missing, without a hidden layer, and if fewer than 10 digits would be left on either side.
    """
    images, labels = digits()
    if not hidden or not DIGITS <= held_out <= len(labels) - DIGITS:
        raise UsageError(
            f"a digit net has a hidden layer or more, and holds out from {DIGITS} to {len(labels) - DIGITS} digits; "
            f"got {list(hidden)} and {held_out}"
        )
    order = np.random.default_rng(seed).permutation(len(labels))
    test, training = order[:held_out], order[held_out:]
    net = Dense([SIDE * SIDE, *hidden, DIGITS], "relu", seed)
    inputs, targets = _inputs(images[training]).float(), torch.from_numpy(labels[training])

    def loss() -> torch.Tensor:
        squares = sum((parameter**2).sum() for parameter in net.parameters() if parameter.ndim > 1)
        return F.cross_entropy(net(inputs), targets) + DECAY * squares

    fit(net, loss, steps)
    answers = Answers(images[test], labels[test], _probabilities(net, images[test]))
    right = wilson(int((answers.answers == answers.labels).sum()), held_out)
    return DigitNet(net, answers, right, len(training))


def digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's digits: float64 (1797, 8, 8), 0 to 1, and int64 (1797,). Raises UsageError if it is missing."""
    if find_spec("sklearn") is None:
        raise UsageError("the digits are scikit-learn's, which is not installed: pip install 'glassgpt[classify]'")
    from sklearn.datasets import load_digits

    loaded = load_digits()
    return loaded.images / DARKEST, loaded.target.astype(np.int64)


def examples(net: DigitNet, most_misread: int = 5) -> Examples:
    """The first held-out example of each digit, and of those misread the ones that the net was surest of."""
    found = net.held_out
    firsts = [int(np.argmax(found.labels == digit)) for digit in np.unique(found.labels)]
    wrong = np.flatnonzero(found.answers != found.labels)
    surest = wrong[np.argsort(-found.probabilities[wrong].max(axis=1), kind="stable")][:most_misread]
    return Examples(
        typical=_some(found, firsts),
        misread=_some(found, surest),
        n_misread=len(wrong),
        right=net.right,
        n_held_out=len(found.labels),
        n_training=net.n_training,
        n_parameters=net.n_parameters,
    )


def blurred(net: DigitNet, digit: int = 2, widest: float = 2.4, n: int = 49) -> Blurred:
    """The first held-out example of a digit, blurred by normal densities from 0 to `widest` pixels wide.

    Raises UsageError for a digit that wasn't held out, or a width that is not above 0.
    """
    found = net.held_out
    if digit not in found.labels or not 0 < widest < np.inf or n < 2:
        raise UsageError(
            f"choose a digit among those held out ({', '.join(map(str, np.unique(found.labels)))}), a width above 0 "
            f"and 2 pictures or more; got {digit}, {widest} and {n}"
        )
    image = found.images[np.argmax(found.labels == digit)]
    widths = np.linspace(0, widest, n)
    images = np.array([blur(image, width) for width in widths])
    return Blurred(int(digit), widths, images, net.probabilities(images))


def blur(image: np.ndarray, width: float) -> np.ndarray:
    """A picture blurred by a normal density of this standard deviation in pixels, cut off at four of them.

    Beyond the edge there is paper, into which ink runs off.
    """
    blurred: np.ndarray = gaussian_filter(image, width, mode="constant")
    return blurred


def digit_map(net: DigitNet) -> DigitMap:
    """The last hidden layer's activations of all digits held out, projected on their two principal components.

    The sign of each is chosen so that its largest weight is positive.
    """
    found = net.held_out
    activations = net.hidden(found.images)
    mean = activations.mean(axis=0)
    from_mean = activations - mean
    _, lengths, directions = np.linalg.svd(from_mean, full_matrices=False)
    axes = directions[:2]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    axes = axes * np.sign(largest)
    explained = (lengths**2 / (lengths**2).sum())[:2]
    return DigitMap(from_mean @ axes.T, found.labels, found.answers, explained, mean, axes)


def _inputs(images: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.asarray(images).reshape(-1, SIDE * SIDE), dtype=torch.float64)


def _in_float64(net: Dense) -> Dense:
    return copy.deepcopy(net).double()


def _probabilities(net: Dense, images: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return F.softmax(_in_float64(net)(_inputs(images)), dim=-1).numpy()


def _some(answers: Answers, rows: Sequence[int] | np.ndarray) -> Answers:
    chosen = np.asarray(rows, dtype=np.int64)
    return Answers(answers.images[chosen], answers.labels[chosen], answers.probabilities[chosen])
