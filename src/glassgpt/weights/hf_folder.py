"""A Hugging Face folder: config.json, safetensors, tokenizer files. Read, and written so that transformers reads it."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glassgpt.errors import DamagedFileError, NumericalError, UnsupportedError, UsageError
from glassgpt.files import write_atomically
from glassgpt.interface import Tokenizer
from glassgpt.models.config import GPTConfig
from glassgpt.text.bpe import MAX_FILE_BYTES, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.tokenizer_json import tokenizer_from_json, tokenizer_to_json
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.hf_config import config_from_hf, config_to_hf, eos_tokens, model_type_of
from glassgpt.weights.hf_names import hf_tensors, our_parameters
from glassgpt.weights.safetensors_file import (
    CURE,
    inside,
    read_json,
    read_safetensors,
    read_sharded,
    read_small,
    refuse_irregular,
)
from glassgpt.weights.stored import StoredTensor
from glassgpt.weights.tensors import check_tensors

if TYPE_CHECKING:
    import torch

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
    stated = eos_tokens(settings) or eos_tokens(content)
    ends = tuple(token for token in stated if 0 <= token < config.vocab_size)  # tiny models often name GPT-2's
    roles = roles_of(_optional_json(folder, "tokenizer_config.json"))
    return Bundle(
        kind=f"Hugging Face folder ({content['model_type']})",
        place=str(folder),
        config=config,
        parameters=our_parameters(stored, config, content["model_type"], weights),
        read_tokenizer=lambda: read_hf_tokenizer(folder, content["model_type"], ends[0] if ends else roles.get("eos")),
        end_tokens=ends,
        chat_template=_chat_template(folder),
        roles=roles,
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
    if (folder / f"{PICKLE}.index.json").exists():
        raise UnsupportedError(f"{folder} has its weights in several pickles, which are not read: get the safetensors")
    raise DamagedFileError(f"{folder} has a config.json and no {WEIGHTS} or {INDEX}: download the rest")


def _read_pickle(path: Path) -> dict[str, StoredTensor]:
    import torch

    refuse_irregular(path)
    _refuse_zip_bomb(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a broken zip or pickle raises has no common type
        # torch's own words are left out: they advise to read it with weights_only=False
        raise DamagedFileError(f"{path} is not a pickle of plain tensors ({type(error).__name__}): {CURE}") from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and type(value) in (torch.Tensor, torch.nn.Parameter) for name, value in content.items()
    ):
        raise DamagedFileError(f"{path} should hold named tensors and nothing else: it is no model's {PICKLE}")
    return {name: _of_torch(path, name, value.detach()) for name, value in content.items()}


def _refuse_zip_bomb(path: Path) -> None:
    """torch writes its zip files uncompressed: what is compressed may be anything when it is unpacked."""
    if not zipfile.is_zipfile(path):  # as torch wrote them before 1.6
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DamagedFileError(f"{path} is not a whole zip file ({error}): {CURE}") from None
    if unpacked > path.stat().st_size:
        raise DamagedFileError(f"{path} is compressed, as torch never writes it: do not use it")


def _of_torch(path: Path, name: str, value: torch.Tensor) -> StoredTensor:
    import torch

    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    shape = tuple(value.shape)
    plain = value.layout == torch.strided and not value.is_quantized and value.device.type == "cpu"
    if not plain or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise DamagedFileError(f"{path}: {name} of shape {shape} is no plain tensor with numbers of its own: {CURE}")
    if value.dtype not in names:  # a mask, as a rule, which is no parameter
        return StoredTensor(shape, str(value.dtype), lambda: _refuse_kind(path, name, value.dtype))
    as_float = torch.float64 if value.dtype == torch.float64 else torch.float32
    return StoredTensor(shape, names[value.dtype], lambda: value.to(as_float, copy=True).contiguous().numpy())


def _refuse_kind(path: Path, name: str, dtype: Any) -> np.ndarray:
    raise UnsupportedError(f"{path}: {name} holds {dtype}, and GlassGPT reads parameters that are floats")


def _optional_json(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).exists():
        return {}
    content = read_json(inside(folder, name))
    if not isinstance(content, dict):
        raise DamagedFileError(f"{folder / name} should hold an object, and holds {type(content).__name__}")
    return content


def _chat_template(folder: Path) -> str | None:
    """chat_template.jinja (transformers 5), or tokenizer_config.json's (4): a text or a list of named ones."""
    if (folder / "chat_template.jinja").exists():
        try:
            return read_small(inside(folder, "chat_template.jinja")).decode()
        except UnicodeDecodeError:
            raise DamagedFileError(f"{folder / 'chat_template.jinja'} is not text in UTF-8: {CURE}") from None
    return chat_template_of(_optional_json(folder, "tokenizer_config.json"))


def chat_template_of(settings: dict[str, Any]) -> str | None:
    """The chat template that a tokenizer_config.json holds."""
    stated = settings.get("chat_template")
    if isinstance(stated, list):
        usual = [part for part in stated if isinstance(part, dict) and part.get("name") == "default"]
        stated = usual[0].get("template") if usual else None
    return stated if isinstance(stated, str) else None


def roles_of(settings: dict[str, Any]) -> dict[str, str]:
    """tokenizer_config.json's bos_token and the like: a text, or an object that holds it."""
    found = {}
    for role in ("bos", "eos", "unk", "pad"):
        stated = settings.get(f"{role}_token")
        text = stated.get("content") if isinstance(stated, dict) else stated
        if isinstance(text, str):
            found[role] = text
    return found


