"""What turns gradients into updates: each step's learning rate, AdamW and Muon, and their state as named arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from glassgpt.training.processes import gathered, spread_like, whole
from glassgpt.training.recipe import TrainSection

Each = Callable[[Callable[[Tensor], Tensor], Iterable[Tensor]], Iterable[Tensor]]

DECAY_OF_WSD = 0.2  # the share of the steps over which warm-up-stable-decay falls


def learning_rate_at(train: TrainSection, step: int) -> float:
    """The learning rate of step 0, 1, ...: it rises for `warmup_steps`, then follows the schedule down.

    >>> [round(learning_rate_at(TrainSection(steps=4, learning_rate=1.0, schedule="linear"), i), 3) for i in range(4)]
    [1.0, 0.775, 0.55, 0.325]
    """
    if step < train.warmup_steps:
        return train.learning_rate * (step + 1) / train.warmup_steps
    share = (step - train.warmup_steps) / max(1, train.steps - train.warmup_steps)  # of the way, from 0 to below 1
    if train.schedule == "constant":
        height = 1.0
    elif train.schedule == "cosine":
        height = 0.5 + 0.5 * math.cos(math.pi * share)
    elif train.schedule == "linear":
        height = 1 - share
    else:
        height = min(1.0, (1 - share) / DECAY_OF_WSD)
    return train.learning_rate * (train.final_learning_rate + (1 - train.final_learning_rate) * height)


def optimizers_for(model: nn.Module, train: TrainSection, each: Each = map) -> list[torch.optim.Optimizer]:
    """AdamW for every parameter; with muon, Muon for the matrices of the blocks and AdamW for the rest.

    Muon makes each update of a matrix orthogonal, by five Newton-Schulz steps, and scales it to the size that AdamW's
    would have, so both go by one learning rate. `each`: what applies it to each matrix, such as a pool's map.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    in_blocks = [p for name, p in trained if _is_of_a_block(name, p) and train.optimizer == "muon"]
    others = [p for _, p in trained if not any(p is q for q in in_blocks)]
    matrices = [p for p in others if p.dim() > 1 or train.decay_vectors]
    vectors = [p for p in others if not (p.dim() > 1 or train.decay_vectors)]
    groups = [{"params": matrices, "weight_decay": train.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    made: list[torch.optim.Optimizer] = []
    if others:
        kept = [group for group in groups if group["params"]]
        made.append(torch.optim.AdamW(kept, lr=train.learning_rate, betas=(0.9, train.beta2), fused=True))
    if in_blocks:
        made.append(Muon(in_blocks, train.learning_rate, train.weight_decay, each))
    return made


def _is_of_a_block(name: str, parameter: Tensor) -> bool:
    """Whether it is a matrix of a block itself: what LoRA adds is thin, and an update of it made orthogonal is not."""
    return parameter.dim() == 2 and "h." in name and "lora_" not in name and "adapter_" not in name


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, so that it moves a matrix equally far in all directions.

    Jordan 2024; as in arXiv 2502.16982 an update is scaled by 0.2 sqrt(the longer side), the size of AdamW's. The same
    update as `torch.optim.Muon(adjust_lr_fn="match_rms_adamw")`, which computes it in bfloat16: 60 times slower on a
    processor without instructions for that, so here it is bfloat16 on a GPU alone.
    """

    MOMENTUM = 0.95
    COEFFICIENTS = (3.4445, -4.775, 2.0315)  # of a quintic that takes singular values into the neighbourhood of 1

    def __init__(self, params: Iterable[Tensor], lr: float, weight_decay: float, each: Each = map) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})
        self.each = each

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                momentum.lerp_(parameter.grad, 1 - self.MOMENTUM)
            nesterov = (whole(p.grad.lerp(self.state[p]["momentum_buffer"], self.MOMENTUM)) for p in group["params"])
            for parameter, update in zip(group["params"], self.each(orthogonal, nesterov), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    spread_like(update, parameter), alpha=-group["lr"] * 0.2 * math.sqrt(max(parameter.shape))
                )


@torch.no_grad()
def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearly the nearest matrix with orthonormal rows or columns, by Newton-Schulz steps: singular values near 1."""
    a, b, c = Muon.COEFFICIENTS
    x = matrix.bfloat16() if matrix.is_cuda else matrix
    x = x.T if x.shape[0] > x.shape[1] else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).to(matrix.dtype)


def set_learning_rate(optimizers: list[torch.optim.Optimizer], rate: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def optimizer_tensors(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], keep: bool = True
) -> dict[str, np.ndarray]:
    """What the optimizers remember, as "optimizer.PARAMETER.KEY"; what is spread over processes comes whole.

    All processes must ask, and those that don't `keep` it get nothing.
    """
    named = (
        (f"optimizer.{name}.{key}", value)
        for name, state in _states(model, optimizers)
        for key, value in sorted(state.items())  # a file has them in any order, and all gather in one
    )
    return {name: np.array(value.numpy()) for name, value in gathered(named, keep).items()}


def restore_optimizers(
    model: nn.Module, optimizers: list[torch.optim.Optimizer], tensors: Mapping[str, np.ndarray]
) -> None:
    """Put back what `optimizer_tensors` gave, in every process."""
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        kept = {key.removeprefix(prefix): tensors[key] for key in tensors if key.startswith(prefix)}
        for optimizer in optimizers:
            if kept and any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                optimizer.state[parameter] = {key: _like(parameter, value) for key, value in kept.items()}


def _states(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            if parameter in optimizer.state:
                yield name, optimizer.state[parameter]


def _like(parameter: Tensor, value: np.ndarray) -> Tensor:
    """A state tensor divided over processes as its parameter is; a step count stays a number."""
    tensor = torch.from_numpy(np.array(value))
    return tensor.to(parameter.device) if tensor.dim() == 0 else spread_like(tensor, parameter)
