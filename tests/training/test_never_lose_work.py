"""Nothing that was saved is lost, whatever happens: killed, full disks, power cuts, flipped bits, signals, two at once.

Run as a program, this file kills: it imports torch once and forks a child for each try, which then costs what training
costs. What is asked of every run is the same: its files are, byte for byte, those of a run that nothing happened to.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import glassgpt.files
import glassgpt.training.loop
import glassgpt.training.pretrain
from glassgpt.cli.main import main
from glassgpt.errors import DamagedFileError, GlassGPTError, NumericalError, UsageError, WriteError
from glassgpt.training.loop import Interrupted, Watch, train
from glassgpt.training.recipe import Recipe, recipe_from_dict
from glassgpt.training.trainer import Trainer
from glassgpt.weights.run import Run

FALLIBLE = ("open", "write", "fsync", "replace", "unlink", "ftruncate", "mkdir")  # calls of glassgpt.files
NOT_COMPARED = ("timing.jsonl", ".lock")
MODEL = {"context_length": 8, "n_layer": 1, "n_head": 1, "n_embd": 8, "position": "rope", "bias": False}
EVERYTHING = {"steps": 60, "batch_size": 4, "micro_batch_size": 3, "dropout": 0.1, "save_every": 5}


def small(**train) -> Recipe:
    """Some tenth of a second: a sequence, so no text to prepare and nothing to evaluate."""
    given = {"steps": 4, "save_every": 2, "keep": 1, "precision": "float32", "compile": "no"} | train
    model = MODEL | {"vocab_size": 2, "context_length": 3, "n_embd": 2}
    return recipe_from_dict({"data": {"sequence": "111101111011110"}, "model": model, "train": given})


def full(text: Path, tokens: Path | None = None, **train) -> Recipe:
    """All that a run can have: text, dropout, parts of a step, evaluations with samples, rotation."""
    data = {"files": [str(text)], "vocabulary": "characters"} | ({"tokens": str(tokens)} if tokens else {})
    given = EVERYTHING | {"keep": 3, "precision": "float32", "compile": "no"} | train
    given = {key: value for key, value in given.items() if value is not None}
    evaluate = {"every": 10, "tokens": 300, "sample_tokens": 2}
    return recipe_from_dict({"data": data, "model": MODEL, "train": given, "evaluate": evaluate})


def write_text(path: Path) -> Path:
    rng = np.random.default_rng(0)
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "dogs", "run"]
    path.write_text("".join(" ".join(rng.choice(words, 6)) + ".\n" for _ in range(60)))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in NOT_COMPARED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Disk:
    """`os` as glassgpt.files sees it; `before(n, name, args)` hears of the n-th call that can fail, and may raise."""

    def __init__(self, before=lambda n, name, args: None):
        self.before, self.calls = before, 0

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in FALLIBLE:
            return real

        def call(*args):
            self.calls += 1
            self.before(self.calls, name, args)
            return real(*args)

        return call


# ---- the program that kills ------------------------------------------------------------------------------------------


def child(work) -> int:
    """Fork, and `work` in the child; its exit code says what became of it: 0 done, 2 refused, 1 anything else."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except UsageError as error:
        print(error, file=sys.stderr, flush=True)
        code = 2
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def ended(pid: int) -> int:
    """The exit code of a child, or less than 0, as a signal's number."""
    status = os.waitpid(pid, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killed_after(seconds: float, pid: int) -> int:
    """Kill -9 a child after so long, unless it ends before; its exit code."""
    late = time.monotonic() + seconds
    while time.monotonic() < late and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)  # of one that ended: nothing, it is waited for still
    return ended(pid)


def kill_at_random(recipe: Recipe, folder: Path, n: int, seed: int) -> dict[str, int]:
    """Kill -9 `n` times at random moments, each time going on; the moments come sooner if it gets on, else later."""
    rng, longest = random.Random(seed), 0.2
    killed = while_saving = runs = 0
    out = folder / "run-0"
    while killed < n:
        before = Run(out).steps if (out / "manifest.json").exists() else []
        code = killed_after(rng.uniform(0, longest), child(partial(train, recipe, out)))
        assert code in (0, -signal.SIGKILL), code
        if code == 0:  # it was done before it was killed: another one
            longest *= 0.8
            runs += 1
            out = folder / f"run-{runs}"
            continue
        killed += 1
        while_saving += any(out.rglob(".*.partial"))
        after = Run(out).steps if (out / "manifest.json").exists() else []  # readable after every kill
        longest *= 1.15 if after == before else 0.8
    assert ended(child(partial(train, recipe, out))) == 0
    return {"killed": killed, "while_saving": while_saving, "runs": runs + 1}


