"""`config.json` as Hugging Face writes it, old spellings and new, to and from a GPTConfig.

A key that could change the maths is read or refused, never passed over: a loader that doesn't know `rope_parameters`,
the new spelling of `rope_theta`, would take 10,000 for granted and answer plausible, wrong text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.models.config import GPTConfig, RopeScaling

ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu2"}
SPELLED = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu2": "relu2"}

# What says nothing about the function: training, files, generation, and heads that a language model does not use.
HARMLESS = frozenset(
    [
        "architectures",
        "model_type",
        "transformers_version",
        "torch_dtype",
        "dtype",
        "use_cache",
        "initializer_range",
        "_name_or_path",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "sep_token_id",
        "unk_token_id",
        "decoder_start_token_id",
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "attention_dropout",
        "hidden_dropout",
        "classifier_dropout",
        "layerdrop",
        "gradient_checkpointing",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
        "predict_special_tokens",
        "n_special",
        "task_specific_params",
        "reorder_and_upcast_attn",
        "transformers.js_config",
        "is_llama_config",
        "pretraining_tp",
        "return_dict",
        "output_hidden_states",
        "output_attentions",
        "id2label",
        "label2id",
        "problem_type",
        "finetuning_task",
        "do_sample",
        "max_length",
        "min_length",
        "temperature",
        "top_k",
        "top_p",
        "num_beams",
        "repetition_penalty",
        "length_penalty",
        "max_window_layers",
        "keys_to_ignore_at_inference",
        "_attn_implementation_autoset",
        "attn_implementation",
        "chunk_size_feed_forward",
        "unsloth_fixed",
        "unsloth_version",
        "quantization_config_file",
        "num_labels",
        "_num_labels",
        "prefix",
        "typical_p",
        "early_stopping",
        "no_repeat_ngram_size",
        "num_return_sequences",
        "output_scores",
        "bad_words_ids",
    ]
)
# What must have this value if it is there at all: anything else would be another function than ours.
FIXED: dict[str, Any] = {
    "is_encoder_decoder": False,
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "pruned_heads": {},
    "prune_heads": {},
    "tie_encoder_decoder": False,
    "torchscript": False,
    "use_bfloat16": False,
    "tf_legacy_loss": False,
    "use_sliding_window": False,
    "sliding_window": None,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
}
LARGEST_SIZE = 2**31  # of anything that is counted
CLASSIC_KEYS = {"vocab_size": "vocab_size", "n_positions": "context_length", "n_layer": "n_layer", "n_head": "n_head",
                "n_embd": "n_embd"}  # fmt: skip
MODERN_KEYS = {"vocab_size": "vocab_size", "max_position_embeddings": "context_length", "num_hidden_layers": "n_layer",
               "num_attention_heads": "n_head", "hidden_size": "n_embd"}  # fmt: skip
ARCHITECTURES = {"gpt2": "GPT2LMHeadModel", "openai-gpt": "OpenAIGPTLMHeadModel", "llama": "LlamaForCausalLM",
                 "qwen3": "Qwen3ForCausalLM", "glassgpt": "GlassGPT"}  # fmt: skip


class _Keys:
    """A config.json being read: every key must be taken, or known to be harmless, by the end."""

    def __init__(self, content: Any, source: Path) -> None:
        if not isinstance(content, dict):
            raise DamagedFileError(f"{source} should hold an object, and holds {type(content).__name__}")
        self.content, self.source = dict(content), source

    def take(self, key: str, kind: type, default: Any = ...) -> Any:
        """The value of `key`, of type `kind`; `default` if there is none or it is null (required without one)."""
        value = self.content.pop(key, None)
        if value is None:
            if default is ...:
                raise DamagedFileError(f"{self.source} lacks the key {key!r}: download it again")
            return default
        if kind is float and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if type(value) is int and kind is int and _is_beyond(value):
            raise DamagedFileError(
                f"{self.source}: {key} is {_short(value)}, and no model's is beyond {LARGEST_SIZE:,}"
            )
        if type(value) is not kind or _is_beyond(value):
            raise DamagedFileError(f"{self.source}: {key} should be of type {kind.__name__}, and is {_short(value)}")
        return value

    def finish(self) -> None:
        for key, value in FIXED.items():
            got = self.content.pop(key, value)
            if got != value and got is not None:
                raise UnsupportedError(
                    f"{self.source}: {key} is {_short(got)}, and GlassGPT's GPT knows only {value!r}"
                )
        if unknown := sorted(self.content.keys() - HARMLESS):
            raise UnsupportedError(
                f"{self.source}: this version does not know the key {_short(unknown[0])}, which may change the model"
            )


def _short(value: Any) -> str:
    """A value of a stranger's file as it may stand in a message."""
    try:
        text = repr(value)
    except RecursionError:
        return "something deeply nested"
    return text if len(text) < 80 else f"{text[:80]}..."


