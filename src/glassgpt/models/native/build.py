"""Compiling decode.c and train.c at first use, for the very processor they run on.

A library lies in the user's cache folder under the hash of all that shapes it (the source, the options, and what the
compiler says of itself and of this processor) and its own, by which a damaged one is known. Where there is no compiler
there is no library and a reason, never an exception. GLASSGPT_NATIVE=0 turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

DECODE = "decode.c"
OPTIONS = [
    *("-std=gnu11", "-fPIC", "-shared", "-pthread"),
    *("-fopenmp-simd", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
    "-Wno-psabi",  # it warns of vectors between functions, all of which are inlined
]
# The best that a compiler knows for this processor first; the last is understood by any.
TARGETS = (["-O3", "-march=native"], ["-O3", "-mcpu=native"], ["-O2"])
PATIENCE = 120  # seconds for one run of the compiler
LONGEST_COMPLAINT = 300  # characters of a compiler's message that are repeated to the user


class CannotBuild(Exception):
    """Why there is no library, in one sentence. Stays within this file."""


@functools.cache
def _loaded(source: str = DECODE) -> ctypes.CDLL | str:
    """The library, or why there is none: decided once in a process."""
    if os.environ.get("GLASSGPT_NATIVE") == "0":
        return "GLASSGPT_NATIVE=0 turns it off"
    try:
        return _load(_find_compiler(), source)
    except CannotBuild as problem:
        return str(problem)


def library(source: str = DECODE) -> ctypes.CDLL | None:
    """The library made of a C file in this folder, or None."""
    loaded = _loaded(source)
    return None if isinstance(loaded, str) else loaded


def why_not() -> str | None:
    """Why there is no native engine here, or None where there is one."""
    loaded = _loaded(DECODE)
    return loaded if isinstance(loaded, str) else None


def _find_compiler() -> list[str]:
    """The command in the variable CC, else the first C compiler that is installed."""
    chosen = os.environ.get("CC", "").split()
    if chosen:
        if not shutil.which(chosen[0]):
            raise CannotBuild(f"CC names {chosen[0]}, which is not installed")
        return chosen
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    raise CannotBuild("no C compiler was found: install gcc or clang")


def _load(compiler: list[str], source: str) -> ctypes.CDLL:
    problems = []
    for target in TARGETS:
        for folder in (cache_folder, temporary_folder):
            try:
                return ctypes.CDLL(str(compiled(compiler, [*target, *OPTIONS], folder(), source)))
            except (OSError, CannotBuild) as problem:
                problems.append(str(problem))
    raise CannotBuild(problems[0])


def compiled(compiler: list[str], options: list[str], folder: Path, source: str = DECODE) -> Path:
    """The library of these options in `folder`, compiled there unless it is there already, whole."""
    about = _run(
        [*compiler, *options, "-dM", "-E", "-x", "c", os.devnull], source
    )  # its version, and what the processor can
    code = Path(__file__).with_name(source)
    key = hashlib.sha256("\0".join([*compiler, *options, about, sys.platform]).encode() + code.read_bytes())
    name = f"{code.stem}-{key.hexdigest()[:32]}"
    for kept in folder.glob(f"{name}-*.so"):
        if kept.name == _name_with_digest(name, kept):
            return kept
        kept.unlink(missing_ok=True)  # damaged: to load half a library would end the process
    with tempfile.TemporaryDirectory(dir=folder) as workshop:
        fresh = Path(workshop) / "fresh.so"
        _run([*compiler, *options, str(code), "-o", str(fresh), "-lm"], source)
        path = folder / _name_with_digest(name, fresh)
        fresh.replace(path)  # at once: a reader finds all of it or nothing
    return path


def _name_with_digest(name: str, library: Path) -> str:
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:32]}.so"


def _run(command: list[str], source: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise CannotBuild(f"the C compiler could not be run: {problem}") from None
    if done.returncode:
        raise CannotBuild(f"{command[0]} failed on {source}: {done.stderr.strip()[:LONGEST_COMPLAINT]}")
    return done.stdout


def cache_folder() -> Path:
    """The user's own folder for libraries. Refused if others may write there: what lies in it will be run."""
    stated = os.environ.get("XDG_CACHE_HOME", "")
    # its standard: a relative one is ignored
    base = Path(stated) if Path(stated).is_absolute() else Path.home() / ".cache"
    folder = base / "glassgpt" / "native"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise CannotBuild(f"{folder} may be written by others")
    return folder


@functools.cache
def _kept_until_exit() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="glassgpt-native-")


def temporary_folder() -> Path:
    """Where the cache folder cannot be used: a folder of this process, gone with it."""
    return Path(_kept_until_exit().name)