def kill_at_calls(recipe: Recipe, folder: Path, first: int, stride: int) -> dict[str, int]:
    """Kill -9 at the n-th call to the disk, for every `stride`-th n, then go on."""

    def die_at(n: int, out: Path) -> None:
        def before(call, name, args):
            if call == n:
                os.kill(os.getpid(), signal.SIGKILL)

        glassgpt.files.os = Disk(before)  # type: ignore[assignment]
        train(recipe, out)

    killed, n = 0, first
    while True:
        out = folder / f"run-{n}"
        code = ended(child(partial(die_at, n, out)))
        if code == 0:
            return {"killed": killed, "calls": n}
        assert code == -signal.SIGKILL, code
        assert ended(child(partial(train, recipe, out))) == 0
        killed, n = killed + 1, n + stride


def two_at_once(recipe: Recipe, folder: Path, n: int) -> list[list[int]]:
    """Start two processes on one run, `n` times: their exit codes, the lesser first."""
    codes = []
    for i in range(n):
        pids = [child(partial(train, recipe, folder / f"run-{i}")) for _ in range(2)]
        codes.append(sorted(ended(pid) for pid in pids))
    return codes


TASKS = {"random": kill_at_random, "calls": kill_at_calls, "two": two_at_once}


def forked(there: Path, *tasks: str) -> tuple[list, str]:
    """Run this file as a program. A task is written "name of a task, full or small, folder to make, numbers"; what was
    found in each, and what the children said."""
    command = [sys.executable, __file__, str(there), *tasks]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def _run_as_a_program(there: Path, tasks: list[str]) -> None:
    torch.set_num_threads(1)
    recipes = {"small": small(), "full": full(there / "text.txt", there / "tokens")}
    train(
        small(), there / "warm"
    )  # what is imported once begun is so here, not in each child: a second or two of torch
    shutil.rmtree(there / "warm")
    found = []
    for name, kind, folder, *numbers in map(str.split, tasks):
        (there / folder).mkdir()
        found.append(TASKS[name](recipes[kind], there / folder, *map(int, numbers)))
    print(json.dumps(found))


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    """A folder with a text, its tokens, and the runs that nothing happened to."""
    folder = tmp_path_factory.mktemp("there")
    text = write_text(folder / "text.txt")
    train(full(text, folder / "tokens"), folder / "full")
    train(full(text, folder / "tokens", steps=12), folder / "twelve")
    train(small(), folder / "small")
    return folder


def sound(folder: Path, whole: Path) -> None:
    assert contents(folder) == contents(whole)
    assert not list(folder.rglob("*.partial"))


@pytest.fixture(scope="module")
def tries(there):
    """The tries of the default run, in one program."""
    return forked(there, "random full killed 50 1", "calls small calls 1 17", "two full two 1")


def killed_at_random(there, name, found):
    for i in range(found["runs"]):
        sound(there / name / f"run-{i}", there / "full")


def test_a_run_killed_fifty_times_is_byte_for_byte_the_one_that_was_not(there, tries):
    found = tries[0][0]
    assert found["killed"] == 50
    killed_at_random(there, "killed", found)


@pytest.mark.slow
def test_a_run_killed_two_hundred_times_is_byte_for_byte_the_one_that_was_not(there):
    found = forked(there, "random full killed-200 200 2")[0][0]
    assert found["killed"] == 200 and found["while_saving"] > 0
    killed_at_random(there, "killed-200", found)


def killed_at_calls(there, name, recipe, found):
    runs = list((there / name).iterdir())
    assert len(runs) == found["killed"] + 1  # and the one that came to its end
    for run in runs:
        sound(run, there / recipe)


def test_a_run_killed_at_calls_to_the_disk_goes_on_to_the_same_bytes(there, tries):
    found = tries[0][1]
    assert found["killed"] >= 5
    killed_at_calls(there, "calls", "small", found)


@pytest.mark.slow
def test_a_run_killed_at_every_call_to_the_disk_goes_on_to_the_same_bytes(there):
    found = forked(there, "calls small every-call 1 1")[0][0]
    assert found["killed"] == found["calls"] - 1 >= 90
    killed_at_calls(there, "every-call", "small", found)


@pytest.mark.slow
def test_a_run_with_text_and_evaluations_killed_at_calls_to_the_disk_goes_on_to_the_same_bytes(there):
    found = forked(there, "calls full calls-full 1 7")[0][0]
    assert found["killed"] >= 60
    killed_at_calls(there, "calls-full", "full", found)


