"""The compiled engine and torch as one model: who answers what, and that both say the same."""

import numpy as np
import pytest
import torch

from glassgpt.check import check_model
from glassgpt.decoding.beam import beam_search
from glassgpt.decoding.generate import generate
from glassgpt.evaluation.agreement import agreement
from glassgpt.models import native
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.packed import LONGEST_BLOCK
from glassgpt.weights.quantised import packed
from glassgpt.weights.tensors import tensors_of

pytestmark = pytest.mark.skipif(native.why_not() is not None, reason=f"no compiled engine: {native.why_not()}")

SHAPES = {
    "gpt2": GPTConfig(50, 40, 2, 2, 64, mlp="gelu_tanh"),
    "llama": GPTConfig(50, 40, 2, 4, 64, False, 2, position="rope", norm="rmsnorm", mlp="swiglu", tied=False),
    "qwen3": GPTConfig(50, 40, 2, 4, 64, False, 2, 20, position="rope", norm="rmsnorm", mlp="swiglu", qk_norm=True),
    "alibi, post-norm": GPTConfig(50, 40, 2, 4, 64, position="alibi", post_norm=True),
}


def model_of(config):
    model = GPT(config, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


def packed_of(model, dtype="float32"):
    return packed(model.config, tensors_of(model), dtype)


def tokens(n, seed=0):
    return np.random.default_rng(seed).integers(0, 50, (1, n))


@pytest.mark.parametrize("name", SHAPES)
def test_a_packed_model_keeps_the_contract(name):
    check_model(packed_of(model_of(SHAPES[name])), tolerance=2e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_steps_of_the_engine_follow_prompts_of_torch_and_the_other_way_round(name):
    model = model_of(SHAPES[name])
    session, plain = packed_of(model).session(), model.session()
    for n in (LONGEST_BLOCK + 3, 1, 2, LONGEST_BLOCK + 1, 1, 3, 1):  # the last two lie past the window
        fed = tokens(n, seed=n)
        np.testing.assert_allclose(session.feed_each(fed), plain.feed_each(fed), rtol=2e-5, atol=2e-5)
    fork = session.fork()
    np.testing.assert_allclose(fork.feed(tokens(1)), plain.fork().feed(tokens(1)), rtol=2e-5, atol=2e-5)
    for one in (session, plain):
        one.rewind(20)
        one.reorder([0, 0, 0])
    fed = np.repeat(tokens(2), 3, axis=0)
    np.testing.assert_allclose(session.feed(fed), plain.feed(fed), rtol=2e-5, atol=2e-5)


def test_greedy_tokens_and_beams_are_torchs():
    model = model_of(SHAPES["llama"])
    fast = packed_of(model)
    prompt = tokens(20)[0]
    assert generate(fast, prompt, 30, temperature=0) == generate(model, prompt, 30, temperature=0)
    ours, theirs = (beam_search(m, prompt, 6, n_beams=3) for m in (fast, model))
    assert [beam.tokens for beam in ours] == [beam.tokens for beam in theirs]


@pytest.mark.parametrize(("dtype", "kl"), [("bfloat16", 1e-3), ("int8", 1e-3), ("int4", 0.2)])
def test_fewer_bits_cost_what_they_may(dtype, kl):
    model = model_of(SHAPES["gpt2"])
    rounded = packed_of(model, dtype)
    close = agreement(rounded, model, tokens(40)[0])
    assert 0 < close.mean_kl < kl
    assert close.max_kl < 10 * kl
    assert close.top1 > 0.7


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_torchs_copy_of_rounded_weights_is_what_the_engine_steps_with(dtype):
    """But for the activations, which the engine rounds too: its steps are nearer to that copy than to the original."""
    model = model_of(SHAPES["gpt2"])
    rounded = packed_of(model, dtype)
    stepped = rounded.session().feed_each(tokens(12))
    to_copy = np.abs(stepped - rounded.sequence_logits(tokens(12))).max()
    to_original = np.abs(stepped - model.sequence_logits(tokens(12))).max()
    assert to_copy < to_original
    assert to_copy < 0.1


def test_torch_answers_for_batches_and_tables():
    config = GPTConfig(3, 4, 1, 1, 32)
    model = model_of(config)
    fast = packed_of(model)
    np.testing.assert_array_equal(fast.context_table(), model.context_table())
    batch = np.random.default_rng(0).integers(0, 3, (5, 4))
    np.testing.assert_array_equal(fast.next_token_logits(batch), model.next_token_logits(batch))
    np.testing.assert_allclose(fast.session(5).feed(batch), model.next_token_logits(batch), rtol=1e-5, atol=1e-6)
