"""The plain net: the same numbers as NumPy by hand, weights from the seed alone, and a fit that finds least squares."""

import numpy as np
import pytest
import torch

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.dense import Dense, fit

BY_HAND = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "sigmoid": lambda x: 1 / (1 + np.exp(-x))}


@pytest.mark.parametrize("activation", list(BY_HAND))
def test_a_net_is_matrices_and_an_activation_between_them(activation):
    net = Dense([3, 5, 4, 2], activation, seed=7)
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    w = [parameter.detach().numpy() for parameter in net.parameters()]
    hidden = BY_HAND[activation](x @ w[0].T + w[1])
    hidden = BY_HAND[activation](hidden @ w[2].T + w[3])
    with torch.no_grad():
        np.testing.assert_allclose(net.hidden(torch.from_numpy(x)), hidden, atol=1e-6)
        np.testing.assert_allclose(net(torch.from_numpy(x)), hidden @ w[4].T + w[5], atol=1e-6)
    assert net.n_parameters == 3 * 5 + 5 + 5 * 4 + 4 + 4 * 2 + 2


def test_weights_follow_from_the_seed_and_leave_torch_s_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, same, other = Dense([2, 3, 1], seed=1), Dense([2, 3, 1], seed=1), Dense([2, 3, 1], seed=2)
    assert torch.rand(1) == expected
    assert torch.equal(one.layers[0].weight, same.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_without_a_hidden_layer_the_fit_is_least_squares():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 3)), rng.normal(size=50)
    net = Dense([3, 1])
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]
    loss = fit(net, lambda: torch.mean((net(inputs) - targets) ** 2))
    best, residual, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(50)]), y, rcond=None)
    np.testing.assert_allclose(net.layers[0].weight.detach()[0], best[:3], atol=1e-4)
    assert net.layers[0].bias.item() == pytest.approx(best[3], abs=1e-4)
    assert loss == pytest.approx(residual[0] / 50, rel=1e-4)


def test_a_loss_that_is_not_finite_is_refused():
    net = Dense([1, 1])
    with pytest.raises(NumericalError, match="nan"):
        fit(net, lambda: (net(torch.ones(1, 1)) * torch.nan).sum(), steps=2)


def test_a_net_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="two sizes or more"):
        Dense([3])
    with pytest.raises(UsageError, match=r"sizes\[1\] must be at least 1"):
        Dense([3, 0, 1])
    with pytest.raises(UsageError, match="relu, tanh, sigmoid; got 'gelu'"):
        Dense([3, 1], "gelu")
