"""Arrays as the bytes of a safetensors file, which the page reads with thirty lines of its own.

8 bytes of length, a JSON header with `__metadata__`, then the numbers, little-endian. The library writes the header to
a multiple of 8 and puts wider numbers first, so that a browser may look at them where they lie. (`weights` writes the
files of models, and so refuses infinity; logits may hold it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save
from starlette.responses import Response

from glassgpt.serving.events import to_json

DTYPES = ("float64", "float32", "int32", "uint8")


def tensor_bytes(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> bytes:
    """Arrays of one of DTYPES by name, and what they are: texts as they are, anything else as JSON."""
    for name, value in tensors.items():
        assert value.dtype.name in DTYPES, f"{name} is {value.dtype}"
    about = {name: value if isinstance(value, str) else to_json(value) for name, value in metadata.items()}
    return save({name: np.ascontiguousarray(value) for name, value in tensors.items()}, about)


def tensor_response(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> Response:
    return Response(tensor_bytes(tensors, metadata), media_type="application/octet-stream")


def as_float32(values: np.ndarray) -> np.ndarray:
    """float32 as it is, anything wider rounded."""
    return np.asarray(values).astype(np.float32, copy=False)