def command_line(there: Path, out: Path, **train) -> list[str]:
    given = EVERYTHING | {"keep": 3, "precision": "float32", "compile": "no"} | train
    model = "".join(f"{key} = {json.dumps(value)}\n" for key, value in MODEL.items())
    path = out.with_suffix(".toml")
    path.write_text(
        f"[data]\nfiles = [{json.dumps(str(there / 'text.txt'))}]\nvocabulary = 'characters'\n"
        f"tokens = {json.dumps(str(there / 'tokens'))}\n[model]\n{model}[train]\n"
        + "".join(f"{key} = {json.dumps(value)}\n" for key, value in given.items())
        + "[evaluate]\nevery = 10\ntokens = 300\nsample_tokens = 2\n"
    )
    return ["train", str(path), "--out", str(out)]


@pytest.mark.slow
def test_the_command_killed_ten_times_goes_on_to_the_same_bytes(there, tmp_path):
    command = [sys.executable, "-m", "glassgpt", *command_line(there, tmp_path / "run")]
    manifest, rng = tmp_path / "run" / "manifest.json", random.Random(3)
    for _ in range(10):
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        before = manifest.read_bytes() if manifest.exists() else b""
        while process.poll() is None and (manifest.read_bytes() if manifest.exists() else b"") == before:
            time.sleep(0.002)  # until it has begun, or saved
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sound(tmp_path / "run", there / "full")


# ---- disks that refuse -----------------------------------------------------------------------------------------------

REFUSALS = {"full": errno.ENOSPC, "broken": errno.EIO, "interrupted": errno.EINTR, "read-only": errno.EROFS}


