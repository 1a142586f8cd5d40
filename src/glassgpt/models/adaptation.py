"""How a base model is made ready for what of it is to be trained (see `trainable`), and what is added to it.

Added parts live in subclasses of torch's Linear that take the place of a block's maps, so that every parameter of the
base keeps its name and a model without them is read and written as before:

- LoRA (arXiv 2106.09685) adds B A x * alpha / rank to a map's output. B begins at zero, so the model begins as the
  base. Afterwards it can be merged into the weights, and nothing of it is left.
- Adapters (Houlsby et al., arXiv 1902.00751) put y + up(gelu(down(y))) behind both halves of a block; up begins at
  zero. They are no linear map and can't be merged.

With `base` the maps that stay as they are can be held in 8 or 4 bits (as in QLoRA, arXiv 2305.14314, in formats of our
own).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.errors import UsageError
from glassgpt.models.gpt_torch import GPT
from glassgpt.models.rounded import RoundedLinear, dequantised, refuse_unroundable
from glassgpt.models.seeds import drawn_from
from glassgpt.models.trainable import MAPS, Trainable, part_widths

ENDS_OF_HALVES = ("attn.c_proj", "mlp.c_proj")
ADDED = ("lora_A", "lora_B", "adapter_down", "adapter_down_bias", "adapter_up", "adapter_up_bias")


class LoRALinear(nn.Linear):
    """A Linear map that stays as it is, plus a trained one of low rank.

    A map that holds several side by side (q, k and v in one) may have `parts`, each with an A and a B of its own, which
    is what the peft library trains in models that hold them apart: `lora_A` (parts * rank, in), `lora_B` (out, rank).
    """

    lora_A: nn.Parameter
    lora_B: nn.Parameter

    def add_lora(self, rank: int, alpha: float, widths: list[int], like: Tensor) -> None:
        """`widths`: how the output is divided into parts. `like`: of the model's type, on its device.

        A is drawn as peft draws it (uniform, He 2015)."""
        self.scale, self.widths, self.rank = alpha / rank, widths, rank
        bound = 1 / math.sqrt(self.in_features)
        self.lora_A = nn.Parameter(like.new_empty(len(widths) * rank, self.in_features).uniform_(-bound, bound))
        self.lora_B = nn.Parameter(like.new_zeros(self.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.change(x)

    def change(self, x: Tensor) -> Tensor:
        low = F.linear(x, self.lora_A)
        parts = zip(low.split(self.rank, dim=-1), self.lora_B.split(self.widths), strict=True)
        return self.scale * torch.cat([F.linear(part, B) for part, B in parts], dim=-1)

    def merged(self) -> Tensor:
        """The weight with LoRA in it, computed in float64."""
        change = torch.cat(
            [B.double() @ A.double() for A, B in zip(self.lora_A.split(self.rank), self.lora_B.split(self.widths),
                                                     strict=True)]
        )  # fmt: skip
        return (self.full_weight().double() + self.scale * change).to(self.lora_A.dtype)

    def full_weight(self) -> Tensor:
        return self.weight


class AdaptedLinear(nn.Linear):
    """A Linear map that stays as it is, with a trained bottleneck behind it."""

    adapter_down: nn.Parameter
    adapter_up: nn.Parameter

    def add_adapter(self, width: int, like: Tensor) -> None:
        n = self.out_features
        bound = 1 / math.sqrt(n)
        self.adapter_down = nn.Parameter(like.new_empty(width, n).uniform_(-bound, bound))
        self.adapter_down_bias = nn.Parameter(like.new_zeros(width))
        self.adapter_up = nn.Parameter(like.new_zeros(n, width))
        self.adapter_up_bias = nn.Parameter(like.new_zeros(n))

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        inner = F.gelu(F.linear(y, self.adapter_down, self.adapter_down_bias))
        return y + F.linear(inner, self.adapter_up, self.adapter_up_bias)


class RoundedLoRALinear(LoRALinear, RoundedLinear):
    """LoRA over a map that is held rounded."""

    def full_weight(self) -> Tensor:
        return dequantised(self)


class RoundedAdaptedLinear(AdaptedLinear, RoundedLinear):
    """An adapter behind a map that is held rounded."""


def adapt(model: nn.Module, trainable: Trainable, seed: int = 0) -> None:
    """Say what of `model` is trained, and put in what is added, drawn from `seed`. The model computes what it did, but
    for the rounding of `base`.

    `model`: a GPT, or a module whose `gpt` or `policy` it is. Raises UsageError for what the model does not have
    and for one that is adapted already, NumericalError for weights that can't be rounded; the model is then as it was.
    """
    gpt = _gpt_in(model)
    _refuse(gpt, trainable, is_plain=gpt is model)
    if trainable.what == "all":
        return
    gpt.requires_grad_(False)
    if trainable.what == "last":
        for module in (*list(gpt.h)[-trainable.n_layer :], gpt.ln_f):
            module.requires_grad_(True)
    if trainable.what == "head" and gpt is model:
        gpt.lm_head.requires_grad_(True)
        gpt.ln_f.requires_grad_(True)
    with drawn_from(seed), torch.no_grad():
        for block in gpt.h:
            for name in MAPS:
                _adapt_map(block, name, gpt, trainable)


def _refuse(gpt: GPT, trainable: Trainable, is_plain: bool) -> None:
    maps = [linear for _, _, linear in _maps(gpt)]
    if any(isinstance(linear, LoRALinear | AdaptedLinear | RoundedLinear) for linear in maps):
        raise UsageError("this model is adapted already, and what was added would be lost: merge it first")
    if trainable.what == "last" and trainable.n_layer > len(gpt.h):
        raise UsageError(f"trainable.n_layer is {trainable.n_layer}, and the model has {len(gpt.h)} layers")
    if trainable.what == "head" and is_plain and gpt.config.tied:
        raise UsageError(
            "trainable.what = 'head', and this model's output layer is its token embedding too: train the last "
            "layers (trainable.what = 'last') or LoRA"
        )
    if trainable.base != "float32":
        for linear in maps:
            refuse_unroundable(linear, trainable.base)


def _adapt_map(block: nn.Module, name: str, gpt: GPT, trainable: Trainable) -> None:
    owner, _, attribute = name.partition(".")
    half = getattr(block, owner)
    linear: nn.Linear = getattr(half, attribute)
    rounded = trainable.base != "float32"
    if rounded:
        linear = RoundedLinear.of(linear, trainable.base)
        setattr(half, attribute, linear)
    if trainable.what == "lora" and name in trainable.targets:
        linear.__class__ = RoundedLoRALinear if rounded else LoRALinear
        linear.add_lora(trainable.rank, trainable.alpha, part_widths(gpt.config, name), gpt.wte.weight)  # type: ignore[operator]
    if trainable.what == "adapters" and name in ENDS_OF_HALVES:
        linear.__class__ = RoundedAdaptedLinear if rounded else AdaptedLinear
        linear.add_adapter(trainable.width, gpt.wte.weight)  # type: ignore[operator]


def merge(model: nn.Module) -> None:
    """Fold LoRA into the weights: plain Linear maps again, whose output differs by rounding alone. Raises UsageError
    for adapters, which are no linear map."""
    gpt = _gpt_in(model)
    for half, attribute, linear in _maps(gpt):
        if isinstance(linear, AdaptedLinear):
            raise UsageError("adapters are not linear and can't be merged into the weights: keep them beside")
        if isinstance(linear, LoRALinear | RoundedLinear):
            weight = linear.merged() if isinstance(linear, LoRALinear) else dequantised(linear)
            plain = nn.utils.skip_init(nn.Linear, linear.in_features, linear.out_features, linear.bias is not None)
            plain.weight = nn.Parameter(weight.detach().to(gpt.wte.weight.dtype), requires_grad=False)
            if linear.bias is not None:
                plain.bias = linear.bias
            setattr(half, attribute, plain)


def _maps(gpt: GPT) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for block in gpt.h:
        for name in MAPS:
            owner, _, attribute = name.partition(".")
            half = getattr(block, owner)
            yield half, attribute, getattr(half, attribute)


def _gpt_in(model: nn.Module) -> GPT:
    for name in ("gpt", "policy"):
        inner = getattr(model, name, None)
        if isinstance(inner, GPT):
            return inner
    if not isinstance(model, GPT):
        raise TypeError(f"a {type(model).__name__} holds no GPT")
    return model


@dataclass(frozen=True)
class ParameterAccount:
    """How many numbers are trained and how many stay, and the bytes of all weights as they are held."""

    trained: int
    frozen: int
    n_bytes: int


def parameter_account(model: nn.Module) -> ParameterAccount:
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    rounded = [module for module in model.modules() if isinstance(module, RoundedLinear)]
    frozen += sum(module.in_features * module.out_features for module in rounded)
    n_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    return ParameterAccount(trained, frozen, n_bytes + sum(module.n_bytes for module in rounded))
