"""OpenAI's GPT-2 checkpoints, read without TensorFlow.

    model.ckpt.index                  what there is: name -> dtype, shape, shard, offset, size, checksum
    model.ckpt.data-00000-of-00001    the numbers, in one shard or several
    checkpoint                        which .index is the newest, where there are several
    hparams.json                      the sizes of the GPT
    model.ckpt.meta                   the graph that trained it: never read

The index is a table as LevelDB writes it: blocks of sorted entries whose names share prefixes, a block that lists those
blocks, and a footer that says where that one is; each block carries a checksum. Its values are two protocol buffer
messages, of which only the few fields in use are known here. The numbers of each tensor carry a checksum too, so no
flipped bit passes. A file's claims are checked against the lengths of the files before anything is allocated, and only
plain files inside the folder are opened, whatever `checkpoint` or a link says.

Sources: LevelDB, doc/table_format.md; Protocol Buffers, "Encoding"; TensorFlow, core/protobuf/tensor_bundle.proto,
core/framework/types.proto and core/util/tensor_bundle; the masked checksum is that of LevelDB's doc/log_format.md.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.models.config import GPTConfig, parameter_shapes
from glassgpt.weights.stored import StoredTensor

CURE = "restore it from a copy or download it again"
LARGEST_SMALL_FILE = 1 << 20  # that of GPT-2 XL with its optimizer's state has an index of about 0.1 MB
LONGEST_NAME = 256  # bounds what names with shared prefixes can grow to in memory
FOOTER, TRAILER = 48, 5
MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
CHUNK = 1 << 20
DTYPES = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 8: "complex64",
          9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32",
          23: "uint64"}  # fmt: skip
FLOATS = {"float16": "<f2", "bfloat16": "<u2", "float32": "<f4", "float64": "<f8"}

HPARAMS = {"n_vocab": "vocab_size", "n_ctx": "context_length", "n_embd": "n_embd", "n_head": "n_head",
           "n_layer": "n_layer"}  # fmt: skip
ONLY_FOR_TRAINING = {"embed_dropout", "attn_dropout", "res_dropout"}
OPTIMIZER_STATE = {"global_step", "beta1_power", "beta2_power"}
OPTIMIZER_SLOTS = ("/Adam", "/Adam_1")


@dataclass(frozen=True)
class Entry:
    """What the index says of one tensor. `crc32c` is the masked checksum of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc32c: int


# ---- GPT-2 -------------------------------------------------------------------------------------------------------


def gpt2_parameters(folder: Path) -> tuple[GPTConfig, dict[str, StoredTensor]]:
    """The GPT-2 in a folder of OpenAI's: its shape, and its parameters under our names and in our shapes.

    The optimizer's state that training code leaves beside the parameters is passed over. Raises DamagedFileError for
    anything else that is missing, left over, or of another shape than hparams.json asks for.
    """
    config = read_hparams(folder)
    stored = read_tf_checkpoint(folder)
    if config.n_layer > len(stored):  # before the names of that many layers are made
        raise DamagedFileError(
            f"{folder / 'hparams.json'} claims {config.n_layer} layers, and the checkpoint has {len(stored)} tensors: "
            f"{CURE}"
        )
    shapes = parameter_shapes(config)
    names = {name: tf_name(name) for name in shapes}
    if missing := [there for there in names.values() if there not in stored]:
        raise DamagedFileError(
            f"{folder} lacks {len(missing)} of {len(names)} tensors, {missing[0]} among them: {CURE}, "
            "or correct hparams.json"
        )
    passed_over = OPTIMIZER_STATE | {there + slot for there in names.values() for slot in OPTIMIZER_SLOTS}
    if extra := sorted(stored.keys() - set(names.values()) - passed_over):
        raise DamagedFileError(
            f"{folder} holds {len(extra)} tensors that a GPT-2 of its hparams.json does not have, {extra[0]!r} among "
            f"them: {CURE}, or correct hparams.json"
        )
    return config, {name: _parameter(stored[names[name]], names[name], shapes[name], folder) for name in shapes}


def read_hparams(folder: Path) -> GPTConfig:
    """The shape that hparams.json states. Raises DamagedFileError for a key that is missing, unknown or wrong."""
    path = folder / "hparams.json"
    try:
        content = json.loads(_small_file(path), object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not JSON as expected ({error}): {CURE}") from None
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} should hold an object, and holds {type(content).__name__}: {CURE}")
    if unknown := sorted(content.keys() - HPARAMS.keys() - ONLY_FOR_TRAINING):
        raise DamagedFileError(
            f"{path} has the key {unknown[0]!r:.80}, which may change the model: take it out if it does not"
        )
    for key in HPARAMS:
        value = content.get(key)
        if type(value) is not int or not 0 < value < 2**31:
            raise DamagedFileError(f"{path}: {key} should be a positive whole number, and is {value!r:.80}: {CURE}")
    try:
        return GPTConfig(**{field: content[key] for key, field in HPARAMS.items()}, mlp="gelu_tanh")
    except UsageError as error:
        raise DamagedFileError(f"{path}: {error}; {CURE}") from None


