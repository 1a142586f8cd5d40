"""A corpus as token ids on disk, mapped into memory: larger than memory is fine, and opening costs nothing.

    train.bin, validation.bin              the ids, one after another: uint16, uint32 from 65,537 tokens on
    train.starts.bin, validation.starts.bin  uint64: where each document begins, in tokens
    tokenizer.json                         what the ids stand for
    manifest.json                          counts, what it was made from, and a SHA-256 of each file and of itself

All numbers are little endian. The manifest is written last: a folder without one holds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.interface import Tokenizer
from glassgpt.text.tokenizer_json import tokenizer_from_json

MANIFEST = "manifest.json"
FORMAT = "glassgpt-tokens-1"
TOKENIZER = "tokenizer.json"
BLOCK = 1 << 22  # bytes read at once


@dataclass(frozen=True, eq=False)
class Batch:
    """`inputs` and `targets`, int64 (batch, time): targets are the inputs one token later.

    `starts`, int64 (batch,): where each window begins among the part's tokens. `documents`, int64 (batch, time): which
    document each input belongs to, so that attention can be kept inside it.
    """

    inputs: np.ndarray
    targets: np.ndarray
    starts: np.ndarray
    part: TokenPart

    @cached_property
    def documents(self) -> np.ndarray:
        places = self.starts[:, None] + np.arange(self.inputs.shape[1])
        return np.searchsorted(self.part.starts, places.astype(np.uint64), side="right").astype(np.int64) - 1


class TokenPart:
    """One part of a corpus, "train" or "validation". `tokens` and `starts` lie in mapped files.

    `n_bytes` is the UTF-8 length of the text that the tokens stand for; an end of text counts 0. So nats a token times
    n_tokens / (n_bytes ln 2) is bits per byte.
    """

    def __init__(self, name: str, tokens: np.ndarray, starts: np.ndarray, n_bytes: int) -> None:
        self.name, self.tokens, self.starts, self.n_bytes = name, tokens, starts, n_bytes

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def n_documents(self) -> int:
        return len(self.starts)

    @property
    def bytes_per_token(self) -> float:
        return self.n_bytes / len(self)

    def windows_of_an_epoch(self, context_length: int) -> int:
        """How many windows pass before the text is seen again. Raises UsageError if the text is too short for one."""
        if context_length < 1:
            raise UsageError(f"a context has 1 token or more, got {context_length}")
        if len(self) <= context_length:
            raise UsageError(
                f"the {self.name} part has {len(self)} tokens and the context {context_length}: it must be at least "
                "one token longer, so that there is something to predict; give more text, or a shorter context"
            )
        return max(1, (len(self) - context_length) // context_length)

    def epoch(self, step: int, batch_size: int, context_length: int) -> float:
        """How often the text has been seen before `step`."""
        return step * batch_size / self.windows_of_an_epoch(context_length)

    def batch(self, step: int, batch_size: int, context_length: int, seed: int) -> Batch:
        """The windows of one step, which depend on nothing but these numbers: a run that goes on draws the same.

        An epoch lays windows end to end from a drawn offset and visits them in a drawn order: every token is seen once
        before any is seen again, but for less than two windows at the ends.
        """
        n = self.windows_of_an_epoch(context_length)
        if step < 0 or batch_size < 1:
            raise UsageError(f"expected a step of 0 or more and a batch of 1 or more, got {step} and {batch_size}")
        places = np.arange(step * batch_size, (step + 1) * batch_size, dtype=np.int64)
        starts = np.empty(batch_size, dtype=np.int64)
        slack = len(self) - n * context_length  # offsets that leave room for n windows and the last target
        for epoch in range(int(places[0] // n), int(places[-1] // n) + 1):
            keys = np.random.PCG64(np.random.SeedSequence([seed, epoch])).random_raw(ROUNDS + 1)
            mine = places // n == epoch
            order = permuted(places[mine] % n, n, keys[1:])
            starts[mine] = int(keys[0]) % slack + order * context_length
        return self._batch(starts, context_length)

    def windows(self, context_length: int, batch_size: int = 1) -> Iterator[Batch]:
        """The whole part from its first token to its last, each target once: what evaluation goes over.

        Batches of at most `batch_size` windows; the last window is shorter if the tokens do not fill it.
        """
        self.windows_of_an_epoch(1)  # refuses a part of one token
        n, rest = divmod(len(self) - 1, context_length)
        for first in range(0, n, batch_size):
            starts = np.arange(first, min(first + batch_size, n), dtype=np.int64) * context_length
            yield self._batch(starts, context_length)
        if rest:
            yield self._batch(np.array([n * context_length]), rest)

    def _batch(self, starts: np.ndarray, context_length: int) -> Batch:
        windows = self.tokens[starts[:, None] + np.arange(context_length + 1)].astype(np.int64)
        return Batch(windows[:, :-1], windows[:, 1:], starts, self)


class TokenFiles:
    """A folder that `prepare` has filled. `validation` is None if nothing was kept back."""

    def __init__(self, folder: Path, manifest: dict[str, Any], tokenizer: Tokenizer) -> None:
        self.folder, self.manifest, self.tokenizer = folder, manifest, tokenizer
        self.train = self._part("train")
        self.validation = self._part("validation") if manifest["parts"]["validation"]["tokens"] else None

    @classmethod
    def open(cls, folder: Path | str, *, verify: bool = True) -> TokenFiles:
        """The files of a folder, each compared with the manifest: its size, and with `verify` its SHA-256 (a second
        for some 1.5 GB). Raises DamagedFileError, naming the file, for what is not as it was written."""
        folder = Path(folder)
        manifest = read_manifest(folder)
        for name, expected in manifest["files"].items():
            check_file(folder / name, expected, verify=verify or name == TOKENIZER)
        content = json.loads((folder / TOKENIZER).read_bytes())
        return cls(folder, manifest, tokenizer_from_json(content, folder / TOKENIZER))

    @property
    def end_token(self) -> int | None:
        """The token after each document, if the vocabulary has one."""
        return self.manifest["end_token"]

    def _part(self, name: str) -> TokenPart:
        n_bytes = self.manifest["parts"][name]["bytes"]
        starts = _mapped(self.folder / f"{name}.starts.bin", "<u8")
        return TokenPart(name, _mapped(self.folder / f"{name}.bin", self.manifest["dtype"]), starts, n_bytes)


def _mapped(path: Path, dtype: str) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.empty(0, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r")


# --- The manifest -----------------------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the manifest of a folder says. Raises DamagedFileError if there is none, or it is not what was written."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DamagedFileError(f"{folder} holds no prepared text: it has no {MANIFEST}; prepare the text again")
    try:
        content = json.loads(path.read_bytes())
        stated = content.pop("sha256")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise DamagedFileError(f"{path} is not the manifest that was written: prepare the text again") from None
    if stated != manifest_hash(content):
        raise DamagedFileError(f"{path} was edited or damaged: its SHA-256 differs; prepare the text again")
    if content.get("format") != FORMAT:
        raise DamagedFileError(f"{path} is of format {content.get('format')!r}, not {FORMAT}: prepare the text again")
    return content


def manifest_hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_file(path: Path, expected: dict[str, Any], *, verify: bool) -> None:
    """Raise DamagedFileError unless `path` has the size and, with `verify`, the SHA-256 that the manifest states."""
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise DamagedFileError(
                f"{path} has {size:,} bytes, and {expected['bytes']:,} were written: prepare it again"
            )
        if verify and file_hash(path) != expected["sha256"]:
            raise DamagedFileError(f"{path} is not what was written, its SHA-256 differs: prepare the text again")
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read ({error.strerror}): prepare the text again") from None


def file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


# --- An order at random, any part of which costs only itself ----------------------------------------------------------

ROUNDS = 6


def permuted(places: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Where a permutation of 0 .. n-1, chosen by `keys` (uint64), sends `places`: int64 arrays of one shape.

    A Feistel network over the next power of four, walked until it comes back below n (Black and Rogaway 2002): each
    round adds to one half of the bits a hash of the other, which can be undone, so no two places meet.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    result = places.astype(np.uint64)
    outside = np.ones(result.shape, dtype=bool)
    while outside.any():
        left, right = result[outside] >> np.uint64(half), result[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ np.uint64(key)) & mask)
        result[outside] = left << np.uint64(half) | right
        outside = result >= np.uint64(n)
    return result.astype(np.int64)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A hash of uint64 values: the finaliser of splitmix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
