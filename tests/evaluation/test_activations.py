"""Activation functions: the models' own code against closed forms, and slopes against finite differences."""

import math

import numpy as np
import pytest
import scipy.special
from scipy.stats import norm

from glassgpt.errors import UsageError
from glassgpt.evaluation.activations import activation_curves, functions
from glassgpt.models import gpt_array
from glassgpt.models.config import MLP

CURVES = activation_curves()
X = CURVES.x
SIGMOID = scipy.special.expit(X)
INNER = math.sqrt(2 / math.pi) * (X + 0.044715 * X**3)
BY_HAND = {
    "sigmoid": (SIGMOID, SIGMOID * (1 - SIGMOID)),
    "tanh": (np.tanh(X), 1 / np.cosh(X) ** 2),
    "relu": (np.maximum(X, 0), (X > 0).astype(float)),
    "relu2": (np.maximum(X, 0) ** 2, 2 * np.maximum(X, 0)),
    "gelu": (X * norm.cdf(X), norm.cdf(X) + X * norm.pdf(X)),
    "gelu_tanh": (
        0.5 * X * (1 + np.tanh(INNER)),
        0.5 * (1 + np.tanh(INNER)) + 0.5 * X / np.cosh(INNER) ** 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * X**2),
    ),
    "swiglu": (X * SIGMOID, SIGMOID + X * SIGMOID * (1 - SIGMOID)),
}


@pytest.mark.parametrize("name", list(BY_HAND))
def test_values_and_slopes_are_those_of_the_formula(name):
    values, slopes = BY_HAND[name]
    np.testing.assert_allclose(CURVES.values[name], values, atol=1e-12)
    np.testing.assert_allclose(CURVES.slopes[name], slopes, atol=1e-12)


@pytest.mark.parametrize("name", list(BY_HAND))
def test_slopes_are_what_finite_differences_say(name):
    middle = (X[1:] + X[:-1]) / 2
    away = np.abs(middle) > 0.02  # relu's slope jumps at 0
    differences = np.diff(CURVES.values[name]) / np.diff(X)
    np.testing.assert_allclose(differences[away], np.interp(middle, X, CURVES.slopes[name])[away], atol=1e-3)


def test_every_activation_that_a_gpt_may_have_is_there_as_the_array_gpt_computes_it():
    assert set(MLP.__args__) <= set(CURVES.values) and list(functions()) == list(CURVES.values)
    for name in ("gelu", "gelu_tanh", "relu2"):
        np.testing.assert_allclose(CURVES.values[name], getattr(gpt_array, name)(X), atol=1e-12)
    gate_and_value = np.stack([X, np.ones_like(X)], axis=-1)
    np.testing.assert_allclose(CURVES.values["swiglu"], gpt_array.swiglu(gate_and_value)[:, 0], atol=1e-12)


def test_a_reach_that_is_none_is_refused():
    for reach in (0, -1, math.inf, math.nan):
        with pytest.raises(UsageError, match="reach above 0"):
            activation_curves(reach)