def _is_beyond(value: Any) -> bool:
    return (type(value) is int and abs(value) > LARGEST_SIZE) or (type(value) is float and not math.isfinite(value))


def config_from_hf(content: Any, source: Path) -> GPTConfig:
    """The shape that a config.json states.

    Raises DamagedFileError for a key that is missing or wrong, UnsupportedError for a model of another kind.
    """
    keys = _Keys(content, source)
    model_type = keys.content.get("model_type")
    readers = {"gpt2": _classic, "openai-gpt": _gpt1, "llama": _llama, "qwen3": _qwen3, "glassgpt": _own}
    if not isinstance(model_type, str) or model_type not in readers:
        raise UnsupportedError(f"{source}: model_type is {_short(model_type)}, and GlassGPT reads {', '.join(readers)}")
    try:
        choices = readers[model_type](keys)
        keys.finish()
        return GPTConfig(**choices)
    except UsageError as error:
        raise DamagedFileError(f"{source}: {error}") from None


def _classic(keys: _Keys) -> dict[str, Any]:
    spelled = keys.take("activation_function", str, "gelu_new")
    return _classic_sizes(keys, spelled) | {
        "n_hidden": keys.take("n_inner", int, None),
        "bias": keys.take("bias", bool, True),  # ours: Hugging Face's GPT-2 always has them
        "tied": keys.take("tie_word_embeddings", bool, True),
    }


def _gpt1(keys: _Keys) -> dict[str, Any]:
    spelled = keys.take("afn", str, "gelu")
    if spelled == "gelu":  # GPT-1's own word for the tanh approximation
        spelled = "gelu_new"
    return _classic_sizes(keys, spelled) | {"post_norm": True, "tied": keys.take("tie_word_embeddings", bool, True)}


def _classic_sizes(keys: _Keys, activation: str) -> dict[str, Any]:
    if activation not in ACTIVATIONS:
        raise UnsupportedError(
            f"{keys.source}: the activation {_short(activation)} is none of {', '.join(ACTIVATIONS)}"
        )
    sizes = {field: keys.take(key, int) for key, field in CLASSIC_KEYS.items()}
    if (n_ctx := keys.take("n_ctx", int, sizes["context_length"])) != sizes["context_length"]:
        raise DamagedFileError(
            f"{keys.source}: n_ctx is {n_ctx} and n_positions is {sizes['context_length']}: they are one thing"
        )
    return sizes | {"mlp": ACTIVATIONS[activation], "norm_epsilon": keys.take("layer_norm_epsilon", float, 1e-5)}


def _llama(keys: _Keys) -> dict[str, Any]:
    if (activation := keys.take("hidden_act", str, "silu")) != "silu":
        raise UnsupportedError(f"{keys.source}: hidden_act is {_short(activation)}, and GlassGPT reads 'silu'")
    sizes = {field: keys.take(key, int) for key, field in MODERN_KEYS.items()}
    layers = keys.take("layer_types", list, [])
    if any(kind != "full_attention" for kind in layers):
        raise UnsupportedError(f"{keys.source}: layer_types holds more than 'full_attention', which GlassGPT lacks")
    bias = keys.take("attention_bias", bool, False)
    return sizes | _rope(keys) | {
        "position": "rope",
        "norm": "rmsnorm",
        "mlp": "swiglu",
        "n_kv_head": keys.take("num_key_value_heads", int, None),
        "head_size": keys.take("head_dim", int, None),
        "n_hidden": keys.take("intermediate_size", int),
        "bias": bias,
        "mlp_bias": keys.take("mlp_bias", bool, False),
        "norm_epsilon": keys.take("rms_norm_eps", float, 1e-6),
        "tied": keys.take("tie_word_embeddings", bool, False),
    }  # fmt: skip


def _qwen3(keys: _Keys) -> dict[str, Any]:
    keys.content.setdefault("head_dim", 128)  # as transformers has it, whatever the other sizes
    return _llama(keys) | {"qk_norm": True}


