"""The array GPT against a GPT written out in loops, and one text on NumPy, JAX and array-api-strict."""

import math

import numpy as np
import pytest

from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_array import ArrayGPT, erf, gpt, language_model_loss
from glassgpt.numerics import log_softmax

CONFIGS = [
    GPTConfig(2, 1, n_layer=1, n_head=1, n_embd=2, bias=False),
    GPTConfig(2, 3, n_layer=2, n_head=4, n_embd=8, bias=False),
    GPTConfig(3, 4, n_layer=1, n_head=3, n_embd=6, bias=True),
    GPTConfig(7, 5, n_layer=3, n_head=1, n_embd=4, bias=True),
]


def random_params(config, seed=0):
    """Weights of order one, so that no part of the function is close to doing nothing."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.7, shape) for name, shape in parameter_shapes(config).items()}


# ---- the hand-written reference: one text, one number at a time -----------------------------------------------------


def vector_times_matrix(x, params, name):
    matrix = params[f"{name}.weight"]
    bias = params.get(f"{name}.bias", [0.0] * len(matrix[0]))
    return [bias[j] + math.fsum(x[i] * matrix[i][j] for i in range(len(x))) for j in range(len(matrix[0]))]


def normalised(x, params, name):
    mean = math.fsum(x) / len(x)
    variance = math.fsum((value - mean) ** 2 for value in x) / len(x)
    scale = 1 / math.sqrt(variance + 1e-5)
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    return [(value - mean) * scale * weight[i] + bias[i] for i, value in enumerate(x)]


def plus(x, y):
    return [a + b for a, b in zip(x, y, strict=True)]


def written_out(tokens, params, config):
    """Logits after every prefix of one text, in plain Python numbers."""
    C, H = config.n_embd, config.n_head
    D = C // H
    params = {name: value.tolist() for name, value in params.items()}
    stream = [plus(params["wte.weight"][token], params["wpe.weight"][t]) for t, token in enumerate(tokens)]
    for layer in range(config.n_layer):
        at = f"h.{layer}"
        qkv = [vector_times_matrix(normalised(x, params, f"{at}.ln_1"), params, f"{at}.attn.c_attn") for x in stream]
        for t in range(len(tokens)):
            mixed = []
            for head in range(H):
                part = slice(head * D, (head + 1) * D)
                query = qkv[t][0:C][part]
                keys = [row[C : 2 * C][part] for row in qkv[: t + 1]]
                values = [row[2 * C :][part] for row in qkv[: t + 1]]
                powers = [math.exp(math.fsum(a * b for a, b in zip(query, k, strict=True)) / D**0.5) for k in keys]
                mixed += [
                    math.fsum(p * v[d] for p, v in zip(powers, values, strict=True)) / sum(powers) for d in range(D)
                ]
            stream[t] = plus(stream[t], vector_times_matrix(mixed, params, f"{at}.attn.c_proj"))
        for t, x in enumerate(stream):
            hidden = vector_times_matrix(normalised(x, params, f"{at}.ln_2"), params, f"{at}.mlp.c_fc")
            hidden = [0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden]
            stream[t] = plus(x, vector_times_matrix(hidden, params, f"{at}.mlp.c_proj"))
    final = [normalised(x, params, "ln_f") for x in stream]
    return [[math.fsum(a * b for a, b in zip(x, row, strict=True)) for row in params["wte.weight"]] for x in final]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_is_the_gpt_written_out_in_loops(config):
    params = random_params(config)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, config.context_length))
    expected = [written_out(text, params, config) for text in tokens]
    np.testing.assert_allclose(gpt(tokens, params, config), expected, rtol=0, atol=1e-12)


def test_the_smallest_gpt_by_hand():
    """One layer that adds nothing: the stream is wte + wpe, normalised to (-1, 1) or (1, -1) up to epsilon."""
    config = GPTConfig(2, 1, n_layer=1, n_head=1, n_embd=2, bias=False)
    params = {name: np.zeros(shape) for name, shape in parameter_shapes(config).items()}
    params["wte.weight"] = np.array([[0.0, 2.0], [3.0, 1.0]])
    params["ln_f.weight"], params["ln_f.bias"] = np.ones(2), np.array([0.0, 0.5])
    s = 1 / math.sqrt(1 + 1e-5)  # both rows have variance 1
    logits = gpt(np.array([[0], [1]]), params, config)[:, 0]
    np.testing.assert_allclose(
        logits, [[2 * (s + 0.5), -3 * s + s + 0.5], [2 * (0.5 - s), 3 * s + 0.5 - s]], atol=1e-15
    )


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_its_parameters_are_as_many_as_the_config_says(config):
    assert sum(map(np.size, random_params(config).values())) == config.n_parameters


def test_array_api_strict_runs_the_same_text():
    xp = pytest.importorskip("array_api_strict")
    for config in CONFIGS:
        params = random_params(config)
        tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, config.context_length))
        strict = gpt(xp.asarray(tokens), {name: xp.asarray(value) for name, value in params.items()}, config)
        assert strict.__array_namespace__() is xp
        np.testing.assert_allclose(np.asarray(strict), gpt(tokens, params, config), rtol=0, atol=1e-12)
        model = ArrayGPT(config, {name: xp.asarray(value) for name, value in params.items()})
        np.testing.assert_allclose(
            model.next_token_logits(tokens), ArrayGPT(config, params).next_token_logits(tokens), atol=1e-12
        )


# ---- JAX ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jax():
    return pytest.importorskip("jax")


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 2e-5), (True, 1e-12)])
def test_jax_runs_the_same_text_plain_and_compiled(jax, x64, tolerance):
    config = CONFIGS[2]
    params = random_params(config)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, config.context_length))
    expected = gpt(tokens, params, config)
    with jax.enable_x64(x64):
        there = {name: jax.numpy.asarray(value) for name, value in params.items()}
        plain = ArrayGPT(config, there).sequence_logits(tokens)
        compiled = jax.jit(lambda tokens, params: gpt(tokens, params, config))(jax.numpy.asarray(tokens), there)
        assert compiled.dtype == (np.float64 if x64 else np.float32)
        np.testing.assert_allclose(plain, expected, rtol=0, atol=tolerance)
        np.testing.assert_allclose(np.asarray(compiled), expected, rtol=0, atol=tolerance)


GRADIENT_SHAPES = {
    "gpt2": CONFIGS[2],
    "gpt2 with tanh": GPTConfig(7, 5, 2, 2, 8, mlp="gelu_tanh"),
    "qwen3": GPTConfig(
        7, 5, 2, 4, 8, False, 2, 6, position="rope", norm="rmsnorm", mlp="swiglu", qk_norm=True, tied=False
    ),
}


@pytest.mark.parametrize(("x64", "tolerance"), [(False, 1e-5), (True, 1e-10)])
@pytest.mark.parametrize("name", GRADIENT_SHAPES)
def test_the_gradient_in_jax_is_torchs(jax, name, x64, tolerance):
    import torch

    from glassgpt.weights.tensors import torch_gpt, turned

    config = GRADIENT_SHAPES[name]
    params = {key: value * 0.3 for key, value in random_params(config).items()}
    params = params if x64 else {key: value.astype(np.float32) for key, value in params.items()}
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (3, config.context_length))
    with jax.enable_x64(x64):
        there = {key: jax.numpy.asarray(value) for key, value in params.items()}
        gradient = jax.jit(jax.value_and_grad(lambda p, ids: language_model_loss(p, ids, config)))
        loss, grads = gradient(there, jax.numpy.asarray(tokens))
        grads = {key: np.asarray(value) for key, value in grads.items()}
    model = torch_gpt(params, config)
    logits = model(torch.from_numpy(tokens[:, :-1]))
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(tokens[:, 1:]).flatten())
    expected.backward()
    np.testing.assert_allclose(float(loss), expected.item(), rtol=tolerance)
    for key, parameter in model.named_parameters():
        if key == "lm_head.weight" and config.tied:
            key = "wte.weight"
        np.testing.assert_allclose(grads[key], turned(key, parameter.grad.numpy()), atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", GRADIENT_SHAPES)
def test_vmap_over_texts_is_the_batch(jax, name):
    config = GRADIENT_SHAPES[name]
    params = random_params(config)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (4, config.context_length))
    with jax.enable_x64(True):
        there = {key: jax.numpy.asarray(value) for key, value in params.items()}
        one = jax.jit(jax.vmap(lambda text: gpt(text[None], there, config)[0]))
        np.testing.assert_allclose(np.asarray(one(jax.numpy.asarray(tokens))), gpt(tokens, params, config), atol=1e-10)


def test_the_loss_is_the_mean_surprise_of_what_followed():
    config = CONFIGS[2]
    params = random_params(config)
    tokens = np.random.default_rng(1).integers(0, config.vocab_size, (2, config.context_length))
    logprobs = log_softmax(gpt(tokens[:, :-1], params, config))
    expected = -np.mean(np.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1))
    np.testing.assert_allclose(language_model_loss(params, tokens, config), expected, rtol=1e-12)


# ---- as a language model --------------------------------------------------------------------------------------------


def test_it_crops_to_its_window_and_refuses_what_is_no_context():
    config = CONFIGS[2]
    model = ArrayGPT(config, random_params(config))
    text = np.array([[0, 1, 2, 1, 0, 2, 2]])
    np.testing.assert_array_equal(model.next_token_logits(text), model.next_token_logits(text[:, -4:]))
    assert model.sequence_logits(text).shape == (1, 7, 3)
    np.testing.assert_allclose(model.sequence_logits(text)[:, -1], model.next_token_logits(text), atol=1e-13)
    for wrong in ([[3]], [[-1]], [1, 2], [[0.5]]):
        with pytest.raises(UsageError):
            model.next_token_logits(wrong)
        with pytest.raises(UsageError):
            model.sequence_logits(wrong)


def test_erf_is_the_error_function():
    x = np.linspace(-4, 4, 41)
    np.testing.assert_allclose(erf(x), [math.erf(value) for value in x], rtol=1e-15, atol=1e-16)
