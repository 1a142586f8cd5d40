"""Where documents are read from: files, folders, globs, standard input, what Python itself ships, the hub.

Files are UTF-8, strictly: anything else, and a byte 0, is refused by its file and byte position. A byte order mark at
the beginning of a file is dropped; Windows line ends become \\n unless they are asked to be kept.
"""

from __future__ import annotations

import ast
import codecs
import glob
import hashlib
import importlib
import itertools
import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from glassgpt.errors import DamagedFileError, UnsupportedError, UsageError
from glassgpt.text.documents import SEPARATORS, Document, Source, split_documents

BLOCK = 1 << 20  # bytes read at once
LONGEST_JSON_LINE = 1 << 26  # bytes; a longer line is no document
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".csv", ".tsv", ".py", ".c", ".h", ".js", ".jsonl")


def source_of(name: str, *, split: str = "file", field: str = "text", newlines: str = "unix") -> Source:
    """The source that `name` names: a file, folder or glob; `-` for standard input; `python-docs`; `toy-world`;
    `parentheses`; `hub:owner/dataset`, `hub:owner/dataset/configuration`.

    `split`: how a file becomes documents: "file" (it is one), "blank lines", "lines", or else the text that separates
    them, such as "<|endoftext|>". `field`: where a line of a .jsonl file, or a row of a dataset, has its text. Raises
    UsageError for what is not there.
    """
    if name == "-":
        return standard_input(sys.stdin.buffer, split=split, newlines=newlines)
    if name == "python-docs":
        return PythonDocs()
    if name == "toy-world":
        from glassgpt.text.toy_world import ToyWorld, ToyWorldSource

        return ToyWorldSource(ToyWorld())
    if name == "parentheses":
        from glassgpt.text.parentheses import Parentheses

        return Parentheses()
    if name.startswith("hub:"):
        owner, _, rest = name.removeprefix("hub:").partition("/")
        dataset, _, configuration = rest.partition("/")
        return HubDataset(f"{owner}/{dataset}" if dataset else owner, configuration or None, field=field)
    return Files.named(name, split=split, field=field, newlines=newlines)


# --- Files ------------------------------------------------------------------------------------------------------------


class Files(Source):
    """Text files in a fixed order. A .jsonl file holds a document a line, under `field`; the others are split."""

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        name: str = "",
        split: str = "file",
        field: str = "text",
        newlines: str = "unix",
    ) -> None:
        """`newlines`: "unix" makes every \\r\\n a \\n, "keep" leaves them. `split`, `field`: see `source_of`."""
        if newlines not in ("unix", "keep"):
            raise UsageError(f"newlines must be unix or keep, got {newlines!r}")
        if split == "":
            raise UsageError(f"split must be {', '.join(SEPARATORS)}, or the text between documents, and it is empty")
        if not paths:
            raise UsageError("a source of files needs at least one file")
        self.paths = [Path(path) for path in paths]
        self.name = name or str(self.paths[0])
        self.split, self.field, self.newlines = split, field, newlines
        self._hashes: dict[Path, str] = {}
        for path in self.paths:
            _refuse_no_file(path)

    @classmethod
    def named(cls, name: str, *, split: str = "file", field: str = "text", newlines: str = "unix") -> Files:
        """The files of a path or glob, sorted. A folder stands for the text files below it, hidden ones left out."""
        path = Path(name)
        if not name:
            raise UsageError("expected the name of a text file, folder or glob, and it is empty")
        if path.is_dir():
            paths = _text_files_below(path)
            if not paths:
                raise UsageError(
                    f"the folder {name} holds no text file ({' '.join(TEXT_SUFFIXES)}), or empty ones only"
                )
        elif path.exists():
            paths = [path]
            if path.is_file() and path.stat().st_size == 0:
                raise UsageError(f"{name} is empty: give a file that holds text")
        else:
            found = (Path(match) for match in glob.glob(name, recursive=True))  # noqa: PTH207 (absolute globs)
            paths = sorted((match for match in found if match.is_file() and match.stat().st_size), key=Path.as_posix)
            if not paths:
                raise UsageError(
                    f"there is no text file {name}: give a file, a folder, or a glob such as 'notes/*.txt'"
                )
        return cls(paths, name=name, split=split, field=field, newlines=newlines)

    def documents(self) -> Iterator[Document]:
        empty = True
        for path in self.paths:
            for document in self._documents_of(path):
                empty = False
                yield document
        if empty:
            raise UsageError(f"{self.name} holds no text: it is empty, or nothing but white space")

    def identity(self) -> dict[str, str | int]:
        """Hashes what the files hold, whatever they are called. Every pass from now on must read just that."""
        self._hashes = {}
        for path in self.paths:
            digest = hashlib.sha256()
            for block in _blocks(path):
                digest.update(block)
            self._hashes[path] = digest.hexdigest()
        total = hashlib.sha256("\n".join(self._hashes[path] for path in self.paths).encode())
        settings = {"split": self.split, "field": self.field, "newlines": self.newlines}
        return {"kind": "files", "files": len(self.paths), "sha256": total.hexdigest(), **settings}

    def _documents_of(self, path: Path) -> Iterator[Document]:
        blocks = self._checked_blocks(path)
        if path.suffix == ".jsonl":
            yield from _json_documents(blocks, path, self.field)
        else:
            text = _decoded(blocks, path)
            separator = SEPARATORS.get(self.split, self.split)
            yield from split_documents(_unix_newlines(text) if self.newlines == "unix" else text, separator)

    def _checked_blocks(self, path: Path) -> Iterator[bytes]:
        """The blocks of a file. Raises DamagedFileError at the end if they are not what `identity` saw."""
        digest = hashlib.sha256()
        for block in _blocks(path):
            digest.update(block)
            yield block
        if digest.hexdigest() != self._hashes.get(path, digest.hexdigest()):
            raise DamagedFileError(f"{path} was changed while it was being read: begin again when it is finished")


