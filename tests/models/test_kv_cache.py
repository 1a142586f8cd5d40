"""Sessions that keep keys and values: the same answers as asking afresh, in every shape, within the window and past."""

import numpy as np
import pytest
import torch

from glassgpt.errors import UsageError
from glassgpt.interface import RecomputingSession
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.kv_cache import SMALLEST, KVCache, LayerCache

CLASSIC = GPTConfig(13, 150, 2, 2, 12, mlp="gelu_tanh")
LLAMA = GPTConfig(13, 150, 2, 4, 16, False, 2, position="rope", norm="rmsnorm", mlp="swiglu", tied=False)
ALIBI = GPTConfig(13, 20, 2, 3, 12, position="alibi")


def model_of(config):
    model = GPT(config, seed=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
    return model


def tokens(batch, time, seed=0):
    return np.random.default_rng(seed).integers(0, 13, (batch, time))


@pytest.mark.parametrize("config", [CLASSIC, LLAMA, ALIBI], ids=lambda config: config.position)
def test_a_session_answers_as_the_model_does_afresh_however_it_is_fed(config):
    model = model_of(config)
    session, plain = model.session(2), RecomputingSession(model, 2)
    for i, step in enumerate([3, 1, 1, 17, 1, SMALLEST + 1, 1, 2, 60, 1, 1, 30, 1]):  # past growth, past the window
        fed = tokens(2, step, seed=i)
        np.testing.assert_allclose(session.feed(fed), plain.feed(fed), rtol=1e-9, atol=1e-9)
    assert session.length == plain.length


@pytest.mark.parametrize("config", [CLASSIC, LLAMA, ALIBI], ids=lambda config: config.position)
def test_feeding_many_gives_the_logits_after_each_across_the_window(config):
    model = model_of(config)
    T = config.context_length
    for start in (1, T - 4, T, T + 3):
        session, plain = model.session(2), RecomputingSession(model, 2)
        session.feed(tokens(2, start))
        plain.feed(tokens(2, start))
        fed = tokens(2, 9, seed=1)
        np.testing.assert_allclose(session.feed_each(fed), plain.feed_each(fed), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(session.feed(fed[:, :1]), plain.feed(fed[:, :1]), rtol=1e-9, atol=1e-9)


def test_rewinding_from_far_past_the_window_comes_back_into_the_cache():
    model = model_of(ALIBI)
    session, plain = model.session(1), RecomputingSession(model, 1)
    for fed in (tokens(1, 8), tokens(1, 30, seed=1), tokens(1, 1, seed=2)):
        session.feed(fed)
        plain.feed(fed)
    for rewound in (25, 10):
        session.rewind(rewound)
        plain.rewind(rewound)
        fed = tokens(1, 2, seed=rewound)
        np.testing.assert_allclose(session.feed(fed), plain.feed(fed), rtol=1e-9, atol=1e-9)


def test_forks_and_reordered_texts_go_their_own_ways():
    model = model_of(LLAMA)
    session, plain = model.session(3), RecomputingSession(model, 3)
    for one in (session, plain):
        one.feed(tokens(3, 5))
        one.reorder([2, 0, 2, 2])
    fork, plain_fork = session.fork(), plain.fork()
    for a, b, seed in ((session, plain, 1), (fork, plain_fork, 2), (session, plain, 3)):
        fed = tokens(4, 2, seed=seed)
        np.testing.assert_allclose(a.feed(fed), b.feed(fed), rtol=1e-9, atol=1e-9)


def test_a_session_asks_for_the_work_of_new_tokens_alone(monkeypatch):
    model = model_of(CLASSIC)
    asked = []
    hidden = model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, cache=None: asked.append(ids.shape[1]) or hidden(ids, cache))
    session = model.session()
    for step in (10, 1, 1, 4):
        session.feed(tokens(1, step))
    assert asked == [10, 1, 1, 4]


def test_a_cache_grows_by_doubling_and_keeps_what_it_held():
    nothing = torch.empty(1, 1, 0, 2)
    layer = LayerCache(nothing, nothing)
    rng = torch.Generator().manual_seed(0)
    fed = torch.randn(1, 1, 500, 2, generator=rng)
    capacities = []
    for t in range(500):
        keys, values = layer.append(fed[:, :, t : t + 1], 2 * fed[:, :, t : t + 1])
        capacities.append(layer.keys.shape[2])
    torch.testing.assert_close(keys, fed)
    torch.testing.assert_close(values, 2 * fed)
    assert sorted(set(capacities)) == [64, 128, 256, 512]


def test_wrong_tokens_are_refused_and_leave_the_session_as_it_was():
    model = model_of(CLASSIC)
    session = model.session(2)
    before = session.feed(tokens(2, 3))
    for wrong in ([[1]], [[1], [13]], [[1], [-1]], [1, 2]):
        with pytest.raises(UsageError):
            session.feed(wrong)
    with pytest.raises(UsageError, match="cannot rewind 4"):
        session.rewind(4)
    session.rewind(1)
    np.testing.assert_allclose(session.feed(tokens(2, 3)[:, -1:]), before, rtol=1e-12)


def test_half_precision_answers_in_float32():
    model = GPT(CLASSIC).to(torch.bfloat16)
    logits = model.session().feed(tokens(1, 3))
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, model.next_token_logits(tokens(1, 3)), atol=0.05)


def test_an_empty_cache_allocates_nothing():
    assert KVCache.empty(GPT(CLASSIC), 4).layers[0].keys.numel() == 0
