"""GGUF, the one-file format of llama.cpp: metadata, then tensors that may be quantised.

The layout, little-endian (docs/gguf.md of ggml-org/ggml, versions 2 and 3):

    "GGUF", version u32, number of tensors u64, number of keys u64
    each key: name, type u32, value     (a string is its length u64 and UTF-8, an array its type u32, length u64, items)
    each tensor: name, number of sizes u32, sizes u64 (innermost first), type u32, offset u64
    padding to the alignment, and from there on, at the offsets, the tensors' bytes

Nothing that the file says of itself is believed before it was compared with the file's real size, and nothing is
allocated for what isn't there. GGUF has no checksum: a flipped bit among the weights can't be noticed here.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from struct import Struct
from struct import error as StructError
from typing import Any

import numpy as np

from glassgpt.errors import DamagedFileError, UnsupportedError
from glassgpt.weights.stored import StoredTensor

MAX_HEADER = 2**26  # bytes; the largest vocabularies (262,144 tokens) make headers of 15 MB
MAX_COUNT = 2**16  # keys, and tensors; the largest models have some thousands
MAX_STRINGS = 2**22  # in all arrays together
MAX_NAME = 2**16  # bytes of a key or a tensor's name
MAX_SIZES = 4  # a tensor's dimensions
ALIGNMENTS = tuple(2**power for power in range(3, 17))

STRING, ARRAY, BOOL, UINT32 = 8, 9, 7, 4
NUMBERS = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "u1", 10: "<u8", 11: "<i8", 12: "<f8"}
U32, U64 = Struct("<I"), Struct("<Q")

READABLE = (
    *("F64", "F32", "F16", "BF16", "Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "MXFP4", "NVFP4"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "IQ4_NL", "IQ4_XS"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"),
)
CHUNK = 2**16  # numbers dequantised at a time, so that the steps between stay in the cache
SPLIT_NAME = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie: `rows` runs of `row_bytes` bytes, one behind the other from `offset` on."""

    offset: int
    rows: int
    row_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.rows * self.row_bytes


@dataclass(frozen=True)
class GGUF:
    """What a GGUF file says, checked; the tensors' numbers stay in the file until they are read.

    `metadata`: strings, ints, floats and bools as Python's; an array of strings is a list, one of numbers a NumPy
    array. `tensors`: shapes outermost first, as NumPy counts (the file has them the other way round). `places`: where
    they lie in `content`, the file mapped into memory.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]
    places: dict[str, Place]
    content: mmap.mmap

    def raw(self, name: str) -> np.ndarray:
        """A tensor's bytes as they are stored, quantised or not: read-only uint8 (rows, bytes per row), not copied."""
        return _raw(self.path, self.content, self.places[name])


