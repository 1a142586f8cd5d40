"""safetensors files: one, or several that an index joins.

The library checks a file's header against its size (overlaps, holes, lengths), but lets a name stand there twice and
reads headers of any size: both are seen to here. Whether these are the tensors that the model wants, it cannot know:
`hf_names.our_parameters` says that.
"""

from __future__ import annotations

import json
import math
import stat
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from glassgpt.errors import DamagedFileError, NumericalError, UnsupportedError
from glassgpt.files import NewFile
from glassgpt.weights.stored import StoredTensor

DTYPES = ("F64", "F32", "F16", "BF16")
WRITTEN: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4")}
LARGEST_HEADER = 8 << 20  # bytes, which name 50,000 tensors and more
LARGEST_JSON = 8 << 20  # bytes of a config, an index or a chat template: more is no such file
MOST_MEMBERS = 1 << 22  # values in one of them: a few bytes each in the file, and up to a hundred in memory
CURE = "download it again, or restore it from a copy"


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """What a file holds, its header checked and nothing read yet. Raises DamagedFileError."""
    refuse_irregular(path)
    _check_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: _stored(path, file, name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise DamagedFileError(
            f"{path} is not a whole safetensors file: {error} (it has {path.stat().st_size:,} bytes); {CURE}"
        ) from None


def write_safetensors(file: NewFile, tensors: Mapping[str, StoredTensor], metadata: Mapping[str, str]) -> None:
    """Write the tensors in the order of their names, one at a time in memory. Raises NumericalError for NaN or infinity
    in one of them, and UnsupportedError unless they are float32 or float64."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    names = sorted(tensors, key=lambda name: (tensors[name].dtype != "F64", name))  # so that all lie at multiples of 8
    at = 0
    for name in names:
        if tensors[name].dtype not in WRITTEN:
            raise UnsupportedError(
                f"{file.path}: {name} is {tensors[name].dtype}, and {', '.join(WRITTEN)} are written"
            )
        end = at + math.prod(tensors[name].shape) * WRITTEN[tensors[name].dtype].itemsize
        header[name] = {"dtype": tensors[name].dtype, "shape": list(tensors[name].shape), "data_offsets": [at, end]}
        at = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)
    file.write(struct.pack("<Q", len(content)) + content)
    for name in names:
        _write(file, name, tensors[name])


def _write(file: NewFile, name: str, tensor: StoredTensor) -> None:
    value = np.ascontiguousarray(tensor.read(), dtype=WRITTEN[tensor.dtype]).reshape(tensor.shape)
    if not np.isfinite(value).all():
        raise NumericalError(f"{file.path} is not written: {name} holds NaN or infinity")
    file.write(value.reshape(-1).data)


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself, once `read_safetensors` has looked at it."""
    with safe_open(path, framework="np") as file:
        return file.metadata() or {}


def _check_header(path: Path) -> None:
    """The first 8 bytes say how long the header is: compared with the file and with reason, before it is read."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            first = file.read(8)
            length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
            if len(first) < 8 or 8 + length > size:
                raise DamagedFileError(
                    f"{path} is not a whole safetensors file: truncated, or something else (it has {size:,} bytes, and "
                    f"needs at least {8 + length:,}); {CURE}"
                )
            if length > LARGEST_HEADER:
                raise DamagedFileError(
                    f"{path} is no model's safetensors file: its header has {length:,} bytes, and none needs more than "
                    f"{LARGEST_HEADER:,}; {CURE}"
                )
            header = file.read(length)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}") from None
    _parse_json(header, path, "is not a whole safetensors file: its header is not JSON")


def _stored(path: Path, file: Any, name: str) -> StoredTensor:
    there = file.get_slice(name)
    dtype = there.get_dtype()
    if dtype not in DTYPES:
        shape = tuple(there.get_shape())
        return StoredTensor(shape, dtype, lambda: _refuse_dtype(path, name, dtype))
    return StoredTensor(tuple(there.get_shape()), dtype, lambda: _read(path, name))


def _refuse_dtype(path: Path, name: str, dtype: str) -> np.ndarray:
    raise UnsupportedError(f"{path}: {name} is stored as {dtype}, and GlassGPT reads {', '.join(DTYPES)}")


def _read(path: Path, name: str) -> np.ndarray:
    import torch

    try:
        with safe_open(path, framework="pt") as file:
            tensor = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(f"{path} changed while it was read ({error}): load it again") from None
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()


def read_sharded(index: Path) -> dict[str, StoredTensor]:
    """The tensors of `model.safetensors.index.json`, each in the shard that it names.

    A shard's name is a plain file name beside the index: anything with a path in it is refused, unopened. Raises
    DamagedFileError too if a shard is missing, or holds a tensor that the index has elsewhere or nowhere.
    """
    content = read_json(index)
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not all(isinstance(shard, str) for shard in where.values()):
        raise DamagedFileError(f"{index} has no weight_map from names to files: download it again")
    stored: dict[str, StoredTensor] = {}
    for shard in sorted(set(where.values())):
        if shard in ("", ".", "..") or Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise DamagedFileError(f"{index} names the shard {shard!r:.80}, which is no file beside it: do not use it")
        path = inside(index.parent, shard)
        if not path.exists():
            raise DamagedFileError(f"{index} names the shard {shard!r:.80}, which is not there: download the rest")
        tensors = read_safetensors(path)
        for name, tensor in tensors.items():
            if where.get(name) != shard:
                raise DamagedFileError(f"{index} does not say that {name} lies in {shard}, where it is: {CURE}")
            stored[name] = tensor
    if missing := sorted(where.keys() - stored.keys()):
        raise DamagedFileError(f"{index} says that {missing[0]} lies in {where[missing[0]]}, where it is not: {CURE}")
    return stored


def read_json(path: Path, largest: int = LARGEST_JSON) -> Any:
    """The content of a JSON file, strictly: no NaN, no bottomless nesting. Raises DamagedFileError."""
    return _parse_json(read_small(path, largest), path, "is not JSON")


def _parse_json(content: bytes, path: Path, otherwise: str) -> Any:
    if sum(content.count(sign) for sign in (b",", b"[", b"{")) > MOST_MEMBERS:
        raise DamagedFileError(f"{path} lists more than {MOST_MEMBERS:,} values, far more than such a file needs")
    try:
        return json.loads(content, parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} {otherwise} ({error!s:.200}): {CURE}") from None


def read_small(path: Path, largest: int = LARGEST_JSON) -> bytes:
    """A file that is read whole. Raises DamagedFileError for one that is none or has more than `largest` bytes."""
    refuse_irregular(path)
    try:
        if (size := path.stat().st_size) > largest:
            raise DamagedFileError(f"{path} has {size:,} bytes, far more than such a file needs: it is something else")
        return path.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number in JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"a key occurs twice among {str([key for key, _ in pairs][:5])[:80]}...")
    return content


def inside(folder: Path, name: str) -> Path:
    """The file of that name in `folder`. Raises DamagedFileError if it is a link that leads out of it.

    Links into the `blobs` that lie beside a hub cache's `snapshots` are how that cache keeps its files.
    """
    path = folder / name
    try:
        if not path.is_symlink():
            return path
        home, place = folder.resolve(), path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise DamagedFileError(f"{str(path)!r:.200} cannot be read: {_why(error)}") from None
    blobs = [home.parent.parent / "blobs"] if home.parent.name == "snapshots" else []
    if place.parent not in (home, *blobs):
        raise DamagedFileError(f"{path} is a link to {place}, outside its folder: copy the file itself there")
    return path


def refuse_irregular(path: Path) -> None:
    """Raise DamagedFileError unless `path` is a regular file, without opening it (a FIFO would hang the reader)."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DamagedFileError(f"{str(path)!r:.200} cannot be read: {_why(error)}") from None
    if not stat.S_ISREG(mode):
        raise DamagedFileError(f"{path} is not a file: a folder, a pipe or a device is in its place")


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
