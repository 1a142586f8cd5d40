"""One weight of a GPT changed by hand, to see what hangs on it: the arrows of the chain, a bar, a head's attention."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.trace import torch_gpt_in


@dataclass(frozen=True)
class Change:
    """The number of the parameter `name` that stands at `at`, (row, column) or of a vector (place,), is to be `value`.

    Names and shapes are those of `parameters_of`, places count from 0.
    """

    name: str
    at: tuple[int, ...]
    value: float


def parameters_of(model: LanguageModel) -> dict[str, Tensor]:
    """Every parameter of a torch GPT by its name; one that stands in two places (tied embeddings) once.

    Raises UnsupportedError for a model that is none.
    """
    return {name: parameter.detach() for name, parameter in torch_gpt_in(model).named_parameters()}


def changed(model: LanguageModel, change: Change) -> GPT:
    """A copy of the model with that one number changed; the model itself stays as it is.

    Raises UsageError for a parameter or place that it doesn't have, or a value that is no finite number, and
    UnsupportedError for a model that is no torch GPT.

    >>> from glassgpt.models.config import GPTConfig
    >>> gpt = GPT(GPTConfig(vocab_size=2, context_length=3, n_layer=1, n_head=1, n_embd=4, tied=False), seed=0)
    >>> after = parameters_of(changed(gpt, Change("lm_head.weight", (1, 2), 0.5)))["lm_head.weight"]
    >>> after[1, 2].item(), (after != parameters_of(gpt)["lm_head.weight"]).sum().item()
    (0.5, 1)
    """
    parameters = parameters_of(model)
    if change.name not in parameters:
        raise UsageError(f"{change.name[:60]!a} is no parameter of this model: it has {', '.join(parameters)[:400]}")
    shape = tuple(parameters[change.name].shape)
    if len(change.at) != len(shape) or not all(0 <= i < n for i, n in zip(change.at, shape, strict=True)):
        places = " and ".join(f"0 to {n - 1}" for n in shape)
        raise UsageError(f"{change.name} is {' x '.join(map(str, shape))}: its places are {places}, got {change.at}")
    if not math.isfinite(change.value):
        raise UsageError(f"a weight must be a finite number, got {change.value}")
    twin = copy.deepcopy(torch_gpt_in(model))
    with torch.no_grad():
        twin.get_parameter(change.name)[change.at] = change.value
    return twin
