"""The perceptron and the MLP: against the plain formula, with the start where the text has no token yet."""

import numpy as np
import pytest
import torch

from glassgpt.check import check_model
from glassgpt.errors import UsageError
from glassgpt.models.mlp import MLP, Perceptron


def shaken(model, seed=1):
    """The model in float64, every weight moved so that each matters."""
    model = model.double()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return model


def weights(model):
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


MODELS = {
    "perceptron": lambda: Perceptron(5, 3),
    "perceptron of one token": lambda: Perceptron(3, 1),
    "MLP": lambda: MLP(5, 3, n_embd=4, n_hidden=6),
    "MLP of one token": lambda: MLP(3, 1, n_embd=2, n_hidden=3),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_contract_is_kept(name):
    check_model(shaken(MODELS[name]()), tolerance=1e-12)
    check_model(MODELS[name]())


def test_the_perceptron_adds_up_what_each_place_says():
    model = shaken(Perceptron(3, 2))
    W = weights(model)
    np.testing.assert_allclose(
        model.next_token_logits([[0, 1, 2]])[0], W["bias"] + W["place"][0, 2] + W["place"][1, 1], rtol=1e-12
    )
    start = 3
    np.testing.assert_allclose(
        model.next_token_logits([[2]])[0], W["bias"] + W["place"][0, 2] + W["place"][1, start], rtol=1e-12
    )


def test_the_mlp_is_bengios_formula():
    model = shaken(MLP(4, 3, n_embd=2, n_hidden=5))
    W = weights(model)
    for context, window in (([0, 1, 2, 3], [1, 2, 3]), ([2], [4, 4, 2])):
        x = np.concatenate([W["wte.weight"][token] for token in window])
        expected = W["lm_head.weight"] @ np.tanh(W["hidden.weight"] @ x + W["hidden.bias"]) + W["lm_head.bias"]
        np.testing.assert_allclose(model.next_token_logits([context])[0], expected, rtol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_texts_longer_than_the_window_are_read_in_one_pass(name):
    model = shaken(MODELS[name]())
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, model.vocab_size, (2, 11)))
    each = [model.next_token_logits(tokens[:, : t + 1]) for t in range(11)]
    torch.testing.assert_close(model(tokens), torch.stack(each, dim=1))


def test_an_untrained_perceptron_is_uniform():
    assert not Perceptron(7, 4).next_token_logits([[1, 2, 3]]).any()


def test_the_seed_alone_decides_the_weights_and_the_global_generator_stays():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = MLP(5, 3, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = MLP(5, 3, seed=3), MLP(5, 3, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])


def test_parameters_are_counted():
    assert Perceptron(5, 3).n_parameters == 3 * 6 * 5 + 5
    assert MLP(5, 3, n_embd=4, n_hidden=6).n_parameters == 6 * 4 + (12 * 6 + 6) + (6 * 5 + 5)


@pytest.mark.parametrize("sizes", [{"context_length": 0}, {"vocab_size": 0}, {"n_embd": 0}, {"n_hidden": -1}])
def test_a_size_below_one_is_refused(sizes):
    with pytest.raises(UsageError, match=next(iter(sizes))):
        MLP(**({"vocab_size": 3, "context_length": 2} | sizes))
