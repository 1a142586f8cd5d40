"""Linear maps whose weights stay as they are and are held in 8 or 4 bits, to train a little beside a large base.

int8: a scale for each output. int4: two to a byte, a float16 scale for each group of 32 inputs. Both are symmetric
about zero and round to the nearest; the weight is made anew for each product, in the backward pass too, and gradients
pass to the input alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glassgpt.errors import NumericalError, UsageError

GROUP = 32  # inputs that share a scale in int4
LARGEST = {"int8": 127, "int4": 7}


class RoundedLinear(nn.Linear):
    """A Linear map without a `weight` parameter: `packed` and `scales` are buffers, `dequantised` is what they mean."""

    packed: Tensor
    scales: Tensor
    kind: str

    @classmethod
    def of(cls, linear: nn.Linear, kind: str) -> RoundedLinear:
        """A map rounded to `kind`, int8 or int4. Raises as `refuse_unroundable` does."""
        refuse_unroundable(linear, kind)
        n_out, n_in = linear.weight.shape
        made: RoundedLinear = nn.utils.skip_init(cls, n_in, n_out, linear.bias is not None)
        weight = linear.weight.detach().float()
        del made.weight
        made.kind, made.bias = kind, linear.bias
        groups = weight.reshape(n_out, -1, GROUP if kind == "int4" else n_in)
        scales = groups.abs().amax(dim=-1, keepdim=True) / LARGEST[kind]
        scales = scales.half().float() if kind == "int4" else scales
        steps = torch.where(scales > 0, groups / scales.clamp(min=1e-30), 0).round()
        steps = steps.clamp(-LARGEST[kind], LARGEST[kind]).reshape(n_out, n_in)
        made.register_buffer("packed", _packed(steps, kind), persistent=False)
        made.register_buffer("scales", scales[..., 0].half() if kind == "int4" else scales[..., 0], persistent=False)
        return made

    @property
    def n_bytes(self) -> int:
        """Of the weight as it is held."""
        return sum(x.numel() * x.element_size() for x in (self.packed, self.scales))

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self, self.bias)


class _Product(torch.autograd.Function):
    """F.linear that keeps no floats of the weight until the backward pass, which makes them anew."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: RoundedLinear, bias: Tensor | None) -> Tensor:
        ctx.linear = linear
        return F.linear(x, dequantised(linear).to(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] @ dequantised(ctx.linear).to(grads[0].dtype), None, None


def refuse_unroundable(linear: nn.Linear, kind: str) -> None:
    """Raise UsageError if int4 can't group the inputs of a map, NumericalError if its weight isn't finite."""
    if kind == "int4" and linear.in_features % GROUP:
        raise UsageError(f"trainable.base = 'int4' groups {GROUP} inputs, and a map has {linear.in_features}: use int8")
    if not torch.isfinite(linear.weight).all():
        raise NumericalError(f"a weight that holds NaN or infinity can't be rounded to {kind}: its training diverged")


def _packed(steps: Tensor, kind: str) -> Tensor:
    if kind == "int8":
        return steps.to(torch.int8)
    low, high = (steps[:, first::2].to(torch.int16) + 8 for first in (0, 1))
    return (low | high << 4).to(torch.uint8)


@torch.no_grad()
def dequantised(linear: RoundedLinear) -> Tensor:
    """The weight that a rounded map stands for, float32 (out, in)."""
    if linear.kind == "int8":
        return linear.packed.float() * linear.scales
    nibbles = torch.stack([linear.packed & 15, linear.packed >> 4], dim=-1).flatten(1)
    groups = (nibbles.float() - 8).view(len(nibbles), -1, GROUP) * linear.scales.float()[..., None]
    return groups.flatten(1)
