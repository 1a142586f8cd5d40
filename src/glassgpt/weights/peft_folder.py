"""LoRA in the peft library's format: adapter_config.json and adapter_model.safetensors, written and read.

Our maps that hold several of Hugging Face's side by side have an A and a B for each of them, so that what is written is
what peft itself would have trained, and what peft has trained is read without a change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.files import make_folder, replacing, write_atomically
from glassgpt.models.config import GPTConfig
from glassgpt.models.trainable import MAPS, Trainable, part_widths
from glassgpt.weights.hf_config import model_type_of
from glassgpt.weights.hf_folder import to_json
from glassgpt.weights.hf_names import LLAMA
from glassgpt.weights.safetensors_file import inside, read_json, read_safetensors, write_safetensors
from glassgpt.weights.stored import StoredTensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PLAIN = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian"),
}  # what must be so, or empty: others change the base
HARMLESS = ("base_model_name_or_path", "task_type", "inference_mode", "peft_version", "auto_mapping", "revision",
            "lora_dropout", "fan_in_fan_out", "megatron_core", "qalora_group_size", "runtime_config")  # fmt: skip
READ = ("peft_type", "r", "lora_alpha", "target_modules")
SIDES = ("lora_A", "lora_B")


def write_peft(
    folder: Path, config: GPTConfig, trainable: Trainable, tensors: Mapping[str, torch.Tensor], base: str
) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` reads. `tensors`: the lora_A and lora_B of a GPT by their
    names in it. `base`: what peft is told the adapter is for. Raises UsageError for a shape that peft's models don't
    have, for adapters, and unless the tensors are those of `trainable`."""
    names = peft_names(config)
    _check_tensors(tensors, config, trainable)
    stored: dict[str, StoredTensor] = {}
    for ours, value in tensors.items():
        module, _, side = ours.rpartition(".")
        array = value.detach().float().cpu().numpy()
        for name, part in zip(names[module], _split(array, side, config, module), strict=True):
            stored[f"{PREFIX}{name}.{side}.weight"] = StoredTensor.of(np.ascontiguousarray(part))
    layer = "h.0."
    targets = [name.split(".", 3)[-1] for target in trainable.targets for name in names[f"{layer}{target}"]]
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": trainable.rank,
        "lora_alpha": trainable.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": model_type_of(config) in ("gpt2", "openai-gpt"),
        "target_modules": targets,
        "inference_mode": True,
    }
    make_folder(folder)
    with replacing(folder / WEIGHTS) as file:
        write_safetensors(file, stored, {"format": "pt"})
    write_atomically(folder / CONFIG, to_json(settings))


def read_peft(folder: Path, config: GPTConfig) -> tuple[Trainable, dict[str, torch.Tensor]]:
    """What a peft folder holds, for a model of this shape: the choice, and its tensors by our names.

    Maps that the adapter's target_modules leave alone, beside others in one of ours or in other layers, get zeros, and
    stay zero when it is trained on. Raises DamagedFileError for a file that is not whole or not of this shape,
    UnsupportedError for what is no plain LoRA: any setting that is not known and not empty.
    """
    path = inside(folder, CONFIG)
    settings = _settings(path)
    rank, alpha = int(_number(settings, "r", path)), float(_number(settings, "lora_alpha", path))
    modules = settings["target_modules"]
    endings = tuple(f".{module}" for module in modules)
    names = peft_names(config)
    taken = {part for parts in names.values() for part in parts if f".{part}".endswith(endings)}
    stored = read_safetensors(inside(folder, WEIGHTS))
    _check_names(stored, {f"{PREFIX}{part}.{side}.weight" for part in taken for side in SIDES}, folder)
    targets = tuple(target for target in MAPS if any(part in taken for i in range(config.n_layer)
                                                     for part in names[f"h.{i}.{target}"]))  # fmt: skip
    tensors = {}
    for module, side in [(f"h.{i}.{target}", side) for i in range(config.n_layer) for target in targets
                         for side in SIDES]:  # fmt: skip
        found = [f"{PREFIX}{part}.{side}.weight" for part in names[module]]
        arrays = [_part(stored, name, shape, folder) for name, shape in
                  zip(found, _shapes(config, module, side, rank), strict=True)]  # fmt: skip
        tensors[f"{module}.{side}"] = torch.from_numpy(np.concatenate(arrays))
    return Trainable("lora", rank=rank, alpha=alpha, targets=targets), tensors


