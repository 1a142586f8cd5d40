"""Weights drawn from a seed and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_one_at_a_time = threading.RLock()


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """What torch's modules draw inside comes from `seed`, and torch's global generator is afterwards as it was before.

    They know of no other generator, so threads that draw in here wait for each other.
    """
    with _one_at_a_time, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
