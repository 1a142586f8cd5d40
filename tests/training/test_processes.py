"""Training in several processes is training in one: the same losses, however many, and one folder in which to go on."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from glassgpt.training.loop import train
from glassgpt.training.processes import Processes
from glassgpt.training.recipe import read_recipe
from glassgpt.weights.run import Run

JOBS = Path(__file__).with_name("distributed_jobs.py")
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "two", "red", "birds", "fly", "over", "green", "hills"]
RECIPE = """
[data]
files = "{text}"
vocabulary = "characters"
tokens = "{tokens}"

[model]
context_length = 16
n_layer = 2
n_head = 2
n_embd = 16

[train]
steps = 12
batch_size = 7
micro_batch_size = 2
dropout = 0.1
learning_rate = 1e-2
save_every = 4

[evaluate]
every = 6
tokens = 1000
sample_tokens = 5
"""
KINDS = ("copies", "shards")
SHARD, MUON = "train.shard=true", "train.optimizer=muon"
STEPS = 12


def torchrun(count, *arguments, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return subprocess.Popen([*command, *map(str, arguments)], env=environment, text=True, **options)


def run_jobs(count, jobs, folder):
    """What each job gave in each process: [job][rank]."""
    folder.mkdir()
    (folder / "jobs.json").write_text(json.dumps(jobs))
    launched = torchrun(count, JOBS, folder / "jobs.json", folder, stderr=subprocess.PIPE)
    _, errors = launched.communicate(timeout=300)
    assert launched.returncode == 0, errors
    return [[json.loads((folder / f"{i}-{rank}.json").read_text()) for rank in range(count)] for i in range(len(jobs))]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    rng = np.random.default_rng(0)
    lines = (" ".join(rng.choice(WORDS, 12)) for _ in range(200))
    (folder / "text.txt").write_text("\n".join(lines))
    (folder / "recipe.toml").write_text(RECIPE.format(text=folder / "text.txt", tokens=folder / "tokens"))
    return folder


@pytest.fixture(scope="module")
def alone(place):
    return train(read_recipe(place / "recipe.toml"), place / "alone", device="cpu")


@pytest.fixture(scope="module")
def alone_muon(place):
    return train(read_recipe(place / "recipe.toml", [MUON]), place / "alone muon", device="cpu")


def job(place, out, *overrides, **options):
    return {"recipe": str(place / "recipe.toml"), "set": overrides, "out": str(place / out), **options}


@pytest.fixture(scope="module")
def three(place, alone):
    """Most of what is asked of many processes, at a count that deals 7 rows out unevenly."""
    begun = train_until(5, place, "1 stopped")
    jobs = {
        "copies": job(place, "3 copies"),
        "copies stopped": job(place, "3 copies stopped", stop=5),
        "copies again": job(place, "3 copies stopped"),
        "shards": job(place, "3 shards", SHARD),
        "shards stopped": job(place, "3 shards stopped", SHARD, stop=5),
        "shards again": job(place, "3 shards stopped", SHARD),
        "of one, refused": job(place, begun),
        "of one": job(place, begun, allow_changes=True),
        "muon": job(place, "3 muon", SHARD, MUON),
        "not a number": job(place, "3 nan", nan=10),
        "occupied": job(place, "jobs of 3"),
        "uneven": {"vocab_size": 50257},
    }
    return dict(zip(jobs, run_jobs(3, list(jobs.values()), place / "jobs of 3"), strict=True))


@pytest.fixture(scope="module")
def two(place, alone):
    jobs = {
        "copies": job(place, "2 copies"),
        "shards": job(place, "2 shards", SHARD),
        "muon": job(place, "2 muon", SHARD, MUON),
        "stopped": job(place, "2 stopped", stop=7),
        "uneven": {"vocab_size": 50257},
    }
    return dict(zip(jobs, run_jobs(2, list(jobs.values()), place / "jobs of 2"), strict=True))


def train_until(step, place, out):
    from glassgpt.training.loop import Interrupted, Watch

    asked = iter(range(10**9))
    with pytest.raises(Interrupted):
        watch = Watch(should_stop=lambda: next(asked) == step)
        train(read_recipe(place / "recipe.toml"), place / out, watch=watch, device="cpu")
    return out


def losses(run):
    return [row["loss"] for row in run.metrics()]


# ---- the same losses -------------------------------------------------------------------------------------------------


def check_losses(columns):
    """Print them side by side, and hold them to the first column's."""
    print("\nstep  " + "".join(f"{name:>12}" for name in columns))
    for row in zip(range(STEPS), *columns.values(), strict=True):
        print(f"{row[0]:4}  " + "".join(f"{loss:12.7f}" for loss in row[1:]))
    first = next(iter(columns.values()))
    for name, column in columns.items():
        np.testing.assert_allclose(column, first, rtol=0, atol=1e-6, err_msg=name)
    assert first[-1] < first[0] - 0.2  # something was learnt


