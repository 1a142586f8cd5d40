"""Atomic writes: the old content or the new, whatever fails and wherever."""

import os
from pathlib import Path

import pytest

from glassgpt.files import write_atomically


class Broken(OSError):
    pass


def failing(*args, **kwargs):
    raise Broken(28, "No space left on device")


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_write_puts_exactly_the_content_there(tmp_path):
    for content in (b"", b"one", b"\r\n\x00\xff" * 10_000):
        write_atomically(tmp_path / "a.bin", content)
        assert files_in(tmp_path) == {"a.bin": content}


def test_others_may_read_the_file(tmp_path):
    write_atomically(tmp_path / "a.bin", b"one")
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o644


class FullDisk:
    """A file on a full disk: takes half of what is written."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()

    def write(self, content):
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        failing()


def fail_at(point, monkeypatch):
    """Make one step of the write fail."""
    if point == "mkstemp":
        monkeypatch.setattr("tempfile.mkstemp", failing)
    elif point == "write":
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *args: FullDisk(fdopen(*args)))
    elif point == "chmod":
        monkeypatch.setattr(Path, "chmod", failing)
    else:
        monkeypatch.setattr(os, point, failing)


@pytest.mark.parametrize("point", ["mkstemp", "write", "fsync", "chmod", "replace"])
@pytest.mark.parametrize("there_before", [True, False])
def test_whatever_fails_the_old_content_stays_and_nothing_is_left_over(tmp_path, monkeypatch, point, there_before):
    if there_before:
        (tmp_path / "a.bin").write_bytes(b"old")
    before = files_in(tmp_path)
    fail_at(point, monkeypatch)
    with pytest.raises(Broken):
        write_atomically(tmp_path / "a.bin", b"new content")
    monkeypatch.undo()
    assert files_in(tmp_path) == before


def test_an_interruption_between_leaves_the_old_content_too(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"old")

    def interrupt(*args):
        raise KeyboardInterrupt

    for point in ("fsync", "replace"):
        monkeypatch.setattr(os, point, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "a.bin", b"new")
        monkeypatch.undo()
        assert files_in(tmp_path) == {"a.bin": b"old"}


def test_a_folder_that_cannot_be_forced_to_disk_leaves_the_new_content_whole(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"old")
    fsync, calls = os.fsync, []

    def fails_the_second_time(descriptor):
        calls.append(descriptor)
        return fsync(descriptor) if len(calls) == 1 else failing()

    monkeypatch.setattr(os, "fsync", fails_the_second_time)
    with pytest.raises(Broken):
        write_atomically(tmp_path / "a.bin", b"new")
    assert files_in(tmp_path) == {"a.bin": b"new"}


def test_the_content_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, real=real, name=name, **kw: (order.append(name), real(*args, **kw))[1]
        )
    write_atomically(tmp_path / "a.bin", b"new")
    assert order == ["fsync", "replace", "fsync"]
