"""Linear maps held in 8 and 4 bits: what they stand for, by how much they differ, and where gradients go."""

import pytest
import torch
from torch import nn

from glassgpt.models.rounded import RoundedLinear, dequantised


def linear(n_in=64, n_out=10, bias=True):
    made = nn.Linear(n_in, n_out, bias)
    with torch.no_grad():
        made.weight.copy_(torch.randn(n_out, n_in, generator=torch.Generator().manual_seed(0)))
    return made


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_weight_is_off_by_half_a_step_at_most(kind):
    plain = linear()
    rounded = RoundedLinear.of(plain, kind)
    groups = plain.weight.detach().view(10, -1, 32 if kind == "int4" else 64)
    step = groups.abs().amax(-1, keepdim=True) / {"int8": 127, "int4": 7}[kind]
    error = (dequantised(rounded).view_as(groups) - groups).abs()
    assert (error <= 0.5 * step * 1.01 + 0.004 * (kind == "int4")).all()  # scales of int4 are float16 themselves
    assert error.max() > 0


def test_two_weights_by_hand():
    plain = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([[1.27, -0.304]]))
    assert torch.allclose(dequantised(RoundedLinear.of(plain, "int8")), torch.tensor([[1.27, -0.30]]), atol=1e-6)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rounding_what_is_rounded_changes_nothing(kind):
    plain = linear()
    once = dequantised(RoundedLinear.of(plain, kind))
    with torch.no_grad():
        plain.weight.copy_(once)
    assert torch.allclose(dequantised(RoundedLinear.of(plain, kind)), once, rtol=1e-3 if kind == "int4" else 1e-6)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_a_row_of_zeros_stays_zero(kind):
    plain = linear()
    with torch.no_grad():
        plain.weight[3] = 0
    assert (dequantised(RoundedLinear.of(plain, kind))[3] == 0).all()


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_the_gradient_goes_to_the_input_alone(kind):
    rounded = RoundedLinear.of(linear(), kind)
    x = torch.randn(5, 64, requires_grad=True)
    rounded(x).sum().backward()
    assert torch.allclose(x.grad, dequantised(rounded).sum(0).expand(5, -1), atol=1e-5)
    assert {name for name, _ in rounded.named_parameters()} == {"bias"}


def test_memory_is_what_it_says():
    plain = linear(n_in=256, n_out=100, bias=False)
    assert RoundedLinear.of(plain, "int8").n_bytes == 256 * 100 + 4 * 100
    assert RoundedLinear.of(plain, "int4").n_bytes == 256 * 100 // 2 + 2 * 256 * 100 // 32