def refusing(n: int, kind: str):
    """The n-th call is refused; a full disk goes on refusing to take anything, but lets go of what it has."""

    def before(call, name, args):
        again = kind in ("full", "short") and call > n and name in ("open", "write", "fsync", "mkdir")
        if call == n and kind == "short" and name == "write":
            os.write(args[0], bytes(args[1])[: len(args[1]) // 2])
        if call == n or again:
            number = REFUSALS.get(kind, errno.ENOSPC)
            raise OSError(number, os.strerror(number))

    return Disk(before)


def refused_at(n: int, kind: str, recipe: Recipe, out: Path, whole: Path, monkeypatch) -> bool:
    """Whether the n-th call came before the end; if so all is as it must be."""
    saved = []
    with monkeypatch.context() as patched:
        patched.setattr(glassgpt.files, "os", refusing(n, kind))
        try:
            train(recipe, out, watch=Watch(on_step=lambda step, loss: saved.append(step)))
            assert contents(out) == contents(whole)
            return False
        except WriteError as error:
            assert str(out) in str(error) and "GB are free" in str(error)
    if (out / "manifest.json").exists():
        run = Run(out)
        assert not saved or run.steps[-1] >= saved[-1] // 2 * 2  # the last checkpoint that was promised
        for step in run.steps:
            for tensor in run.checkpoint(step, run.config).weights.values():
                assert np.isfinite(tensor.read()).all()
    train(recipe, out)
    sound(out, whole)
    return True


def refused_at_every(stride, kinds, recipe, whole, tmp_path, monkeypatch):
    for kind in kinds:
        n = 1
        while refused_at(n, kind, recipe, tmp_path / f"{kind}-{n}", whole, monkeypatch):
            shutil.rmtree(tmp_path / f"{kind}-{n}")
            n += stride
        assert n > 60


@pytest.mark.parametrize(("kind", "stride"), [("full", 9), ("broken", 23), ("short", 19), ("interrupted", 29)])
def test_calls_that_the_disk_refuses_leave_the_last_checkpoint_and_the_run_goes_on(
    there, tmp_path, monkeypatch, kind, stride
):
    refused_at_every(stride, [kind], small(), there / "small", tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*REFUSALS, "short"])
def test_every_call_that_the_disk_refuses_leaves_the_last_checkpoint_and_the_run_goes_on(
    there, tmp_path, monkeypatch, kind
):
    refused_at_every(1, [kind], small(), there / "small", tmp_path, monkeypatch)


def test_a_full_disk_while_text_is_prepared_leaves_nothing_that_blocks_the_next_try(there, tmp_path, monkeypatch):
    recipe = full(there / "text.txt", steps=1)
    opened = []
    disk = Disk(lambda call, name, args: opened.append(call) if ".train.bin." in str(args[0]) else None)
    with monkeypatch.context() as patched:
        patched.setattr(glassgpt.files, "os", disk)
        train(recipe, tmp_path / "whole")
        patched.setattr(glassgpt.files, "os", refusing(opened[0], "full"))
        with pytest.raises(WriteError, match=r"train\.bin cannot be written: No space left"):
            train(recipe, tmp_path / "run")
    assert not list(tmp_path.rglob("*.partial"))
    assert train(recipe, tmp_path / "run").is_finished


def test_a_real_limit_on_files_is_one_line_and_exit_code_1_and_nothing_lies_elsewhere(there, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [sys.executable, "-m", "glassgpt", *command_line(there, tmp_path / "run")]
    limited = ["bash", "-c", 'ulimit -f 2; exec "$@"', "bash", *command]  # 2 kB: the settings, but no checkpoint
    done = subprocess.run(
        limited, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": str(elsewhere)}
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "step-000000.safetensors cannot be written: File too large" in last and "GB are free" in last
    assert not list(elsewhere.iterdir()) and not list(tmp_path.rglob("*.partial"))
    train(full(there / "text.txt", there / "tokens"), tmp_path / "run")
    sound(tmp_path / "run", there / "full")


# ---- power cuts ------------------------------------------------------------------------------------------------------


class File:
    """What a file holds, and what of that is safe."""

    def __init__(self, content=b""):
        self.now, self.safe = content, b""


class PoweredDisk:
    """`os`, remembering of every file and folder what is forced to disk, so that a power cut can be made of any moment.

    `cut` gives what may be there afterwards: names moved or not, and of data that wasn't forced none, half, or all.
    """

    def __init__(self, root: Path):
        self.root = root
        self.names: dict[str, File | None] = {}  # None is a folder
        self.safe_names: dict[str, File | None] = {}
        self.open_files: dict[int, str | File] = {}
        self.cuts: list[tuple[int, dict[str, bytes | None]]] = []
        self.promised = -1

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in (*FALLIBLE, "close"):
            return real

        def call(*args):
            result = real(*args)
            getattr(self, f"_{name}")(result, *args)
            self.cuts += [(self.promised, state) for state in self.cut()]
            return result

        return call

    def _open(self, descriptor, path, flags, mode=0):
        path = str(path)
        if Path(path).is_dir():
            self.open_files[descriptor] = path
            return
        self.names.setdefault(path, File())
        self.open_files[descriptor] = self.names[path]

    def _close(self, result, descriptor):
        del self.open_files[descriptor]

    def _write(self, n, descriptor, content):
        self.open_files[descriptor].now += bytes(content[:n])

    def _ftruncate(self, result, descriptor, length):
        file = self.open_files[descriptor]
        file.now = file.now[:length]

    def _fsync(self, result, descriptor):
        there = self.open_files[descriptor]
        if isinstance(there, File):
            there.safe = there.now
            return
        self.safe_names = {path: file for path, file in self.safe_names.items() if str(Path(path).parent) != there}
        self.safe_names |= {path: file for path, file in self.names.items() if str(Path(path).parent) == there}

    def _replace(self, result, old, new):
        self.names[str(new)] = self.names.pop(str(old))

    def _unlink(self, result, path):
        self.names.pop(str(path))

    def _mkdir(self, result, path):
        self.names[str(path)] = None

    def cut(self):
        for names in (self.names, self.safe_names):
            for share in (0.0, 0.5, 1.0):
                yield {path: None if file is None else self._left(file, share) for path, file in names.items()}

    @staticmethod
    def _left(file, share):
        if not file.now.startswith(file.safe):  # cut shorter since
            return file.safe
        return file.now[: len(file.safe) + int(share * (len(file.now) - len(file.safe)))]

    def put(self, state, folder):
        """The state as files in another folder. A name whose folder is lost is lost too."""
        for path, content in sorted(state.items()):
            place = folder / Path(path).relative_to(self.root)
            if not place.parent.is_dir():
                continue
            place.mkdir() if content is None else place.write_bytes(content)


def states_of_power_cuts(recipe, tmp_path, monkeypatch):
    root = tmp_path / "powered"
    root.mkdir()
    disk = PoweredDisk(root)
    every = recipe.train.save_every

    def on_step(step, loss):
        disk.promised = step // every * every  # before this step its checkpoint was safe

    with monkeypatch.context() as patched:
        patched.setattr(glassgpt.files, "os", disk)
        train(recipe, root / "run", watch=Watch(on_step=on_step))
    different = {}
    for promised, state in disk.cuts:
        key = tuple(sorted((path, content) for path, content in state.items() if not path.endswith(NOT_COMPARED)))
        different[key] = (max(promised, different[key][0] if key in different else -1), state)
    return disk, list(different.values())


def cut_the_power(recipe, whole, tmp_path, monkeypatch, stride):
    disk, states = states_of_power_cuts(recipe, tmp_path, monkeypatch)
    for i, (promised, state) in enumerate(states[::stride]):
        folder = tmp_path / f"cut-{i}"
        folder.mkdir()
        disk.put(state, folder)
        if promised >= 0:
            run = Run(folder / "run")
            assert run.steps[-1] >= promised
            run.checkpoint(run.steps[-1], run.config)
        assert contents(train(recipe, folder / "run").path) == contents(whole)
        shutil.rmtree(folder)
    return len(states)


def test_a_power_cut_leaves_the_previous_checkpoint_or_the_new_one(there, tmp_path, monkeypatch):
    assert cut_the_power(small(), there / "small", tmp_path, monkeypatch, 9) > 60


@pytest.mark.slow
def test_a_power_cut_at_every_moment_leaves_the_previous_checkpoint_or_the_new_one(there, tmp_path, monkeypatch):
    assert cut_the_power(small(), there / "small", tmp_path, monkeypatch, 1) > 60


# ---- damage ----------------------------------------------------------------------------------------------------------


def stopped_after(steps: int, recipe: Recipe, out: Path) -> Run:
    asked = []
    with pytest.raises(Interrupted):
        train(recipe, out, watch=Watch(on_step=lambda *_: asked.append(1), should_stop=lambda: len(asked) >= steps))
    return Run(out)


def test_each_of_five_hundred_flipped_bits_of_a_checkpoint_is_noticed(tmp_path):
    recipe = small(steps=6, keep=3)
    run = stopped_after(5, recipe, tmp_path / "run")
    path = run.path / "checkpoints" / "step-000005.safetensors"
    whole, rng, config = path.read_bytes(), np.random.default_rng(0), run.config
    for bit in rng.choice(8 * len(whole), 500, replace=False).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(DamagedFileError, match="step-000005"):
            run.checkpoint(5, config)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_and_says_so(tmp_path):
    recipe = small(steps=6, keep=3)
    whole = contents(train(recipe, tmp_path / "whole").path)
    stopped_after(5, recipe, tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "step-000005.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 4
    path.write_bytes(content)
    notes, steps = [], []
    train(recipe, tmp_path / "run", watch=Watch(on_note=notes.append, on_step=lambda step, loss: steps.append(step)))
    assert steps == [4, 5]
    assert len(notes) == 1 and "step-000005" in notes[0] and "before it" in notes[0]
    assert contents(tmp_path / "run") == whole


def test_a_run_whose_every_checkpoint_is_damaged_is_refused_and_left_as_it_is(tmp_path):
    run = stopped_after(3, small(keep=3), tmp_path / "run")
    for path in (run.path / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    before = contents(run.path)
    with pytest.raises(DamagedFileError, match="step-000000"):
        train(small(keep=3), run.path)
    assert contents(run.path) == before


def test_prepared_text_that_is_damaged_is_prepared_again(there, tmp_path):
    recipe = full(there / "text.txt", steps=6)
    whole = contents(train(recipe, tmp_path / "whole").path)
    run = stopped_after(3, recipe, tmp_path / "run")
    tokens = run.path / "tokens" / "train.bin"
    content = bytearray(tokens.read_bytes())
    content[7] ^= 1
    tokens.write_bytes(content)
    found = contents(train(recipe, run.path).path)
    assert {name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)} <= {
        "manifest.json", "checkpoints/step-000003.safetensors"
    }  # fmt: skip


# ---- changed between start and resume --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(there):
    """A run of six steps that was stopped after three, to copy."""
    return stopped_after(3, full(there / "text.txt", steps=6), there / "begun").path


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "precision", "bfloat16"),
        ("train", "batch_size", 5),
        ("train", "micro_batch_size", 2),
        ("train", "dropout", 0.2),
        ("data", "vocabulary", "bytes"),
        ("data", "validation", 0.2),
        ("model", "n_embd", 16),
        ("run", "seed", 1),
        ("evaluate", "every", 5),
    ],
)
def test_a_changed_recipe_is_refused_by_the_key(there, begun, tmp_path, section, key, value):
    shutil.copytree(begun, tmp_path / "run")
    before = contents(tmp_path / "run")
    changed = full(there / "text.txt", steps=6).to_dict()
    changed[section][key] = value
    if section == "model":
        changed[section].pop("n_inner", None)
    with pytest.raises(UsageError, match=rf"{section}\.{key} = "):
        train(recipe_from_dict(changed), tmp_path / "run")
    assert contents(tmp_path / "run") == before


def test_a_text_that_has_grown_is_refused_by_name_and_one_that_is_gone_is_not_needed(tmp_path):
    text = write_text(tmp_path / "text.txt")
    recipe, sound_text = full(text, steps=6), text.read_bytes()
    whole = contents(train(recipe, tmp_path / "whole").path)
    stopped_after(3, recipe, tmp_path / "run")
    with text.open("a") as file:
        file.write("One line more.\n")
    with pytest.raises(UsageError, match=r"tokens of another text or setting \(corpus.*sha256"):
        train(recipe, tmp_path / "run")
    text.unlink()
    notes = []
    train(recipe, tmp_path / "run", watch=Watch(on_note=notes.append))
    assert len(notes) == 1 and "text.txt" in notes[0] and "going on with the tokens" in notes[0]
    found = contents(tmp_path / "run")
    assert all(found[name] == whole[name] for name in ("model.safetensors", "metrics.jsonl"))
    with pytest.raises(UsageError, match="there is no text file"):
        train(recipe, tmp_path / "another")
    text.write_bytes(sound_text)


@pytest.mark.parametrize(
    ("key", "value"),
    [("torch", "0.0"), ("processes", 2), ("device", "cuda"), ("machine", "abacus"), ("instructions", "")],
)
def test_another_machine_is_refused_by_what_differs_unless_changes_are_allowed(tmp_path, monkeypatch, key, value):
    recipe = small(keep=3)
    stopped_after(3, recipe, tmp_path / "run")
    machine = glassgpt.training.loop._machine
    monkeypatch.setattr(glassgpt.training.loop, "_machine", lambda among: machine(among) | {key: value})
    before = contents(tmp_path / "run")
    with pytest.raises(UsageError, match=rf"begun with {key} = .*--allow-changes"):
        train(recipe, tmp_path / "run")
    assert contents(tmp_path / "run") == before
    notes = []
    assert train(recipe, tmp_path / "run", watch=Watch(on_note=notes.append), allow_changes=True).is_finished
    assert len(notes) == 1 and f"{key} = " in notes[0]


# ---- resume at every step --------------------------------------------------------------------------------------------


def same_but_for_extra_checkpoints(found: dict[str, bytes], whole: dict[str, bytes]) -> None:
    assert {name for name, content in whole.items() if found.get(name) != content} <= {"manifest.json"}
    assert all(name.startswith("checkpoints/") for name in found.keys() - whole.keys())


def test_a_run_stopped_after_every_one_of_thirty_steps_ends_in_the_same_bytes(there, tmp_path):
    """Parts of a step, dropout, the edge of an epoch, evaluations; epochs of 24 windows, 4 a step."""
    recipe = full(there / "text.txt", there / "tokens", steps=30, keep=None)
    whole = contents(train(recipe, tmp_path / "whole").path)
    for step in range(1, 30):
        stopped_after(1, recipe, tmp_path / "run")
        assert Run(tmp_path / "run").steps[-1] == step
    train(recipe, tmp_path / "run")
    same_but_for_extra_checkpoints(contents(tmp_path / "run"), whole)


@pytest.mark.slow
def test_thirty_runs_each_stopped_once_end_in_the_same_bytes(there, tmp_path):
    recipe = full(there / "text.txt", there / "tokens", steps=30, keep=None)
    whole = contents(train(recipe, tmp_path / "whole").path)
    for step in range(1, 30):
        stopped_after(step, recipe, tmp_path / f"run-{step}")
        found = contents(train(recipe, tmp_path / f"run-{step}").path)
        same_but_for_extra_checkpoints(found, whole)


# ---- signals ---------------------------------------------------------------------------------------------------------

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def raising(number: int, times: int = 1):
    def send(*args, **options):
        for _ in range(times):
            signal.raise_signal(number)

    return send


def signalled_before(name: str, number: int, times: int, monkeypatch) -> None:
    """The signal comes as the named function of the loop is called."""
    module = glassgpt.training.loop if hasattr(glassgpt.training.loop, name) else glassgpt.training.pretrain
    real = getattr(module, name)
    send = raising(number, times)
    monkeypatch.setattr(module, name, lambda *args, **options: (send(), real(*args, **options))[1])


PLACES = ("validation_loss", "yardsticks", "optimizer_tensors", "choose", "training_data")


def signalled_at(there, tmp_path, monkeypatch, capsys, number, times, where):
    command = command_line(there, tmp_path / "run", steps=12, keep=3)
    with monkeypatch.context() as patched:
        patched.setattr("glassgpt.cli.train._leave_the_terminal", lambda: None)
        signalled_before(where, number, times, patched)
        assert main(command) == CODES[number]
    err = capsys.readouterr().err
    assert "stopped after 0 of 12 steps, and saved" in err or "stopped after 10 of 12" in err
    assert main(command) == 0
    same_but_for_extra_checkpoints(contents(tmp_path / "run"), contents(there / "twelve"))


@pytest.mark.parametrize(
    ("number", "times", "where"),
    [(number, 1 + (i == 1), where) for i, (number, where) in enumerate(zip([*CODES] * 2, PLACES, strict=False))],
)
def test_a_signal_stops_after_a_save_with_its_exit_code(there, tmp_path, monkeypatch, capsys, number, times, where):
    signalled_at(there, tmp_path, monkeypatch, capsys, number, times, where)


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("where", PLACES)
def test_every_signal_at_every_place_stops_after_a_save(there, tmp_path, monkeypatch, capsys, number, times, where):
    signalled_at(there, tmp_path, monkeypatch, capsys, number, times, where)


@pytest.mark.parametrize("stage", ["reading", "learning", "tokenising"])
def test_a_signal_while_text_is_prepared_stops_it_and_the_same_command_begins_again(there, tmp_path, stage):
    recipe = full(there / "text.txt", steps=1)
    heard = []
    watch = Watch(on_progress=lambda now, done, of: heard.append(now), should_stop=lambda: stage in heard)
    with pytest.raises(Interrupted, match=f"stopped while {stage} the text"):
        train(recipe, tmp_path / "run", watch=watch)
    assert not list(tmp_path.rglob("*.bin*"))
    assert train(recipe, tmp_path / "run").is_finished


@pytest.mark.parametrize("n", [3, 20, 40, 60, 75])
def test_a_signal_in_the_middle_of_a_save_lets_it_end(there, tmp_path, monkeypatch, n):
    caught = []
    with monkeypatch.context() as patched:
        patched.setattr(glassgpt.files, "os", Disk(lambda call, name, args: caught.append(1) if call == n else None))
        with pytest.raises(Interrupted, match="and saved"):
            train(small(), tmp_path / "run", watch=Watch(should_stop=lambda: bool(caught)))
    train(small(), tmp_path / "run")
    assert contents(tmp_path / "run")["model.safetensors"] == contents(there / "small")["model.safetensors"]


@pytest.mark.slow
def test_a_closed_terminal_stops_the_command_after_a_save(there, tmp_path):
    """A true terminal, which is gone when the command would speak."""
    pty = pytest.importorskip("pty")
    command = command_line(there, tmp_path / "run", steps=100_000)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "glassgpt", *command])
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000010.safetensors"
    for _ in range(6000):
        if checkpoint.exists():
            break
        time.sleep(0.01)
    os.close(terminal)
    assert ended(pid) == 129
    run = Run(tmp_path / "run")
    assert run.steps[-1] >= 10 and len(run.metrics()) == run.steps[-1]