def _refuse_no_file(path: Path) -> None:
    if not path.exists():
        raise UsageError(f"there is no text file {path}")
    if not path.is_file():
        raise UsageError(f"{path} is no ordinary file: give one that holds text, or `-` for standard input")


def _text_files_below(folder: Path) -> list[Path]:
    paths = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [Path(parent, name) for name in names if not name.startswith(".") and name.endswith(TEXT_SUFFIXES)]
    return sorted((path for path in paths if path.is_file() and path.stat().st_size), key=Path.as_posix)


def _blocks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror or error}") from None


def _decoded(blocks: Iterator[bytes], path: Path) -> Iterator[str]:
    """The text of a file in blocks. Raises UnsupportedError, naming the byte, for what is no UTF-8 text."""
    position, pending = 0, b""
    for block in itertools.chain(blocks, [b""]):
        data = pending + block
        start = 3 if position == 0 and data.startswith(codecs.BOM_UTF8) else 0
        try:
            text, end = data[start:].decode("utf-8"), len(data)
        except UnicodeDecodeError as error:
            end = start + error.start
            if not block or error.reason != "unexpected end of data":
                raise UnsupportedError(_no_text(path, position + end, data)) from None
            text = data[start:end].decode("utf-8")  # the rest of the last character comes with the next block
        if (zero := data.find(b"\0", 0, end)) >= 0:
            raise UnsupportedError(
                f"{path} is no text: it holds a byte 0 at position {position + zero:,}; leave it out"
            )
        position, pending = position + end, data[end:]
        yield text


