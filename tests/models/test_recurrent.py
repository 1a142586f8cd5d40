"""Recurrent nets: against the recurrence written in NumPy, and sessions that carry the state."""

import numpy as np
import pytest
import torch

from glassgpt.check import check_model
from glassgpt.errors import UsageError
from glassgpt.interface import RecomputingSession
from glassgpt.models.recurrent import Recurrent

CELLS = ["tanh", "gru"]


def shaken(model):
    model = model.double()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return model


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plainly(model, cell, tokens):
    """The logits after the tokens of one text, the recurrence written out."""
    W = {name: value.detach().numpy() for name, value in model.named_parameters()}
    h = np.zeros(model.n_hidden)
    for token in tokens:
        x = W["wte.weight"][token]
        a = W["rnn.weight_ih_l0"] @ x + W["rnn.bias_ih_l0"]
        b = W["rnn.weight_hh_l0"] @ h + W["rnn.bias_hh_l0"]
        if cell == "tanh":
            h = np.tanh(a + b)
        else:
            (a_r, a_z, a_n), (b_r, b_z, b_n) = np.split(a, 3), np.split(b, 3)
            reset, keep = sigmoid(a_r + b_r), sigmoid(a_z + b_z)
            h = (1 - keep) * np.tanh(a_n + reset * b_n) + keep * h
    return W["lm_head.weight"] @ h + W["lm_head.bias"]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("context_length", [1, 6])
def test_the_contract_is_kept(cell, context_length):
    check_model(shaken(Recurrent(4, context_length, cell, n_embd=3, n_hidden=5)), tolerance=1e-12)
    check_model(Recurrent(4, context_length, cell, n_embd=3, n_hidden=5))


@pytest.mark.parametrize("cell", CELLS)
def test_torch_and_the_plain_recurrence_are_one_function(cell):
    model = shaken(Recurrent(4, 8, cell, n_embd=3, n_hidden=5))
    tokens = np.random.default_rng(0).integers(0, 4, (3, 8))
    expected = [[plainly(model, cell, text[: t + 1]) for t in range(8)] for text in tokens]
    np.testing.assert_allclose(model.sequence_logits(tokens), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(model.next_token_logits(tokens), np.array(expected)[:, -1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_the_state_begins_anew_in_the_window(cell):
    model = shaken(Recurrent(4, 3, cell, n_embd=3, n_hidden=5))
    np.testing.assert_allclose(
        model.next_token_logits([[0, 1, 2, 3, 0]])[0], plainly(model, cell, [2, 3, 0]), rtol=1e-12, atol=1e-12
    )


def test_a_session_reads_each_token_once_within_the_window(monkeypatch):
    model = Recurrent(4, 50, n_embd=3, n_hidden=5)
    read = []
    states = model.states
    monkeypatch.setattr(
        model, "states", lambda tokens, before=None: read.append(tokens.numel()) or states(tokens, before)
    )
    session = model.session()
    for token in (0, 1, 2, 3, 1):
        session.feed([[token]])
    session.rewind(2)
    session.feed([[2, 2]])
    assert read == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("cell", CELLS)
def test_a_session_that_went_past_the_window_can_come_back(cell):
    model = shaken(Recurrent(4, 5, cell, n_embd=3, n_hidden=5))
    session, plain = model.session(2), RecomputingSession(model, 2)
    rng = np.random.default_rng(2)
    for time, back in ((4, 0), (3, 4), (1, 2), (6, 0)):
        tokens = rng.integers(0, 4, (2, time))
        np.testing.assert_allclose(session.feed(tokens), plain.feed(tokens), rtol=1e-12, atol=1e-12)
        for either in (session, plain):
            either.rewind(back)


def test_the_seed_alone_decides_the_weights_and_the_global_generator_stays():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = Recurrent(4, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = Recurrent(4, 5, seed=3), Recurrent(4, 5, seed=4)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
        assert not torch.equal(value, other.state_dict()[name])


def test_another_cell_is_refused():
    with pytest.raises(UsageError, match="tanh, gru"):
        Recurrent(4, 5, "lstm")