def read_hf_tokenizer(folder: Path, model_type: str, end: int | str | None) -> Tokenizer | None:
    """The words of a folder: tokenizer.json, or OpenAI's pair of files under either name; None if there are none.

    `end`: the token after which a text is over, by its id or its name, if the tokenizer has it. Raises UnsupportedError
    for words of another kind.
    """
    if (folder / "tokenizer.json").exists():
        path = inside(folder, "tokenizer.json")
        tokenizer: Tokenizer = tokenizer_from_json(read_json(path, MAX_FILE_BYTES), path)
    else:
        pair = next((pair for pair in PAIRS if all((folder / name).exists() for name in pair)), None)
        if pair is None:
            return None
        if model_type == "openai-gpt":
            raise UnsupportedError(f"{folder} has GPT-1's words, in lower case, and GlassGPT reads byte-level BPE")
        tokenizer = BPETokenizer.from_gpt2_files(inside(folder, pair[0]), inside(folder, pair[1]))
    if isinstance(tokenizer, BPETokenizer):
        token = tokenizer.special.get(end) if isinstance(end, str) else end
        if token is not None and token < tokenizer.vocab_size:
            tokenizer.end_token = token
    return tokenizer


# ---- writing ---------------------------------------------------------------------------------------------------------


def refuse_unexportable(config: GPTConfig) -> str:
    """The model type under which transformers knows this shape. Raises UsageError if it has none."""
    model_type = model_type_of(config)
    if model_type == "glassgpt" or (model_type == "gpt2" and not config.bias):
        raise UsageError(
            "transformers has no model of this shape: GPT-2 (learned positions, layernorm, biases), GPT-1, Llama "
            "(rope, rmsnorm, swiglu) and Qwen3 (the same with qk_norm) can be exported, and this one has "
            f"{config.choices()}"
        )
    return model_type


def refuse_export(folder: Path, config: GPTConfig, dtype: str) -> str:
    """Raise UsageError for an export that can't be, before anything large is read. Returns the model type."""
    model_type = refuse_unexportable(config)
    if dtype not in DTYPES:
        raise UsageError(f"a Hugging Face folder is written in one of {', '.join(DTYPES)}; got {dtype!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder: choose another --out")
    if (file := next((part for part in folder.parents if part.exists() and not part.is_dir()), None)) is not None:
        raise UsageError(f"{folder} cannot be made: {file} is a file, not a folder")
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
    roles: Mapping[str, int | str] | None = None,
) -> None:
    """Write a folder that `transformers.AutoModelForCausalLM` and `AutoTokenizer` read, `config.json` last.

    `params`: our names, (in, out). `roles`: special tokens by what they are for, as in a `Bundle`. Raises UsageError
    for a shape that transformers doesn't know or a folder that isn't empty, NumericalError for numbers that the dtype
    can't hold. Whatever fails, nothing half written is left.
    """
    model_type = refuse_export(folder, config, dtype)
    check_tensors(params, config, folder)
    ends: dict[str, Any] = {"eos_token_id": None}  # said outright: left out, it is another one for each kind of model
    if end_tokens:
        ends = {"eos_token_id": list(end_tokens) if len(end_tokens) > 1 else end_tokens[0]}
    files = {} if tokenizer is None else tokenizer_files(tokenizer, end_tokens, chat_template, roles or {})
    files["generation_config.json"] = to_json({"do_sample": True, "temperature": 1.0} | ends)
    files[WEIGHTS] = _safetensors(hf_tensors(params, config, model_type), dtype)
    files["config.json"] = to_json(config_to_hf(config) | {"bos_token_id": None} | ends | {"dtype": dtype})
    _write_all(folder, files)


def _write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files in their order; if one can't be, take away those before it and the folders made for them."""
    made = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
    except BaseException:
        for name in files:
            (folder / name).unlink(missing_ok=True)
        for part in made:
            if part.exists():
                part.rmdir()
        raise


def _safetensors(tensors: Mapping[str, np.ndarray], dtype: str) -> bytes:
    import torch
    from safetensors.torch import save

    as_torch = {name: torch.from_numpy(value).to(getattr(torch, dtype)) for name, value in tensors.items()}
    for name, value in as_torch.items():
        if not torch.isfinite(value).all():
            raise NumericalError(f"{name} holds numbers too large for {dtype}: export as float32 or bfloat16")
    return save(as_torch, metadata={"format": "pt"})


def tokenizer_files(
    tokenizer: Tokenizer, end_tokens: tuple[int, ...], template: str | None, roles: Mapping[str, int | str]
) -> dict[str, bytes]:
    """tokenizer.json and tokenizer_config.json. Raises UsageError for a tokenizer that has no such form."""
    if isinstance(tokenizer, BPETokenizer):
        content = tokenizer.to_tokenizer_json()
    elif isinstance(tokenizer, CharacterTokenizer):
        content = tokenizer_to_json(tokenizer)
    else:
        raise UsageError(f"a {type(tokenizer).__name__} can't be written as tokenizer.json")
    names = {token: name for name, token in tokenizer.special.items()}
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    stated = dict(roles) | ({"eos": end_tokens[0]} if end_tokens else {})
    for role, token in stated.items():
        name = names.get(token) if isinstance(token, int) else token
        if name in tokenizer.special:
            settings[f"{role}_token"] = name
    if template is not None:
        settings["chat_template"] = template
    return {"tokenizer.json": to_json(content), "tokenizer_config.json": to_json(settings)}


def to_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
