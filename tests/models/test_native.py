"""The C engine against the plain-array GPT in float64, its packed formats against NumPy, and what it refuses.

Skipped, with the reason, where no C compiler is installed.
"""

import os
import shutil
import threading
import warnings
from dataclasses import replace

import numpy as np
import pytest
import scipy.special

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models import gpt_array
from glassgpt.models.config import GPTConfig, RopeScaling, parameter_shapes
from glassgpt.models.native import FORMATS, build, engine, pack, why_not

needs_engine = pytest.mark.skipif(why_not() is not None, reason=f"no native engine here: {why_not()}")

LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
SHAPES = {
    "gpt2": GPTConfig(50, 24, n_layer=3, n_head=4, n_embd=32, mlp="gelu_tanh"),
    "baby": GPTConfig(2, 3, n_layer=4, n_head=4, n_embd=16, bias=False),
    "gpt1": GPTConfig(3, 24, n_layer=2, n_head=2, n_embd=20, post_norm=True),
    "llama": GPTConfig(64, 40, n_layer=2, n_head=6, n_kv_head=2, n_embd=48, n_hidden=100, tied=False, **LLAMA),
    "qwen3": GPTConfig(33, 20, n_layer=2, n_head=3, n_kv_head=1, n_embd=66, head_size=6, qk_norm=True, **LLAMA),
    "llama3": GPTConfig(
        9, 40, n_layer=1, n_head=2, n_embd=64, rope_scaling=RopeScaling(8.0, 1.0, 4.0, 16), rope_theta=100.0, **LLAMA
    ),
    "alibi": GPTConfig(11, 24, n_layer=2, n_head=3, n_embd=66, head_size=72, position="alibi", mlp="relu2"),
    "sines": GPTConfig(5, 24, n_layer=2, n_head=1, n_embd=33, position="sinusoidal", mlp_bias=False, norm_epsilon=0.1),
    "words": GPTConfig(50257, 8, n_layer=1, n_head=1, n_embd=4),
    "one": GPTConfig(2, 1, n_layer=1, n_head=1, n_embd=1),
}