def tf_name(name: str) -> str:
    """OpenAI's name for one of our parameters.

    >>> tf_name("wte.weight"), tf_name("h.11.ln_1.weight"), tf_name("h.0.mlp.c_fc.bias")
    ('model/wte', 'model/h11/ln_1/g', 'model/h0/mlp/c_fc/b')
    """
    *place, kind = name.replace("h.", "h", 1).split(".")
    if place[-1] in ("wte", "wpe"):
        return f"model/{place[-1]}"
    last = "b" if kind == "bias" else "g" if place[-1].startswith("ln_") else "w"
    return "/".join(["model", *place, last])


def _parameter(stored: StoredTensor, name: str, shape: tuple[int, ...], folder: Path) -> StoredTensor:
    """A stored tensor in our shape: OpenAI's Linear layers are convolutions of width 1, (1, in, out)."""
    expected = (1, *shape) if name.endswith("/w") else shape
    if stored.shape != expected:
        raise DamagedFileError(
            f"{folder}: {name} should be of shape {expected} by hparams.json, and is {stored.shape}: {CURE}, "
            "or correct hparams.json"
        )
    if stored.dtype not in FLOATS:
        raise DamagedFileError(f"{folder}: {name} should be one of {', '.join(FLOATS)}, and is {stored.dtype}: {CURE}")
    return StoredTensor(shape, stored.dtype, lambda: stored.read().reshape(shape))


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


# ---- the bundle --------------------------------------------------------------------------------------------------


def read_tf_checkpoint(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of the checkpoint in a folder, by TensorFlow's name of it.

    Integers and strings are listed, but their `read` raises: no parameter is one. Raises DamagedFileError where the
    files aren't a whole checkpoint, and where its tensors are cut into slices or overlap.
    """
    index = _find_index(folder)
    try:
        n_shards, entries = _parse_index(_small_file(index))
    except ValueError as error:
        raise DamagedFileError(f"{index} cannot be read, because {error}: {CURE}") from None
    shards = _find_shards(folder, index.stem, n_shards)
    _check_places(entries, shards, index)
    return {
        name: StoredTensor(entry.shape, entry.dtype, partial(_read, shards[entry.shard], name, entry))
        for name, entry in entries.items()
    }


def _parse_index(content: bytes) -> tuple[int, dict[str, Entry]]:
    """The number of shards and every tensor's entry. Raises ValueError, as all that it calls does."""
    table = _table(content)
    if b"" not in table:
        raise ValueError("it has no header")
    n_shards = _header(table.pop(b""))
    entries = {}
    for key, value in table.items():
        if key.startswith(b"\0"):
            raise ValueError("it holds slices of a partitioned variable, which a GPT-2 never has")
        name = _text(key)
        try:
            entries[name] = _entry(value)
        except ValueError as error:
            raise ValueError(f"of {name!r}, {error}") from None
        if entries[name].shard >= n_shards:
            raise ValueError(f"{name!r} should lie in shard {entries[name].shard} of {n_shards}")
    return n_shards, entries


def _text(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the name {key!r} is not UTF-8") from None


def _header(content: bytes) -> int:
    """BundleHeaderProto: num_shards = 1, endianness = 2, version = 3 (VersionDef: min_consumer = 2)."""
    fields = _message(content, {1: int, 2: int, 3: bytes})
    if fields[2]:
        raise ValueError("its numbers are big-endian")
    version = dict(_fields(fields[3]))
    if version.get(2, 0) not in (0, 1):
        raise ValueError("it is of a later version of the format than the first")
    return fields[1]


def _entry(content: bytes) -> Entry:
    """BundleEntryProto: dtype = 1, shape = 2, shard_id = 3, offset = 4, size = 5, crc32c = 6, slices = 7."""
    fields = _message(content, {1: int, 2: bytes, 3: int, 4: int, 5: int, 6: int, 7: bytes})
    if fields[7]:
        raise ValueError("there are only slices (it is a partitioned variable), which a GPT-2 never has")
    dtype = DTYPES.get(fields[1], f"type {fields[1]}")
    shape = _shape(fields[2])
    if dtype in FLOATS and math.prod(shape) * np.dtype(FLOATS[dtype]).itemsize != fields[5]:
        raise ValueError(f"shape {shape} and type {dtype} do not fit the size of {fields[5]} bytes")
    return Entry(dtype, shape, fields[3], fields[4], fields[5], fields[6])


def _shape(content: bytes) -> tuple[int, ...]:
    """TensorShapeProto: dim = 2 (repeated; size = 1, name = 2), unknown_rank = 3."""
    shape = []
    for number, value in _fields(content):
        if number != 2 or not isinstance(value, bytes):
            raise ValueError("the shape is unknown")
        shape.append(_message(value, {1: int, 2: bytes})[1])
    if len(shape) > 64 or math.prod(size or 1 for size in shape) >= 2**60:  # negative ones arrive here as above 2^63
        raise ValueError("the shape is negative or larger than arrays can be")
    return tuple(shape)


def _check_places(entries: dict[str, Entry], shards: list[Path], index: Path) -> None:
    """Every tensor inside its shard, and no byte of two tensors: so that no more is read than there is."""
    lengths = [_plain_file(shard).stat().st_size for shard in shards]
    used = [0] * len(shards)
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].offset, item[1].size)):
        end = entry.offset + entry.size
        if end > lengths[entry.shard]:
            raise DamagedFileError(
                f"{shards[entry.shard]} is truncated, or not the file that {index.name} was written with: it has "
                f"{lengths[entry.shard]} bytes, and {name!r} needs {end}; {CURE}"
            )
        if entry.size and entry.offset < used[entry.shard]:
            raise DamagedFileError(f"{index}: {name!r} shares bytes of {shards[entry.shard].name} with another: {CURE}")
        used[entry.shard] = max(used[entry.shard], end)


