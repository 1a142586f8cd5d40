"""A tensor that lies in a file: what the file says of it, and how to read it when it is wanted.

Every reader of a file format gives a dict of these, having checked that each lies whole inside its file. Nothing is
read or allocated until `read` is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StoredTensor:
    """`shape`: outermost first, as NumPy counts. `dtype`: the file's own word for it ("BF16", "Q4_1", ...).

    `read()` gives the numbers as float64 if they are stored so and else as float32, into which bf16, f16 and the
    dequantised formats fit exactly. Raises DamagedFileError if the bytes are not what the file promised.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]

    @classmethod
    def of(cls, array: np.ndarray) -> StoredTensor:
        """A tensor that is in memory already."""
        return cls(
            array.shape, {"float64": "F64", "float32": "F32"}.get(array.dtype.name, array.dtype.name), lambda: array
        )


class Reading(Mapping[str, np.ndarray]):
    """Stored tensors as arrays, each read anew whenever it is asked for, so that one at a time is in memory."""

    def __init__(self, stored: Mapping[str, StoredTensor]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> np.ndarray:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)
