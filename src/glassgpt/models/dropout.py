"""Dropout whose masks are a function of where they fall: the same for a window whoever computes it, and however often.

A mask follows from seed, step, place in the network, and the window's number in the step. So a step gives the same
gradient in one part or in many, in one process or in several, on any device, and a run that goes on needs no
generator's state. Masks are never kept: the way back makes them anew.

They are made by hashing, by train.c where there is a compiler, and by the same arithmetic in torch where there is none
(or another device): the same bits. torch's own dropout draws from one serial generator, which on a CPU takes longer
than all else in attention.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from glassgpt.models.native.build import library

MASK = np.dtype([("key", np.uint32, 2), ("below", np.uint32), ("scale", np.float32)])  # Mask of train.c
WORDS = 1 << 32  # values of a hash
QUERIES = 64  # of a row that attention takes at a time: later ones see more keys


class Dropout:
    """Sets a share `p` of numbers to 0 and scales the others by 1 / (1 - p) (arXiv 1207.0580).

    `step` and `first_row`: the step of training, and the number in it of the first row of what comes. Each call is
    another place in the network, so one object serves one forward pass. The share is rounded to a multiple of 2^-32
    below 1; the masks of a row of more than 2^32 numbers repeat.
    """

    def __init__(self, p: float, seed: int, step: int, first_row: int = 0) -> None:
        self.p, self.seed, self.step, self.first_row = p, seed, step, first_row
        self.place = 0

    @torch.compiler.disable
    def __call__(self, x: Tensor) -> Tensor:
        """x (B, ...): B rows, numbered from `first_row`."""
        return _Drop.apply(x, self._next_masks(len(x)))

    @torch.compiler.disable
    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """Causal attention of queries (B, H, T, D), of which a part falls out after the softmax. `mask`, if there is
        one, is added to the scores and says what is causal."""
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        if mask is None and _is_for_native(q):
            return _Attend.apply(q, k, v, self._next_masks(len(q))).to(q.dtype)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        if mask is None:
            mask = scores.new_full(scores.shape[-2:], -math.inf).triu(1)
        return self(F.softmax(scores + mask, dim=-1)) @ v

    def _next_masks(self, rows: int) -> np.ndarray:
        """What decides the masks of so many rows at the next place: an array of MASK."""
        masks = np.empty(rows, MASK)
        masks["below"] = below = min(round(self.p * WORDS), WORDS - 1)
        masks["scale"] = WORDS / (WORDS - below)
        for i in range(rows):
            where = struct.pack("<4Q", self.seed, self.step, self.first_row + i, self.place)
            masks["key"][i] = np.frombuffer(hashlib.blake2b(where, digest_size=8).digest(), "<u4")
        self.place += 1
        return masks


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, masks: np.ndarray) -> Tensor:
        ctx.masks = masks
        return dropped(x, masks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return dropped(grad, ctx.masks), None


def dropped(x: Tensor, masks: np.ndarray) -> Tensor:
    """x (B, ...) with the masks of its B rows."""
    if not _is_for_native(x):
        return x * factors(masks, x[0].numel(), x.device).view(x.shape).to(x.dtype)
    numbers = x.float().contiguous()
    out = torch.empty_like(numbers)
    _native().drop(numbers.data_ptr(), out.data_ptr(), masks.ctypes.data, len(x), x[0].numel())
    return out.to(x.dtype)


def factors(masks: np.ndarray, size: int, device: torch.device | str = "cpu") -> Tensor:
    """What each of `size` numbers of each row is multiplied by, float32 (B, size): 0 or 1 / (1 - p)."""
    key = torch.from_numpy(masks["key"].astype(np.int64)).to(device)
    x = torch.arange(size, device=device) + key[:, :1] & WORDS - 1
    x = x ^ x >> 16  # from here as `hash` of train.c; products stay within 63 bits
    x = x * 0x7FEB352D & WORDS - 1
    x = x ^ x >> 15 ^ key[:, 1:]
    x = x * (0x846CA68B - WORDS) & WORDS - 1
    x = x ^ x >> 16
    return (x >= int(masks["below"][0])) * torch.tensor(masks["scale"][0], device=device)


class _Attend(torch.autograd.Function):
    """Attention that keeps the log of each softmax's sum and makes everything else anew on the way back, a block of
    queries at a time, so that scores stay in the processor's cache (as in arXiv 2205.14135)."""

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, masks: np.ndarray) -> Tensor:
        B, H, T, D = q.shape
        out, total = q.new_empty(B, T, H, D).transpose(1, 2), q.new_empty(B, H, T)
        space = q.new_empty(H * min(QUERIES, T) * T)
        for row in range(B):
            for first in range(0, T, QUERIES):
                last = min(first + QUERIES, T)
                weights = _scores(space, q[row, :, first:last], k[row, :, :last])
                _native().attend(
                    *(weights.data_ptr(), total[row].data_ptr(), masks[row:].ctypes.data),
                    *(H, first, last - first, last, T, 1 / math.sqrt(D)),
                )
                out[row, :, first:last] = weights @ v[row, :, :last]
        ctx.save_for_backward(q, k, v, out, total)
        ctx.masks = masks
        return out

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        (q, k, v, out, total), masks = ctx.saved_tensors, ctx.masks
        B, H, T, D = q.shape
        dq, dk, dv = (torch.empty_like(x) for x in (q, k, v))
        inner = (out * grad).sum(-1).contiguous()
        spaces = q.new_empty(2, H * min(QUERIES, T) * T)
        for row in range(B):
            for first in range(T - 1 - (T - 1) % QUERIES, -1, -QUERIES):  # the last block reaches every key
                last = min(first + QUERIES, T)
                block, keys = slice(first, last), slice(0, last)
                weights = _scores(spaces[0], q[row, :, block], k[row, :, keys])
                grads = _scores(spaces[1], grad[row, :, block], v[row, :, keys])
                _native().attend_back(
                    *(weights.data_ptr(), grads.data_ptr(), total[row].data_ptr(), inner[row].data_ptr()),
                    *(masks[row:].ctypes.data, H, first, last - first, last, T, 1 / math.sqrt(D)),
                )
                dq[row, :, block] = grads @ k[row, :, keys]
                beta = 0 if last == T else 1
                for into, left, right in ((dv, weights, grad), (dk, grads, q)):
                    part = into[row, :, keys]
                    torch.baddbmm(part, left.mT, right[row, :, block], beta=beta, out=part)
        return dq, dk, dv, None


def _scores(space: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """Products (H, T, S) of (H, T, D) and (H, S, D), at the beginning of `space`."""
    H, T, S = *queries.shape[:2], keys.shape[1]
    return torch.bmm(queries, keys.mT, out=space[: H * T * S].view(H, T, S))


def _is_for_native(x: Tensor) -> bool:
    """Half-precision numbers are computed with in float32: exact for a mask, better for attention."""
    kind = x.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return kind and x.device.type == "cpu" and x.numel() > 0 and _native() is not None


@functools.cache
def _native() -> Any:
    """train.c compiled, or None."""
    native = library("train.c")
    if native is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    native.drop.argtypes = [pointer] * 3 + [number] * 2
    native.attend.argtypes = [pointer] * 3 + [number] * 5 + [ctypes.c_float]
    native.attend_back.argtypes = [pointer] * 5 + [number] * 5 + [ctypes.c_float]
    for function in (native.drop, native.attend, native.attend_back):
        function.restype = None
    return native
