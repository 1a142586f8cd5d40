"""Dropout whose masks are a function of where they fall: the same for a window whoever computes it, and however often.

A mask follows from seed, step, place in the network, and the window's number in the step. So a step gives the same
gradient in one part or in many, in one process or in several, and a run that goes on needs no generator's state.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Dropout:
    """Sets a share `p` of numbers to 0 and scales the others by 1 / (1 - p) (arXiv 1207.0580).

    `step` and `first_row`: the step of training, and the number in it of the first row of what comes. Each call is
    another place in the network, so one object serves one forward pass. The share is rounded to a 256th.
    """

    def __init__(self, p: float, seed: int, step: int, first_row: int = 0) -> None:
        self.p, self.seed, self.step, self.first_row = p, seed, step, first_row
        self.place = 0

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, ...): B rows, numbered from `first_row`."""
        below = round(self.p * 256)
        kept = torch.stack([self._bytes(self.first_row + row, x[0]) for row in range(len(x))]) >= below
        self.place += 1
        return x * kept * (256 / (256 - below))

    def _bytes(self, row: int, like: Tensor) -> Tensor:
        draw = np.random.Generator(np.random.SFC64([self.seed, self.step, row, self.place]))
        return torch.from_numpy(np.frombuffer(draw.bytes(like.numel()), dtype=np.uint8).copy()).view(like.shape)
