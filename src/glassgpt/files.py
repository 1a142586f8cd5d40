"""Files that are whole or not there, files that grow line by line, and a lock: all that must survive a crash.

A new file is written beside its place, forced to disk, then moved into it, and the move is forced to disk too. So a
crash or a power cut at any moment leaves the old file or the new one. Every call that can fail goes through `os` here,
which is where the tests make each of them fail in turn.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from glassgpt.errors import UsageError, WriteError

AT_ONCE = 1 << 20  # bytes that are written together; what is longer goes as it is
PARTIAL = ".partial"  # how the names of files end that are not whole yet
_BINARY = getattr(os, "O_BINARY", 0)  # Windows would turn line ends
_TELLING_ITS_NAME = 5.0  # seconds that a process may take from holding a lock to writing its number into it


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all. Raises WriteError."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[NewFile]:
    """A file that takes the place of `path` when the block ends, or is gone without a trace if it fails.

    Raises WriteError, naming `path` and the space left, for what the disk refuses.
    """
    file = NewFile(path)
    try:
        yield file
        file.put()
    except BaseException:
        file.discard()
        raise


class NewFile:
    """A file that grows beside its place, in the same folder: another one may be on another disk, or full.

    `beside`: where it lies until then. `size` and `sha256`: of what was written so far.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}{PARTIAL}")
        self.size, self._digest, self._waiting = 0, hashlib.sha256(), bytearray()
        with telling(path):
            self._descriptor = os.open(self.beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)

    def write(self, content: bytes | memoryview) -> None:
        n = memoryview(content).nbytes
        self._digest.update(content)
        self.size += n
        if len(self._waiting) + n > AT_ONCE:
            self._send(self._waiting)
            self._waiting = bytearray()
        if n > AT_ONCE:
            self._send(content)
        else:
            self._waiting += content

    def _send(self, content: bytes | bytearray | memoryview) -> None:
        with telling(self.path):
            _write_all(self._descriptor, content)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> None:
        """Force it to disk: it is whole, and still beside its place."""
        self._send(self._waiting)
        with telling(self.path):
            os.fsync(self._descriptor)
            self._close()

    def put(self) -> None:
        """Force it to disk, if that is not done, then into its place, then that too to disk."""
        if self._descriptor >= 0:
            self.finish()
        with telling(self.path):
            os.replace(self.beside, self.path)  # noqa: PTH105 (all that can fail is called on `os`)
            force_folder_to_disk(self.path.parent)

    def discard(self) -> None:
        with suppress(OSError):
            self._close()
        with suppress(OSError):  # it may be in its place already, or the disk may be dead
            os.unlink(self.beside)  # noqa: PTH108

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Log:
    """A file that grows line by line, each of which others can read at once. `length`: what of it to keep, in bytes."""

    def __init__(self, path: Path, length: int | None = None) -> None:
        self.path = path
        is_new = not path.exists()
        with telling(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
            if length is not None:
                os.ftruncate(self._descriptor, length)
            if is_new:
                force_folder_to_disk(path.parent)

    def add(self, line: bytes) -> None:
        with telling(self.path):
            _write_all(self._descriptor, line)

    def force_to_disk(self) -> int:
        """What was added is safe now. Returns how long the file is, in bytes."""
        with telling(self.path):
            os.fsync(self._descriptor)
            return os.fstat(self._descriptor).st_size

    def close(self) -> None:
        with telling(self.path):
            os.close(self._descriptor)


def remove(path: Path) -> None:
    """Take a file away for good; fine if it is not there. Raises WriteError."""
    with telling(path, "taken away"), suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108
        force_folder_to_disk(path.parent)


def make_folder(path: Path) -> None:
    """A folder and those above it, so that a power cut does not lose them again. Raises WriteError."""
    missing = [part for part in (path, *path.parents) if not part.exists()]
    with telling(path, "made"):
        for part in reversed(missing):
            with suppress(FileExistsError):
                os.mkdir(part)  # noqa: PTH102
            force_folder_to_disk(part.parent)


def force_folder_to_disk(folder: Path) -> None:
    """What was made, moved or taken away in a folder is safe after this."""
    if os.name == "nt":  # Windows has no handle on a folder, and needs none
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def telling(path: Path, what: str = "written") -> Iterator[None]:
    """Raise WriteError for what the system refuses within the block, naming `path` and the space left."""
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"{path} cannot be {what}: {error.strerror or error} ({_space_left(path)}); what was there before is "
            "whole; make room or mend the cause, and give the same command again"
        ) from error


def _space_left(path: Path) -> str:
    folder = next(part for part in (path.absolute(), *path.absolute().parents) if part.is_dir())
    try:
        return f"{shutil.disk_usage(folder).free / 1e9:,.3g} GB are free there"
    except OSError:
        return "how much is free there cannot be told"


def _write_all(descriptor: int, content: bytes | bytearray | memoryview) -> None:
    """A system may take less than it is given: of a large file, or of any when the disk is nearly full."""
    rest = memoryview(content).cast("B") if memoryview(content).nbytes else memoryview(b"")
    while rest:
        rest = rest[os.write(descriptor, rest) :]


@contextmanager
def only_one(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock `path`, which names this process; it is free again when the process ends, however it ends.

    Raises UsageError, naming the process, if another one `doing` something holds it.
    """
    lock = FileLock(path, timeout=0)
    try:
        holder = _acquire(lock, path)
    except (OSError, NotImplementedError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise WriteError(f"{path} cannot be locked ({why}): choose a folder on another disk") from None
    if holder is not None:
        raise UsageError(f"process {holder} {doing} already ({path.parent}): wait for it, or stop it")
    try:
        with telling(path):
            path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        with suppress(OSError):
            if path.exists():
                path.write_bytes(b"")
        lock.release()


def _acquire(lock: FileLock, path: Path) -> str | None:
    """Take a lock, or say which process holds it: its number stands in the file soon after it has the lock, and is gone
    just before it lets go."""
    deadline = time.monotonic() + _TELLING_ITS_NAME
    while True:
        with suppress(Timeout):
            lock.acquire()
            return None
        with suppress(OSError):
            pid = path.read_text().strip()
            if pid.isdecimal() and psutil.pid_exists(int(pid)):
                return pid
        if time.monotonic() > deadline:
            return "of an unknown number"
        time.sleep(0.01)
