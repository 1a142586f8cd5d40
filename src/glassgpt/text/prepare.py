"""From sources to token files: read, split, learn a vocabulary, tokenise once."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import psutil

from glassgpt.errors import DamagedFileError, UsageError
from glassgpt.files import PARTIAL, NewFile, make_folder, write_atomically
from glassgpt.text.bpe import END_OF_TEXT, BPETokenizer
from glassgpt.text.character import CharacterTokenizer
from glassgpt.text.cleaning import Kept
from glassgpt.text.documents import Document, Source
from glassgpt.text.encoding import encoder
from glassgpt.text.mixture import Drawing, Mixture, Share
from glassgpt.text.split import Split, fraction_of
from glassgpt.text.token_files import FORMAT, MANIFEST, TOKENIZER, TokenFiles, manifest_hash, read_manifest
from glassgpt.text.tokenizer_json import tokenizer_to_json
from glassgpt.text.vocabulary import Vocabulary

Progress = Callable[[str, int, int | None], None]
LEARN_FROM = 100_000_000  # bytes: the vocabulary of a larger corpus is learnt from a sample of about so many


def prepare(
    corpus: Mixture | Source,
    vocabulary: Vocabulary | CharacterTokenizer | BPETokenizer,
    folder: Path | str,
    *,
    split: Split | None = None,
    between: str = "\n\n",
    replace: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> TokenFiles:
    """The token files of a corpus in `folder`, made if they are not there already; memory is bounded.

    `vocabulary`: what to learn (words and BPE from the training part, characters from all), or a tokenizer. After each
    document comes the vocabulary's <|endoftext|>; characters have none, and get the text `between` before each document
    but the first. `split`: by default the last tenth validates. `on_progress(stage, bytes done, of how many)`: stages
    are "reading", "learning" and "tokenising", the total None where it is not known.

    If the folder holds the tokens of just this corpus, vocabulary and split, they are given back untouched; if of
    another, UsageError says what differs, unless `replace`. What is stopped half-way leaves the folder as it was.
    """
    folder, split = Path(folder), split or Split()
    mixture = corpus if isinstance(corpus, Mixture) else Mixture([corpus])
    made_from = _plain_json(
        {
            "corpus": mixture.identity(),
            "vocabulary": _identity(vocabulary),
            "split": dataclasses.asdict(split),
            "between": between,
        }
    )
    there = _already_there(folder, made_from, replace)
    if there is not None:
        return there
    n_characters, n_bytes, n_documents = _survey(mixture, on_progress)
    text = _Text(mixture, split, n_characters, n_bytes, on_progress)
    if isinstance(vocabulary, Vocabulary):
        tokenizer = vocabulary.learn(text.to_learn_from(vocabulary, between if n_documents > 1 else ""))
    else:
        tokenizer = vocabulary
    make_folder(folder)
    _remove_partial_files_of_the_dead(folder)
    with (
        _PartWriter(folder, "train", tokenizer, between) as train,
        _PartWriter(folder, "validation", tokenizer, between) as validation,
    ):
        drawing = text.write({"train": train, "validation": validation})
        _refuse_empty_parts(train, validation, split, n_documents)
        if (there := _already_there(folder, made_from, replace)) is not None:
            return there  # another process was quicker
        manifest = {
            "format": FORMAT,
            "made_from": made_from,
            "vocab_size": tokenizer.vocab_size,
            "end_token": tokenizer.special.get(END_OF_TEXT),
            "dtype": train.dtype,
            "parts": {"train": train.counts(), "validation": validation.counts()},
            "sources": [_told(share) for share in drawing.shares],
            "cleaning": _report(mixture),
        }
        _commit(folder, manifest, _json_bytes(tokenizer_to_json(tokenizer)), [train, validation])
    return TokenFiles.open(folder, verify=False)


def _survey(mixture: Mixture, on_progress: Progress) -> tuple[int, int, int]:
    """Characters, bytes of UTF-8 and documents of a corpus. Raises UsageError if there is no text in it."""
    n_characters = n_bytes = n_documents = 0
    for document in mixture.draw():
        n_characters += len(document.text)
        n_bytes += len(document.text.encode())
        n_documents += not document.continues
        on_progress("reading", n_bytes, None)
    if not n_characters:
        raise UsageError("the corpus holds no text: look at the sources, and at what cleaning has thrown away")
    return n_characters, n_bytes, n_documents


@dataclasses.dataclass(frozen=True)
class _Text:
    """A corpus that has been surveyed, with its split."""

    mixture: Mixture
    split: Split
    n_characters: int
    n_bytes: int
    on_progress: Progress

    def to_learn_from(self, vocabulary: Vocabulary, between: str) -> Iterator[str]:
        """All the text for characters, and else the training part, of which a large one is sampled."""
        if vocabulary.kind == "bytes":
            return
        whole = vocabulary.kind == "characters"
        share = 1.0 if whole else LEARN_FROM / self.n_bytes
        if whole:
            yield between
        done = 0
        for part, document in self.split.parts(self.mixture.draw(), self.n_characters):
            done += len(document.text.encode())
            self.on_progress("learning", done, self.n_bytes)
            if (whole or part == "train") and (share >= 1 or fraction_of(document.text, b"learn") < share):
                yield document.text

    def write(self, writers: dict[str, _PartWriter]) -> Drawing:
        drawing, done = self.mixture.draw(), 0
        last: _PartWriter | None = None
        for part, document in self.split.parts(drawing, self.n_characters):
            if last is not None and not document.continues:
                last.end_document()
            last = writers[part]
            last.add(document)
            done += len(document.text.encode())
            self.on_progress("tokenising", done, self.n_bytes)
        if last is not None:
            last.end_document()
        return drawing


# --- Writing ----------------------------------------------------------------------------------------------------------


class _PartWriter:
    """The two files of a part as they grow, under names that mean nothing until they are complete."""

    def __init__(self, folder: Path, name: str, tokenizer: CharacterTokenizer | BPETokenizer, between: str) -> None:
        self.dtype = "<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"
        self._tokens, self._starts = NewFile(folder / f"{name}.bin"), NewFile(folder / f"{name}.starts.bin")
        self.files = [self._tokens, self._starts]
        self._encode, self._between = encoder(tokenizer), between
        self._end = tokenizer.special.get(END_OF_TEXT)
        self._lengths = np.array([len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)], dtype=np.int64)
        self.n_tokens = self.n_documents = self.n_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for file in self.files:
            file.discard()

    def add(self, document: Document) -> None:
        if not document.continues or self.n_documents == 0:
            if self._end is None and self.n_documents:
                self._write(self._encode(self._between))
            self._starts.write(np.array(self.n_tokens, dtype="<u8").tobytes())
            self.n_documents += 1
        self._write(self._encode(document.text))

    def end_document(self) -> None:
        if self._end is not None:
            self._write(np.array([self._end]))

    def counts(self) -> dict[str, int]:
        return {"documents": self.n_documents, "tokens": self.n_tokens, "bytes": self.n_bytes}

    def _write(self, ids: np.ndarray) -> None:
        self.n_tokens += len(ids)
        self.n_bytes += int(self._lengths[ids].sum())
        self._tokens.write(ids.astype(self.dtype).tobytes())


def _commit(folder: Path, manifest: dict[str, Any], tokenizer: bytes, parts: list[_PartWriter]) -> None:
    """Move everything into its place, the manifest last."""
    files = [file for part in parts for file in part.files]
    for file in files:
        file.finish()
    manifest["files"] = {file.path.name: {"bytes": file.size, "sha256": file.sha256} for file in files}
    manifest["files"][TOKENIZER] = {"bytes": len(tokenizer), "sha256": hashlib.sha256(tokenizer).hexdigest()}
    manifest = _plain_json(manifest)
    (folder / MANIFEST).unlink(missing_ok=True)
    for file in files:
        file.put()
    write_atomically(folder / TOKENIZER, tokenizer)
    write_atomically(folder / MANIFEST, _json_bytes({**manifest, "sha256": manifest_hash(manifest)}))


def _remove_partial_files_of_the_dead(folder: Path) -> None:
    """What a killed process has left."""
    for path in folder.glob(f".*{PARTIAL}"):
        pid = path.name.split(".")[-2]
        if pid.isdecimal() and (int(pid) == os.getpid() or not psutil.pid_exists(int(pid))):
            path.unlink(missing_ok=True)


def _refuse_empty_parts(train: _PartWriter, validation: _PartWriter, split: Split, n_documents: int) -> None:
    for part in (train, validation) if split.validation else (train,):
        if not part.n_tokens:
            raise UsageError(
                f"of {n_documents:,} documents, none is left for the {'training' if part is train else 'validation'} "
                f"part (split by {split.by}, {split.validation:g} validates): split by position, or choose another "
                "fraction"
            )


# --- What it was made from --------------------------------------------------------------------------------------------


def _identity(vocabulary: Vocabulary | CharacterTokenizer | BPETokenizer) -> dict[str, Any]:
    if isinstance(vocabulary, Vocabulary):
        return dataclasses.asdict(vocabulary)
    return {"sha256": hashlib.sha256(_json_bytes(tokenizer_to_json(vocabulary))).hexdigest()}


def _already_there(folder: Path, made_from: dict[str, Any], replace: bool) -> TokenFiles | None:
    """The files of `folder`, if they are whole and were made from the same; UsageError if they are another corpus's."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file, and a folder is needed for the tokens: choose another")
    if not (folder / MANIFEST).exists():
        return None
    try:
        before = read_manifest(folder)["made_from"]
        if before == made_from:
            return TokenFiles.open(folder)
    except DamagedFileError:
        return None  # what is damaged is made again
    if not replace:
        raise UsageError(
            f"{folder} holds the tokens of another text or setting ({_difference(before, made_from)}): choose another "
            "folder, or have these replaced"
        )
    return None


def _difference(before: Any, now: Any, name: str = "") -> str:
    """The first place where two JSON values differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                return _difference(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        at = next(i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
        return _difference(before[at], now[at], f"{name}[{at}]")
    return f"{name} was {json.dumps(before)[:70]}, and is {json.dumps(now)[:70]}"


def _told(share: Share) -> dict[str, Any]:
    return dataclasses.asdict(share) | {"epochs": share.epochs}


def _report(mixture: Mixture) -> dict[str, Any] | None:
    """What cleaning threw away, if there was any cleaning."""
    reports = [source.cleaned.report.to_dict() for source in mixture.sources if isinstance(source, Kept)]
    return reports[0] if reports else None


def _plain_json(content: Any) -> Any:
    return json.loads(json.dumps(content))


def _json_bytes(content: Any) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
