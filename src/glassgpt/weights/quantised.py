"""From a bundle to a model that runs: in which number format, and by which of the two ways to run it."""

from __future__ import annotations

import torch

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models import native
from glassgpt.models.config import parameter_shapes
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.packed import PackedGPT
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.machine import machine
from glassgpt.weights.tensors import load_torch_gpt, read_parameters, refuse_if_too_large, torch_gpt

FLOATS = ("float32", "float64", "bfloat16", "float16")
ROUNDED = ("int8", "int4")
WORTH_PACKING = 1_000_000  # parameters; below, torch is fast enough and a compiler need not be called


def load_bundle(bundle: Bundle, dtype: str | None = None, device: str | None = None) -> LanguageModel:
    """The model of a bundle. Raises UsageError for a dtype or device that is none, or that this machine hasn't."""
    dtype = dtype or "float32"
    if dtype not in FLOATS + ROUNDED:
        raise UsageError(f"dtype must be one of {', '.join(FLOATS + ROUNDED)}; got {dtype!r}")
    where = _device(bundle, dtype, device)
    if dtype in ROUNDED:
        if where.type != "cpu":
            raise UsageError(f"{dtype} runs on the processor only: give --device cpu, or bfloat16 on {where}")
        return _rounded(bundle, dtype)
    model = load_torch_gpt(bundle, dtype).to(where)
    worth_it = bundle.config.n_parameters >= WORTH_PACKING and where.type == "cpu"
    packs = worth_it and dtype in native.FORMATS and machine().native
    return packed(model, dtype) if packs else model


def _device(bundle: Bundle, dtype: str, stated: str | None) -> torch.device:
    """Where the model is to run. Apple's GPUs only if asked for: they have given wrong numbers without a word."""
    if stated is None:
        on_gpu = torch.cuda.is_available() and dtype not in ROUNDED and bundle.config.n_parameters >= WORTH_PACKING
        return torch.device("cuda" if on_gpu else "cpu")
    try:
        device = torch.device(stated)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise UsageError(f"this machine has no device {stated!r} for torch ({reason}): use cpu") from None
    return device


def _rounded(bundle: Bundle, dtype: str) -> PackedGPT:
    if (reason := native.why_not()) is not None:
        raise UsageError(
            f"{dtype} needs the compiled engine, which can't be had here ({reason}): use float32 or bfloat16"
        )
    refuse_if_too_large(bundle, bytes_each=10)  # while it is packed: as read, packed, and what that stands for
    weights = native.pack(bundle.config, read_parameters(bundle), dtype)  # type: ignore[arg-type]
    return PackedGPT(prefill_copy(weights), weights)


def packed(model: GPT, dtype: str) -> PackedGPT:
    """A torch GPT with the engine beside it."""
    from glassgpt.weights.tensors import tensors_of

    return PackedGPT(model, native.pack(model.config, tensors_of(model), dtype))  # type: ignore[arg-type]


def prefill_copy(weights: native.Weights) -> GPT:
    """What rounded weights stand for, in torch: in bfloat16 where this machine multiplies that faster, else float32."""
    tensors = {name: weights.dequantised(name) for name in parameter_shapes(weights.config)}
    model = torch_gpt(tensors, weights.config)
    return model.to(torch.bfloat16) if machine().fast_bfloat16 else model