def _no_text(path: Path, position: int, data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and position == 0:
        return f"{path} is written in UTF-16, and text is read here as UTF-8: convert it, `iconv -f UTF-16 -t UTF-8`"
    return (
        f"{path} is not UTF-8 at byte {position:,}: leave it out if it is no text, or convert it, "
        "as by `iconv -f LATIN1 -t UTF-8`"
    )


def _unix_newlines(blocks: Iterator[str]) -> Iterator[str]:
    r"""Every \r\n as \n, one that lies across two blocks too."""
    held = ""
    for block in blocks:
        text = held + block
        held = "\r" if text.endswith("\r") else ""
        yield text.removesuffix("\r").replace("\r\n", "\n")
    yield held


def _json_documents(blocks: Iterator[bytes], path: Path, field: str) -> Iterator[Document]:
    for number, line in enumerate(_lines(blocks, path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            text = row[field] if isinstance(row, dict) else None
        except KeyError:
            raise UsageError(
                f"line {number:,} of {path} has no {field!r}: it has {', '.join(map(repr, row))}"
            ) from None
        except (ValueError, RecursionError):
            raise DamagedFileError(
                f"line {number:,} of {path} is not JSON in UTF-8: mend it, or leave it out"
            ) from None
        if not isinstance(text, str):
            raise DamagedFileError(f"line {number:,} of {path} must be an object with a text under {field!r}")
        yield from split_documents([_checked(text, f"line {number:,} of {path}")], None)


def _lines(blocks: Iterator[bytes], path: Path) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from lines
        if len(rest) > LONGEST_JSON_LINE:
            raise DamagedFileError(
                f"{path} has a line of over {LONGEST_JSON_LINE:,} bytes: a .jsonl file has a row a line"
            )
    yield rest


def _checked(text: str, where: str) -> str:
    """`text`, unless it holds half a surrogate pair or a zero, which no text file could."""
    if wrong := re.search("[\0\ud800-\udfff]", text):
        raise DamagedFileError(f"{where} holds {wrong.group()!r}, which is no character of a text: leave it out")
    return text


def standard_input(stream: BinaryIO, *, split: str = "file", newlines: str = "unix") -> Files:
    """What `stream` holds, kept in a temporary file because a corpus is read more than once."""
    folder = Path(tempfile.mkdtemp(prefix="glassgpt-"))
    path = folder / "standard-input.txt"
    try:
        with path.open("wb") as file:
            shutil.copyfileobj(stream, file, BLOCK)
        if not path.stat().st_size:
            raise UsageError("standard input is empty: pipe a text into it, as in `cat notes.txt | glassgpt ...`")
        source = Files([path], name="standard input", split=split, newlines=newlines)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    return source


# --- What Python ships ------------------------------------------------------------------------------------------------

_NO_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib2to3", "turtledemo"}


class PythonDocs(Source):
    """English about Python that every installation has: the language reference of `help()`, a document a topic, and the
    docstrings of the standard library, a document a module.

    Some 2 MB. The text changes from one Python to the next, so the identity holds a hash of it.
    """

    name = "python-docs"

    def __init__(self, library: Path | None = None) -> None:
        """`library`: the folder of modules to read, by default the standard library's. Raises UnsupportedError where
        the topics are not installed, as on systems that pack them apart."""
        self.library = library or Path(sysconfig.get_path("stdlib"))
        try:
            self._topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
        except ImportError:
            raise UnsupportedError(
                "this Python comes without pydoc_data, the text of help(): install it (on Debian and Ubuntu: "
                "apt install python3-doc libpython3-stdlib), or take the source toy-world"
            ) from None

    def documents(self) -> Iterator[Document]:
        for text in self._texts:
            yield from split_documents([text], None)

    def identity(self) -> dict[str, str | int]:
        digest = hashlib.sha256(json.dumps(self._topics, sort_keys=True).encode())
        for path in self._modules():
            digest.update(".".join(self._parts(path)).encode() + hashlib.sha256(path.read_bytes()).digest())
        return {"kind": self.name, "sha256": digest.hexdigest()}

    @cached_property
    def _texts(self) -> list[str]:
        """Parsing the library takes seconds, and the text is small: it is kept."""
        topics = [_clean_lines(self._topics[name]) for name in sorted(self._topics)]
        return topics + [_docstrings(path, ".".join(self._parts(path))) for path in self._modules()]

    def _modules(self) -> list[Path]:
        found = []
        for parent, folders, names in os.walk(self.library):
            folders[:] = [name for name in folders if name not in _NO_LIBRARY and not name.startswith(("config-", "."))]
            found += [
                Path(parent, name) for name in names if name.endswith(".py") and not name.startswith("_sysconfig")
            ]
        return sorted(found, key=self._parts)

    def _parts(self, path: Path) -> tuple[str, ...]:
        parts = path.relative_to(self.library).with_suffix("").parts
        return parts[:-1] if parts[-1] == "__init__" else parts


def _docstrings(path: Path, module: str) -> str:
    """The docstrings of a module, each under the name of what it is about; empty if there are none."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return ""  # templates and samples of what cannot be parsed
    found: list[str] = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if text := ast.get_docstring(node):
                arguments = f"({ast.unparse(node.args)})" if hasattr(node, "args") else ""
                found.append(f"{name}{arguments}\n\n{_clean_lines(text)}\n")
            for child in node.body:
                visit(child, f"{name}.{getattr(child, 'name', '')}")

    visit(tree, module)
    return "\n".join(found)


def _clean_lines(text: str) -> str:
    """Without spaces at the ends of lines, and without what no text file can hold."""
    return re.sub(r"[ \t]+$", "", re.sub("[\0\ud800-\udfff]", "", text), flags=re.MULTILINE)


# --- The hub ----------------------------------------------------------------------------------------------------------


class HubDataset(Source):
    """A data set of the Hugging Face hub, streamed: rows are fetched as they are read, and read anew at each pass.

    Needs the datasets library. Its rows are taken on trust: give `revision`, a commit, so that they stay the same.
    """

    def __init__(
        self,
        dataset: str,
        configuration: str | None = None,
        *,
        part: str = "train",
        field: str = "text",
        revision: str | None = None,
        n_documents: int | None = None,
    ) -> None:
        """`n_documents`: only the first so many. Raises UnsupportedError without the datasets library."""
        self.dataset, self.configuration, self.part, self.field = dataset, configuration, part, field
        self.revision, self.n_documents = revision, n_documents
        self.name = f"hub:{dataset}" + (f"/{configuration}" if configuration else "")
        _load_dataset()

    def documents(self) -> Iterator[Document]:
        rows = _load_dataset()(
            self.dataset, self.configuration, split=self.part, revision=self.revision, streaming=True
        )
        for number, row in enumerate(itertools.islice(rows, self.n_documents), 1):
            text = row.get(self.field)
            if not isinstance(text, str):
                raise UsageError(f"{self.name} has no text under {self.field!r}: its rows have {', '.join(row)}")
            yield from split_documents([_checked(text, f"row {number:,} of {self.name}")], None)

    def identity(self) -> dict[str, str | int]:
        return {
            "kind": "hub",
            "dataset": self.dataset,
            "configuration": self.configuration or "",
            "part": self.part,
            "field": self.field,
            "revision": self.revision or "newest",
            "n_documents": -1 if self.n_documents is None else self.n_documents,
        }


def _load_dataset() -> Callable[..., Any]:
    try:
        return importlib.import_module("datasets").load_dataset
    except ImportError:
        raise UnsupportedError(
            "data sets of the hub are read by the datasets library: install it, pip install 'glassgpt[datasets]'"
        ) from None
