"""A Hugging Face folder: config.json, safetensors, tokenizer files. Read, and written so that transformers reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.files import write_atomically
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.text.bpe import BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.tokenizer_json import tokenizer_from_json, tokenizer_to_json
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.hf_config import config_from_hf, config_to_hf, eos_tokens, model_type_of
from glassgpt.weights.hf_names import hf_tensors, our_parameters
from glassgpt.weights.safetensors_file import inside, read_json, read_safetensors, read_sharded
from glassgpt.weights.stored import StoredTensor

WEIGHTS, INDEX, PICKLE = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
DTYPES = ("float32", "bfloat16", "float16")


def is_hf_folder(folder: Path) -> bool:
    return (folder / "config.json").exists()


def read_hf_folder(folder: Path, *, allow_pickle: bool = False) -> Bundle:
    """What a Hugging Face folder holds. Raises DamagedFileError or UnsupportedError naming the file at fault.

    `allow_pickle` reads a `pytorch_model.bin` where there is no safetensors file, by torch's restricted unpickler:
    only for files whose maker you trust.
    """
    source = inside(folder, "config.json")
    content = read_json(source)
    config = config_from_hf(content, source)
    stored, weights = _stored_tensors(folder, allow_pickle)
    settings = _optional_json(folder, "generation_config.json")
    ends = tuple(eos_tokens(settings) or eos_tokens(content))
    return Bundle(
        kind=f"Hugging Face folder ({content['model_type']})",
        place=str(folder),
        config=config,
        parameters=our_parameters(stored, config, content["model_type"], weights),
        read_tokenizer=lambda: read_hf_tokenizer(folder, ends[0] if ends else None),
        end_tokens=ends,
        chat_template=_chat_template(folder),
        roles=_roles(folder),
    )


def _stored_tensors(folder: Path, allow_pickle: bool) -> tuple[dict[str, StoredTensor], Path]:
    if (folder / WEIGHTS).exists():
        return read_safetensors(inside(folder, WEIGHTS)), folder / WEIGHTS
    if (folder / INDEX).exists():
        return read_sharded(inside(folder, INDEX)), folder / INDEX
    if (folder / PICKLE).exists():
        if allow_pickle:
            return _read_pickle(inside(folder, PICKLE)), folder / PICKLE
        raise UnsupportedError(
            f"{folder} has its weights in {PICKLE}, a pickle, which can run code when it is read: get the safetensors "
            "version, or give --allow-pickle (allow_pickle=True) if you trust whoever made it"
        )
    raise DamagedFileError(f"{folder} has a config.json and no {WEIGHTS} or {INDEX}: download the rest")


def _read_pickle(path: Path) -> dict[str, StoredTensor]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # what a broken zip or pickle raises has no common type
        first = str(error).strip().splitlines()
        raise DamagedFileError(
            f"{path} is not a pickle of plain tensors ({first[0] if first else type(error).__name__})"
        ) from None
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise DamagedFileError(f"{path} should hold named tensors and nothing else")
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}

    def stored(name: str, value: Any) -> StoredTensor:
        if value.dtype not in names:  # a mask, as a rule, which is no parameter
            return StoredTensor(tuple(value.shape), str(value.dtype), lambda: value.numpy())
        as_float = torch.float64 if value.dtype == torch.float64 else torch.float32
        return StoredTensor(tuple(value.shape), names[value.dtype], lambda: value.to(as_float).contiguous().numpy())

    return {str(name): stored(str(name), value) for name, value in content.items()}


def _optional_json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        return {}
    content = read_json(inside(folder, name))
    if not isinstance(content, dict):
        raise DamagedFileError(f"{folder / name} should hold an object, and holds {type(content).__name__}")
    return content


def _chat_template(folder: Path) -> str | None:
    """chat_template.jinja (transformers 5), or the key of tokenizer_config.json (4), a string or a list of named ones."""
    if (folder / "chat_template.jinja").exists():
        try:
            return inside(folder, "chat_template.jinja").read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise DamagedFileError(f"{folder / 'chat_template.jinja'} is not text in UTF-8") from None
    stated = _optional_json(folder, "tokenizer_config.json").get("chat_template")
    if isinstance(stated, list):
        stated = next((part.get("template") for part in stated if part.get("name") == "default"), None)
    return stated if isinstance(stated, str) else None


def _roles(folder: Path) -> dict[str, str]:
    """tokenizer_config.json's bos_token and the like: a text, or an object that holds it."""
    settings = _optional_json(folder, "tokenizer_config.json")
    found = {}
    for role in ("bos", "eos", "unk", "pad"):
        stated = settings.get(f"{role}_token")
        text = stated.get("content") if isinstance(stated, dict) else stated
        if isinstance(text, str):
            found[role] = text
    return found


