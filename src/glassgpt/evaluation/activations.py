"""The activation functions of this project's models, with their slopes: values from the models' own code.

Without one between them, any number of layers is one matrix. The slope is what training sees: where it is 0, a unit
learns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from glassgpt.errors import UsageError
from glassgpt.models.dense import ACTIVATIONS
from glassgpt.models.gpt_torch import activate


@dataclass(frozen=True)
class ActivationCurves:
    """x: float64 (places,). values, slopes: float64 (places,) for each name: f(x) and its derivative there."""

    x: np.ndarray
    values: dict[str, np.ndarray]
    slopes: dict[str, np.ndarray]


def activation_curves(reach: float = 4.0, places: int = 801) -> ActivationCurves:
    """Every activation that a model here can have, from -reach to reach in float64; slopes by automatic derivatives.

    `relu`, `tanh` and `sigmoid` are those of `models.dense` (tanh also of the MLP and the RNN, sigmoid of a GRU's
    gates), `relu2`, `gelu`, `gelu_tanh` and `swiglu` those of a GPT. swiglu takes a gate and a value; its curve is
    that of the gate for a value of 1, which is SiLU. Raises UsageError for a reach that is not above 0.
    """
    if not 0 < reach < float("inf") or places < 2:
        raise UsageError(f"curves need a finite reach above 0 and 2 places or more; got {reach} and {places}")
    x = np.linspace(-reach, reach, places)
    curves = {name: _with_slope(function, x) for name, function in functions().items()}
    return ActivationCurves(
        x,
        {name: values for name, (values, _) in curves.items()},
        {name: slopes for name, (_, slopes) in curves.items()},
    )


def functions() -> dict[str, Callable[[Tensor], Tensor]]:
    """Each activation by its name, as a function of one number."""

    def of_gpt(name: str) -> Callable[[Tensor], Tensor]:
        return lambda x: activate(x, name)

    def gate(x: Tensor) -> Tensor:
        return activate(torch.stack([x, torch.ones_like(x)], dim=-1), "swiglu")[..., 0]

    return {
        "sigmoid": ACTIVATIONS["sigmoid"],
        "tanh": ACTIVATIONS["tanh"],
        "relu": ACTIVATIONS["relu"],
        "relu2": of_gpt("relu2"),
        "gelu": of_gpt("gelu"),
        "gelu_tanh": of_gpt("gelu_tanh"),
        "swiglu": gate,
    }


def _with_slope(function: Callable[[Tensor], Tensor], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    at = torch.tensor(x, requires_grad=True)
    values = function(at)
    (slopes,) = torch.autograd.grad(values.sum(), at)
    return values.detach().numpy(), slopes.numpy()
