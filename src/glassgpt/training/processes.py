"""The processes that train together: one, or as many as torchrun started. All talking between them is torch's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from glassgpt.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """`rank`: this one's number. `count`: how many there are. `device`: where this one computes."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def share(self, n_rows: int) -> range:
        """Which of a step's rows are this process's: they are dealt out as evenly as can be."""
        each, more = divmod(n_rows, self.count)
        start = self.rank * each + min(self.rank, more)
        return range(start, start + each + (self.rank < more))

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier()

    def total(self, value: float) -> float:
        """The sum of every process's number."""
        if self.count == 1:
            return value
        summed = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return float(summed)

    def spread(self, model: nn.Module, shard: bool) -> nn.Module:
        """The model as all processes train it: copies that agree (DDP), or one that is spread over them (FSDP2)."""
        if self.count == 1:
            return model
        if not shard:
            return nn.parallel.DistributedDataParallel(model)
        from torch.distributed.fsdp import fully_shard

        for block in model.h:  # type: ignore[union-attr]
            fully_shard(block)
        fully_shard(model)
        return model

    @contextmanager
    def gathering(self, model: nn.Module, now: bool) -> Iterator[None]:
        """Gradients are added up over the processes within the block, or if not `now`, wait for the next part's."""
        if self.count == 1:
            yield
        elif isinstance(model, nn.parallel.DistributedDataParallel):
            with nullcontext() if now else model.no_sync():
                yield
        else:
            model.set_requires_gradient_sync(now)  # type: ignore[operator]
            yield


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def processes(device: str | None = None) -> Iterator[Processes]:
    """The processes that torchrun started (it says so in the environment), or this one alone."""
    device = device or best_device()
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes(device=device)
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if dist.is_initialized():
        raise UsageError("training is under way in this process already: one run at a time")
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Processes(dist.get_rank(), count, device)
    finally:
        dist.destroy_process_group()
