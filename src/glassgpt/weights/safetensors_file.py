"""safetensors files: one, or several that an index joins.

The library checks a file's header against its size (overlaps, holes, lengths, JSON); what it does not know is whether
these are the tensors that the model wants, which `hf_names.our_parameters` says.
"""

from __future__ import annotations

import json
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from glassgpt.errors import DamagedFileError, UnsupportedError
from glassgpt.weights.stored import StoredTensor

DTYPES = ("F64", "F32", "F16", "BF16")
LARGEST_JSON = 64 << 20  # bytes of a config, an index or a tokenizer: more is no such file


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """What a file holds, its header checked and nothing read yet. Raises DamagedFileError."""
    refuse_irregular(path)
    try:
        with safe_open(path, framework="pt") as file:
            return {name: _stored(path, file, name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, OverflowError) as error:
        raise DamagedFileError(f"{path} is not a whole safetensors file: {_what_is_wrong(path, error)}") from None


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


def _what_is_wrong(path: Path, error: Exception) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = file.read(8)
    cure = "download it again, or restore it from a copy"
    if len(length) == 8 and 8 + (header := struct.unpack("<Q", length)[0]) > size:
        return f"truncated: it has {size:,} bytes, and its header alone needs {8 + header:,}; {cure}"
    return f"{error} (it has {size:,} bytes); {cure}"


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
            raise DamagedFileError(f"{index} names the shard {shard!r}, which is no file beside it: do not use it")
        tensors = read_safetensors(inside(index.parent, shard))
        for name, tensor in tensors.items():
            if where.get(name) != shard:
                raise DamagedFileError(f"{index} does not say that {name} lies in {shard}, where it is")
            stored[name] = tensor
    if missing := sorted(where.keys() - stored.keys()):
        raise DamagedFileError(f"{index} says that {missing[0]} lies in {where[missing[0]]}, where it is not")
    return stored


def read_json(path: Path) -> Any:
    """The content of a JSON file, strictly: no NaN, no bottomless nesting. Raises DamagedFileError."""
    refuse_irregular(path)
    if (size := path.stat().st_size) > LARGEST_JSON:
        raise DamagedFileError(f"{path} has {size:,} bytes, far more than such a file needs: it is something else")
    try:
        return json.loads(path.read_bytes(), parse_constant=_refuse_constant, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON ({error}): download it again") from None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number in JSON")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError(f"a key occurs twice among {[key for key, _ in pairs][:5]}...")
    return content


def inside(folder: Path, name: str) -> Path:
    """The file of that name in `folder`. Raises DamagedFileError if it is a link that leads out of it.

    Links into the `blobs` that lie beside a hub cache's `snapshots` are how that cache keeps its files.
    """
    path = folder / name
    home = path.resolve().parent
    if path.is_symlink() and home not in (folder.resolve(), folder.resolve().parent.parent / "blobs"):
        raise DamagedFileError(f"{path} is a link to {path.resolve()}, outside its folder: copy the file itself there")
    return path


def refuse_irregular(path: Path) -> None:
    """Raise DamagedFileError unless `path` is a regular file, without opening it (a FIFO would hang the reader)."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise DamagedFileError(f"{path} is not a file: a folder, a pipe or a device is in its place")