def test_what_the_caller_ignores_stays_ignored():
    from glassgpt.cli.train import stop_signals

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with stop_signals() as caught:
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        assert caught == [] and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


# ---- two at once -----------------------------------------------------------------------------------------------------


def exactly_one(there, name, codes, said):
    assert codes == [[0, 2]] * len(codes)  # one done, one refused
    lines = [line for line in said.splitlines() if f"/{name}/" in line]
    assert len(lines) == len(codes)
    assert all("is training into this run already" in line and line.split()[1].isdecimal() for line in lines)
    for i in range(len(codes)):
        sound(there / name / f"run-{i}", there / "full")


def test_of_two_processes_on_one_run_exactly_one_goes_on(there, tries):
    exactly_one(there, "two", tries[0][2], tries[1])


@pytest.mark.slow
def test_of_two_processes_on_one_run_exactly_one_goes_on_each_of_fifty_times(there):
    (codes,), said = forked(there, "two full two-50 50")
    assert len(codes) == 50
    exactly_one(there, "two-50", codes, said)


# ---- numbers that mean nothing ---------------------------------------------------------------------------------------


class Poisoning(Trainer):
    """From step 3 on something is not finite."""

    what = "loss"

    def add_gradients(self, number, rows):
        loss = super().add_gradients(number, rows)
        if number < 3:
            return loss
        parameter = self.model.wte.weight
        if self.what == "gradient":
            parameter.grad[0, 0] = torch.nan
        if self.what == "optimizer state":  # finite, and its square is not
            parameter.grad[0, 0] = 1e25
            self.train = small(grad_clip=0.0).train
        return torch.inf if self.what == "loss" else loss


