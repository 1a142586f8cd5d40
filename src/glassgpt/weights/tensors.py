"""A GPT's parameters as named tensors, under GPT-2's own names and in its own orientation, and the models made of them.

Linear matrices lie in GPT-2's files as (in, out), which is how `gpt_array` reads them; torch's Linear holds the
transpose. Loading is strict: every name, shape and dtype is what the config asks for, and nothing is left over or made
up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from glassgpt.errors import DamagedFileError, NumericalError, TooLargeError, UnsupportedError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.models.gpt_array import ArrayGPT
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.stored import Reading, StoredTensor

if TYPE_CHECKING:
    import torch

    from glassgpt.models.gpt_torch import GPT

LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def check_tensors(tensors: Mapping[str, np.ndarray], config: GPTConfig, source: Path) -> None:
    """Raise DamagedFileError unless the tensors are exactly those of the config, NumericalError if one isn't finite."""
    check_shapes(tensors, config, source)
    for name in parameter_shapes(config):
        check_numbers(name, tensors[name], str(source))


def check_shapes(tensors: Mapping[str, np.ndarray | StoredTensor], config: GPTConfig, source: Path) -> None:
    """Raise DamagedFileError unless the tensors are exactly those of the config, by their names and shapes."""
    shapes = parameter_shapes(config)
    if missing := sorted(shapes.keys() - tensors.keys()):
        raise DamagedFileError(f"{source} lacks {len(missing)} of {len(shapes)} tensors, {missing[0]} among them")
    if extra := sorted(tensors.keys() - shapes.keys()):
        raise DamagedFileError(f"{source} holds {extra[0]}, which a model of its config.json does not have")
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise DamagedFileError(
                f"{source}: {name} should be of shape {shape} by config.json, and is {tensors[name].shape}"
            )


def check_numbers(name: str, tensor: np.ndarray, source: str) -> None:
    """Raise DamagedFileError unless these are float32 or float64, NumericalError unless all of them are finite."""
    if tensor.dtype not in (np.float32, np.float64):
        raise DamagedFileError(f"{source}: {name} should be float32 or float64, and is {tensor.dtype}")
    if not np.isfinite(tensor).all():
        raise NumericalError(
            f"{source}: {name} holds NaN or infinity: the training that wrote it diverged, or the file is damaged"
        )


def read_parameters(bundle: Bundle) -> dict[str, np.ndarray]:
    """Every parameter of a bundle, under our names, in memory. Raises TooLargeError before the first if they won't fit,
    DamagedFileError or NumericalError for what isn't as the file promised, UnsupportedError for a model that is more
    than its parameters."""
    if bundle.complete is not None:
        raise UnsupportedError(
            f"{bundle.place} has adapters inside, which no other form of the model has: run it as it is, in torch, or "
            "train with trainable.what = 'lora', which is merged into the weights"
        )
    refuse_if_too_large(bundle, bytes_each=4)
    return {name: _read(name, bundle) for name in bundle.parameters}


def _read(name: str, bundle: Bundle) -> np.ndarray:
    value = bundle.parameters[name].read()
    expected = bundle.parameters[name].shape
    if value.shape != expected:
        raise DamagedFileError(f"{bundle.place}: {name} was announced as {expected}, and is {value.shape}")
    check_numbers(name, value, bundle.place)
    return value


def fits(bundle: Bundle, bytes_each: float) -> bool:
    """Whether so many bytes for each parameter are free."""
    return bundle.config.n_parameters * bytes_each <= psutil.virtual_memory().available


def refuse_if_too_large(bundle: Bundle, bytes_each: float) -> None:
    needed, available = bundle.config.n_parameters * bytes_each, psutil.virtual_memory().available
    if not fits(bundle, bytes_each):
        raise TooLargeError(
            f"{bundle.place} has {bundle.config.n_parameters:,} parameters, which need {needed / 1e9:,.1f} GB, and "
            f"{available / 1e9:.1f} GB are free: load it as bfloat16 or int8, or free some memory"
        )


def tensors_of(model: GPT) -> dict[str, np.ndarray]:
    """A torch GPT's parameters as files hold them: contiguous float32 or float64 arrays of their own."""
    return dict(Reading(stored_tensors(model.state_dict(), model.config)))


def stored_tensors(state: Mapping[str, torch.Tensor], config: GPTConfig) -> dict[str, StoredTensor]:
    """A state_dict as files hold it, each tensor made when it is read; the state is not to change until then."""
    return {
        name: _stored(name, value)
        for name, value in state.items()
        if name != "lm_head.weight" or not config.tied  # tied to wte.weight
    }


