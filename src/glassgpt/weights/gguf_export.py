"""A GPT of ours as a GGUF file, for llama.cpp and what is built on it.

llama.cpp computes what its architectures prescribe and has no switches for the rest, so a model can be written only if
its shape is that of GPT-2, Llama or dense Qwen3; the error names the choice that isn't.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glassgpt.errors import NumericalError, UsageError
from glassgpt.files import replacing, telling
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.text.bpe import SPLITTINGS, BPETokenizer
from glassgpt.weights.gguf_model import ROPE_FACTORS, Part, gguf_parts, rope_factors, rows_in_pairs

if TYPE_CHECKING:
    import gguf

DTYPES = {"F32": 0, "F16": 1, "Q8_0": 7}  # and the numbers by which general.file_type calls them
Q8_0_BLOCK = 32
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens


def export_gguf(
    config: GPTConfig,
    params: Mapping[str, np.ndarray],
    tokenizer: BPETokenizer | None,
    path: Path,
    dtype: str = "F32",
    chat_template: str | None = None,
    name: str | None = None,
) -> None:
    """Write a model as a GGUF file, tensor by tensor; a file that is there is replaced only by a whole one.

    `params`: float arrays by the names and in the shapes of `parameter_shapes(config)`. `dtype`: of the matrices, F32
    (which gives float32 parameters back bit for bit), F16 or Q8_0 (whose blocks of 32 need rows that they divide: other
    matrices are F16); vectors and learned positions are always F32. Without a tokenizer, llama.cpp takes ids only.
    Raises UsageError for what llama.cpp can't compute or hold, NumericalError for NaN or infinity.
    """
    from gguf import GGUFWriter

    architecture = exportable_architecture(config)
    if dtype not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}; got {dtype!r}")
    _check_shapes(params, config)
    words = _words(tokenizer, config) if tokenizer is not None else None
    with replacing(path) as file, telling(path):
        writer = GGUFWriter(file.beside, architecture)
        try:
            _add_settings(writer, config, architecture, name or path.stem, dtype)
            _add_words(writer, words, tokenizer, chat_template)
            _write_tensors(writer, config, params, architecture, dtype)
        finally:
            writer.close()


def exportable_architecture(config: GPTConfig) -> str:
    """The architecture of llama.cpp that computes this config: gpt2, llama or qwen3. Raises UsageError if none does."""
    if config.position in ("sinusoidal", "alibi"):
        raise _not_exportable(f"position = {config.position!r}", "'learned' or 'rope'")
    architecture = "gpt2" if config.position == "learned" else "qwen3" if config.qk_norm else "llama"
    wanted: dict[str, object] = {"post_norm": False}
    if architecture == "gpt2":
        wanted |= {"norm": "layernorm", "mlp": "gelu_tanh", "qk_norm": False, "bias": True, "mlp_bias": True}
        wanted["head_size"] = config.n_embd // config.n_head
    else:
        wanted |= {"norm": "rmsnorm", "mlp": "swiglu"}
    if architecture == "qwen3":
        wanted |= {"bias": False, "mlp_bias": False, "rope_scaling": None}
    for choice, value in wanted.items():
        if getattr(config, choice) != value:
            raise _not_exportable(f"{choice} = {getattr(config, choice)!r}", f"{value!r} in its {architecture}")
    return architecture


def _not_exportable(choice: str, wanted: str) -> UsageError:
    return UsageError(f"llama.cpp computes no model with model.{choice}, only with {wanted}: it cannot be a GGUF file")


def _check_shapes(params: Mapping[str, np.ndarray], config: GPTConfig) -> None:
    shapes = parameter_shapes(config)
    if wrong := sorted(shapes.keys() ^ params.keys()):
        raise UsageError(f"the parameters are not those of the config: {wrong[0]} is missing or too many")
    for name, shape in shapes.items():
        if params[name].shape != shape:
            raise UsageError(f"{name} should be of shape {shape} by the config, and is {params[name].shape}")


# ---- metadata --------------------------------------------------------------------------------------------------------


def _add_settings(writer: gguf.GGUFWriter, config: GPTConfig, architecture: str, name: str, dtype: str) -> None:
    writer.add_type("model")
    writer.add_name(name)
    writer.add_file_type(DTYPES[dtype])
    writer.add_quantization_version(2)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.context_length)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.hidden_width)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.kv_heads)
    if architecture == "gpt2":
        writer.add_layer_norm_eps(config.norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_key_length(config.head_width)
    writer.add_value_length(config.head_width)
    writer.add_rope_dimension_count(config.head_width)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling is not None:  # the rule itself is in the tensor rope_freqs
        writer.add_rope_scaling_orig_ctx_len(config.rope_scaling.original_context_length)


def _words(tokenizer: BPETokenizer, config: GPTConfig) -> tuple[list[str], list[int]]:
    """The tokens, one for each row of the embedding, and their types."""
    if tokenizer.vocab_size > config.vocab_size:
        raise UsageError(f"the tokenizer has {tokenizer.vocab_size} tokens, and the model {config.vocab_size}")
    vocabulary = tokenizer.to_tokenizer_json()["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    types = [NORMAL] * len(tokens)
    for names, type in ((tokenizer.special, CONTROL), (tokenizer.user_defined, USER_DEFINED)):
        for token in names.values():
            types[token] = type
    for row in range(len(tokens), config.vocab_size):
        tokens.append(f"[PAD{row}]")
        types.append(UNUSED)
    return tokens, types


def _add_words(
    writer: gguf.GGUFWriter,
    words: tuple[list[str], list[int]] | None,
    tokenizer: BPETokenizer | None,
    chat_template: str | None,
) -> None:
    if words is None or tokenizer is None:
        writer.add_tokenizer_model("none")
        return
    if tokenizer.end_token is None:
        raise UsageError(
            "the tokenizer has no end_token, and llama.cpp would end texts at token 11: give it one, as in "
            "BPETokenizer.from_tokenizer_json(..., end_token='<|endoftext|>')"
        )
    merges = tokenizer.to_tokenizer_json()["model"]["merges"]
    rules = [name for name, rule in SPLITTINGS.items() if rule == tokenizer.splitting]
    if not merges or not rules:
        raise UsageError(
            "llama.cpp reads no tokenizer " + ("without merges" if rules else "that cuts words as it does")
        )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rules[0])
    writer.add_token_list(words[0])
    writer.add_token_types(words[1])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(tokenizer.end_token)  # as GPT-2 has it; without one, llama.cpp would take token 11
    writer.add_eos_token_id(tokenizer.end_token)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


# ---- tensors ---------------------------------------------------------------------------------------------------------


def _write_tensors(
    writer: gguf.GGUFWriter, config: GPTConfig, params: Mapping[str, np.ndarray], architecture: str, dtype: str
) -> None:
    """Announce every tensor, then write them one by one, so that one at a time is in memory."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quant_shape_to_byte_shape, quantize

    parts = gguf_parts(config, architecture)
    factors = rope_factors(config).astype(np.float32) if config.rope_scaling is not None else None
    types = {part.name: GGMLQuantizationType[_type(part, dtype)] for some in parts.values() for part in some}
    if factors is not None:
        writer.add_tensor_info(ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for some in parts.values():
        for part in some:
            type = types[part.name]
            size = int(np.prod(quant_shape_to_byte_shape(part.shape, type)))
            writer.add_tensor_info(part.name, part.shape, np.dtype(np.float32), size, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for name, some in parts.items():
        for part, array in _split(params[name], some):
            _check_numbers(name, array, types[part.name].name)
            writer.write_tensor_data(np.ascontiguousarray(quantize(array, types[part.name])))


def _type(part: Part, dtype: str) -> str:
    if len(part.shape) == 1 or part.name == "position_embd.weight":
        return "F32"
    return "F16" if dtype == "Q8_0" and part.shape[-1] % Q8_0_BLOCK else dtype


def _split(value: np.ndarray, parts: list[Part]) -> Iterator[tuple[Part, np.ndarray]]:
    """A parameter as the tensors that it is in a GGUF file, in float32."""
    at = 0
    for part in parts:
        array = value[..., at : at + part.width]
        at += part.width
        array = np.ascontiguousarray(array.T if part.turned else array, dtype=np.float32)
        yield part, rows_in_pairs(array, part.permuted_heads) if part.permuted_heads else array


def _check_numbers(name: str, array: np.ndarray, type: str) -> None:
    if not np.isfinite(array).all():
        raise NumericalError(f"{name} holds NaN or infinity: a model with such weights is not written")
    if type != "F32" and np.abs(array).max() > np.finfo(np.float16).max:
        raise UsageError(f"{name} holds {np.abs(array).max():g}, more than {type} can: write it as F32")
