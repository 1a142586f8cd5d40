"""How many threads torch should use: one where the work is too small to share.

On a busy machine two threads that wait for each other at every tiny operation made the fifty steps of the baby GPT take
18 seconds instead of 3 (notes/log.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORTH_SHARING = 1 << 17  # numbers in the widest activation


@contextmanager
def threads_for(numbers: int) -> Iterator[None]:
    """Within the block torch uses one thread if the widest activation has fewer than WORTH_SHARING numbers."""
    before = torch.get_num_threads()
    if before == 1 or numbers >= WORTH_SHARING:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