def _read(path: Path, name: str, entry: Entry) -> np.ndarray:
    if entry.dtype not in FLOATS:
        raise DamagedFileError(
            f"{path}: {name!r} is {entry.dtype}, and parameters are {', '.join(FLOATS)}: if it is one, {CURE}"
        )
    raw = np.empty(entry.size, np.uint8)
    checksum, at = 0, 0
    try:
        with _plain_file(path).open("rb") as file:
            file.seek(entry.offset)
            while chunk := file.read(min(CHUNK, entry.size - at)):
                checksum = google_crc32c.extend(checksum, chunk)
                raw[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
                at += len(chunk)
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}): {CURE}") from None
    if at < entry.size or _masked(checksum) != entry.crc32c:
        raise DamagedFileError(f"{path} is damaged: the bytes of {name!r} do not have the checksum they had; {CURE}")
    numbers = raw.view(FLOATS[entry.dtype])
    if entry.dtype == "bfloat16":
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)  # a float32 without its lower half
    return numbers.astype(np.float64 if entry.dtype == "float64" else np.float32, copy=False).reshape(entry.shape)


# ---- files in the folder -----------------------------------------------------------------------------------------


def _find_index(folder: Path) -> Path:
    found = {name for name in _names(folder) if name.endswith(".index")}
    if not found:
        raise DamagedFileError(f"{folder} holds no TensorFlow checkpoint: a file that ends in .index was expected")
    if len(found) == 1:
        return folder / found.pop()
    named = re.search(rb'^model_checkpoint_path:[ \t]*"([^"\n]*)"', _small_file(folder / "checkpoint"), re.MULTILINE)
    last = re.split(r"[/\\]", named[1].decode(errors="replace"))[-1] if named else ""
    if f"{last}.index" not in found:
        raise DamagedFileError(
            f"{folder} holds {len(found)} checkpoints ({', '.join(sorted(found)[:3])}, ...), and its file `checkpoint` "
            f"names none of them: move all but one to another folder"
        )
    return folder / f"{last}.index"


def _find_shards(folder: Path, prefix: str, count: int) -> list[Path]:
    found = {name for name in _names(folder) if re.fullmatch(re.escape(prefix) + r"\.data-\d{5,}-of-\d{5,}", name)}
    shards: list[Path] = []
    while len(shards) < count:
        name = f"{prefix}.data-{len(shards):05d}-of-{count:05d}"
        if name not in found:
            raise DamagedFileError(
                f"{folder} lacks {name}, one of the {count} files that {prefix}.index was written with: {CURE}"
            )
        shards.append(folder / name)
    if extra := sorted(found - {shard.name for shard in shards}):
        raise DamagedFileError(
            f"{folder} holds {extra[0]}, which {prefix}.index does not know: the two are of different checkpoints; "
            "move the wrong one away, or download them again"
        )
    return shards


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise DamagedFileError(f"{folder} cannot be read as a folder ({error.strerror}): name another") from None


def _plain_file(path: Path) -> Path:
    """The file itself, if it is a plain file that lies in the folder; nothing is opened to find out."""
    try:
        place = path.resolve(strict=True)
        if place.parent != path.parent.resolve(strict=True):
            raise DamagedFileError(f"{path} is a link out of its folder, which is not followed: copy the file itself")
        if not stat.S_ISREG(place.stat().st_mode):
            raise DamagedFileError(f"{path} is not a plain file: {CURE}")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise DamagedFileError(f"{path} cannot be read ({getattr(error, 'strerror', error)}): {CURE}") from None
    return place