def random_params(config, seed=0):
    """Float32 weights of such a size that every part of the function does something."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in parameter_shapes(config).items():
        size = 0.4 if name.startswith(("w", "lm_head")) or len(shape) == 1 else 1 / np.sqrt(shape[0])
        one = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
        params[name] = (one + rng.normal(0, 0.3 if one else size, shape)).astype(np.float32)
    return params


def random_tokens(config, n=None, seed=1):
    return np.random.default_rng(seed).integers(0, config.vocab_size, n or config.context_length)


def exact(config, params, tokens):
    return gpt_array.gpt(tokens[None], {name: value.astype(np.float64) for name, value in params.items()}, config)[0]


def dequantised(weights, config):
    return {name: weights.dequantised(name) for name in parameter_shapes(config)}


def one_by_one(cache, tokens):
    return np.concatenate([cache.step([token]) for token in tokens])


def assert_close(found, expected, tolerance):
    off = np.abs(found - expected) / np.maximum(1, np.abs(expected))
    assert off.max() <= tolerance


# ---- the function ---------------------------------------------------------------------------------------------------


@needs_engine
@pytest.mark.parametrize("name", SHAPES)
def test_float32_logits_are_those_of_the_array_gpt(name):
    config = SHAPES[name]
    params, tokens = random_params(config), random_tokens(config)
    logits = pack(config, params, "float32", threads=2).cache().step(tokens)
    assert logits.dtype == np.float32 and logits.shape == (config.context_length, config.vocab_size)
    assert_close(logits, exact(config, params, tokens), 1e-5)


@needs_engine
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["gpt2", "gpt1", "llama", "qwen3", "alibi"])
def test_blocks_and_threads_change_no_bit(name, format):
    config = SHAPES[name]
    tokens = random_tokens(config)
    weights = pack(config, random_params(config), format, threads=1)
    expected = one_by_one(weights.cache(), tokens)
    for threads in (1, 2, 5):
        weights.threads = threads
        for cut in (1, 3, len(tokens) - 1):
            cache = weights.cache()
            parts = [cache.step(tokens[:cut]), cache.step(tokens[cut:])]
            np.testing.assert_array_equal(np.concatenate(parts), expected)


@needs_engine
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("format", "tolerance"), [("bfloat16", 5e-3), ("int8", 0.1), ("int4", 0.1)])
def test_packed_logits_are_near_those_of_what_the_weights_stand_for(name, format, tolerance):
    config = SHAPES[name]
    tokens = random_tokens(config)
    weights = pack(config, random_params(config), format)
    expected = exact(config, dequantised(weights, config), tokens)
    error = weights.cache().step(tokens) - expected
    assert np.sqrt(np.mean(error**2)) <= tolerance * max(1, np.std(expected))


@needs_engine
def test_the_last_logits_alone_are_the_last_logits():
    config = SHAPES["gpt2"]
    weights = pack(config, random_params(config), "int8")
    for n in (1, 7, 16, 17, 24):
        tokens = random_tokens(config, n)
        last = weights.cache().step(tokens, last_only=True)
        np.testing.assert_array_equal(last, weights.cache().step(tokens)[-1:])


@needs_engine
def test_a_cache_grows_with_its_text():
    config = GPTConfig(5, 700, n_layer=2, n_head=2, n_embd=16)
    params, tokens = random_params(config), random_tokens(config)
    cache = pack(config, params).cache()
    assert cache.capacity == engine.SMALLEST
    assert_close(cache.step(tokens), exact(config, params, tokens), 1e-5)
    assert cache.capacity == cache.length == 700


@needs_engine
@pytest.mark.parametrize("format", ["float32", "int4"])
def test_rewind_forgets_and_fork_parts(format):
    config = SHAPES["llama"]
    tokens = random_tokens(config)
    weights = pack(config, random_params(config), format)
    expected = weights.cache().step(tokens)
    cache = weights.cache()
    cache.step(tokens[:9])
    fork = cache.fork()
    cache.step((tokens[9:20] + 1) % config.vocab_size)
    np.testing.assert_array_equal(fork.step(tokens[9:]), expected[9:])
    cache.rewind(13)
    assert cache.length == 7
    np.testing.assert_array_equal(cache.step(tokens[7:]), expected[7:])


@needs_engine
@pytest.mark.parametrize("format", ["float32", "bfloat16"])
def test_keys_and_values_may_come_from_elsewhere(format):
    config = SHAPES["qwen3"]
    tokens = random_tokens(config)
    weights = pack(config, random_params(config), format)
    source = weights.cache()
    expected = source.step(tokens)
    assert source.keys.shape == (config.n_layer, config.kv_heads, source.capacity, config.head_width)
    copied, written = weights.cache(), weights.cache()
    copied.extend(source.keys[:, :, :12].astype(np.float32), source.values[:, :, :12])
    written.reserve(12)
    written.keys[:, :, :12] = source.keys[:, :, :12]
    written.values[:, :, :12] = source.values[:, :, :12]
    written.length = 12
    for cache in (copied, written):
        np.testing.assert_array_equal(cache.step(tokens[12:]), expected[12:])


@needs_engine
def test_float32_keeps_float32_keys():
    config = SHAPES["gpt2"]
    assert pack(config, random_params(config), "float32").cache().keys.dtype == np.float32


@needs_engine
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("gelu", lambda x: x * scipy.special.ndtr(x)),
        ("gelu_tanh", lambda x: x * scipy.special.expit(2 * np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
        ("relu2", lambda x: np.maximum(x, 0) ** 2),
        ("swiglu", lambda x: x * scipy.special.expit(x)),
    ],
)
def test_activations_are_those_of_float64_to_a_millionth(name, reference):
    x = np.concatenate([np.linspace(-5, 12, 20001), [0.0, 1e-10, -1e-10, 1e4]]).astype(np.float32)
    found = activated(name, x)
    expected = reference(x.astype(np.float64))
    # gelu and its approximation vanish so fast on the left that digits of the exponent are lost: 1e-8 of x, then
    allowed = 1e-6 * np.abs(expected) + (1e-8 * np.abs(x) * (x < -2) if name.startswith("gelu") else 0)
    assert (np.abs(found - expected) <= allowed).all()
    near = np.abs(x) < 2
    assert (np.abs(found - expected)[near] <= 5e-7 * np.abs(expected)[near]).all()
    assert (np.abs(activated(name, np.array([-200.0, -1e4, -1e12], dtype=np.float32))) < 1e-25).all()


def activated(name, x):
    """With swiglu, of gates whose values are 1."""
    return engine.activated(name, np.concatenate([x, np.ones_like(x)]) if name == "swiglu" else x)


# ---- the formats ----------------------------------------------------------------------------------------------------


@needs_engine
@pytest.mark.parametrize("name", ["gpt2", "qwen3", "one"])
def test_float32_stands_for_itself(name):
    config = SHAPES[name]
    params = random_params(config)
    for found, expected in zip(dequantised(pack(config, params), config).values(), params.values(), strict=True):
        np.testing.assert_array_equal(found, expected)


@needs_engine
def test_bfloat16_rounds_to_nearest_and_even():
    config = SHAPES["gpt2"]
    params = random_params(config)
    params["wte.weight"][0, :3] = [1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20]
    found = pack(config, params, "bfloat16").dequantised("wte.weight")
    assert found[0, :3].tolist() == [1.0, 1 + 2**-6, 1 + 2**-7]
    bits = params["wte.weight"].view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(found, expected)


def blocks(matrix):
    """(rows, columns) as (rows, blocks, 32), the columns padded with zeros."""
    return np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % 32))).reshape(len(matrix), -1, 32)


@needs_engine
@pytest.mark.parametrize("name", ["gpt2", "qwen3"])
def test_int8_is_off_by_half_a_step_at_most(name):
    config = SHAPES[name]
    params = random_params(config)
    weights = pack(config, params, "int8")
    for matrix in ("wte.weight", "h.1.mlp.c_fc.weight"):
        turned = (lambda a: a) if matrix == "wte.weight" else np.transpose
        value = blocks(turned(params[matrix]))
        found = blocks(turned(weights.dequantised(matrix)))
        step = np.abs(value).max(axis=2, keepdims=True) / 127
        assert (np.abs(found - value) <= step * (0.5 + 127 * 2**-11 + 1e-5)).all()  # the step is rounded to 11 bits


@needs_engine
def test_int4_is_no_worse_than_sixteen_levels_between_least_and_largest():
    config = SHAPES["gpt2"]
    params = random_params(config)
    name = "h.0.attn.c_attn.weight"
    value = blocks(params[name].T)
    found = blocks(pack(config, params, "int4").dequantised(name).T)
    least, most = value.min(axis=2, keepdims=True), value.max(axis=2, keepdims=True)
    d, least = (half.astype(np.float16).astype(np.float32) for half in ((most - least) / 15, least))
    plain = np.clip(np.rint((value - least) / d), 0, 15) * d + least
    errors = [np.sum((levels - value) ** 2, axis=2) for levels in (found, plain)]
    assert (errors[0] <= errors[1] * 1.0001).all()
    assert errors[0].sum() < 0.97 * errors[1].sum()  # and better on the whole


@needs_engine
@pytest.mark.parametrize("format", ["bfloat16", "int8"])
def test_what_is_packed_already_stays_as_it_is(format):
    config = SHAPES["llama"]
    once = dequantised(pack(config, random_params(config), format), config)
    twice = dequantised(pack(config, once, format), config)
    for name in once:
        np.testing.assert_array_equal(once[name], twice[name])


@needs_engine
def test_blocks_of_a_q4_file_stay_as_they_are():
    config = replace(SHAPES["gpt2"], n_layer=1)
    rng = np.random.default_rng(3)
    params = random_params(config)
    for name in params:
        if name.endswith(("c_attn.weight", "c_fc.weight")):
            n_in, n_out = params[name].shape
            levels = rng.integers(0, 16, (n_out, n_in // 32, 32))
            levels[:, :, :2] = [0, 15]
            d, m = rng.normal(0.02, 0.004, (2, n_out, n_in // 32, 1)).astype(np.float16).astype(np.float32)
            params[name] = np.ascontiguousarray((np.abs(d) * levels - 8 * m).reshape(n_out, n_in).T, dtype=np.float32)
            found = pack(config, params, "int4").dequantised(name)
            np.testing.assert_array_equal(found, params[name])


@needs_engine
@pytest.mark.parametrize("format", ["int8", "int4"])
def test_integer_products_are_those_of_numpy(format):
    """A model whose blocks do nothing, so that its logits are one matrix times one quantised row."""
    config = GPTConfig(40, 8, n_layer=1, n_head=1, n_embd=200, tied=False)
    params = random_params(config)
    for name in ("h.0.attn.c_proj", "h.0.mlp.c_proj"):
        params[f"{name}.weight"][:], params[f"{name}.bias"][:] = 0, 0
    weights = pack(config, params, format, output_format=format)
    tokens = random_tokens(config)
    known = dequantised(weights, config)
    x = (known["wte.weight"][tokens] + known["wpe.weight"]).astype(np.float64)
    x = blocks(gpt_array.layer_norm(x, params, "ln_f", config))
    step = np.abs(x).max(axis=2, keepdims=True) / 127
    x = (np.rint(x / step) * step).reshape(len(tokens), -1)[:, : config.n_embd]
    assert_close(weights.cache().step(tokens), x @ known["lm_head.weight"].T.astype(np.float64), 2e-5)


@needs_engine
def test_fewer_bits_take_fewer_bytes():
    config = GPTConfig(256, 8, n_layer=2, n_head=2, n_embd=128)
    params = random_params(config)
    numbers = sum(value.size for name, value in params.items() if value.ndim == 2 and name != "wpe.weight")
    bits = {"float32": 32, "bfloat16": 16, "int8": 8.5}
    for format, expected in bits.items():
        assert pack(config, params, format).n_bytes * 8 == numbers * expected
    assert pack(config, params, "int4", output_format="int4").n_bytes * 8 == numbers * 5


# ---- every kernel, whatever this processor has ----------------------------------------------------------------------


@needs_engine
@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["-O3", "-march=native", "-DPLAIN"],
        ["-O3", "-march=native", "-DPLAIN", "-DVECTOR_BYTES=16"],
        ["-O3", "-march=native", "-DPLAIN", "-DVECTOR_BYTES=64"],
        ["-O2"],
    ],
    ids=" ".join,
)
def test_plain_kernels_give_the_same(options, tmp_path, monkeypatch):
    config = SHAPES["qwen3"]
    params, tokens = random_params(config), random_tokens(config)
    expected = {format: pack(config, params, format).cache().step(tokens) for format in FORMATS}
    path = build.compiled(build._find_compiler(), [*options, *build.OPTIONS], tmp_path)
    other = engine.typed(engine.ctypes.CDLL(str(path)))
    monkeypatch.setattr(engine, "engine", lambda: other)
    for format in FORMATS:
        weights = pack(config, params, format, threads=2)
        logits = weights.cache().step(tokens)
        np.testing.assert_array_equal(logits, one_by_one(weights.cache(), tokens))
        if format == "float32":
            assert_close(logits, exact(config, params, tokens), 1e-5)
        # a float16 cache here and not there, or a byte rounded the other way: both are within the format's own error
        assert np.sqrt(np.mean((logits - expected[format]) ** 2)) <= 0.03 * np.std(logits)


# ---- several threads and processes ----------------------------------------------------------------------------------


@needs_engine
def test_texts_grow_side_by_side_in_several_threads():
    config = SHAPES["gpt2"]
    weights = pack(config, random_params(config), "int8", threads=2)
    texts = [random_tokens(config, seed=seed) for seed in range(4)]
    expected = [one_by_one(weights.cache(), tokens) for tokens in texts]
    found = [None] * len(texts)

    def work(i):
        found[i] = one_by_one(weights.cache(), texts[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(texts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(found, expected)


@needs_engine
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings(r"ignore:os\.fork\(\) was called")  # JAX, if another test has imported it
def test_a_forked_process_has_threads_of_its_own():
    config = SHAPES["gpt2"]
    weights = pack(config, random_params(config), "float32", threads=2)
    expected = weights.cache().step([1, 2, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
        child = os.fork()
    if child == 0:
        os._exit(0 if (weights.cache().step([1, 2, 3]) == expected).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- what is refused ------------------------------------------------------------------------------------------------


@needs_engine
def test_wrong_parameters_are_refused():
    config = SHAPES["gpt2"]
    params = random_params(config)
    with pytest.raises(UsageError, match="float32, bfloat16, int8, int4; got 'int3'"):
        pack(config, params, "int3")
    with pytest.raises(UsageError, match="got 'int2'"):
        pack(config, params, "int8", output_format="int2")
    with pytest.raises(UsageError, match=r"has no parameter extra"):
        pack(config, params | {"extra": params["ln_f.bias"]})
    with pytest.raises(UsageError, match=r"needs a parameter ln_f\.bias"):
        pack(config, {name: value for name, value in params.items() if name != "ln_f.bias"})
    with pytest.raises(UsageError, match=r"wte\.weight should be of shape \(50, 32\)"):
        pack(config, params | {"wte.weight": params["wte.weight"].T})
    with pytest.raises(NumericalError, match=r"ln_f\.bias holds NaN"):
        pack(config, params | {"ln_f.bias": np.full(32, np.nan)})
    with pytest.raises(NumericalError, match=r"c_fc\.weight holds NaN"):
        pack(config, params | {"h.2.mlp.c_fc.weight": np.full((32, 128), np.inf)})
    with pytest.raises(UsageError, match="1 to 256 threads, got 0"):
        pack(config, params, threads=0)


@needs_engine
def test_wrong_tokens_are_refused_and_change_nothing():
    config = SHAPES["gpt2"]
    weights = pack(config, random_params(config))
    cache = weights.cache()
    cache.step([1, 2])
    wrong = [[50], [-1], [], [[1, 2]], [1.5], [2**40]]
    for tokens in wrong:
        with pytest.raises(UsageError):
            cache.step(tokens)
    with pytest.raises(UsageError, match="25 tokens don't fit this model's context of 24"):
        cache.step([0] * 23)
    with pytest.raises(UsageError, match="cannot rewind 3 tokens of a text that holds 2"):
        cache.rewind(3)
    with pytest.raises(UsageError, match="can't hold 25 tokens"):
        cache.length = 25
    with pytest.raises(UsageError, match=r"expected values of shape \(3, 4, tokens, 8\)"):
        cache.extend(cache.keys[:, :, :4], cache.values[:, :, :3])
    with pytest.raises(UsageError, match="no parameter 'nothing'"):
        weights.dequantised("nothing")
    assert cache.length == 2
    np.testing.assert_array_equal(cache.step([3]), weights.cache().step([1, 2, 3])[2:])


# ---- compiling ------------------------------------------------------------------------------------------------------


def fresh_attempt():
    """What a new process would find."""
    return build._loaded.__wrapped__()


def test_a_variable_turns_it_off(monkeypatch):
    monkeypatch.setenv("GLASSGPT_NATIVE", "0")
    assert fresh_attempt() == "GLASSGPT_NATIVE=0 turns it off"


def test_without_a_compiler_there_is_a_reason(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert fresh_attempt() == "CC names no-such-compiler, which is not installed"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert fresh_attempt() == "no C compiler was found: install gcc or clang"


@pytest.mark.skipif(shutil.which("false") is None, reason="no program named false")
def test_a_compiler_that_fails_is_a_reason(monkeypatch):
    monkeypatch.setenv("CC", "false")
    assert "false failed on decode.c" in fresh_attempt()


def test_without_an_engine_packing_says_why(monkeypatch):
    def none():
        return None

    monkeypatch.setattr(engine, "library", none)
    monkeypatch.setattr(engine, "why_not", lambda: "a reason")
    with pytest.raises(UsageError, match="no native engine here: a reason"):
        engine.engine.__wrapped__()


@needs_engine
@pytest.mark.slow
def test_it_is_compiled_once_into_a_folder_of_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(fresh_attempt(), str)
    folder = tmp_path / "glassgpt" / "native"
    (library,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    written = library.stat().st_mtime_ns
    assert not isinstance(fresh_attempt(), str)
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == [written]


@needs_engine
@pytest.mark.slow
def test_a_kept_library_that_is_damaged_is_compiled_again(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
    assert not isinstance(fresh_attempt(), str)
    (library,) = (tmp_path / "first" / "glassgpt" / "native").iterdir()
    folder = tmp_path / "second" / "glassgpt" / "native"
    folder.mkdir(parents=True, mode=0o700)
    (folder / library.name).write_bytes(library.read_bytes()[:1000])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
    assert not isinstance(fresh_attempt(), str)
    assert [path.stat().st_size for path in folder.iterdir()] == [library.stat().st_size]


@needs_engine
@pytest.mark.slow
def test_a_folder_that_others_may_write_to_is_not_used(monkeypatch, tmp_path):
    folder = tmp_path / "glassgpt" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not isinstance(fresh_attempt(), str)
    assert not list(folder.iterdir())