def test_one_and_three_processes_give_the_same_losses(alone, three):
    check_losses({"1": losses(alone)} | {f"3 {kind}": three[kind][0]["losses"] for kind in KINDS})


@pytest.mark.slow
def test_one_and_two_processes_give_the_same_losses(alone, two):
    check_losses({"1": losses(alone)} | {f"2 {kind}": two[kind][0]["losses"] for kind in KINDS})


@pytest.mark.parametrize("kind", KINDS)
def test_every_process_tells_of_the_same_run(three, kind):
    assert three[kind][0] == three[kind][1] == three[kind][2]
    assert three[kind][0]["kept"] == [0, 4, 6, 8, 12]


@pytest.mark.parametrize("kind", KINDS)
def test_validation_and_samples_are_those_of_one_process(place, alone, three, kind):
    expected, found = alone.evaluations(), Run(place / f"3 {kind}").evaluations()
    assert [row["sample"] for row in found] == [row["sample"] for row in expected]
    np.testing.assert_allclose(
        [row["validation_loss"] for row in found], [row["validation_loss"] for row in expected], rtol=0, atol=1e-6
    )


def test_muon_of_a_spread_matrix_is_muon_of_the_whole_one(alone_muon, three):
    np.testing.assert_allclose(three["muon"][0]["losses"], losses(alone_muon), rtol=0, atol=1e-6)


def test_a_vocabulary_that_cannot_be_divided_is_spread_all_the_same(three):
    check_uneven(three["uneven"])


@pytest.mark.slow
def test_a_vocabulary_that_two_cannot_divide_is_spread_all_the_same(two):
    check_uneven(two["uneven"])