def _small_file(path: Path) -> bytes:
    place = _plain_file(path)
    if place.stat().st_size > LARGEST_SMALL_FILE:
        raise DamagedFileError(f"{path} has more than the {LARGEST_SMALL_FILE} bytes that such a file can need: {CURE}")
    try:
        return place.read_bytes()
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}): {CURE}") from None


# ---- LevelDB's table ---------------------------------------------------------------------------------------------


def _table(content: bytes) -> dict[bytes, bytes]:
    """Footer: the places of an unused block and of the list of blocks, zeros up to 40 bytes, a magic number."""
    footer = content[-FOOTER:]
    if len(footer) < FOOTER or footer[40:] != MAGIC:
        raise ValueError("it does not end as an index does (it is truncated, or something else)")
    meta, at = _handle(footer[:40], 0)
    index, at = _handle(footer[:40], at)
    handles = [_handle(value, 0)[0] for _, value in _entries(_block(content, *index))]
    end = 0
    for offset, size in [*handles, meta, index]:
        if offset != end:
            raise ValueError("its blocks do not lie one after another")
        end = offset + size + TRAILER
    if end != len(content) - FOOTER or any(footer[at:40]):
        raise ValueError("it has bytes between its blocks and its end")
    _block(content, *meta)
    pairs = [pair for handle in handles for pair in _entries(_block(content, *handle))]
    if any(this >= following for (this, _), (following, _) in pairwise(pairs)):
        raise ValueError("its names are not in order, or one is there twice")
    return dict(pairs)


def _handle(content: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Where a block is: offset and size."""
    offset, at = _varint(content, at)
    size, at = _varint(content, at)
    return (offset, size), at


def _block(content: bytes, offset: int, size: int) -> bytes:
    """A block's bytes; behind them its compression and the masked checksum of both."""
    end = offset + size
    if end + TRAILER > len(content) - FOOTER:
        raise ValueError("a block reaches beyond its end (it is truncated)")
    if _masked(google_crc32c.value(content[offset : end + 1])) != int.from_bytes(content[end + 1 : end + 5], "little"):
        raise ValueError("a block does not have the checksum it had")
    if content[end]:
        raise ValueError("it is compressed, which TensorFlow's own Saver never does")
    return content[offset:end]


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Entries: bytes shared with the key before, bytes of its own, bytes of the value, then those. Restarts end it."""
    end = len(block) - 4 * (int.from_bytes(block[-4:], "little") + 1)
    if end < 0:
        raise ValueError("a block is shorter than its list of restarts")
    at, key = 0, b""
    while at < end:
        shared, at = _varint(block, at)
        own, at = _varint(block, at)
        length, at = _varint(block, at)
        if shared > len(key) or at + own + length > end:
            raise ValueError("an entry reaches beyond its block")
        if shared + own > LONGEST_NAME:
            raise ValueError(f"a name is longer than {LONGEST_NAME} bytes")
        key = key[:shared] + block[at : at + own]
        at += own
        yield key, block[at : at + length]
        at += length


def _masked(checksum: int) -> int:
    """A crc32c as it is stored: turned right by 15 bits, plus a constant."""
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


# ---- protocol buffers --------------------------------------------------------------------------------------------


def _message(content: bytes, kinds: dict[int, type]) -> dict[int, Any]:
    """A message's fields by number, 0 or b"" where it leaves one out. Raises ValueError for one of another kind."""
    fields = {number: kind() for number, kind in kinds.items()}
    for number, value in _fields(content):
        if number not in kinds or type(value) is not kinds[number]:
            raise ValueError(f"field {number} is none that the format has")
        fields[number] = value
    return fields


def _fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Each field of a message: a tag (number and kind), then a varint, 8 or 4 bytes, or a length and so many bytes."""
    at = 0
    while at < len(content):
        tag, at = _varint(content, at)
        kind = tag & 7
        if kind not in (0, 1, 2, 5):
            raise ValueError(f"a field is of kind {kind}, which the format does not have")
        value, at = _varint(content, at) if kind in (0, 2) else ({1: 8, 5: 4}[kind], at)
        if kind == 0:
            yield tag >> 3, value
            continue
        piece = content[at : at + value]
        if len(piece) < value:
            raise ValueError("a field reaches beyond its message")
        yield tag >> 3, piece if kind == 2 else int.from_bytes(piece, "little")
        at += value


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven to a byte, lowest first, the eighth set where more follow; and where it ends.

    A needless zero at its end is refused, which no writer leaves: a flipped bit in the footer can look like one.
    """
    number = 0
    for place, byte in enumerate(content[at : at + 10]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            if number >= 2**64 or (place and not byte):
                break
            return number, at + place + 1
    raise ValueError("a number does not end, is larger than 64 bits, or ends in a needless zero")
