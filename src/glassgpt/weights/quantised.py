"""From a bundle to a model that runs: in which number format, and by which of the two ways to run it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models import native
from glassgpt.models.config import GPTConfig
from glassgpt.models.packed import PackedGPT
from glassgpt.weights.bundle import Bundle
from glassgpt.weights.machine import machine
from glassgpt.weights.tensors import fits, load_torch_gpt, read_parameters, refuse_if_too_large, torch_gpt

FLOATS = ("float32", "float64", "bfloat16", "float16")
ROUNDED = ("int8", "int4")
BYTES_WHILE_PACKING = 12  # for each parameter, at most: as read, packed, and what that stands for
WORTH_PACKING = 1_000_000  # parameters; below, torch is fast enough and a compiler need not be called


def load_bundle(bundle: Bundle, dtype: str | None = None, device: str | None = None) -> LanguageModel:
    """The model of a bundle. Raises UsageError for a dtype or device that is none, or that this machine hasn't."""
    dtype = dtype or "float32"
    if bundle.head is not None:
        raise UsageError(
            f"{bundle.place} is a {bundle.head}: it gives scores and writes no text; ask it with `glassgpt score`"
        )
    if dtype not in FLOATS + ROUNDED:
        raise UsageError(f"dtype must be one of {', '.join(FLOATS + ROUNDED)}; got {dtype!r}")
    where = _device(bundle, dtype, device)
    if dtype in ROUNDED and where.type != "cpu":
        raise UsageError(f"{dtype} runs on the processor only: give --device cpu, or bfloat16 on {where}")
    if dtype in ROUNDED and (reason := native.why_not()) is not None:
        raise UsageError(f"{dtype} needs the compiled engine, which can't be had here ({reason}): use float32")
    worth_it = bundle.config.n_parameters >= WORTH_PACKING and where.type == "cpu" and machine().native
    if dtype in ROUNDED:
        refuse_if_too_large(bundle, BYTES_WHILE_PACKING)
    if dtype in ROUNDED or (
        worth_it and bundle.complete is None and dtype in native.FORMATS and fits(bundle, BYTES_WHILE_PACKING)
    ):
        return packed(bundle.config, read_parameters(bundle), dtype)  # type: ignore[arg-type]
    return load_torch_gpt(bundle, dtype).to(where)


def packed(config: GPTConfig, params: Mapping[str, np.ndarray], dtype: native.Format) -> PackedGPT:
    """The engine with these parameters, and torch with what they are in the engine once they are rounded to `dtype`.

    Torch's copy is in float32, whatever the engine's format, but in bfloat16 where this machine multiplies that faster.
    """
    weights = native.pack(config, params, dtype, threads=machine().threads)
    if dtype != "float32":
        params = {name: weights.dequantised(name) for name in params}
    model = torch_gpt(params, config)
    return PackedGPT(model.to(torch.bfloat16) if dtype != "float32" and machine().fast_bfloat16 else model, weights)


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
