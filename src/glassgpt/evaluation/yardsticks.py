"""What a model's bits per byte are judged by: counting bytes, and the compressors that every machine has.

All of them have seen the training part before they meet the validation part, as the model has. Parts are read in
blocks and never held whole.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from glassgpt.errors import UsageError
from glassgpt.interface import Tokenizer, as_contexts
from glassgpt.models.backoff import KneserNey
from glassgpt.numerics import LN2

Part = bytes | Iterable[bytes]
"""A text as bytes, or as blocks of bytes that can be read more than once: a list, or what begins anew at each `iter`."""

BLOCK = 1 << 20
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

    "uniform over bytes" (8), "byte unigram", "byte bigram" and "byte trigram" (`byte_grams`), "gzip", "bz2" and "xz"
    (`compressed`). Raises UsageError for an empty part, and for blocks that can be read only once.
    """
    grams = {f"byte {name}": bits for name, bits in byte_grams(training, validation).items()}
    return {"uniform over bytes": 8.0} | grams | compressed(training, validation)


def compressed(training: Part, validation: Part) -> dict[str, float]:
    """8 * (size of training and validation compressed as one, less size of training compressed) / validation bytes.

    With the commands' highest setting but for xz, whose default (-6) keeps within 100 MB. A compressor remembers only
    its window, the last 32 KiB for gzip, a block of 900 kB for bz2, 8 MiB for xz: of a training part longer than that
    it has forgotten the beginning when the validation part comes. gzip in particular is judged on 32 KiB of history
    whatever it was given, and so is no yardstick for what a corpus teaches, only a familiar one. What a compressor
    holds back at the end of the training part (bz2's unfinished block) blurs the difference by less than a block.
    """
    n_bytes = _n_bytes(validation)
    _n_bytes(training)
    return {
        name: 8 * (compressed_size(make(), training, validation) - compressed_size(make(), training)) / n_bytes
        for name, make in COMPRESSORS.items()
    }


def compressed_size(compressor: Compressor, *parts: Part) -> int:
    """The bytes that the parts, one after the other, are compressed to."""
    return sum(len(compressor.compress(block)) for part in parts for block in blocks(part)) + len(compressor.flush())


def byte_grams(training: Part, validation: Part) -> dict[str, float]:
    """Bits per byte of the validation part by the Kneser-Ney "unigram", "bigram" and "trigram" of the training bytes.

    Exactly the numbers of `KneserNey(training, 256, n)` on the validation part alone, whose first bytes have less
    history, for parts of any length: what is kept are two tables of 256^3 counts, 134 MB each.
    """
    counted, wanted = byte_counts(training), byte_counts(validation)
    n_bytes = _n_bytes(validation)
    _n_bytes(training)
    first = next(blocks(training))[:1]  # the training part's first byte follows its beginning
    ...