def read_gguf(path: Path) -> GGUF:
    """The metadata and tensors of a GGUF file of version 2 or 3.

    Raises DamagedFileError, naming the file and what is wrong in it, for one that is missing, cut short, not a regular
    file, or in any place not what the format allows; UnsupportedError for one of several parts of a model.
    """
    path = Path(path)
    if (part := SPLIT_NAME.search(path.name)) and int(part[2]) > 1:
        raise _split(path, int(part[2]))
    content = _mapped(path)
    header = _Header(path, content)
    n_tensors, n_keys = _counts(header)
    metadata, alignment = _metadata(header, n_keys)
    if isinstance(parts := metadata.get("split.count", 0), int) and parts > 1:
        raise _split(path, parts)
    infos = [_tensor_info(header) for _ in range(n_tensors)]
    start = -(-header.at // alignment) * alignment
    return _with_tensors(path, metadata, infos, start, alignment, content)


def _split(path: Path, parts: int) -> UnsupportedError:
    return UnsupportedError(
        f"{path} is one of {parts} parts of a model, and GlassGPT reads models of one file: "
        f"join them by llama-gguf-split --merge"
    )


def _damaged(path: Path, what: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is not a sound GGUF file: {what}; download it again")


def shown(value: Any) -> str:
    """Something from a file as it may stand in a message, however long it is."""
    if isinstance(value, list | np.ndarray):
        return f"an array of {len(value)}"
    if isinstance(value, str) and len(value) > 80:
        value = value[:77] + "..."
    return repr(value)


def _mapped(path: Path) -> mmap.mmap:
    """The bytes of a regular file as memory. Doesn't wait for a pipe, and asks nothing of a device."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DamagedFileError(f"{path} is not a file but a folder, a pipe or a device: give a GGUF file")
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = getattr(error, "strerror", None) or str(error)
        raise DamagedFileError(f"{path} cannot be read ({why}): give a GGUF file that is there") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise DamagedFileError(f"{path} is not a file but a folder, a pipe or a device: give a GGUF file")
        if status.st_size < 24:
            raise _damaged(path, f"it holds {status.st_size} bytes, and a header alone has 24")
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{path} cannot be mapped into memory ({error})") from None
    finally:
        os.close(descriptor)


class _Header:
    """Goes forward through what stands before the tensors' bytes, and never past the end of the file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.at = 0
        self.end = min(len(content), MAX_HEADER)
        self.strings_left = MAX_STRINGS

    def damaged(self, what: str) -> DamagedFileError:
        return _damaged(self.path, what)

    def skip(self, size: int, what: str) -> int:
        """Go on by so many bytes; gives where they begin."""
        start = self.at
        if size > self.end - start:
            raise self._too_short(start + size, what)
        self.at = start + size
        return start

    def _too_short(self, wanted: int, what: str) -> DamagedFileError:
        if self.end < len(self.content):
            return self.damaged(f"{what} would make its header longer than {MAX_HEADER} bytes")
        return self.damaged(
            f"{what} would need {wanted} bytes, and the file has {self.end}: it is cut short or altered"
        )

    def u32(self, what: str) -> int:
        return U32.unpack_from(self.content, self.skip(4, what))[0]

    def u64(self, what: str) -> int:
        return U64.unpack_from(self.content, self.skip(8, what))[0]

    def string(self, what: str) -> str:
        size = self.u64(f"the length of {what}")
        start = self.skip(size, what)
        try:
            return str(self.content[start : self.at], "utf-8")
        except UnicodeDecodeError:
            raise self.damaged(f"{what} is no UTF-8") from None

    def name(self, what: str) -> str:
        before = self.at
        name = self.string(what)
        if self.at - before - 8 > MAX_NAME:
            raise self.damaged(f"{what} is longer than {MAX_NAME} bytes")
        return name

    def strings(self, count: int, what: str) -> list[str]:
        """So many strings; the one loop over a whole vocabulary, so written for speed."""
        if count > self.strings_left:
            raise self.damaged(f"{what} would hold {count} strings, and no vocabulary has more than {MAX_STRINGS}")
        self.strings_left -= count
        content, end, at, unpack = self.content, self.end, self.at, U64.unpack_from
        result: list[str] = []
        add = result.append
        try:
            for _ in range(count):
                start = at + 8
                at = start + unpack(content, at)[0]
                if at > end:
                    raise self._too_short(at, what)
                add(str(content[start:at], "utf-8"))
        except StructError:  # the length itself lies past the end
            raise self._too_short(at + 8, what) from None
        except UnicodeDecodeError:
            raise self.damaged(f"string {len(result)} of {what} is no UTF-8") from None
        self.at = at
        return result

    def numbers(self, type: int, count: int, what: str) -> np.ndarray:
        dtype = np.dtype(NUMBERS[type])
        start = self.skip(count * dtype.itemsize, what)
        values = np.frombuffer(self.content, dtype, count, start).astype(dtype.newbyteorder("="))
        if type == BOOL:
            if (values > 1).any():
                raise self.damaged(f"{what} holds {values.max()} where only 0 (false) and 1 (true) may stand")
            return values.astype(bool)
        return values

    def value(self, type: int, what: str) -> Any:
        if type == STRING:
            return self.string(what)
        if type == ARRAY:
            return self.array(what)
        if type not in NUMBERS:
            raise self.damaged(f"{what} is of type {type}, which GGUF does not have")
        return self.numbers(type, 1, what)[0].item()

    def array(self, what: str) -> list[str] | np.ndarray:
        type = self.u32(f"the item type of {what}")
        count = self.u64(f"the length of {what}")
        least = 8 if type == STRING else np.dtype(NUMBERS.get(type, "u1")).itemsize
        if type == ARRAY:
            raise self.damaged(f"{what} is an array of arrays")
        if type != STRING and type not in NUMBERS:
            raise self.damaged(f"{what} is an array of type {type}, which GGUF does not have")
        if count * least > self.end - self.at:
            raise self._too_short(self.at + count * least, what)
        return self.strings(count, what) if type == STRING else self.numbers(type, count, what)


def _counts(header: _Header) -> tuple[int, int]:
    magic = header.content[: header.skip(4, "its first word") + 4]
    if magic != b"GGUF":
        raise header.damaged(f"it begins with {magic!r} where b'GGUF' should stand")
    version = header.u32("its version")
    if version & 0xFFFF == 0:
        raise header.damaged("it is written big-endian, and GlassGPT reads little-endian files")
    if version not in (2, 3):
        raise header.damaged(f"it is of version {version}, and GlassGPT reads 2 and 3")
    n_tensors, n_keys = header.u64("its number of tensors"), header.u64("its number of keys")
    for count, what, least in ((n_tensors, "tensors", 33), (n_keys, "keys", 13)):
        if count > MAX_COUNT or count * least > header.end - header.at:
            raise header.damaged(f"it says that it holds {count} {what}, in a file of {len(header.content)} bytes")
    return n_tensors, n_keys


def _metadata(header: _Header, n_keys: int) -> tuple[dict[str, Any], int]:
    """The keys and values, and the alignment of the tensors (32 unless a key says otherwise)."""
    metadata: dict[str, Any] = {}
    for index in range(n_keys):
        key = header.name(f"the name of key {index}")
        if key in metadata:
            raise header.damaged(f"the key {shown(key)} stands in it twice")
        type = header.u32(f"the type of {shown(key)}")
        if key == "general.alignment" and type != UINT32:
            raise header.damaged(f"general.alignment is of type {type}, and should be of type {UINT32} (uint32)")
        metadata[key] = header.value(type, shown(key))
    alignment = metadata.get("general.alignment", 32)
    if alignment not in ALIGNMENTS:
        raise header.damaged(
            f"general.alignment is {alignment}, and should be a power of two from {ALIGNMENTS[0]} to {ALIGNMENTS[-1]}"
        )
    return metadata, alignment


@dataclass(frozen=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    type: int
    offset: int


def _tensor_info(header: _Header) -> _Info:
    name = header.name("a tensor's name")
    n_sizes = header.u32(f"the number of sizes of {shown(name)}")
    if not 1 <= n_sizes <= MAX_SIZES:
        raise header.damaged(f"the tensor {shown(name)} has {n_sizes} sizes, and should have 1 to {MAX_SIZES}")
    sizes = [header.u64(f"a size of {shown(name)}") for _ in range(n_sizes)]
    type = header.u32(f"the type of {shown(name)}")
    return _Info(name, tuple(reversed(sizes)), type, header.u64(f"the offset of {shown(name)}"))


def _with_tensors(
    path: Path, metadata: dict[str, Any], infos: Sequence[_Info], start: int, alignment: int, content: mmap.mmap
) -> GGUF:
    """The whole file, its tensors' bytes (offsets count from `start`) checked to lie in it beside each other."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block_sizes = {int(type): sizes for type, sizes in GGML_QUANT_SIZES.items()}
    places: dict[str, Place] = {}
    tensors: dict[str, StoredTensor] = {}
    for info in infos:
        what = f"the tensor {shown(info.name)}"
        if info.name in places:
            raise _damaged(path, f"{what} stands in it twice")
        if info.type not in block_sizes:
            raise _damaged(path, f"{what} is of type {info.type}, which GGUF does not have")
        place = _place(path, what, info, start, block_sizes[info.type])
        if info.offset % alignment:
            raise _damaged(path, f"{what} lies at {info.offset}, which is no multiple of the alignment {alignment}")
        if place.end > len(content):
            raise _damaged(path, f"{what} should end at byte {place.end}, and the file ends at {len(content)}")
        places[info.name] = place
        tensors[info.name] = _stored(path, info, GGMLQuantizationType(info.type).name, place, content)
    in_order = sorted(places.items(), key=lambda item: item[1].offset)
    for (name, place), (next_name, next_place) in pairwise(in_order):
        if place.end > next_place.offset:
            raise _damaged(path, f"the tensors {shown(name)} and {shown(next_name)} lie over each other")
    return GGUF(path, metadata, tensors, places, content)


def _place(path: Path, what: str, info: _Info, start: int, block_size: tuple[int, int]) -> Place:
    if 0 in info.shape:
        raise _damaged(path, f"{what} is of shape {info.shape}: it holds nothing")
    numbers, n_bytes = block_size
    if info.shape[-1] % numbers:
        raise _damaged(path, f"{what} has rows of {info.shape[-1]}, and its type comes in blocks of {numbers}")
    rows = 1
    for size in info.shape[:-1]:
        rows *= size
    return Place(start + info.offset, rows, info.shape[-1] // numbers * n_bytes)


def _stored(path: Path, info: _Info, dtype: str, place: Place, content: mmap.mmap) -> StoredTensor:
    def read() -> np.ndarray:
        if dtype not in READABLE:
            raise UnsupportedError(
                f"{path}: {shown(info.name)} is stored as {dtype}, which GlassGPT does not read: "
                "take a file of another type, Q8_0 say"
            )
        return _numbers(_raw(path, content, place), dtype).reshape(info.shape)

    return StoredTensor(info.shape, dtype, read)


def _raw(path: Path, content: mmap.mmap, place: Place) -> np.ndarray:
    if content.size() < place.end:  # to touch mapped bytes that are no more kills the process
        raise DamagedFileError(f"{path} has become shorter since it was opened: restore it and load it again")
    flat = np.frombuffer(content, np.uint8, place.rows * place.row_bytes, place.offset)
    return flat.reshape(place.rows, place.row_bytes)


def _numbers(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Bytes (rows, bytes per row) as numbers (rows, numbers per row): float64 for F64, else float32."""
    if dtype in ("F64", "F32", "F16"):
        stored = raw.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
        return stored.astype(np.float64 if dtype == "F64" else np.float32)
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
    from gguf.quants import dequantize

    type = GGMLQuantizationType[dtype]
    numbers, n_bytes = GGML_QUANT_SIZES[type]
    flat = raw.reshape(-1)
    blocks = flat.size // n_bytes
    result = np.empty((blocks, numbers), np.float32)
    step = max(1, CHUNK // numbers)
    with np.errstate(all="ignore"):  # a scale of a damaged file may be infinite; who uses the numbers looks at them
        for at in range(0, blocks, step):
            some = result[at : at + step]
            some[:] = dequantize(flat[at * n_bytes : (at + len(some)) * n_bytes], type).reshape(some.shape)
    return result.reshape(len(raw), -1)
