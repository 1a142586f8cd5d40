"""The plain neural net: layers of units, each of which sees all numbers of the layer before it.

No language model, but what the MLP inside every block is made of; small ones learn to tell points and digits apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from glassgpt.errors import NumericalError, UsageError
from glassgpt.models.mlp import refuse_less_than_one
from glassgpt.models.seeds import drawn_from
from glassgpt.models.threads import using

Activation = Literal["relu", "tanh", "sigmoid"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


class Dense(nn.Module):
    """Layers of `sizes` numbers, from the input to the output: each h -> activation(W h + b), the last one without.

    Weights are drawn from `seed` alone, as torch draws Linear layers: uniformly within 1 / sqrt(inputs). Raises
    UsageError for fewer than two sizes, a size below 1, and an unknown activation.

    >>> Dense([2, 4, 4, 1]).n_parameters  # 2 * 4 + 4, 4 * 4 + 4 and 4 * 1 + 1
    37
    """

    def __init__(self, sizes: Sequence[int], activation: Activation = "tanh", seed: int = 0) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise UsageError(f"a net has an input and an output: give two sizes or more, got {list(sizes)}")
        refuse_less_than_one(**{f"sizes[{i}]": size for i, size in enumerate(sizes)})
        if activation not in ACTIVATIONS:
            raise UsageError(f"activation must be one of {', '.join(ACTIVATIONS)}; got {activation!r}")
        self.activation = activation
        with drawn_from(seed):
            self.layers = nn.ModuleList([nn.Linear(*pair) for pair in pairwise(sizes)])

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, x: Tensor) -> Tensor:
        """Float (..., sizes[0]) to float (..., sizes[-1])."""
        return self.layers[-1](self.hidden(x))

    def hidden(self, x: Tensor) -> Tensor:
        """What the last layer sees: the activations of the hidden layer before it, or without one the input."""
        for layer in self.layers[:-1]:
            x = ACTIVATIONS[self.activation](layer(x))
        return x


def fit(net: nn.Module, loss: Callable[[], Tensor], steps: int = 150) -> float:
    """Lower a loss of a small net that is always of the same data, and return the loss reached.

    At most `steps` iterations of L-BFGS (Liu and Nocedal 1989), which takes the curvature from the gradients before,
    so that there is no learning rate to choose; the same net and loss give the same weights. One thread. Raises
    NumericalError if the loss is not finite.
    """
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=steps, history_size=10, line_search_fn="strong_wolfe", tolerance_change=1e-10
    )

    def measure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with using(1):
        optimizer.step(measure)
        with torch.no_grad():
            reached = float(loss())
    if not torch.isfinite(torch.tensor(reached)):
        raise NumericalError(f"the loss is {reached} after training: look for NaN or very large numbers in the data")
    return reached
