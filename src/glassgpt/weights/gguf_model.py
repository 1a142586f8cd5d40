"""A GGUF file as a GPT: its metadata as a config, its tensors as parameters, its vocabulary as a tokenizer.

Three of llama.cpp's architectures are read: `gpt2`, `llama` (SmolLM2 too, and Llama 3 with its stretched rotary
wavelengths) and `qwen3`. A key of the architecture that isn't known here may change what the model computes, so it is
an error and never passed over; a tensor that is missing, left over or of another shape is one as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.models.config import GPTConfig, RopeScaling, parameter_shapes
from glassgpt.models.positions import rope_frequencies
from glassgpt.text.bpe import BPETokenizer
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.gguf_file import GGUF, read_gguf, shown
from glassgpt.weights.stored import StoredTensor

ARCHITECTURES = ("gpt2", "llama", "qwen3")
LARGEST_SIZE = 2**31 - 1

# Keys that say where a file comes from, how it was quantised, or how its text is cut: none changes the logits.
HARMLESS = ("general.", "tokenizer.", "quantize.", "imatrix.", "split.", "mradermacher.")

READ = {
    *("vocab_size", "context_length", "embedding_length", "block_count", "feed_forward_length"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length"),
}
READ_OF_ROPE = {"attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.dimension_count"}
READ_OF_GPT2 = {"attention.layer_norm_epsilon"}

# Keys that change the maths, with the values by which they don't.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "use_parallel_residual": (False,),
    "attention.causal": (True,),
    "attention.sliding_window": (0,),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "attn_logit_softcapping": (0.0,),
    "final_logit_softcapping": (0.0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "tensor_data_layout": ("Meta AI original pth",),  # says that rows of q and k are permuted, as they always are
}
NEUTRAL_OF_ROPE: dict[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scale_linear": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
}
UNUSED_OF_ROPE = {"rope.scaling.original_context_length", "rope.scaling.finetuned"}  # mean nothing without a type

NORMAL, USER_DEFINED = 1, 4  # token types; the others (2 unknown, 3 control, 5 unused, 6 byte) stand for no text

EMBEDDINGS = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
IN_LAYER = {
    "ln_1": ("attn_norm",),
    "ln_2": ("ffn_norm",),
    "attn.c_attn": ("attn_q", "attn_k", "attn_v"),
    "attn.q_norm": ("attn_q_norm",),
    "attn.k_norm": ("attn_k_norm",),
    "attn.c_proj": ("attn_output",),
    "mlp.c_fc": ("ffn_up",),
    "mlp.c_proj": ("ffn_down",),
}
ROPE_FACTORS = "rope_freqs.weight"  # by how much each wavelength is stretched; of `llama` only
LAYER_NAME = re.compile(r"h\.(\d+)\.(.+)\.(weight|bias)")


def read_gguf_model(path: Path) -> Bundle:
    """The model in a GGUF file, its shape and tensors checked and no weights read yet.

    Raises DamagedFileError or UnsupportedError, naming the file and what is wrong.
    """
    gguf = read_gguf(path)
    config = gguf_config(gguf)
    without_words = _text(gguf, "tokenizer.ggml.model", "none") in ("none", "no_vocab")
    roles = {} if without_words else gguf_roles(gguf, gguf.path)
    return Bundle(
        kind=f"GGUF file ({gguf.metadata['general.architecture']})",
        place=str(gguf.path),
        config=config,
        parameters=gguf_parameters(gguf, config),
        read_tokenizer=lambda: None if without_words else gguf_tokenizer(gguf, gguf.path),
        end_tokens=tuple(dict.fromkeys(roles[role] for role in ("eos", "eot", "eom") if role in roles)),
        chat_template=_text(gguf, "tokenizer.chat_template", "") or None,
    )


# ---- config ----------------------------------------------------------------------------------------------------------


def gguf_config(gguf: GGUF) -> GPTConfig:
    """The shape of the GPT in a GGUF file.

    Raises UnsupportedError, naming the key, for an architecture or a choice that GlassGPT doesn't compute,
    DamagedFileError where keys are missing, of the wrong type, or contradict each other or the tensors.
    """
    keys = _Keys(gguf)
    keys.check_known()
    n_layer, n_head, n_embd = keys.size("block_count"), keys.size("attention.head_count"), keys.size("embedding_length")
    if n_layer > len(gguf.tensors):
        raise keys.damaged(f"it says that it has {n_layer} layers, and holds {len(gguf.tensors)} tensors")
    rope = keys.architecture != "gpt2"
    try:
        config = GPTConfig(
            vocab_size=_vocab_size(keys),
            context_length=keys.size("context_length"),
            n_layer=n_layer,
            n_head=n_head,
            n_embd=n_embd,
            bias=not rope or keys.any_tensor("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"),
            n_kv_head=keys.size("attention.head_count_kv", n_head),
            head_size=keys.size("attention.key_length", 0) or None,
            n_hidden=keys.size("feed_forward_length"),
            mlp_bias=not rope or keys.any_tensor("ffn_gate.bias", "ffn_up.bias", "ffn_down.bias"),
            position="rope" if rope else "learned",
            norm="rmsnorm" if rope else "layernorm",
            mlp="swiglu" if rope else "gelu_tanh",
            qk_norm=keys.architecture == "qwen3",
            tied="output.weight" not in gguf.tensors,
            norm_epsilon=keys.number(f"attention.layer_norm_{'rms_' if rope else ''}epsilon"),
            rope_theta=keys.number("rope.freq_base", 10000.0),
        )
    except UsageError as error:
        raise keys.damaged(str(error)) from None
    for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        if keys.size(name, config.head_width) != config.head_width:
            raise UnsupportedError(
                f"{gguf.path}: {keys.architecture}.{name} is {keys.size(name)}, and GlassGPT computes heads whose "
                f"queries, keys, values and rotation are equally wide, here {config.head_width}"
            )
    return replace(config, rope_scaling=_rope_scaling(keys, config))


class _Keys:
    """The metadata of a file as what its architecture asks for, of the type that it asks for."""

    def __init__(self, gguf: GGUF) -> None:
        self.gguf = gguf
        self.metadata = gguf.metadata
        self.architecture = _text(gguf, "general.architecture", "")
        if self.architecture not in ARCHITECTURES:
            raise UnsupportedError(
                f"{gguf.path} holds a model of the architecture {shown(self.architecture)}, and GlassGPT computes "
                f"{', '.join(ARCHITECTURES)}"
            )
        if (type := _text(gguf, "general.type", "model")) != "model":
            raise UnsupportedError(f"{gguf.path} holds no model but a part of one: its general.type is {shown(type)}")

    def damaged(self, what: str) -> DamagedFileError:
        return DamagedFileError(f"{self.gguf.path} contradicts itself: {what}; download it again, or another one")

    def check_known(self) -> None:
        """Raise UnsupportedError for the first key that may change the maths in a way that isn't computed here."""
        rope = self.architecture != "gpt2"
        known = READ | (READ_OF_ROPE | UNUSED_OF_ROPE if rope else READ_OF_GPT2)
        neutral = NEUTRAL | (NEUTRAL_OF_ROPE if rope else {})
        prefix = f"{self.architecture}."
        for key, value in self.metadata.items():
            name = key.removeprefix(prefix)
            if name in neutral and key != name:
                if not any(type(value) is type(allowed) and value == allowed for allowed in neutral[name]):
                    wanted = " or ".join(repr(allowed) for allowed in neutral[name])
                    raise UnsupportedError(
                        f"{self.gguf.path}: {key} is {shown(value)}, and GlassGPT computes models where it is {wanted}"
                    )
            elif not (name in known and key != name) and not key.startswith(HARMLESS):
                raise UnsupportedError(
                    f"{self.gguf.path} has the key {shown(key)}, which GlassGPT doesn't know: it may change what the "
                    "model computes"
                )

    def size(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if type(value) is not int or not 0 <= value <= LARGEST_SIZE:
            raise self.damaged(f"{self.architecture}.{name} should be a size, and is {shown(value)}")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if type(value) not in (int, float):
            raise self.damaged(f"{self.architecture}.{name} should be a number, and is {shown(value)}")
        return _shortest(float(value))

    def _value(self, name: str, default: Any) -> Any:
        value = self.metadata.get(f"{self.architecture}.{name}", default)
        if value is None:
            raise self.damaged(f"it lacks {self.architecture}.{name}")
        return value

    def any_tensor(self, *names: str) -> bool:
        return any(f"blk.0.{name}" in self.gguf.tensors for name in names)


def _shortest(value: float) -> float:
    """The number that was meant by a float32: 9.999999747378752e-06 is the float32 of 1e-05."""
    with np.errstate(all="ignore"):
        narrow = np.float32(value)
    return float(str(narrow)) if narrow == value else value


def _vocab_size(keys: _Keys) -> int:
    embedding = keys.gguf.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise keys.damaged("it has no matrix token_embd.weight of token embeddings")
    rows = embedding.shape[0]
    if keys.size("vocab_size", rows) != rows:
        raise keys.damaged(f"it has {keys.size('vocab_size')} tokens, and the embeddings of {rows}")
    return rows


# ---- Llama 3's rotary wavelengths ------------------------------------------------------------------------------------


def rope_factors(config: GPTConfig) -> np.ndarray:
    """By how much `rope_scaling` stretches the wavelength of each pair: float array (head_size / 2,)."""
    return rope_frequencies(replace(config, rope_scaling=None)) / rope_frequencies(config)


def _rope_scaling(keys: _Keys, config: GPTConfig) -> RopeScaling | None:
    """The rule behind the file's rope_freqs.weight, which holds its outcome only; None where it stretches nothing.

    Its three lengths count only relative to each other, so low_freq_factor is set to 1, as all of Llama's are.
    """
    stored = keys.gguf.tensors.get(ROPE_FACTORS)
    if stored is None or keys.architecture != "llama":
        return None
    pairs = config.head_width // 2
    if stored.shape != (pairs,):
        raise keys.damaged(f"rope_freqs.weight is of shape {stored.shape}, and a head has {pairs} pairs to turn")
    factors = stored.read().astype(np.float64)
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise keys.damaged("rope_freqs.weight holds numbers that are not positive")
    if (factors == 1).all():
        return None
    original = keys.size("rope.scaling.original_context_length", 8192)
    for scaling in _scalings(factors, rope_frequencies(config), original):
        if np.allclose(rope_factors(replace(config, rope_scaling=scaling)), factors, rtol=1e-4, atol=0):
            return scaling
    raise UnsupportedError(
        f"{keys.gguf.path}: rope_freqs.weight doesn't stretch wavelengths by the rule of Llama 3, the one that "
        "GlassGPT computes"
    )


def _scalings(factors: np.ndarray, frequencies: np.ndarray, original: int) -> list[RopeScaling]:
    """What may stand behind these factors: Llama 3's own numbers, and those in which a straight line was read."""
    factor = _rounded(factors.max())
    guesses = [(4.0, original)]
    kept = (1 / factors - 1 / factor) / (1 - 1 / factor) if factor > 1 else factors
    between = np.flatnonzero((kept > 1e-3) & (kept < 1 - 1e-3))
    if len(between) >= 2:  # kept = (original * turns - 1) / (high - 1), with turns per token
        turns = frequencies[between[[0, -1]]] / (2 * np.pi)
        slope = (kept[between[0]] - kept[between[-1]]) / (turns[0] - turns[1])
        width = 1 / max(slope * turns[0] - kept[between[0]], 1e-9)
        guesses.append((_rounded(1 + width), round(slope * width)))
    result = []
    for high, length in guesses:
        try:
            result.append(RopeScaling(factor, 1.0, high, length))
        except UsageError:
            continue
    return result


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


# ---- parameters ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A tensor of a GGUF file that is one of our parameters, or the part of it that fills `width` of its last axis.

    `shape`: as the file has it, (out, in) for Linear matrices. `permuted_heads`: how many heads' rows llama.cpp has in
    another order (0: the order is ours).
    """

    name: str
    shape: tuple[int, ...]
    turned: bool
    permuted_heads: int = 0

    @property
    def width(self) -> int:
        return self.shape[0] if self.turned else self.shape[-1]


def gguf_parts(config: GPTConfig, architecture: str) -> dict[str, list[Part]]:
    """For each parameter of the config, the tensors of a GGUF file that it consists of, side by side."""
    return {name: _parts(name, shape, config, architecture) for name, shape in parameter_shapes(config).items()}


def _parts(name: str, shape: tuple[int, ...], config: GPTConfig, architecture: str) -> list[Part]:
    layer = LAYER_NAME.fullmatch(name)
    if layer is None:
        stem, kind = name.rsplit(".", 1)
        return [Part(f"{EMBEDDINGS[stem]}.{kind}", shape, turned=False)]
    number, stem, kind = layer.groups()
    names, widths = IN_LAYER[stem], [shape[-1]]
    heads = [0]
    if stem == "attn.c_attn" and architecture == "gpt2":
        names = ("attn_qkv",)
    elif stem == "attn.c_attn":
        heads = [config.n_head, config.kv_heads, config.kv_heads]
        widths = [n * config.head_width for n in heads]
        heads = [*heads[:2], 0] if architecture == "llama" else [0, 0, 0]
    elif stem == "mlp.c_fc" and config.mlp == "swiglu":
        names, widths, heads = ("ffn_gate", "ffn_up"), [config.hidden_width] * 2, [0, 0]
    turned = len(shape) == 2
    return [
        Part(f"blk.{number}.{part}.{kind}", (width, shape[0]) if turned else (width,), turned, n)
        for part, width, n in zip(names, widths, heads, strict=True)
    ]


def gguf_parameters(gguf: GGUF, config: GPTConfig) -> dict[str, StoredTensor]:
    """The parameters under our names and in our orientation, each read from the file when it is asked for.

    Raises DamagedFileError unless the file's tensors are exactly those of the config. Numbers are not looked at here:
    what reads them says whether NaN or infinity is among them (`tensors.read_parameters` does).
    """
    architecture = gguf.metadata["general.architecture"]
    parts = gguf_parts(config, architecture)
    wanted = {part.name: part.shape for some in parts.values() for part in some}
    if missing := sorted(wanted.keys() - gguf.tensors.keys()):
        raise DamagedFileError(
            f"{gguf.path} lacks {len(missing)} of {len(wanted)} tensors, {missing[0]} among them: download it again"
        )
    if extra := sorted(gguf.tensors.keys() - wanted.keys() - ({ROPE_FACTORS} if architecture == "llama" else set())):
        raise DamagedFileError(f"{gguf.path} holds {shown(extra[0])}, which a model of its metadata does not have")
    for name, shape in wanted.items():
        if gguf.tensors[name].shape != shape:
            raise DamagedFileError(
                f"{gguf.path}: {name} should be of shape {shape} by its metadata, and is {gguf.tensors[name].shape}"
            )
    shapes = parameter_shapes(config)
    return {name: _joined(gguf, shapes[name], some) for name, some in parts.items()}


def _joined(gguf: GGUF, shape: tuple[int, ...], parts: Sequence[Part]) -> StoredTensor:
    stored = [gguf.tensors[part.name] for part in parts]

    def read() -> np.ndarray:
        arrays = [_ours(tensor.read(), part) for tensor, part in zip(stored, parts, strict=True)]
        return np.concatenate(arrays, axis=-1, out=np.empty(shape, np.result_type(*arrays)))

    return StoredTensor(shape, "+".join(dict.fromkeys(tensor.dtype for tensor in stored)), read)


def _ours(array: np.ndarray, part: Part) -> np.ndarray:
    if part.permuted_heads:
        array = rows_in_halves(array, part.permuted_heads)
    return array.T if part.turned else array


def rows_in_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k from llama.cpp's order, in which the two rows of a rotated pair are neighbours, to ours, in which
    they are half a head apart.

    >>> rows_in_halves(np.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    pairs = len(array) // heads // 2
    return array.reshape(heads, pairs, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def rows_in_pairs(array: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `rows_in_halves`."""
    pairs = len(array) // heads // 2
    return array.reshape(heads, 2, pairs, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


# ---- tokenizer -------------------------------------------------------------------------------------------------------


def gguf_tokenizer(gguf: GGUF, source: Path) -> BPETokenizer:
    """The byte-level BPE tokenizer in a GGUF file. `source` is named in errors.

    Raises UnsupportedError for a tokenizer of another kind, DamagedFileError for one that lacks a part or doesn't fit
    the model's embeddings.
    """
    if (kind := _text(gguf, "tokenizer.ggml.model", "none")) != "gpt2":
        raise UnsupportedError(
            f"{source}: tokenizer.ggml.model is {shown(kind)}, and GlassGPT reads 'gpt2', which is byte-level BPE"
        )
    tokens, merges = (_strings(gguf, f"tokenizer.ggml.{name}", source) for name in ("tokens", "merges"))
    rows = gguf.tensors["token_embd.weight"].shape[0] if "token_embd.weight" in gguf.tensors else len(tokens)
    if len(tokens) != rows:
        raise DamagedFileError(f"{source} has {len(tokens)} tokens, and the embeddings of {rows}: download it again")
    pre_tokenizer = _text(gguf, "tokenizer.ggml.pre", "default")
    types = gguf.metadata.get("tokenizer.ggml.token_type", np.full(len(tokens), NORMAL))
    if not (isinstance(types, np.ndarray) and types.shape == (len(tokens),) and ((types >= 1) & (types <= 6)).all()):
        raise DamagedFileError(f"{source}: tokenizer.ggml.token_type should hold {len(tokens)} numbers from 1 to 6")
    user_defined = {tokens[i]: int(i) for i in np.flatnonzero(types == USER_DEFINED)}
    special = {tokens[i]: int(i) for i in np.flatnonzero((types != NORMAL) & (types != USER_DEFINED))}
    end = gguf_roles(gguf, source).get("eos")
    return BPETokenizer.from_vocabulary(
        tokens, merges, pre_tokenizer, special, source, user_defined=user_defined, end_token=end
    )


def gguf_roles(gguf: GGUF, source: Path) -> dict[str, int]:
    """The ids of the tokens with a role, such as {"bos": 1, "eos": 2, "padding": 2}."""
    n_tokens = len(_strings(gguf, "tokenizer.ggml.tokens", source))
    ids = {}
    for key, value in gguf.metadata.items():
        if role := re.fullmatch(r"tokenizer\.ggml\.(\w+)_token_id", key):
            if type(value) is not int or not 0 <= value < n_tokens:
                raise DamagedFileError(f"{source}: {key} is {shown(value)}, and there are {n_tokens} tokens")
            ids[role[1]] = value
    return ids


def _text(gguf: GGUF, key: str, default: str) -> str:
    value = gguf.metadata.get(key, default)
    if not isinstance(value, str):
        raise DamagedFileError(f"{gguf.path}: {key} should be a text, and is {shown(value)}: download it again")
    return value


def _strings(gguf: GGUF, key: str, source: Path) -> list[str]:
    value = gguf.metadata.get(key)
    if not isinstance(value, list):
        raise DamagedFileError(f"{source} lacks the list {key}: download it again, or another one")
    return value
