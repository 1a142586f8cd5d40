"""Files that are whole or not there: written beside their place, forced to disk, then moved into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from glassgpt.errors import UsageError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path` so that a crash at any moment leaves the old file or the new one, never a part.

    The temporary file lies in the same folder (another one may be on another disk, or full).
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())  # mkstemp makes files for their owner only
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _force_folder_to_disk(path.parent)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _force_folder_to_disk(folder: Path) -> None:
    if os.name == "nt":  # Windows has no handle on a folder, and needs none
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def only_one(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock `path`, which names this process; it is free again when the process ends, however it ends.

    Raises UsageError, naming the process, if another one `doing` something holds it.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        holder = path.read_text().strip() or "unknown"
        raise UsageError(f"process {holder} {doing} already ({path.parent}): wait for it, or stop it") from None
    try:
        path.write_text(f"{os.getpid()}\n")
        yield
    finally:
        path.write_bytes(b"")
        lock.release()