def read_hf_tokenizer(folder: Path, end_token: int | None) -> Tokenizer | None:
    """The words of a folder: tokenizer.json, or OpenAI's pair of files under either name; None if there are none."""
    if (folder / "tokenizer.json").exists():
        path = inside(folder, "tokenizer.json")
        tokenizer: Tokenizer = tokenizer_from_json(read_json(path), path)
    else:
        pair = next((pair for pair in PAIRS if all((folder / name).exists() for name in pair)), None)
        if pair is None:
            return None
        tokenizer = BPETokenizer.from_gpt2_files(inside(folder, pair[0]), inside(folder, pair[1]))
    if isinstance(tokenizer, BPETokenizer) and end_token is not None and end_token < tokenizer.vocab_size:
        tokenizer.end_token = end_token
    return tokenizer


# ---- writing ---------------------------------------------------------------------------------------------------------


def refuse_unexportable(config: GPTConfig) -> str:
    """The model type under which transformers knows this shape. Raises UsageError if it has none."""
    model_type = model_type_of(config)
    if model_type == "glassgpt" or (model_type == "gpt2" and not config.bias):
        raise UsageError(
            "transformers has no model of this shape: GPT-2 (learned positions, layernorm, biases), GPT-1, Llama (rope, "
            f"rmsnorm, swiglu) and Qwen3 (the same with qk_norm) can be exported, and this one has {config.choices()}"
        )
    return model_type


def export_hf(
    folder: Path,
    config: GPTConfig,
    params: Mapping[str, np.ndarray],
    tokenizer: Tokenizer | None,
    *,
    dtype: str = "float32",
    end_tokens: tuple[int, ...] = (),
    chat_template: str | None = None,
) -> None:
    """Write a folder that `transformers.AutoModelForCausalLM` and `AutoTokenizer` read, `config.json` last.

    `params`: our names, (in, out). Raises UsageError for a shape that transformers doesn't know or a folder that isn't
    empty, before anything is written.
    """
    model_type = refuse_unexportable(config)
    if dtype not in DTYPES:
        raise UsageError(f"a Hugging Face folder is written in one of {', '.join(DTYPES)}; got {dtype!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder: choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / WEIGHTS, _safetensors(hf_tensors(params, config, model_type), dtype))
    if tokenizer is not None:
        write_tokenizer(folder, tokenizer, end_tokens, chat_template)
    ends: dict[str, Any] = (
        {"eos_token_id": list(end_tokens) if len(end_tokens) > 1 else end_tokens[0]} if end_tokens else {}
    )
    write_atomically(folder / "generation_config.json", to_json({"do_sample": True, "temperature": 1.0} | ends))
    write_atomically(folder / "config.json", to_json(config_to_hf(config) | ends | {"dtype": dtype}))


def _safetensors(tensors: Mapping[str, np.ndarray], dtype: str) -> bytes:
    import torch
    from safetensors.torch import save

    as_torch = {name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in tensors.items()}
    return save(as_torch, metadata={"format": "pt"})


def write_tokenizer(folder: Path, tokenizer: Tokenizer, end_tokens: tuple[int, ...], template: str | None) -> None:
    """tokenizer.json and tokenizer_config.json."""
    if isinstance(tokenizer, BPETokenizer):
        content = tokenizer.to_tokenizer_json()
    elif isinstance(tokenizer, CharacterTokenizer):
        content = tokenizer_to_json(tokenizer)
    else:
        raise UsageError(f"a {type(tokenizer).__name__} can't be written as tokenizer.json")
    names = {token: name for name, token in tokenizer.special.items()}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if end_tokens and end_tokens[0] in names:
        settings["eos_token"] = names[end_tokens[0]]
    if template is not None:
        settings["chat_template"] = template
    write_atomically(folder / "tokenizer.json", to_json(content))
    write_atomically(folder / "tokenizer_config.json", to_json(settings))


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
