"""Atomic writes: the old content or the new, whatever fails and wherever; logs; and a lock for one process."""

import errno
import hashlib
import os
import subprocess
import sys

import pytest

import glassgpt.files
from glassgpt.errors import UsageError, WriteError
from glassgpt.files import AT_ONCE, Log, NewFile, make_folder, only_one, remove, replacing, write_atomically

LONG = bytes(range(256)) * (AT_ONCE // 256)


def files_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Disk:
    """`os`, one function of which does something else from its `nth` call on."""

    def __init__(self, name, instead, nth=1):
        self.name, self.instead, self.nth, self.calls = name, instead, nth, 0

    def __getattr__(self, name):
        real = getattr(os, name)
        if name != self.name:
            return real

        def call(*args):
            self.calls += 1
            return real(*args) if self.calls < self.nth else self.instead(real, *args)

        return call


def full(real, *args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def interrupt(real, *args):
    raise KeyboardInterrupt


def takes_half(real, descriptor, content):
    return real(descriptor, content[: (len(content) + 1) // 2])


@pytest.fixture
def disk(monkeypatch):
    def put_in(*args):
        made = Disk(*args)
        monkeypatch.setattr(glassgpt.files, "os", made)
        return made

    return put_in


# ---- one file --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"one", b"\r\n\x00\xff" * 10_000, LONG + b"x"])
def test_a_write_puts_exactly_the_content_there(tmp_path, content):
    write_atomically(tmp_path / "a.bin", content)
    assert files_in(tmp_path) == {"a.bin": content}


@pytest.mark.parametrize(
    "parts", [[b"a", b"", b"bc"], [LONG, b"x", LONG], [b"x" * AT_ONCE, b"y"], [b"x", LONG + LONG, b"z"]]
)
def test_a_file_written_in_parts_knows_its_size_and_hash(tmp_path, parts):
    with replacing(tmp_path / "a.bin") as file:
        for part in parts:
            file.write(memoryview(part))
        assert not (tmp_path / "a.bin").exists()
    whole = b"".join(parts)
    assert files_in(tmp_path) == {"a.bin": whole}
    assert (file.size, file.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())


def test_a_disk_that_takes_only_part_of_each_write_gets_it_all(tmp_path, disk):
    disk("write", takes_half)
    write_atomically(tmp_path / "a.bin", LONG)
    assert files_in(tmp_path) == {"a.bin": LONG}


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_the_file_is_for_whom_the_user_makes_files(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.bin", b"one")
    finally:
        os.umask(before)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("point", ["open", "write", "fsync", "close", "replace"])
@pytest.mark.parametrize("there_before", [True, False])
def test_whatever_fails_the_old_content_stays_and_nothing_is_left_over(
    tmp_path, disk, monkeypatch, point, there_before
):
    if there_before:
        (tmp_path / "a.bin").write_bytes(b"old")
    before = files_in(tmp_path)
    disk(point, full)
    with pytest.raises(WriteError, match=r"a\.bin cannot be written: No space left on device \(.* GB are free there\)"):
        write_atomically(tmp_path / "a.bin", b"new content")
    monkeypatch.undo()
    assert files_in(tmp_path) == before


@pytest.mark.parametrize("point", ["write", "fsync", "replace"])
def test_an_interruption_between_leaves_the_old_content_too(tmp_path, disk, point):
    (tmp_path / "a.bin").write_bytes(b"old")
    disk(point, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.bin", b"new")
    assert files_in(tmp_path) == {"a.bin": b"old"}


def test_an_error_of_the_writer_leaves_the_old_content_and_is_told_as_it_is(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a.bin") as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert files_in(tmp_path) == {"a.bin": b"old"}


def test_a_dead_disk_that_cannot_even_clean_up_tells_the_first_error(tmp_path, disk):
    (tmp_path / "a.bin").write_bytes(b"old")
    disk("write", full)
    glassgpt.files.os.__dict__["unlink"] = full
    with pytest.raises(WriteError, match="No space left"):
        write_atomically(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"old"


def test_a_folder_that_cannot_be_forced_to_disk_leaves_the_new_content_whole(tmp_path, disk):
    (tmp_path / "a.bin").write_bytes(b"old")
    disk("fsync", full, 2)
    with pytest.raises(WriteError):
        write_atomically(tmp_path / "a.bin", b"new")
    assert files_in(tmp_path) == {"a.bin": b"new"}


def test_the_content_is_on_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    order = []

    class Listening:
        def __getattr__(self, name):
            if name in ("write", "fsync", "replace"):
                order.append(name)
            return getattr(os, name)

    monkeypatch.setattr(glassgpt.files, "os", Listening())
    write_atomically(tmp_path / "a.bin", b"new")
    assert order == ["write", "fsync", "replace", "fsync"]


def test_a_file_for_which_there_is_no_folder_is_refused_by_its_name(tmp_path):
    with pytest.raises(WriteError, match=r"missing.a\.bin cannot be written: No such file or directory"):
        write_atomically(tmp_path / "missing" / "a.bin", b"one")


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    first, second = NewFile(tmp_path / "a.bin"), NewFile(tmp_path / "a.bin")
    first.write(b"first")
    second.write(b"second")
    second.put()
    first.put()
    assert files_in(tmp_path) == {"a.bin": b"first"}


# ---- a log, folders, taking away -------------------------------------------------------------------------------------


def test_each_line_of_a_log_can_be_read_at_once(tmp_path):
    log = Log(tmp_path / "log")
    for line in (b"one\n", b"two\n"):
        log.add(line)
        assert (tmp_path / "log").read_bytes().endswith(line)
    assert log.force_to_disk() == 8
    log.close()


def test_a_log_goes_on_where_it_is_told_to(tmp_path):
    (tmp_path / "log").write_bytes(b"one\ntwo\nthr")
    log = Log(tmp_path / "log", 4)
    log.add(b"three\n")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"one\nthree\n"
    log = Log(tmp_path / "log")
    log.add(b"four\n")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"one\nthree\nfour\n"


@pytest.mark.parametrize("point", ["open", "write", "fsync", "ftruncate", "close"])
def test_what_a_log_cannot_do_is_told_with_its_name(tmp_path, disk, point):
    disk(point, full)
    with pytest.raises(WriteError, match=r"log cannot be written: No space left on device"):
        log = Log(tmp_path / "log", 0)
        log.add(b"one\n")
        log.force_to_disk()
        log.close()


def test_removing_is_fine_twice_and_told_if_it_fails(tmp_path, disk):
    (tmp_path / "a").write_bytes(b"one")
    remove(tmp_path / "a")
    remove(tmp_path / "a")
    assert not files_in(tmp_path)
    disk("unlink", full)
    with pytest.raises(WriteError, match="cannot be taken away"):
        remove(tmp_path / "a")


def test_folders_are_made_down_to_the_last(tmp_path):
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteError, match="cannot be made"):
        make_folder(tmp_path / "file" / "b")


# ---- one process -----------------------------------------------------------------------------------------------------

HOLD = (
    "import sys; from pathlib import Path; from glassgpt.files import only_one\n"
    "with only_one(Path(sys.argv[1]), 'is busy'): print('held', flush=True); sys.stdin.read()"
)


def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_by_the_number_of_the_first(tmp_path):
    first = holder(tmp_path / "lock")
    try:
        with (
            pytest.raises(UsageError, match=f"process {first.pid} is busy already"),
            only_one(tmp_path / "lock", "is busy"),
        ):
            pass
    finally:
        first.communicate("")
    assert (tmp_path / "lock").read_bytes() == b""
    with only_one(tmp_path / "lock", "is busy"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    first = holder(tmp_path / "lock")
    first.kill()
    first.communicate()
    assert (tmp_path / "lock").read_text() == f"{first.pid}\n"  # nobody was left to clear it
    with only_one(tmp_path / "lock", "is busy"):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_lock_that_names_nobody_is_refused_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(glassgpt.files, "_TELLING_ITS_NAME", 0.05)
    with only_one(tmp_path / "lock", "is busy"):
        (tmp_path / "lock").write_text("")
        with (
            pytest.raises(UsageError, match="process of an unknown number is busy already"),
            only_one(tmp_path / "lock", "is busy"),
        ):
            pass


def test_a_disk_without_locks_is_refused_by_name(tmp_path, monkeypatch):
    class NoLock:
        def __init__(self, *args, **options):
            pass

        def acquire(self):
            raise NotImplementedError("this file system has no flock")

    monkeypatch.setattr(glassgpt.files, "FileLock", NoLock)
    with (
        pytest.raises(WriteError, match=r"lock cannot be locked \(this file system has no flock\)"),
        only_one(tmp_path / "lock", ""),
    ):
        pass