def _settings(path: Path) -> dict[str, Any]:
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else type(settings).__name__
        raise UnsupportedError(f"{path} is of type {kind!r:.60}, and GlassGPT reads LORA")
    for key, value in settings.items():
        if key not in (*READ, *HARMLESS) and value and value not in PLAIN.get(key, ()):
            raise UnsupportedError(f"{path} has {key!s:.60} = {value!r:.80}, which is not read: only plain LoRA is")
    modules = settings.get("target_modules")
    if isinstance(modules, str):
        raise UnsupportedError(f"{path} has the pattern {modules!r:.80} as target_modules: give the modules in a list")
    if not isinstance(modules, list) or not modules or not all(isinstance(module, str) for module in modules):
        raise DamagedFileError(f"{path}: target_modules should be a list of names, got {modules!r:.80}")
    return settings


def _check_names(stored: Mapping[str, StoredTensor], wanted: set[str], folder: Path) -> None:
    file = folder / WEIGHTS
    if left := sorted(stored.keys() - wanted):
        raise DamagedFileError(
            f"{file} holds {left[0]}, which a model of this shape does not have, or target_modules does not name"
        )
    if not wanted:
        raise DamagedFileError(f"{file}: target_modules names no linear map of a model of this shape")
    if missing := sorted(wanted - stored.keys()):
        raise DamagedFileError(f"{file} lacks {missing[0]}, which target_modules asks for: download it again")


def _check_tensors(tensors: Mapping[str, torch.Tensor], config: GPTConfig, trainable: Trainable) -> None:
    if trainable.what != "lora":
        raise UsageError(f"peft's format is for trainable.what = 'lora', and this is {trainable.what!r}")
    shapes: dict[str, tuple[int, int]] = {}
    for module in [f"h.{i}.{target}" for i in range(config.n_layer) for target in trainable.targets]:
        for side in SIDES:
            parts = _shapes(config, module, side, trainable.rank)
            shapes[f"{module}.{side}"] = (sum(rows for rows, _ in parts), parts[0][1])
    got = {name: tuple(value.shape) for name, value in tensors.items()}
    if wrong := sorted(name for name in shapes.keys() | got.keys() if shapes.get(name) != got.get(name)):
        raise UsageError(
            f"{wrong[0]} should be of shape {shapes.get(wrong[0])} by trainable, and is {got.get(wrong[0])} (None: not "
            "there)"
        )


def peft_names(config: GPTConfig) -> dict[str, tuple[str, ...]]:
    """For each map of ours, the modules of transformers' model that it is. Raises UsageError for a shape it lacks."""
    model_type = model_type_of(config)
    if model_type == "glassgpt":
        raise UsageError("peft trains models of transformers, and this model's shape is none of theirs")
    names = {}
    for i in range(config.n_layer):
        for target in MAPS:
            if model_type in ("llama", "qwen3"):
                names[f"h.{i}.{target}"] = tuple(f"model.layers.{i}.{part}" for part in LLAMA[target])
            else:
                names[f"h.{i}.{target}"] = (f"transformer.h.{i}.{target}",)
    return names


def _split(array: np.ndarray, side: str, config: GPTConfig, module: str) -> list[np.ndarray]:
    widths = part_widths(config, module.split(".", 2)[2])
    if side == "lora_A":
        return np.split(array, len(widths))
    return np.split(array, np.cumsum(widths)[:-1])


def _shapes(config: GPTConfig, module: str, side: str, rank: int) -> list[tuple[int, int]]:
    target = module.split(".", 2)[2]
    widths = part_widths(config, target)
    if side == "lora_B":
        return [(width, rank) for width in widths]
    inputs = {"attn.c_proj": config.n_head * config.head_width, "mlp.c_proj": config.hidden_width}
    return [(rank, inputs.get(target, config.n_embd))] * len(widths)


def _part(stored: Mapping[str, StoredTensor], name: str, shape: tuple[int, int], folder: Path) -> np.ndarray:
    if name not in stored:
        return np.zeros(shape, dtype=np.float32)
    if stored[name].shape != shape:
        raise DamagedFileError(f"{folder / WEIGHTS}: {name} should be of shape {shape}, and is {stored[name].shape}")
    value = stored[name].read().astype(np.float32)
    if not np.isfinite(value).all():
        raise DamagedFileError(f"{folder / WEIGHTS}: {name} holds NaN or infinity")
    return value


def _number(settings: Mapping[str, Any], key: str, path: Path) -> float:
    value: Any = settings.get(key)
    if type(value) not in (int, float) or not 0 < value < 1e6 or (key == "r" and type(value) is not int):
        raise DamagedFileError(f"{path}: {key} should be a positive number, got {value!r:.60}")
    return value
