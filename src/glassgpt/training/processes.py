"""The processes that train together: one, or as many as torchrun started. All talking between them is torch's own.

Gradients travel by NCCL between GPUs and by gloo between processors. What the processes tell each other besides (a
loss, whether to stop, that a file is written) goes by gloo everywhere and waits for a day: one process may prepare a
long text or write a large file while the others wait, and NCCL would give up on them after ten minutes. A process that
has died is noticed at once all the same.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from glassgpt.errors import GlassGPTError, UsageError

PATIENCE = timedelta(days=1)
FAILED = "failed"  # how many processes have failed, in torchrun's store, which outlives them
TRAININGS = itertools.count()  # each has keys of its own there


@dataclass(frozen=True)
class Processes:
    """`rank`: this one's number. `count`: how many there are. `device`: where this one computes. `group`: by which they
    talk."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    group: dist.ProcessGroup | None = None

    @property
    def beside(self) -> int:
        """How many of them share this machine, as torchrun says."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if self.count > 1 else 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def share(self, n_rows: int) -> range:
        """Which of a step's rows are this process's: they are dealt out as evenly as can be."""
        each, more = divmod(n_rows, self.count)
        start = self.rank * each + min(self.rank, more)
        return range(start, start + each + (self.rank < more))

    def parts(self, n_rows: int, at_once: int | None) -> list[range]:
        """This process's share in parts of at most `at_once` rows, as many of them in every process: FSDP gathers
        weights for each, and all must take part. So the last may be empty.

        >>> [Processes(rank, 3).parts(7, 1) for rank in range(2)]
        [[range(0, 1), range(1, 2), range(2, 3)], [range(3, 4), range(4, 5), range(5, 5)]]
        """
        mine, largest = self.share(n_rows), -(-n_rows // self.count)
        starts = range(mine.start, mine.start + largest, at_once or largest)
        return [range(min(first, mine.stop), min(first + starts.step, mine.stop)) for first in starts]

    def wait(self) -> None:
        if self.count > 1:
            dist.barrier(self.group)

    def total(self, value: float) -> float:
        """The sum of every process's number."""
        if self.count == 1:
            return value
        summed = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(summed, group=self.group)
        return float(summed)

    def spread(self, model: nn.Module, shard: bool) -> nn.Module:
        """The model as all processes train it: copies that agree (DDP), or one that is spread over them (FSDP2)."""
        if self.count == 1:
            return model
        if not shard:
            return _copies(model, self.device)
        from torch.distributed.fsdp import fully_shard

        mesh = dist.init_device_mesh(self.device.split(":")[0], (self.count,))
        for block in model.h:  # type: ignore[union-attr]
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
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


def _copies(model: nn.Module, device: str) -> nn.Module:
    """DDP, after a gradient of nothing. It deals parameters out to buckets anew after the first gradient; a run that
    goes on would otherwise add up its first one, of three processes or more, in another order."""
    copies = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    made = copies(torch.zeros((1, 1), dtype=torch.int64, device=device))
    parts = made if isinstance(made, tuple) else (made,)  # of a policy with its critic
    sum(part.sum() for part in parts).backward()
    model.zero_grad()
    return copies


def whole(value: Tensor) -> Tensor:
    """All of a tensor, of which a process may hold only a part (FSDP's DTensor); every process must ask for it."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def gathered(tensors: Iterable[tuple[str, Tensor]], keep: bool = True) -> dict[str, Tensor]:
    """Each of the tensors whole and in the processor's memory, one after another; every process must ask for them, and
    those that don't `keep` them get nothing."""
    kept = {}
    for name, value in tensors:
        one = whole(value.detach())
        if keep:
            kept[name] = one.cpu()
    return kept


def spread_like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value`, whole in every process, where the parameter lies and divided as it is."""
    value = value.to(parameter.device)
    if not hasattr(parameter, "placements"):
        return value
    from torch.distributed.tensor import distribute_tensor

    mesh, placements = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
    return distribute_tensor(value, mesh, placements, src_data_rank=None)  # each takes its part, nothing is sent


def is_first() -> bool:
    """Whether this process is alone or torchrun's first, known before they have met."""
    return os.environ.get("RANK", "0") == "0"


def best_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def processes(device: str | None = None) -> Iterator[Processes]:
    """The processes that torchrun started (it says so in the environment), or this one alone.

    If one fails, all end, and only the first error is told: in the other processes it, or that a neighbour is gone, is
    raised with `is_told` set.
    """
    device = device or best_device()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        yield Processes(device=device)
        return
    if device.startswith("cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if dist.is_initialized():
        raise UsageError("training is under way in this process already: one run at a time")
    store, rank, count = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(f"glassgpt/{next(TRAININGS)}", store)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", store=store, rank=rank, world_size=count)
    try:
        yield Processes(rank, count, device, dist.new_group(backend="gloo", timeout=PATIENCE))
    except Exception as error:
        raise _of_all(error, store, rank) from None
    finally:
        dist.destroy_process_group()


def _of_all(error: Exception, store: dist.Store, rank: int) -> Exception:
    """The error that this process ends with, knowing of the others'."""
    try:
        is_first = store.add(FAILED, 1) == 1
    except RuntimeError:  # torchrun has gone, and its store with it
        is_first = rank == 0
    if not isinstance(error, GlassGPTError):
        if is_first and not _is_lost_neighbour(error):
            return error
        error = GlassGPTError(
            "another process of this training has ended: the same command goes on from the last checkpoint"
        )
    error.is_told = not is_first
    return error


def _is_lost_neighbour(error: Exception) -> bool:
    """gloo tells of it by a bare RuntimeError."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))