def check_uneven(found):
    expected = runpy.run_path(str(JOBS))["three_steps"](50257, Processes())
    np.testing.assert_allclose(found[0]["losses"], expected["losses"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[0]["weights"], expected["weights"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found[0]["optimizer"], expected["optimizer"], rtol=0, atol=1e-5)
    assert not any(each["weights"] for each in found[1:])


# ---- going on --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_three_processes_that_were_stopped_go_on_bit_for_bit(place, three, kind):
    assert {each["error"] for each in three[f"{kind} stopped"]} == {"Interrupted"}
    for name in ("model.safetensors", "metrics.jsonl", "checkpoints/step-000012.safetensors"):
        uninterrupted, stopped = place / f"3 {kind}" / name, place / f"3 {kind} stopped" / name
        assert uninterrupted.read_bytes() == stopped.read_bytes(), name


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_stopped(place, alone, two):
    assert two["stopped"][0]["error"] == "Interrupted"
    assert 4 < Run(place / "2 stopped").steps[-1] < STEPS
    run = train(read_recipe(place / "recipe.toml"), place / "2 stopped", device="cpu", allow_changes=True)
    np.testing.assert_allclose(losses(run), losses(alone), rtol=0, atol=1e-6)


def test_three_processes_go_on_where_one_was_stopped_if_that_is_allowed(alone, three):
    refused = three["of one, refused"]
    assert [each["is_told"] for each in refused].count(False) == 1
    assert "was begun with processes = 1, and now it is 3" in next(e["message"] for e in refused if not e["is_told"])
    np.testing.assert_allclose(three["of one"][0]["losses"], losses(alone), rtol=0, atol=1e-6)


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_in_one_process_stops_all_and_nothing_is_saved(place, three):
    assert {each["error"] for each in three["not a number"]} == {"NumericalError"}
    assert sorted(each["is_told"] for each in three["not a number"]) == [False, True, True]
    run = Run(place / "3 nan")
    assert run.steps == [0, 4] and all(value.isfinite().all() for value in run.model().parameters())
    assert np.isfinite(losses(run)).all()


def test_what_the_first_process_refuses_ends_all_and_is_told_once(three):
    first, *others = three["occupied"]
    assert first["error"] == "UsageError" and not first["is_told"] and "not a run folder" in first["message"]
    assert all(each["is_told"] for each in others)


def test_rows_are_dealt_out_once_each_in_equally_many_parts():
    for n_rows, count, at_once in ((7, 3, 2), (7, 3, 1), (2, 3, None), (12, 4, 5), (1, 1, None)):
        dealt = [Processes(rank, count).parts(n_rows, at_once) for rank in range(count)]
        assert len({len(parts) for parts in dealt}) == 1
        assert [row for parts in dealt for part in parts for row in part] == list(range(n_rows))
        assert all(len(part) <= (at_once or n_rows) for parts in dealt for part in parts)


# ---- faults, from the command line -----------------------------------------------------------------------------------


def launch(place, count, out, *overrides):
    settings = [part for override in overrides for part in ("--set", override)]
    arguments = ("-m", "glassgpt", "train", place / "recipe.toml", "--out", place / out, *settings)
    return torchrun(count, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


LONG = ("train.steps=100000", "train.keep=3", "evaluate.every=100000")


def wait_for_steps(run):
    """Until a few checkpoints are written."""
    for _ in range(600):
        if (run / "manifest.json").exists() and len(list((run / "checkpoints").glob("*000012*"))):
            return
        time.sleep(0.1)
    raise AssertionError("it never came to step 12")


def ours(errors):
    return [line for line in errors.splitlines() if line.startswith("glassgpt train:")]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), (SHARD,)], ids=KINDS)
def test_a_killed_process_ends_the_others_and_the_run_goes_on(place, overrides):
    out = f"killed {len(overrides)}"
    launched = launch(place, 2, out, *LONG, *overrides)
    wait_for_steps(place / out)
    workers = [child for child in psutil.Process(launched.pid).children(recursive=True) if "train" in child.cmdline()]
    victim = next(child for child in workers if child.environ()["RANK"] == "1")
    began = time.monotonic()
    victim.send_signal(signal.SIGKILL)
    _, errors = launched.communicate(timeout=60)
    assert launched.returncode != 0 and not any(worker.is_running() for worker in workers)
    print(f"all ended {time.monotonic() - began:.1f} s after the kill")
    assert len(ours(errors)) == 1 and "another process of this training has ended" in ours(errors)[0]
    kept = Run(place / out).steps[-1]
    again = launch(place, 2, out, *LONG, *overrides)
    while not (place / out / f"checkpoints/step-{kept + 8:06d}.safetensors").exists():
        assert again.poll() is None, again.communicate()
        time.sleep(0.1)
    again.send_signal(signal.SIGTERM)  # torchrun tells its processes, which save
    _, errors = again.communicate(timeout=60)
    assert len(ours(errors)) == 1 and "and saved" in ours(errors)[0]
    assert [row["step"] for row in Run(place / out).metrics()] == list(range(Run(place / out).steps[-1]))


@pytest.mark.slow
def test_an_error_is_one_line_of_ours_however_many_processes(place):
    launched = launch(place, 3, "no text", "data.files=nowhere.txt", "data.tokens=")
    _, errors = launched.communicate(timeout=60)
    assert launched.returncode != 0
    assert len(ours(errors)) == 1 and "nowhere.txt" in ours(errors)[0]