def _rope(keys: _Keys) -> dict[str, Any]:
    """rope_theta and rope_scaling (transformers 4), or both inside rope_parameters (transformers 5)."""
    theta = keys.take("rope_theta", float, None)
    old = keys.take("rope_scaling", dict, None)
    new = keys.take("rope_parameters", dict, None)
    stated = new if new is not None else old or {}
    if old is not None and new is not None and old != {key: new.get(key) for key in old}:
        raise DamagedFileError(f"{keys.source}: rope_scaling and rope_parameters contradict each other")
    inner = _Keys(stated, keys.source)
    inner_theta = inner.take("rope_theta", float, None)
    if theta is not None and inner_theta is not None and theta != inner_theta:
        raise DamagedFileError(f"{keys.source}: rope_theta is {theta} and, in rope_parameters, {inner_theta}")
    kind, older = inner.take("rope_type", str, None), inner.take("type", str, None)
    if None not in (kind, older) and kind != older:
        raise DamagedFileError(
            f"{keys.source}: rope_type is {_short(kind)} and type is {_short(older)}: which is meant?"
        )
    kind = kind or older or "default"
    theta = theta if theta is not None else inner_theta
    choices: dict[str, Any] = {"rope_theta": 10000.0 if theta is None else theta}
    if kind == "llama3":
        choices["rope_scaling"] = _scaling(inner, "original_max_position_embeddings")
    elif kind != "default":
        raise UnsupportedError(
            f"{keys.source}: rope scaling of type {_short(kind)}; GlassGPT reads 'default' and 'llama3'"
        )
    inner.finish()
    return choices


def _own(keys: _Keys) -> dict[str, Any]:
    choices: dict[str, Any] = {}
    for name, default in asdict(GPTConfig(2, 1, n_head=1, n_embd=2)).items():
        kind = dict if name == "rope_scaling" else type(default)
        choices[name] = keys.take(name, kind, ... if name != "rope_scaling" else None)
    if choices["rope_scaling"] is not None:
        inner = _Keys(choices["rope_scaling"], keys.source)
        choices["rope_scaling"] = _scaling(inner, "original_context_length")
        inner.finish()
    return choices


def _scaling(keys: _Keys, original: str) -> RopeScaling:
    return RopeScaling(
        factor=keys.take("factor", float),
        low_freq_factor=keys.take("low_freq_factor", float),
        high_freq_factor=keys.take("high_freq_factor", float),
        original_context_length=keys.take(original, int),
    )


# ---- writing ---------------------------------------------------------------------------------------------------------


def model_type_of(config: GPTConfig) -> str:
    """Which of Hugging Face's models is this shape: gpt2, openai-gpt, llama or qwen3; "glassgpt" if none is."""
    classic = config.position == "learned" and config.norm == "layernorm" and config.mlp != "swiglu"
    plain = config.kv_heads == config.n_head and config.n_embd == config.n_head * config.head_width
    if classic and plain and not config.qk_norm and config.mlp_bias == config.bias:
        if not config.post_norm:
            return "gpt2"
        usual = config.bias and config.mlp == "gelu_tanh" and config.hidden_width == 4 * config.n_embd
        return "openai-gpt" if usual and config.tied else "glassgpt"
    modern = config.position == "rope" and config.norm == "rmsnorm" and config.mlp == "swiglu" and not config.post_norm
    if modern and not (config.qk_norm and config.mlp_bias):
        return "qwen3" if config.qk_norm else "llama"
    return "glassgpt"


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """The config.json of this shape, which `config_from_hf` reads back to an equal GPTConfig."""
    model_type = model_type_of(config)
    content: dict[str, Any] = {"architectures": [ARCHITECTURES[model_type]], "model_type": model_type}
    if model_type == "glassgpt":
        return content | asdict(config)
    keys = CLASSIC_KEYS if model_type in ("gpt2", "openai-gpt") else MODERN_KEYS
    content |= {key: getattr(config, field) for key, field in keys.items()}
    content |= {"tie_word_embeddings": config.tied, "dtype": "float32"}
    if model_type == "gpt2":
        content |= {"activation_function": SPELLED[config.mlp], "layer_norm_epsilon": config.norm_epsilon}
        content |= {"n_inner": None if config.hidden_width == 4 * config.n_embd else config.hidden_width}
        content |= {} if config.bias else {"bias": False}
    elif model_type == "openai-gpt":
        content |= {"afn": "gelu", "layer_norm_epsilon": config.norm_epsilon}
    else:
        content |= _modern_to_hf(config)
    return content


def _modern_to_hf(config: GPTConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if (scaling := config.rope_scaling) is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context_length,
        }
    return {
        "hidden_act": "silu",
        "intermediate_size": config.hidden_width,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "rms_norm_eps": config.norm_epsilon,
        "attention_bias": config.bias,
        **({} if config.qk_norm else {"mlp_bias": config.mlp_bias}),
        "rope_theta": config.rope_theta,  # the old spelling, for what reads only that
        **({"rope_scaling": rope} if config.rope_scaling else {}),
        "rope_parameters": rope,
    }


def eos_tokens(content: Mapping[str, Any]) -> list[int]:
    """The ids after which a text ends, by `eos_token_id` of a config.json or generation_config.json."""
    stated = content.get("eos_token_id")
    ids = stated if isinstance(stated, list) else [stated]
    return [token for token in ids if type(token) is int]
