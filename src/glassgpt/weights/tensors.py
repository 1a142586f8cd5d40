"""A GPT's parameters as named tensors in files, under GPT-2's own names and in its own orientation.

Linear matrices lie in files as GPT-2 has them, (in, out), which is how `gpt_array` reads them; torch's Linear holds the
transpose. Loading is strict: every name, shape and dtype is what the config asks for, and nothing is left over or made
up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from glassgpt.errors import DamagedFileError, NumericalError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_array import ArrayGPT

if TYPE_CHECKING:
    from glassgpt.models.gpt_torch import GPT

LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def check_tensors(tensors: Mapping[str, np.ndarray], config: GPTConfig, source: Path) -> None:
    """Raise DamagedFileError unless the tensors are exactly those of the config, NumericalError if one isn't finite."""
    shapes = parameter_shapes(config)
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise DamagedFileError(f"{source} lacks {len(missing)} of {len(shapes)} tensors, {missing[0]} among them")
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise DamagedFileError(f"{source} holds {extra[0]}, which a model of its config.json does not have")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise DamagedFileError(f"{source}: {name} should be of shape {shape} by config.json, and is {tensor.shape}")
        if tensor.dtype not in (np.float32, np.float64):
            raise DamagedFileError(f"{source}: {name} should be float32 or float64, and is {tensor.dtype}")
        if not np.isfinite(tensor).all():
            raise NumericalError(f"{source}: {name} holds NaN or infinity: the training that wrote it diverged")


def read_tensors(content: bytes, source: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file's bytes. Raises DamagedFileError where they aren't one."""
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{source} is not a whole safetensors file ({error}): restore it from a copy") from None


def tensors_of(model: GPT) -> dict[str, np.ndarray]:
    """A torch GPT's parameters as files hold them: contiguous arrays of their own."""
    return {
        name: _turned(name, value.detach().cpu().numpy())
        for name, value in model.state_dict().items()
        if name != "lm_head.weight" or not model.config.tied
    }


def torch_gpt(tensors: Mapping[str, np.ndarray], config: GPTConfig) -> GPT:
    """A torch GPT with these parameters, in their dtype."""
    import torch

    from glassgpt.models.gpt_torch import GPT

    model = GPT(config)
    model.to(torch.from_numpy(tensors["wte.weight"][:0].copy()).dtype)
    load_into(model, tensors)
    return model


def load_into(model: GPT, tensors: Mapping[str, np.ndarray]) -> None:
    """Set the parameters of a torch GPT."""
    import torch

    state = {name: torch.from_numpy(_turned(name, value)) for name, value in tensors.items()}
    model.load_state_dict(state if model.config.tied is False else state | {"lm_head.weight": state["wte.weight"]})


def array_gpt(tensors: Mapping[str, np.ndarray], config: GPTConfig) -> ArrayGPT:
    """The plain-array GPT with these parameters."""
    return ArrayGPT(config, tensors)


def _turned(name: str, value: np.ndarray) -> np.ndarray:
    return np.array(value.T if name.endswith(LINEAR) else value, order="C")