def _stored(name: str, value: torch.Tensor) -> StoredTensor:
    shape = tuple(reversed(value.shape)) if name.endswith(LINEAR) else tuple(value.shape)
    dtype = "F64" if value.itemsize == 8 else "F32"
    return StoredTensor(shape, dtype, lambda: np.array(turned(name, _as_numpy(value)), order="C"))


def _as_numpy(value: torch.Tensor) -> np.ndarray:
    value = value.detach().cpu()
    return (value.float() if value.itemsize < 4 else value).numpy()


def torch_gpt(tensors: Mapping[str, np.ndarray], config: GPTConfig) -> GPT:
    """A torch GPT with these parameters, in their dtype."""
    return _assembled({name: _tensor(name, np.array(value), None) for name, value in tensors.items()}, config)


def load_torch_gpt(bundle: Bundle, dtype: str = "float32") -> GPT:
    """A bundle's model in torch, in float32, float64, bfloat16 or float16, read tensor by tensor.

    Raises TooLargeError before anything is read if it won't fit in memory.
    """
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    refuse_if_too_large(bundle, bytes_each=kind.itemsize)
    model = _assembled({name: _tensor(name, _read(name, bundle), kind) for name in bundle.parameters}, bundle.config)
    if bundle.complete is not None:
        bundle.complete(model)
    return model


def _assembled(tensors: Mapping[str, torch.Tensor], config: GPTConfig) -> GPT:
    """The model around given tensors: made without weights of its own, so that none can stay as they were drawn."""
    import torch

    from glassgpt.models.gpt_torch import GPT

    with torch.device("meta"):
        model = GPT(config)
    state = {name: torch.nn.Parameter(value) for name, value in tensors.items()}
    if config.tied:
        state["lm_head.weight"] = state["wte.weight"]
    model.load_state_dict(state, assign=True)
    return model


def _tensor(name: str, value: np.ndarray, dtype: torch.dtype | None) -> torch.Tensor:
    import torch

    value = np.ascontiguousarray(turned(name, value))
    if not value.flags.writeable:
        value = value.copy()
    tensor = torch.from_numpy(value)
    return tensor if dtype is None else tensor.to(dtype)


def gpt_state(model: GPT) -> dict[str, torch.Tensor]:
    """The GPT's own parameters as torch holds them, a tied one once: what was added to it is left out, and what is held
    rounded is as it counts."""
    from glassgpt.models.rounded import RoundedLinear, dequantised

    own: dict[str, torch.Tensor] = dict(model.named_parameters())
    for name, module in model.named_modules():
        if isinstance(module, RoundedLinear):
            own[f"{name}.weight"] = dequantised(module)
    return {name: own[name] for name in parameter_shapes(model.config)}


def load_into(model: GPT, tensors: Mapping[str, np.ndarray]) -> None:
    """Set the parameters of a torch GPT, one after another; `tensors` has each of them, and no other. What is held
    rounded is left as it is."""
    own = dict(model.named_parameters())
    shapes = parameter_shapes(model.config)
    if wrong := sorted(shapes.keys() ^ tensors.keys()):
        raise DamagedFileError(f"a model of this config.json and the tensors it is to have differ in {wrong[0]}")
    load_named({name: own[name] for name in shapes if name in own}, tensors, turn=True)


def load_named(
    parameters: Mapping[str, torch.Tensor], tensors: Mapping[str, np.ndarray], *, turn: bool = False
) -> None:
    """Set parameters to the tensors of their names, `turn`ed as files hold them or as they are. Raises
    DamagedFileError if one is missing or of another shape."""
    import torch

    with torch.no_grad():
        for name, parameter in parameters.items():
            if name not in tensors:
                raise DamagedFileError(f"the checkpoint lacks {name}, which the model has: restore it from a copy")
            value = np.array(turned(name, tensors[name]) if turn else tensors[name], order="C")
            if value.shape != tuple(parameter.shape):
                raise DamagedFileError(f"{name} is of shape {value.shape} in the checkpoint, not {parameter.shape}")
            parameter.copy_(torch.from_numpy(value))


def array_gpt(tensors: Mapping[str, np.ndarray], config: GPTConfig) -> ArrayGPT:
    """The plain-array GPT with these parameters."""
    return ArrayGPT(config, tensors)


def turned(name: str, value: np.ndarray) -> np.ndarray:
    """A Linear matrix in the other orientation, anything else as it is."""
    return value.T if name.endswith(LINEAR) else value
