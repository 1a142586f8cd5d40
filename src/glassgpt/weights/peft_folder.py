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
from glassgpt.models.adaptation import MAPS, Trainable, part_widths
from glassgpt.models.config import GPTConfig
from glassgpt.weights.hf_config import model_type_of
from glassgpt.weights.hf_folder import to_json
from glassgpt.weights.hf_names import LLAMA
from glassgpt.weights.safetensors_file import inside, read_json, read_safetensors, write_safetensors
from glassgpt.weights.stored import StoredTensor

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PLAIN: dict[str, tuple[Any, ...]] = {  # settings that would change the maths, and what of each is read
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layers_to_transform": (None, []),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
}


def write_peft(
    folder: Path, config: GPTConfig, trainable: Trainable, tensors: Mapping[str, torch.Tensor], base: str
) -> None:
    """Write a folder that `peft.PeftModel.from_pretrained` reads. `tensors`: the lora_A and lora_B of a GPT by their
    names in it. `base`: what peft is told the adapter is for. Raises UsageError for a shape that peft's models don't
    have."""
    names = peft_names(config)
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

    Maps that the adapter leaves alone beside others in one of ours get zeros. Raises DamagedFileError for a file that
    is not whole or not of this shape, UnsupportedError for what is no plain LoRA.
    """
    path = inside(folder, CONFIG)
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
        kind = settings.get("peft_type") if isinstance(settings, dict) else type(settings).__name__
        raise UnsupportedError(f"{path} is of type {kind!r:.60}, and GlassGPT reads LORA")
    for key, plain in PLAIN.items():
        if key in settings and settings[key] not in plain:
            raise UnsupportedError(f"{path} has {key} = {settings[key]!r:.80}, which is not read: only plain LoRA is")
    rank, alpha = _number(settings, "r", path), _number(settings, "lora_alpha", path)
    stored = read_safetensors(inside(folder, WEIGHTS))
    names, used = peft_names(config), set[str]()
    tensors: dict[str, torch.Tensor] = {}
    for module, parts in names.items():
        for side in ("lora_A", "lora_B"):
            found = [f"{PREFIX}{part}.{side}.weight" for part in parts]
            if not any(name in stored for name in found):
                continue
            used |= {name for name in found if name in stored}
            arrays = [_part(stored, name, shape, folder) for name, shape in
                      zip(found, _shapes(config, module, side, int(rank)), strict=True)]  # fmt: skip
            tensors[f"{module}.{side}"] = torch.from_numpy(np.concatenate(arrays))
    if left := sorted(stored.keys() - used):
        raise DamagedFileError(f"{folder / WEIGHTS} holds {left[0]}, which a model of this shape does not have")
    targets = tuple(target for target in MAPS if f"h.0.{target}.lora_A" in tensors)
    wanted = {f"h.{i}.{target}.{side}" for i in range(config.n_layer) for target in targets
              for side in ("lora_A", "lora_B")}  # fmt: skip
    if not targets or wanted != tensors.keys():
        lacking = min(wanted ^ tensors.keys(), default="every tensor")
        raise DamagedFileError(
            f"{folder / WEIGHTS} is not the same in every layer: {lacking} is there or lacking alone"
        )
    return Trainable("lora", rank=int(rank), alpha=float(alpha), targets=targets), tensors


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