@pytest.mark.parametrize("what", ["loss", "gradient", "optimizer state"])
def test_what_is_not_finite_stops_the_run_and_the_last_sound_checkpoint_stays(there, tmp_path, monkeypatch, what):
    recipe = small(keep=1)
    with monkeypatch.context() as patched:
        patched.setattr(Poisoning, "what", what)
        patched.setattr(glassgpt.training.loop, "Trainer", Poisoning)
        with pytest.raises(NumericalError, match="not finite"):
            train(recipe, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.steps == [2]
    kept = run.checkpoint(2, run.config)
    assert all(np.isfinite(tensor.read()).all() for tensor in (*kept.weights.values(), *kept.optimizer.values()))
    train(recipe, tmp_path / "run")
    sound(tmp_path / "run", there / "small")


@pytest.mark.parametrize("where", ["model.wte.weight", "optimizer.wte.weight.exp_avg_sq"])
def test_a_checkpoint_with_numbers_that_are_not_finite_is_refused(tmp_path, where):
    import hashlib

    from safetensors.numpy import load, save

    from glassgpt.weights.run import _manifest
    from glassgpt.weights.safetensors_file import metadata_of

    run = stopped_after(3, small(keep=3), tmp_path / "run")
    path = run.path / "checkpoints" / "step-000003.safetensors"
    tensors, about = load(path.read_bytes()), metadata_of(path)
    tensors[where].flat[0] = np.nan
    path.write_bytes(save(tensors, about))
    hashes = json.loads((run.path / "manifest.json").read_text())["files"]
    hashes["checkpoints/step-000003.safetensors"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (run.path / "manifest.json").write_text(json.dumps(_manifest(hashes)))
    with pytest.raises(NumericalError, match=rf"step-000003\.safetensors: {where} holds NaN or infinity"):
        train(small(keep=3), run.path)


def test_a_run_that_diverges_ends_the_command_with_1(there, tmp_path, capsys):
    command = command_line(there, tmp_path / "run", steps=12, learning_rate=1e30)
    assert main(command) == 1
    assert "not finite" in capsys.readouterr().err
    assert Run(tmp_path / "run").steps[0] == 0


# ---- rotation, and what is left over ---------------------------------------------------------------------------------


def test_of_the_checkpoints_the_newest_and_the_best_are_kept(there, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    monkeypatch.setattr(glassgpt.training.pretrain, "validation_loss", lambda *args, **options: next(losses))
    run = train(full(there / "text.txt", there / "tokens", keep=2), tmp_path / "run")
    assert run.steps == [20, 55, 60]
    files = {path.name for path in (run.path / "checkpoints").iterdir()}
    assert files == {f"step-{step:06d}.safetensors" for step in run.steps}


def test_what_a_crash_left_over_is_taken_away_and_what_is_the_users_is_not(there, tmp_path):
    run = stopped_after(3, small(), tmp_path / "run")
    ours = [
        run.path / ".manifest.json.0a0a0a0a.1.partial",
        run.path / "checkpoints" / ".step-000004.safetensors.0a0a0a0a.1.partial",
        run.path / "checkpoints" / "step-000004.safetensors",
    ]
    mine = [run.path / "notes.txt", run.path / ".my.notes", run.path / "checkpoints" / "best.safetensors"]
    for path in (*ours, *mine):
        path.write_bytes(b"x")
    (run.path / "checkpoints" / "mine").mkdir()
    train(small(), run.path)
    assert not any(path.exists() for path in ours[:2]) and ours[2].read_bytes() != b"x"
    assert all(path.read_bytes() == b"x" for path in mine) and (run.path / "checkpoints" / "mine").is_dir()


# ---- before a run has begun ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("there_before", [False, True])
def test_what_fails_before_a_run_begins_leaves_no_folder_of_ours(tmp_path, there_before):
    text = tmp_path / "empty.txt"
    text.write_text("")
    if there_before:
        (tmp_path / "run").mkdir()
    with pytest.raises(GlassGPTError):
        train(full(text), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt"] + ["run"] * there_before
    assert not there_before or not list((tmp_path / "run").iterdir())
    write_text(text)
    assert train(full(text, steps=1), tmp_path / "run").is_finished


def test_a_text_too_short_for_the_context_blocks_nothing_and_no_file_of_the_users_goes(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("short text")
    with pytest.raises(UsageError, match="context"):
        train(full(text), tmp_path / "run")
    (tmp_path / "run" / "notes.txt").write_text("mine")
    write_text(text)
    assert train(full(text, steps=1), tmp_path / "run").is_finished
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_folder_from_which_a_run_was_killed_before_its_manifest_is_taken_again(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("12345\n")
    (tmp_path / "run" / ".manifest.json.0a0a0a0a.1.partial").write_text("{")
    assert train(small(), tmp_path / "run").is_finished
    assert not list((tmp_path / "run").glob("*.partial")) and not list((tmp_path / "run").glob(".manifest*"))


if __name__ == "__main__":
    _run_as_a_program(Path(sys.argv[1]), sys.argv[2:])
