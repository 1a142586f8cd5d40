"""Training that one looks on: the project's own, step by step, held, gone on with and stopped."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.serving.asking import HOST, as_json, events_of, numbers_of, refused, tensors_of

from glassgpt.chain.markov import MarkovChain
from glassgpt.errors import UsageError
from glassgpt.models.config import GPTConfig
from glassgpt.models.gpt_torch import GPT
from glassgpt.numerics import log_softmax
from glassgpt.serving import training as serving_training
from glassgpt.serving.api import Api
from glassgpt.serving.app import create_app
from glassgpt.serving.asked import Asked
from glassgpt.serving.models import Models
from glassgpt.serving.recipes import recipe_asked
from glassgpt.serving.sources import untrained_baby
from glassgpt.serving.training import Training, Trainings, frames_wanted
from glassgpt.training.recipe import read_recipe

BABY = {
    "config": {"vocab_size": 2, "context_length": 3, "n_layer": 4, "n_head": 4, "n_embd": 16},
    "sequence": "111101111011110",
    "symbols": None,
    "steps": 50,
    "learning_rate": 1e-3,
    "seed": 1337,
}
TINY = {
    "config": {"vocab_size": 2, "context_length": 2, "n_layer": 1, "n_head": 1, "n_embd": 4},
    "sequence": "0010110",
    "steps": 1000,
    "seed": 3,
}


@pytest.fixture
def api():
    return Api(Models([untrained_baby()]))


@pytest.fixture
def client(api):
    with TestClient(create_app(api), base_url=HOST) as client:
        yield client


def begun(client, **asked) -> str:
    response = client.post("/api/v1/train", json=asked)
    assert response.status_code == 200, response.text
    return as_json(response.content)["run"]


def steered(client, run: str, action: str) -> dict:
    response = client.post(f"/api/v1/train/{run}/{action}")
    assert response.status_code == 200, response.text
    return as_json(response.content)


def all_events(client, run: str, query: str = ""):
    return events_of(client.get(f"/api/v1/train/{run}/events{query}").text)


def until_so(is_so) -> None:
    for _ in range(2000):
        if is_so():
            return
        time.sleep(0.005)
    raise AssertionError("it never came to be so")


@pytest.fixture(scope="module")
def trained():
    """The baby trained through the server: its events, and a client that can still ask of it."""
    api = Api(Models([untrained_baby()]))
    with TestClient(create_app(api), base_url=HOST) as client:
        run = begun(client, **BABY)
        yield client, run, all_events(client, run)


# ---- what is trained -------------------------------------------------------------------------------------------------


def test_the_request_of_the_baby_is_the_babys_recipe():
    asked, baby = recipe_asked(Asked(BABY)), read_recipe("baby")
    same = replace(baby, train=replace(baby.train, precision="float32", compile="no"))
    assert asked == same


def test_every_step_tells_the_loss_that_the_run_folder_has(trained, baby_run):
    _, _, events = trained
    losses = [data["loss"] for name, data in events if name == "step"]
    assert losses == [row["loss"] for row in baby_run.metrics()]
    assert [data["step"] for name, data in events if name == "step"] == list(range(50))


def test_every_frame_is_the_model_of_its_step(trained, baby_run):
    _, _, events = trained
    frames = {data["step"]: numbers_of(data) for name, data in events if name == "frame"}
    assert list(frames) == list(range(51))
    for step in (0, 1, 17, 49, 50):
        assert frames[step].tobytes() == baby_run.model(step).context_table().tobytes()
        assert np.array_equal(log_softmax(frames[step]), MarkovChain.from_model(baby_run.model(step)).logprobs)


def test_frames_and_steps_come_in_their_order(trained):
    _, _, events = trained
    told = [(name, data["step"]) for name, data in events]
    assert told[:4] == [("frame", 0), ("step", 0), ("frame", 1), ("step", 1)]
    assert told[-3:] == [("step", 49), ("frame", 50), ("done", 50)]


def test_the_trained_model_is_served_with_its_steps(trained, baby_run):
    client, run, events = trained
    assert events[-1][1] == {"model": run, "step": 50, "stopped": False}
    (told,) = [m for m in as_json(client.get("/api/v1/info").content)["models"] if m["id"] == run]
    assert told["kind"] == "run" and told["steps"] == list(range(51)) and told["ref"] == run
    assert told["sequence"] == BABY["sequence"] and told["symbols"] == ["0", "1"]
    for step in (None, 0, 33):
        tensors, _ = tensors_of(client.post("/api/v1/chain", json={"model": run, "step": step}))
        assert tensors["logits"].tobytes() == baby_run.model(step).context_table().tobytes()
        assert tensors["counts"].sum() == len(BABY["sequence"]) - 3


def test_a_page_that_is_loaded_anew_reads_what_it_missed(trained):
    client, run, events = trained
    assert all_events(client, run) == events
    late = all_events(client, run, "?after=47")
    assert [(name, data["step"]) for name, data in late] == [
        ("frame", 48), ("step", 48), ("frame", 49), ("step", 49), ("frame", 50), ("done", 50)
    ]  # fmt: skip
    assert [name for name, _ in all_events(client, run, "?after=50")] == ["done"]
    for wrong in ("x", "", "1.5", "9" * 20):
        refused(client.get(f"/api/v1/train/{run}/events?after={wrong}"), 400, "usage")


def test_a_large_table_is_fetched_by_its_frame(client, api, monkeypatch):
    monkeypatch.setattr(serving_training, "INLINE", 7)
    run = begun(client, **{**TINY, "steps": 40})
    events = all_events(client, run)
    frames = [data for name, data in events if name == "frame"]
    steps = [data["step"] for data in frames]
    assert steps[0] == 0 and steps[-1] == 40 and len(steps) < 41 and steps[:5] == [0, 1, 2, 3, 4]
    assert all("logits" not in data for data in frames)
    last, about = tensors_of(client.get(frames[-1]["url"]))
    expected, _ = tensors_of(client.post("/api/v1/chain", json={"model": run}))
    assert last["logits"].tobytes() == expected["logits"].tobytes() and as_json(about["step"]) == 40
    refused(client.get(f"/api/v1/train/{run}/frames/39"), 404, "missing")


def test_what_is_kept_of_frames_is_bounded():
    big = GPTConfig(64, 2, 1, 1, 4)
    recipe = replace(read_recipe("baby"), model=big, train=replace(read_recipe("baby").train, steps=2000))
    assert 40 < len(frames_wanted(recipe)) < 100 and {0, 2000} <= frames_wanted(recipe)
    widest = frames_wanted(replace(recipe, model=GPTConfig(256, 2, 1, 1, 4)))
    assert {0, 2000} <= widest and len(widest) * 256**3 <= serving_training.FRAMES
    assert not frames_wanted(replace(recipe, model=GPTConfig(2, 17, 1, 1, 4)))


def test_symbols_may_be_given_in_any_way(client):
    for symbols in ("ab", ["a", "b"]):
        run = begun(client, **{**TINY, "steps": 1, "sequence": "abbab", "symbols": symbols})
        assert all_events(client, run)[-1][0] == "done"
        told = client.post("/api/v1/tokenize", json={"model": run, "text": "ba"})
        assert as_json(told.content)["ids"] == [1, 0]


def test_a_long_sequence_is_trained_on_by_drawing_windows():
    assert recipe_asked(Asked({**TINY, "sequence": "01" * 128})).train.batch_size is None
    assert recipe_asked(Asked({**TINY, "sequence": "01" * 130})).train.batch_size == 256
    assert recipe_asked(Asked({**TINY, "steps": 1000})).train.save_every == 10


# ---- held, gone on with, stopped -------------------------------------------------------------------------------------


def test_a_training_is_held_stepped_and_gone_on_with(client, api):
    run = begun(client, **TINY)
    training = api.trainings[run]
    assert steered(client, run, "pause")["state"] == "paused"
    n = -1

    def has_stopped():
        nonlocal n
        before, n = n, training.n_made
        time.sleep(0.05)
        return before == n

    until_so(has_stopped)
    assert n < 1000
    for i in (1, 2):
        assert steered(client, run, "step")["run"] == run
        until_so(lambda i=i: training.n_made == n + i)
    time.sleep(0.05)
    assert training.n_made == n + 2 and not training.is_done
    assert steered(client, run, "pause") == {"run": run, "state": "paused", "step": n + 2}
    assert steered(client, run, "resume")["state"] == "running"
    until_so(lambda: training.n_made > n + 10)
    steered(client, run, "stop")
    name, done = all_events(client, run)[-1]
    assert name == "done" and done["stopped"] and done["step"] < 1000
    assert steered(client, run, "resume")["state"] == "done"


def test_held_or_not_the_numbers_are_the_same(client, api):
    plain = all_events(client, begun(client, **{**TINY, "steps": 12}))
    run = begun(client, **{**TINY, "steps": 12})
    for action in ("pause", "step", "step", "pause", "resume"):
        steered(client, run, action)
    held = all_events(client, run)
    assert held[:-1] == plain[:-1]


def test_what_was_stopped_is_served_as_it_was_then(client, api):
    run = begun(client, **TINY)
    steered(client, run, "pause")
    until_so(lambda: api.trainings[run].events._events)  # there is something to see before the first step
    steered(client, run, "stop")
    events = all_events(client, run)
    done = events[-1][1]
    assert done["stopped"] and events[-1][0] == "done"
    tensors, _ = tensors_of(client.post("/api/v1/chain", json={"model": run}))
    last = [numbers_of(data) for name, data in events if name == "frame"][-1]
    assert tensors["logits"].tobytes() == last.tobytes()


def test_a_training_that_is_held_and_looked_at_by_nobody_is_stopped(client, api, monkeypatch):
    monkeypatch.setattr(serving_training, "SECONDS_ALONE", 1.0)
    run = begun(client, **TINY)
    steered(client, run, "pause")
    until_so(lambda: api.trainings[run].is_done)
    assert all_events(client, run)[-1][1]["stopped"]


def test_models_are_read_while_one_is_trained(client, api):
    run = begun(client, **TINY)
    steered(client, run, "pause")
    until_so(lambda: api.trainings[run].events._events)
    tensors_of(client.post("/api/v1/next", json={"model": "baby-gpt-untrained", "ids": [1]}))
    assert not api.trainings[run].is_done  # it was not waited for


def test_only_so_many_train_at_once(client, api):
    runs = [begun(client, **TINY) for _ in range(2)]
    for run in runs:
        steered(client, run, "pause")
    refused(client.post("/api/v1/train", json=TINY), 429, "busy")
    steered(client, runs[0], "stop")
    until_so(lambda: api.trainings[runs[0]].is_done)
    third = begun(client, **{**TINY, "steps": 1})
    assert all_events(client, third)[-1][0] == "done"
    refused(client.post(f"/api/v1/train/{third}/explode"), 404, "missing")


def test_the_oldest_is_forgotten_with_its_files(client, api, monkeypatch):
    monkeypatch.setattr(serving_training, "MOST_KEPT", 2)
    runs = []
    for _ in range(3):
        runs.append(begun(client, **{**TINY, "steps": 1}))
        assert all_events(client, runs[-1])[-1][0] == "done"
    refused(client.get(f"/api/v1/train/{runs[0]}/events"), 404, "missing")
    refused(client.post("/api/v1/next", json={"model": runs[0], "ids": [1]}), 404, "missing")
    tensors_of(client.post("/api/v1/next", json={"model": runs[2], "ids": [1]}))
    assert sorted(path.name for path in api.trainings._folder.iterdir()) == runs[1:]


def test_a_training_that_fails_says_so(client, monkeypatch):
    def fails(*arguments, **options):
        raise UsageError("the disk is full of frogs")

    monkeypatch.setattr(serving_training, "train", fails)
    run = begun(client, **TINY)
    name, told = all_events(client, run)[-1]
    assert name == "error" and (told["type"], told["message"]) == ("usage", "the disk is full of frogs")


def test_trainings_and_loads_draw_their_own_weights(api, tmp_path):
    """Each begins with the weights of its seed, whatever is drawn beside it."""
    done = []
    recipes = [recipe_asked(Asked({**BABY, "steps": 1, "seed": seed})) for seed in range(6)]
    all_of_them = [
        Training(f"t{seed}", recipe, tmp_path / f"t{seed}", lambda training, run: done.append(run))
        for seed, recipe in enumerate(recipes)
    ]
    for training in all_of_them:
        training.start()
    for training in all_of_them:
        training.wait_until_done(60)
    for seed, training in enumerate(all_of_them):
        frame = next(event.data for event in training.events._events if event.name == "frame")
        assert numbers_of(frame).tobytes() == GPT(recipes[seed].model, seed=seed).context_table().tobytes()


def test_closing_stops_all_and_leaves_no_file(api):
    trainings = Trainings(api.models)
    trainings.begin(recipe_asked(Asked(TINY)))
    folder = trainings._folder
    assert isinstance(folder, Path) and folder.exists()
    trainings.close()
    trainings.wait_until_closed()
    assert not folder.exists() and all(training.is_done for training in trainings._all.values())
