"""What the lessons ask the server for: the net that reads digits, and the loss around a training's path."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.serving.asking import HOST, Visit, as_json, events_of, refused, tensors_of, until

from glassgpt.errors import UsageError
from glassgpt.evaluation.digits import blur, digit_map, digit_net
from glassgpt.evaluation.landscape import parameters_of, random_landscape, trajectory_landscape
from glassgpt.serving import landscape
from glassgpt.serving.api import Api
from glassgpt.serving.app import create_app
from glassgpt.serving.models import Models
from glassgpt.serving.sources import source_of, source_of_run
from glassgpt.training.landscape import windows_of
from glassgpt.weights.run import Run

BABY, SIZE = "baby", 9  # of a grid that is measured in a second
N_PATH = 51 + 2 * 51 + SIZE**2  # steps read, and losses


@pytest.fixture(scope="module", autouse=True)
def small_grids():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landscape, "SIZE", SIZE)
        yield


# ---- digits ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net():
    pytest.importorskip("sklearn")
    return digit_net()


def test_the_net_that_is_sent_is_the_one_that_python_trains(ask, net):
    tensors, about = tensors_of(ask("lessons/digits"))
    for name, value in net.net.named_parameters():
        assert tensors[name].tobytes() == value.detach().numpy().tobytes()
    assert np.array_equal(tensors["images"] / as_json(about["darkest"]), net.held_out.images)
    assert np.array_equal(tensors["labels"], net.held_out.labels)
    assert (as_json(about["n_parameters"]), as_json(about["n_training"])) == (2410, 1297)
    assert as_json(about["right"]) == [net.right.value, net.right.low, net.right.high] and as_json(about["seed"]) == 0


def test_its_answers_blurred_too_and_its_map_can_be_made_of_what_is_sent_alone(ask, net):
    sent, about = tensors_of(ask("lessons/digits", seed=0))
    image = blur(sent["images"][7] / 16, 0.8)
    units = np.maximum(sent["layers.0.weight"].astype(np.float64) @ image.ravel() + sent["layers.0.bias"], 0)
    powers = np.exp(sent["layers.1.weight"].astype(np.float64) @ units + sent["layers.1.bias"])
    np.testing.assert_allclose(powers / powers.sum(), net.probabilities(image)[0], rtol=1e-10)
    layout = digit_map(net)
    np.testing.assert_allclose(sent["axes"] @ (units - sent["mean"]), layout.place(net.hidden(image))[0], atol=1e-10)
    assert as_json(about["explained"]) == layout.explained.tolist()


def test_a_net_is_trained_once_and_another_seed_is_another_net(ask, client, net, monkeypatch):
    from glassgpt.evaluation import digits

    trained = []
    monkeypatch.setattr(digits, "digit_net", lambda seed: trained.append(seed) or net)
    fresh = TestClient(create_app(Api(Models([]))), base_url=HOST)
    first, again, other = (fresh.post("/api/v1/lessons/digits", json={"seed": seed}) for seed in (5, 5, 6))
    assert trained == [5, 6] and first.content == again.content != other.content


def test_without_scikit_learn_it_is_told_how_to_install_it(monkeypatch):
    from glassgpt.evaluation import digits

    def missing(seed):
        raise UsageError("the digits are scikit-learn's, which is not installed")

    monkeypatch.setattr(digits, "digit_net", missing)
    fresh = TestClient(create_app(Api(Models([]))), base_url=HOST)
    error = refused(fresh.post("/api/v1/lessons/digits", json={}), 501, "missing")
    assert "pip install" in error["cure"]


@pytest.mark.parametrize("content", [{"seed": -1}, {"seed": 0.5}, {"seed": "0"}, {"seed": 1 << 54}, {"hidden": 3}])
def test_questions_about_digits_are_read_strictly(content, ask):
    refused(ask("lessons/digits", **content), 400, "usage")


def test_others_are_answered_while_a_net_is_trained_and_who_leaves_is_not_waited_for(net, monkeypatch):
    from glassgpt.evaluation import digits

    begun, let = threading.Event(), threading.Event()

    def slowly(seed):
        begun.set()
        assert let.wait(20)
        return net

    monkeypatch.setattr(digits, "digit_net", slowly)
    api = Api(Models([]))
    app = create_app(api)

    async def beside():
        first, second = (Visit(app, "/api/v1/lessons/digits", {"seed": seed}) for seed in (1, 2))
        tasks = [asyncio.create_task(visit.run()) for visit in (first, second)]
        await until(begun.is_set)
        info = Visit(app, "/api/v1/info", method="GET")
        await asyncio.wait_for(info.run(), 5)
        second.leaving.set()  # which has not begun
        await asyncio.wait_for(tasks[1], 5)
        let.set()
        await asyncio.wait_for(tasks[0], 10)
        return info.sent[0]["status"], first.sent[0]["status"]

    assert asyncio.run(beside()) == (200, 200)
    assert list(api.digits._kept) == [1]
    api.close()
    api.wait_until_closed()


# ---- the landscape ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def job_events(client, ask):
    def events(path="landscape", **content):
        response = ask(path, **content)
        assert response.status_code == 200, response.text
        return events_of(client.get(f"/api/v1/jobs/{as_json(response.content)['job']}/events").text)

    return events


@pytest.fixture(scope="module")
def told(job_events):
    return job_events(model=BABY)


def test_the_landscape_of_a_path_is_pythons(told, baby_run):
    models = [baby_run.model(step) for step in baby_run.steps]
    loss = windows_of(baby_run).loss(models[-1])
    land = trajectory_landscape([parameters_of(model) for model in models], loss, baby_run.steps, SIZE)
    name, content = told[-1]
    assert name == "done" and content["steps"] == list(range(51)) and content["n_tokens"] == 12
    for field in ("across", "up", "losses", "path", "path_losses", "shadow_losses", "off_plane", "explained"):
        np.testing.assert_allclose(content[field], getattr(land, field), rtol=1e-12, atol=1e-12, err_msg=field)
    assert content["travelled"] == pytest.approx(land.travelled) and content["n_parameters"] == 12_656
    assert content["random_walk"] == pytest.approx(land.random_walk)
    written = [row["loss"] for row in baby_run.metrics()]
    np.testing.assert_allclose(content["path_losses"][:-1], written, atol=1e-6)


def test_it_tells_how_far_it_is(told):
    progress = [content for name, content in told if name == "progress"]
    assert [name for name, _ in told] == ["progress"] * len(progress) + ["done"]
    done = [content["done"] for content in progress]
    assert done == sorted(done) and done[:51] == list(range(1, 52)) and done[-1] == N_PATH
    assert {content["total"] for content in progress} == {N_PATH}


@pytest.mark.parametrize("step", [None, 7])
def test_around_a_step_the_directions_are_pythons_of_the_seed(step, job_events, baby_run):
    content = job_events(model=BABY, step=step, plane="random", seed=3)[-1][1]
    model = baby_run.model(step)
    land = random_landscape(parameters_of(model), windows_of(baby_run).loss(model), step or 50, SIZE, seed=3)
    np.testing.assert_allclose(content["losses"], land.losses, rtol=1e-12)
    assert content["path"] == [[0, 0]] and content["steps"] == [step or 50] and content["explained"] is None
    np.testing.assert_allclose(content["path_losses"], land.path_losses, rtol=1e-12)


def test_what_is_infinite_is_null(monkeypatch, job_events):
    from glassgpt.training.landscape import Windows

    losses = iter([1.0, np.inf, np.nan] + [2.0] * SIZE**2)
    monkeypatch.setattr(Windows, "loss", lambda self, model: lambda state: next(losses))
    content = job_events(model=BABY, plane="random")[-1][1]
    assert content["path_losses"] == [1.0] and content["losses"][0][:3] == [None, None, 2.0]


def test_a_model_that_is_no_run_is_refused_with_how_to_make_one(ask):
    error = refused(ask("landscape", model="baby-gpt-untrained"), 400, "usage")
    assert "no run" in error["message"] and "glassgpt train recipes/baby.toml" in error["cure"]


@pytest.mark.parametrize("content", [{"plane": "flat"}, {"plane": 1}, {"seed": -1}, {"step": 99}, {"size": 9}])
def test_questions_about_a_landscape_are_read_strictly(content, ask):
    assert ask("landscape", model=BABY, **content).status_code in (400, 404)


@pytest.mark.parametrize(("bound", "value"), [("MOST_NUMBERS", 51 * 12_655), ("MOST_WORK", 10**6)])
def test_what_would_take_too_long_or_too_much_is_refused_with_numbers(bound, value, monkeypatch, job_events):
    monkeypatch.setattr(landscape, bound, value)
    name, error = job_events(model=BABY)[-1]
    assert name == "error" and error["type"] == "too_big"
    assert "12,656 parameters" in error["message"] and "glassgpt see landscape" in error["cure"]


def test_a_run_that_kept_too_few_steps_is_told_so(job_events, api, baby_run):
    few = source_of_run(baby_run, title="few")

    class Few(Run):
        steps = (0, 50)

    api.models.add(replace(few, run=Few(baby_run.path)))
    try:
        name, error = job_events(model="few")[-1]
        assert name == "error" and "a path needs 3 or more" in error["message"]
    finally:
        api.models.remove("few")


def test_it_ends_when_nobody_looks_on_and_next_tokens_come_in_between(baby_run, monkeypatch):
    monkeypatch.setattr(landscape, "TURN", 0.0)  # a loss a turn
    api = Api(Models([source_of(str(baby_run.path))]))
    app = create_app(api)

    async def leaving():
        asking = Visit(app, "/api/v1/landscape", {"model": BABY})
        await asking.run()
        (job,) = api.jobs.values()
        reader = Visit(app, f"/api/v1/jobs/{next(iter(api.jobs))}/events", method="GET")
        task = asyncio.create_task(reader.run())
        await until(lambda: len(job.events) > 60)
        between = Visit(app, "/api/v1/next", {"model": BABY, "ids": [1, 0, 1]})
        await asyncio.wait_for(between.run(), 10)
        is_under_way = not job.is_done
        reader.leaving.set()
        await asyncio.wait_for(task, 5)
        await until(lambda: job.is_done)
        return between.sent[0]["status"], is_under_way, job.events._events[-1]

    status, is_under_way, last = asyncio.run(leaving())
    assert status == 200 and is_under_way and last.name == "error" and last.data["type"] == "cancelled"
    api.close()
    api.wait_until_closed()
