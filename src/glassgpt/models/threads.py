"""How many threads torch should use: one where the work is too small to share.

On a busy machine two threads that wait for each other at every tiny operation made the fifty steps of the baby GPT take
18 seconds instead of 3 (notes/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_SHARING = 1 << 17  # numbers in the widest activation


def fitting(numbers: int) -> int:
    """One thread if the widest activation has fewer than WORTH_SHARING numbers, else as many as torch has."""
    return 1 if numbers < WORTH_SHARING else torch.get_num_threads()


@contextmanager
def using(threads: int) -> Iterator[None]:
    """Within the block torch uses so many threads."""
    before = torch.get_num_threads()
    if before == threads:
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """Within the block torch uses one thread if the widest activation has fewer than WORTH_SHARING numbers."""
    with using(fitting(numbers)):
        yield
