"""Traces against the model itself, NumPy by hand, and the attentions and hidden states of transformers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from glassgpt.decoding.shaped import Shaped
from glassgpt.errors import TooLargeError, UnsupportedError, UsageError
from glassgpt.loading import load
from glassgpt.models import native
from glassgpt.models import trace as trace_module
from glassgpt.models.adaptation import adapt
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.trace import Trace, Want, embedding_rows, trace, trace_bytes
from glassgpt.models.trainable import Trainable
from glassgpt.numerics import log_softmax
from glassgpt.weights.quantised import packed
from glassgpt.weights.tensors import tensors_of

V, T = 23, 12
EVERYTHING = Want(embeddings=True, attention="all", residual=True, hidden="all", lens=V, heads="all")
SHAPES = {
    "gpt2": GPTConfig(V, T, 3, 4, 24, mlp="gelu_tanh"),
    "one layer, one head": GPTConfig(V, T, 1, 1, 4, bias=False, mlp="relu2"),
    "llama": GPTConfig(V, T, 3, 4, 24, False, 2, position="rope", norm="rmsnorm", mlp="swiglu", tied=False),
    "qwen3": GPTConfig(V, T, 2, 4, 24, False, 1, 8, position="rope", norm="rmsnorm", mlp="swiglu", qk_norm=True),
    "alibi": GPTConfig(V, T, 2, 6, 24, n_kv_head=3, position="alibi", n_hidden=10, mlp_bias=False),
    "sinusoidal, post-norm": GPTConfig(V, T, 2, 2, 24, position="sinusoidal", post_norm=True, tied=False),
}


def model_of(config, dtype=torch.float64):
    """Weights large enough that every part of the function counts."""
    model = GPT(config, seed=3)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.to(dtype)


def tokens_of(n=T, seed=0):
    return np.random.default_rng(seed).integers(0, V, n)


@pytest.fixture(scope="module", params=SHAPES)
def traced(request):
    model = model_of(SHAPES[request.param])
    return SimpleNamespace(config=model.config, model=model, trace=trace(model, tokens_of(), EVERYTHING))


def normed(x, name, params, config):
    if config.norm == "rmsnorm":
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + config.norm_epsilon) * params[f"{name}.weight"]
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt(np.mean(centred**2, -1, keepdims=True) + config.norm_epsilon)
    return centred / spread * params[f"{name}.weight"] + params[f"{name}.bias"]


def linear(x, name, params):
    return x @ params[f"{name}.weight"] + params.get(f"{name}.bias", 0.0)


def test_token_and_position_embeddings_add_up_to_what_the_first_block_reads(traced):
    found, params = traced.trace, tensors_of(traced.model)
    np.testing.assert_array_equal(found.token_embeddings, params["wte.weight"][tokens_of()])
    added = found.position_embeddings
    if traced.config.position in ("rope", "alibi"):
        assert added is None
        np.testing.assert_array_equal(found.embeddings, found.token_embeddings)
    else:
        np.testing.assert_array_equal(found.embeddings, found.token_embeddings + added)
    np.testing.assert_array_equal(found.residual[0], found.embeddings)


def test_learned_positions_are_the_first_rows_of_wpe():
    model = model_of(SHAPES["gpt2"])
    found = trace(model, [1, 2, 3], Want(embeddings=True))
    np.testing.assert_array_equal(found.position_embeddings, tensors_of(model)["wpe.weight"][:3])


def test_attention_sums_to_one_and_never_looks_ahead(traced):
    weights = traced.trace.attention
    assert weights.shape == (traced.config.n_layer, traced.config.n_head, T, T)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=1e-12)
    assert (weights >= 0).all() and not np.triu(weights, 1).any()


def test_attention_and_hidden_rebuild_each_block_from_the_stream_before_it(traced):
    """In NumPy: weights times values through c_proj, then hidden through the MLP's c_proj, is all that a block adds."""
    config, found, params = traced.config, traced.trace, tensors_of(traced.model)
    H, K, D = config.n_head, config.kv_heads, config.head_width
    for layer in range(config.n_layer):
        at, x = f"h.{layer}", found.residual[layer]
        read = x if config.post_norm else normed(x, f"{at}.ln_1", params, config)
        values = linear(read, f"{at}.attn.c_attn", params)[:, (H + K) * D :].reshape(T, K, D)
        mixed = [found.attention[layer, head] @ values[:, head // (H // K)] for head in range(H)]
        x = x + linear(np.concatenate(mixed, axis=-1), f"{at}.attn.c_proj", params)
        x = normed(x, f"{at}.ln_1", params, config) if config.post_norm else x
        x = x + linear(found.hidden[layer], f"{at}.mlp.c_proj", params)
        x = normed(x, f"{at}.ln_2", params, config) if config.post_norm else x
        np.testing.assert_allclose(x, found.residual[layer + 1], rtol=0, atol=1e-9)


def turned(x, config):
    """Rope by complex numbers: pair (i, i + D/2) of (heads, T, D) times e^(i t theta^(-2i/D))."""
    D = config.head_width
    angles = np.arange(x.shape[1])[:, None] * config.rope_theta ** (-2 * np.arange(D // 2) / D)
    pairs = (x[..., : D // 2] + 1j * x[..., D // 2 :]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=-1)


def test_queries_keys_and_values_are_those_of_numpy(traced):
    """From the stream before the layer, by the weights of the file."""
    config, found, params = traced.config, traced.trace, tensors_of(traced.model)
    H, K, D = config.n_head, config.kv_heads, config.head_width
    assert found.head_layers == tuple(range(config.n_layer))
    for layer in range(config.n_layer):
        at, x = f"h.{layer}", found.residual[layer]
        read = x if config.post_norm else normed(x, f"{at}.ln_1", params, config)
        heads = linear(read, f"{at}.attn.c_attn", params).reshape(T, H + 2 * K, D).swapaxes(0, 1)
        q, k, v = heads[:H], heads[H : H + K], heads[H + K :]
        if config.qk_norm:
            q, k = (normed(one, f"{at}.attn.{name}_norm", params, config) for one, name in ((q, "q"), (k, "k")))
        if config.position == "rope":
            q, k = turned(q, config), turned(k, config)
        for name, expected in (("queries", q), ("keys", k), ("values", v)):
            np.testing.assert_allclose(getattr(found, name)[layer], expected, atol=1e-10, err_msg=name)


def test_scores_weights_and_mixes_follow_from_each_other(traced):
    """Head by head and row by row: q.k / sqrt(D), less alibi's slope times the distance; softmax; a weighted sum."""
    config, found = traced.config, traced.trace
    group = config.n_head // config.kv_heads
    for layer in range(config.n_layer):
        for head in range(config.n_head):
            q, k, v = found.queries[layer, head], found.keys[layer, head // group], found.values[layer, head // group]
            for t in range(T):
                scores = [q[t] @ k[j] / np.sqrt(config.head_width) for j in range(T)]
                np.testing.assert_allclose(found.scores[layer, head, t], scores, atol=1e-12)
                slope = 0.0 if found.slopes is None else found.slopes[head]
                powers = np.exp([scores[j] - slope * (t - j) for j in range(t + 1)])
                weights = powers / powers.sum()
                np.testing.assert_allclose(found.attention[layer, head, t, : t + 1], weights, atol=1e-12)
                np.testing.assert_allclose(found.mixes[layer, head, t], weights @ v[: t + 1], atol=1e-12)


def test_only_alibi_has_slopes(traced):
    if traced.config.position == "alibi":
        np.testing.assert_allclose(traced.trace.slopes[:4], [1 / 4, 1 / 16, 1 / 64, 1 / 256])
    else:
        assert traced.trace.slopes is None


def test_what_heads_write_adds_up_to_what_attention_adds(traced):
    """With the bias; and one head's is its mix times its rows of the file's matrix."""
    config, found, params = traced.config, traced.trace, tensors_of(traced.model)
    D = config.head_width
    for layer in range(config.n_layer):
        matrix = params[f"h.{layer}.attn.c_proj.weight"]
        with torch.inference_mode():
            block, x = traced.model.h[layer], torch.from_numpy(found.residual[[layer]])
            places = trace_module.Places.of(config, 0, T, x)
            added = block.attn(x if config.post_norm else block.ln_1(x), places)[0].numpy()
        bias = params.get(f"h.{layer}.attn.c_proj.bias", 0.0)
        np.testing.assert_allclose(found.written[layer].sum(axis=0) + bias, added, atol=1e-10)
        last = config.n_head - 1
        alone = found.mixes[layer, last] @ matrix[last * D :]
        np.testing.assert_allclose(found.written[layer, last], alone, atol=1e-10)


def test_heads_that_are_wanted_alone_are_the_same():
    model = model_of(SHAPES["alibi"])
    every, one = trace(model, tokens_of(), EVERYTHING), trace(model, tokens_of(), Want(heads=[1]))
    assert one.head_layers == (1,) and one.attention is None and one.residual is None
    for name in trace_module.STEPS:
        np.testing.assert_array_equal(getattr(one, name)[0], getattr(every, name)[1])


def test_the_steps_of_one_head_are_its_own():
    model = model_of(SHAPES["llama"])
    found = trace(model, tokens_of(), Want(attention=[2, 1], heads=[1]))
    steps = found.steps_of(1, 3)
    assert list(steps) == ["queries", "keys", "values", "scores", "weights", "mix", "written"]
    shared = {"keys": found.keys[0, 1], "values": found.values[0, 1]}  # heads 2 and 3 share the second
    own = {"queries": found.queries, "scores": found.scores, "mix": found.mixes, "written": found.written}
    for name, value in ({name: value[0, 3] for name, value in own.items()} | shared).items():
        np.testing.assert_array_equal(steps[name], value)
    np.testing.assert_array_equal(steps["weights"], found.attention[1, 3])
    np.testing.assert_allclose(steps["queries"] @ steps["keys"].T / np.sqrt(6), steps["scores"], atol=1e-12)
    for layer in (0, 2):  # of the third the heads weren't wanted
        with pytest.raises(UsageError, match=f"doesn't hold the heads of layer {layer}: want its attention"):
            found.steps_of(layer, 0)
    for head in (-1, 4):
        with pytest.raises(UsageError, match=f"heads are numbers from 0 to 3, got {head}"):
            found.steps_of(1, head)


def test_hidden_is_the_mlp_after_its_activation():
    model = model_of(SHAPES["one layer, one head"])
    found, params = trace(model, tokens_of(), EVERYTHING), tensors_of(model)
    added_by_mlp = found.hidden[0] @ params["h.0.mlp.c_proj.weight"]
    middle = found.residual[1] - added_by_mlp
    inside = linear(normed(middle, "h.0.ln_2", params, model.config), "h.0.mlp.c_fc", params)
    np.testing.assert_allclose(found.hidden[0], np.maximum(inside, 0) ** 2, atol=1e-12)


def test_the_last_layer_of_the_lens_is_the_models_answer(traced):
    expected = log_softmax(traced.model.sequence_logits(tokens_of()[None])[0])
    tokens, logprobs = traced.trace.lens_tokens[-1], traced.trace.lens_logprobs[-1]
    np.testing.assert_allclose(logprobs, np.take_along_axis(expected, tokens, -1), atol=1e-9)
    np.testing.assert_array_equal(tokens[:, 0], expected.argmax(-1))
    np.testing.assert_array_equal(np.sort(tokens, axis=-1), np.tile(np.arange(V), (T, 1)))


def test_every_layer_of_the_lens_is_the_stream_through_the_final_norm_and_the_head(traced):
    config, found, params = traced.config, traced.trace, tensors_of(traced.model)
    for layer, x in enumerate(found.residual):
        last = x if config.post_norm else normed(x, "ln_f", params, config)
        expected = log_softmax(last @ params["wte.weight" if config.tied else "lm_head.weight"].T)
        there = np.take_along_axis(expected, found.lens_tokens[layer], -1)
        np.testing.assert_allclose(found.lens_logprobs[layer], there, atol=1e-9)
        assert (np.diff(found.lens_logprobs[layer], axis=-1) <= 0).all()


def test_a_lens_keeps_the_likeliest_and_the_lowest_ids_among_equals():
    model = model_of(SHAPES["gpt2"])
    with torch.no_grad():
        model.lm_head.weight[5:] = model.lm_head.weight[4]
    full, some = (trace(model, tokens_of(), Want(lens=k)) for k in (V, 3))
    np.testing.assert_array_equal(some.lens_logprobs, full.lens_logprobs[..., :3])
    equals = np.diff(full.lens_logprobs, axis=-1) == 0
    assert equals.any() and (np.diff(full.lens_tokens, axis=-1)[equals] > 0).all()


def test_a_lens_in_small_pieces_is_the_same_lens(monkeypatch):
    model = model_of(SHAPES["llama"])
    whole = trace(model, tokens_of(), Want(lens=4))
    monkeypatch.setattr(trace_module, "NUMBERS_AT_ONCE", 2 * V)
    pieces = trace(model, tokens_of(), Want(lens=4))
    np.testing.assert_array_equal(whole.lens_tokens, pieces.lens_tokens)
    np.testing.assert_allclose(whole.lens_logprobs, pieces.lens_logprobs, atol=1e-12)


def test_a_trace_holds_what_was_wanted_and_nothing_else(traced):
    last = traced.config.n_layer - 1
    one = trace(traced.model, tokens_of(), Want(attention=[last]))
    assert one.attention_layers == (last,)
    np.testing.assert_array_equal(one.attention, traced.trace.attention[[last]])
    full = {name for name, value in vars(one).items() if value is not None and not isinstance(value, tuple)}
    assert full == {"tokens", "attention"}
    hidden = trace(traced.model, tokens_of(), Want(hidden=[0])).hidden
    np.testing.assert_array_equal(hidden, traced.trace.hidden[[0]])
    assert vars(trace(traced.model, [1], Want())) == vars(Trace(np.array([1])))


def test_a_trace_takes_as_many_bytes_as_foretold(traced):
    held = (value for name, value in vars(traced.trace).items() if isinstance(value, np.ndarray) and name != "tokens")
    foretold = trace_bytes(traced.config, T, EVERYTHING, bytes_each=8)
    without = traced.trace.position_embeddings is None
    slopes = 0 if traced.trace.slopes is None else traced.trace.slopes.nbytes
    assert sum(value.nbytes for value in held) == foretold + slopes - without * T * traced.config.n_embd * 8


def test_layers_come_in_the_order_that_was_asked_for():
    model = model_of(SHAPES["gpt2"])
    every, two = (trace(model, tokens_of(), Want(attention=layers)) for layers in ("all", (2, 0)))
    np.testing.assert_array_equal(two.attention, every.attention[[2, 0]])
    assert two.attention_layers == (2, 0)


def test_a_prefix_has_the_trace_of_its_place_in_the_text(traced):
    short = trace(traced.model, tokens_of()[:5], EVERYTHING)
    np.testing.assert_allclose(short.residual, traced.trace.residual[:, :5], atol=1e-12)
    np.testing.assert_allclose(short.attention, traced.trace.attention[..., :5, :5], atol=1e-12)


def test_a_packed_model_is_traced_through_its_torch_copy():
    if (reason := native.why_not()) is not None:
        pytest.skip(f"no compiled engine: {reason}")
    config = GPTConfig(50, T, 2, 2, 64, mlp="gelu_tanh")
    params = tensors_of(model_of(config, torch.float32))
    rounded, plain = packed(config, params, "int8"), packed(config, params, "float32")
    for model in (rounded, plain):
        found = trace(model, tokens_of(), EVERYTHING)
        best = model.sequence_logits(tokens_of()[None])[0].argmax(-1)
        np.testing.assert_array_equal(found.lens_tokens[-1, :, 0], best)
        assert found.attention.dtype == found.scores.dtype == np.float32
    assert np.abs(embedding_rows(rounded) - params["wte.weight"]).max() > 1e-4


@pytest.mark.parametrize("trainable", [Trainable("lora", rank=2, base="int8"), Trainable("adapters")])
def test_an_adapted_model_is_traced_with_what_was_added(trainable):
    model = model_of(SHAPES["gpt2"], torch.float32)
    adapt(model, trainable)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora" in name or "adapter" in name:
                parameter.fill_(0.1)
    found = trace(model, tokens_of(), EVERYTHING)
    expected = log_softmax(model.sequence_logits(tokens_of()[None])[0])
    there = np.take_along_axis(expected, found.lens_tokens[-1], -1)
    np.testing.assert_allclose(found.lens_logprobs[-1], there, atol=1e-5)
    if trainable.what == "lora":
        with torch.inference_mode():
            x = torch.from_numpy(found.residual[[1]])
            attention = model.h[1].attn(model.h[1].ln_1(x), trace_module.Places.of(model.config, 0, T, x))[0]
        added = found.written[1].sum(axis=0) + model.h[1].attn.c_proj.bias.detach().numpy()
        np.testing.assert_allclose(added, attention.numpy(), atol=1e-4)
    with torch.inference_mode():
        block, inside = model.h[0], torch.from_numpy(found.hidden[0])
        middle = found.residual[1] - block.mlp.c_proj(inside).numpy()
        again = torch.nn.functional.gelu(block.mlp.c_fc(block.ln_2(torch.from_numpy(middle))), approximate="tanh")
    np.testing.assert_allclose(again.numpy(), found.hidden[0], atol=1e-4)


def test_half_precision_comes_as_float32():
    found = trace(model_of(SHAPES["llama"], torch.bfloat16), tokens_of(), EVERYTHING)
    kept = [value for value in vars(found).values() if isinstance(value, np.ndarray) and value.dtype.kind == "f"]
    assert {value.dtype for value in kept if value is not found.lens_logprobs} == {np.dtype(np.float32)}
    np.testing.assert_allclose(found.attention.sum(axis=-1), 1.0, atol=1e-6)


# --- Against transformers ---------------------------------------------------------------------------------------------

GPT2 = {"vocab_size": 40, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0,
        "eos_token_id": 0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # fmt: skip
LLAMA = {"vocab_size": 40, "max_position_embeddings": 24, "hidden_size": 16, "intermediate_size": 24, "head_dim": 4,
         "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "bos_token_id": 0,
         "eos_token_id": 0}  # fmt: skip
KINDS = {"gpt2": ("GPT2", "LMHeadModel"), "llama": ("Llama", "ForCausalLM"), "qwen3": ("Qwen3", "ForCausalLM")}


@pytest.mark.parametrize("kind", KINDS)
def test_attentions_and_hidden_states_are_those_of_transformers(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    name, causal = KINDS[kind]
    settings = GPT2 if kind == "gpt2" else LLAMA
    config = getattr(transformers, f"{name}Config")(**settings, attn_implementation="eager")
    theirs = getattr(transformers, f"{name}{causal}")(config).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(1.0 if parameter.ndim == 1 else 0.0, 0.25, generator=generator)
    theirs.save_pretrained(tmp_path / "model")

    tokens = np.random.default_rng(1).integers(0, 40, 24)
    with torch.no_grad():
        answer = theirs(torch.from_numpy(tokens)[None], output_attentions=True, output_hidden_states=True)
    ours = load(tmp_path / "model")[0]
    found = trace(ours, tokens, EVERYTHING)
    attentions = np.stack([one[0].numpy() for one in answer.attentions])
    np.testing.assert_allclose(found.attention, attentions, atol=1e-5)
    assert attentions.max() > 0.3  # it looks somewhere
    states = np.stack([one[0].numpy() for one in answer.hidden_states])
    np.testing.assert_allclose(found.residual[:-1], states[:-1], rtol=1e-5, atol=1e-5)
    last = normed(found.residual[-1], "ln_f", tensors_of(ours), ours.config)
    np.testing.assert_allclose(last, states[-1], rtol=1e-5, atol=1e-5)
    logprobs = log_softmax(answer.logits[0].numpy())
    there = np.take_along_axis(logprobs, found.lens_tokens[-1], -1)
    np.testing.assert_allclose(found.lens_logprobs[-1], there, rtol=1e-5, atol=1e-5)


# --- What can't be traced ---------------------------------------------------------------------------------------------


def test_only_a_torch_gpt_can_be_traced():
    model = model_of(SHAPES["gpt2"])
    plain = ArrayGPT(model.config, tensors_of(model))
    for wrong in (plain, Shaped(model, [])):
        with pytest.raises(UnsupportedError, match=f"this is a {type(wrong).__name__}: trace the model inside"):
            trace(wrong, [1, 2], Want(lens=1))


def test_a_text_longer_than_the_window_is_refused():
    with pytest.raises(UsageError, match="the text has 13: give the last 12"):
        trace(model_of(SHAPES["gpt2"]), tokens_of(T + 1), Want())


@pytest.mark.parametrize("layers", [[3], [-1], ["1"], "every"])
@pytest.mark.parametrize("key", ["attention", "hidden", "heads"])
def test_layers_that_the_model_has_not_are_refused(layers, key):
    with pytest.raises(UsageError, match='"all" or numbers from 0 to 2'):
        trace(model_of(SHAPES["gpt2"]), [1], Want(**{key: layers}))


@pytest.mark.parametrize("tokens", [[], [V], [[1, 2]], [0.5]])
def test_what_are_no_tokens_is_refused(tokens):
    with pytest.raises(UsageError):
        trace(model_of(SHAPES["gpt2"]), tokens, Want())


@pytest.mark.parametrize("k", [-1, V + 1])
def test_a_lens_of_no_size_is_refused(k):
    with pytest.raises(UsageError, match=f"a lens keeps 0 to {V} tokens"):
        trace(model_of(SHAPES["gpt2"]), [1], Want(lens=k))


def test_a_trace_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(trace_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(TooLargeError, match="ask for fewer layers"):
        trace(model_of(SHAPES["gpt2"]), tokens_of(), Want(attention="all"))
    trace(model_of(SHAPES["gpt2"]), [1], Want(lens=1))
