"""What a model's bits per byte are judged by: counting bytes or tokens, and the compressors that every machine has.

All of them have seen the training part before they meet the validation part, as the model has, and read on from its
end. Bytes come in blocks and are never held whole.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer, as_contexts
from glassgpt.models.backoff import KneserNey, discount_of
from glassgpt.numerics import LN2

Part = bytes | Iterable[bytes]
"""A text as bytes, or as blocks of bytes that can be read more than once: a list, or what begins anew at each iter."""

BLOCK = 1 << 20  # bytes
GRAMS = ("unigram", "bigram", "trigram")


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


COMPRESSORS: dict[str, Callable[[], Compressor]] = {
    "gzip": lambda: zlib.compressobj(9, wbits=31),
    "bz2": lambda: bz2.BZ2Compressor(9),
    "xz": lambda: lzma.LZMACompressor(preset=6),
}


def byte_yardsticks(training: Part, validation: Part) -> dict[str, float]:
    """Bits per byte of the validation part by everything that needs no tokenizer, by name.

    "uniform over bytes" (8), "byte unigram", "byte bigram", "byte trigram" (see `byte_grams`), "gzip", "bz2" and "xz"
    (see `compressed`). Raises UsageError for an empty validation part, a training part of less than two bytes, and for
    blocks that can be read only once.
    """
    grams = {f"byte {name}": bits for name, bits in byte_grams(training, validation).items()}
    return {"uniform over bytes": 8.0} | grams | compressed(training, validation)


def token_yardsticks(
    training: Sequence[int] | np.ndarray, validation: Sequence[int] | np.ndarray, tokenizer: Tokenizer
) -> dict[str, float]:
    """Bits per byte of the validation part by counting tokens (ids), by name, for the bytes that its tokens stand for.

    "uniform over tokens", "token unigram", "token bigram" and "token trigram": Kneser-Ney, reading on from the end of
    the training part. Another tokenizer gives other numbers. Raises UsageError if the validation part stands for no
    byte.
    """
    V = tokenizer.vocab_size
    seen, held_out = (as_contexts(np.asarray(part)[None], V)[0] for part in (training, validation))
    ids, times = np.unique(held_out, return_counts=True)
    n_bytes = sum(len(tokenizer.token_bytes(int(i))) * int(n) for i, n in zip(ids, times, strict=True))
    if n_bytes == 0:
        raise UsageError("the validation tokens stand for no byte: there is nothing to divide their surprise by")
    bits = {"uniform over tokens": len(held_out) * float(np.log2(V)) / n_bytes}
    for n, name in enumerate(GRAMS, start=1):
        before = seen[len(seen) - min(n - 1, len(seen)) :]
        logprobs = KneserNey(seen, V, n).text_logprobs(np.concatenate([before, held_out]))[len(before) :]
        bits[f"token {name}"] = -float(np.sum(logprobs)) / LN2 / n_bytes
    return bits


def compressed(training: Part, validation: Part) -> dict[str, float]:
    """8 * (size of both parts compressed as one text - size of the training part compressed) / validation bytes.

    By name: "gzip" and "bz2" at their highest setting (-9), "xz" at its default (-6), which keeps within 100 MB. A
    compressor looks back only so far: gzip 32 KiB, bz2 its block of 900 kB, xz 8 MiB. What lies further back in the
    training part is forgotten when the validation part comes. So gzip, whatever the corpus, is judged on the last
    32 KiB of it: a familiar yardstick, but none for what a corpus teaches. bz2's first block of the validation part
    shares what it costs with the rest of the training part's last block, so a validation part much shorter than 900 kB
    is told apart badly.
    """
    n_bytes = _n_bytes(validation)
    return {
        name: 8 * (compressed_size(make(), training, validation) - compressed_size(make(), training)) / n_bytes
        for name, make in COMPRESSORS.items()
    }


def compressed_size(compressor: Compressor, *parts: Part) -> int:
    """The bytes that the parts, one after the other, are compressed to."""
    return sum(len(compressor.compress(block)) for part in parts for block in blocks(part)) + len(compressor.flush())


def byte_grams(training: Part, validation: Part) -> dict[str, float]:
    """Bits per byte of the validation part by the Kneser-Ney "unigram", "bigram" and "trigram" of the training bytes.

    The numbers of `KneserNey(training, 256, n)` reading on from the training part's end, but for parts of any length:
    what is kept are two tables of 256^3 counts, 134 MB each.
    """
    counted = ByteCounts.of(training)
    if len(counted.last) < 2:
        raise UsageError("the training part is of less than two bytes: there is nothing to count")
    wanted = ByteCounts.of(validation, counted.last)
    n_bytes = _n_bytes(validation)
    continuing = [np.sum(table > 0, axis=0) for table in counted.tables[1:]]  # after how many different bytes
    for table in continuing:
        table[tuple(counted.first[: table.ndim])] += 1  # the beginning of the training part is one more
    shorter = [np.full((1, 256), 1 / 256)]
    for table in continuing:
        shorter.append(kneser_ney(table.reshape(-1, 256), shorter[-1], discount_of(table)))
    below = (shorter[0], shorter[1], shorter[2])
    bits = {}
    for name, asked, occurred, less in zip(GRAMS, wanted.tables, counted.tables, below, strict=True):
        asked, occurred = asked.reshape(-1, 256), occurred.reshape(-1, 256)
        histories = np.flatnonzero(asked.any(axis=1))
        probs = kneser_ney(occurred[histories], less[histories % len(less)], discount_of(occurred))
        bits[name] = -float(np.sum(asked[histories] * np.log2(probs))) / n_bytes
    return bits


def kneser_ney(times: np.ndarray, shorter: np.ndarray, discount: float) -> np.ndarray:
    """The formula of `KneserNey` on tables: counts (histories, 256) and what the shorter histories say, as many or one,
    to probabilities."""
    total = np.sum(times, axis=1, keepdims=True)
    left = discount * np.sum(times > 0, axis=1, keepdims=True)
    return np.where(total > 0, (np.maximum(times - discount, 0) + left * shorter) / np.maximum(total, 1), shorter)


@dataclass(frozen=True, eq=False)
class ByteCounts:
    """How often each byte, pair and triple of bytes occurs: int64 (256,), (256, 256), (256, 256, 256).

    `first` and `last`: the two bytes at either end of what was read.
    """

    tables: list[np.ndarray]
    first: bytes
    last: bytes

    @classmethod
    def of(cls, part: Part, before: bytes = b"") -> ByteCounts:
        """Count the grams that end in `part`, which follows the two bytes `before`, or nothing."""
        tables = [np.zeros(256**k, dtype=np.int64) for k in (1, 2, 3)]
        first, last = b"", before
        for block in blocks(part):
            text = np.frombuffer(last + block, dtype=np.uint8).astype(np.int64)
            for k, table in enumerate(tables, start=1):
                new = text[max(0, len(last) - k + 1) :]
                if len(new) >= k:
                    windows = np.lib.stride_tricks.sliding_window_view(new, k)
                    np.add.at(table, windows @ 256 ** np.arange(k - 1, -1, -1), 1)
            first, last = (first + block[:2])[:2], (last + block[-2:])[-2:]
        return cls([table.reshape((256,) * k) for k, table in enumerate(tables, start=1)], first, last)


def blocks(part: Part) -> Iterator[bytes]:
    """The bytes of a part in blocks of at most BLOCK."""
    if not isinstance(part, bytes) and iter(part) is part:
        raise UsageError("the blocks of a part are read more than once: give a list of them, not an iterator")
    for piece in [part] if isinstance(part, bytes) else part:
        for start in range(0, len(piece), BLOCK):
            yield piece[start : start + BLOCK]


def _n_bytes(part: Part) -> int:
    n_bytes = sum(len(block) for block in blocks(part))
    if n_bytes == 0:
        raise UsageError("the validation part is empty: there is no byte to divide by")
    return n_bytes
