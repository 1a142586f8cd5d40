"""A client that goes away, while it waits or is answered, with others beside it: its work ends, theirs goes on."""

from __future__ import annotations

import asyncio

import pytest
from tests.serving.asking import Gate, Visit, as_json, events_of, source_in_memory, until

from glassgpt.decoding.generate import generate
from glassgpt.serving.api import Api
from glassgpt.serving.app import create_app
from glassgpt.serving.models import Models
from glassgpt.serving.sources import untrained_baby

WRITE = {"model": "gate", "ids": [0, 1], "max_new_tokens": 50}
BABY = "baby-gpt-untrained"


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.release(10_000)


@pytest.fixture
def api(gate):
    api = Api(Models([source_in_memory(gate, None, "gate"), untrained_baby()]))
    yield api
    gate.opened.release(10_000)
    api.close()
    api.wait_until_closed()


@pytest.fixture
def app(api):
    return create_app(api)


def worker_of(api, name="gate"):
    return api.models._served[name].worker


def test_a_client_that_leaves_while_it_is_answered_frees_the_worker(api, app, gate):
    async def leaving():
        visit = Visit(app, "/api/v1/generate", WRITE)
        going = asyncio.create_task(visit.run())
        gate.opened.release(3)
        await until(lambda: visit.text.count("event: token") == 3)
        visit.leaving.set()
        await asyncio.wait_for(going, 5)
        gate.opened.release(1)  # the step that was under way
        await until(lambda: worker_of(api).n_jobs == 0)
        assert gate.n_asked == 4
        gate.opened.release(1)
        after = Visit(app, "/api/v1/next", {"model": "gate", "ids": [1]})
        await asyncio.wait_for(after.run(), 5)
        return after.sent[0]["status"]

    assert asyncio.run(leaving()) == 200


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("next", {"model": "gate", "ids": [1]}),
        ("generate", WRITE),
        ("chain", {"model": "gate"}),
        ("pieces", {"model": "gate", "ids": [1]}),
        ("project", {"model": "gate", "ids": [1]}),
    ],
)
def test_a_client_that_leaves_while_it_waits_is_never_answered(api, app, gate, path, content):
    async def leaving():
        first = Visit(app, "/api/v1/next", {"model": "gate", "ids": [0]})
        being_answered = asyncio.create_task(first.run())
        await until(gate.was_asked.is_set)
        visit = Visit(app, f"/api/v1/{path}", content)
        going = asyncio.create_task(visit.run())
        await until(lambda: worker_of(api).n_jobs == 2)
        visit.leaving.set()
        await asyncio.wait_for(going, 5)
        assert worker_of(api).n_jobs == 1
        gate.opened.release(1)
        await asyncio.wait_for(being_answered, 5)
        await until(lambda: worker_of(api).n_jobs == 0)
        return first.sent[0]["status"]

    assert asyncio.run(leaving()) == 200
    assert gate.n_asked == 1


def test_others_are_answered_as_if_they_were_alone(api, app):
    """Twelve clients write at once, every other one leaves after a token; the rest get the text of their seed."""
    model = untrained_baby().read(None, lambda done, total: None)

    async def crowd():
        visits = [
            Visit(app, "/api/v1/generate", {"model": BABY, "ids": [1, 0, 1], "max_new_tokens": 30, "seed": seed})
            for seed in range(12)
        ]
        tasks = [asyncio.create_task(visit.run()) for visit in visits]
        for visit in visits[::2]:
            await until(lambda visit=visit: "event: token" in visit.text)
            visit.leaving.set()
        await asyncio.wait_for(asyncio.gather(*tasks), 30)
        await until(lambda: worker_of(api, BABY).n_jobs == 0)
        return visits

    visits = asyncio.run(crowd())
    for seed, visit in list(enumerate(visits))[1::2]:
        assert events_of(visit.text)[-1][1]["ids"] == generate(model, [1, 0, 1], 30, seed=seed)


def test_too_many_at_once_are_told_to_wait_and_later_are_answered(api, app, gate):
    worker_of(api).most = 3

    async def crowd():
        visits = [Visit(app, "/api/v1/next", {"model": "gate", "ids": [1]}) for _ in range(6)]
        tasks = [asyncio.create_task(visit.run()) for visit in visits]
        await until(lambda: sum(bool(visit.sent) for visit in visits) == 3)
        refused = [visit for visit in visits if visit.sent]
        gate.opened.release(3)
        await asyncio.wait_for(asyncio.gather(*tasks), 10)
        gate.opened.release(1)
        again = Visit(app, "/api/v1/next", {"model": "gate", "ids": [1]})
        await asyncio.wait_for(again.run(), 5)
        return refused, [visit.sent[0]["status"] for visit in visits], again.sent[0]["status"]

    refused, statuses, again = asyncio.run(crowd())
    assert sorted(statuses) == [200] * 3 + [429] * 3 and again == 200
    assert all(dict(visit.sent[0]["headers"])[b"retry-after"] == b"1" for visit in refused)
    assert all('"type":"busy"' in visit.text for visit in refused)


def test_another_model_is_answered_while_one_is_at_work(api, app, gate):
    async def beside():
        held = asyncio.create_task(Visit(app, "/api/v1/next", {"model": "gate", "ids": [0]}).run())
        await until(gate.was_asked.is_set)
        visit = Visit(app, "/api/v1/next", {"model": BABY, "ids": [1]})
        await asyncio.wait_for(visit.run(), 10)
        gate.opened.release(1)
        await held
        return visit.sent[0]["status"]

    assert asyncio.run(beside()) == 200


def test_next_tokens_come_between_the_tokens_of_a_text(api, app, gate):
    async def between():
        writing = Visit(app, "/api/v1/generate", WRITE)
        task = asyncio.create_task(writing.run())
        await until(gate.was_asked.is_set)
        asking = Visit(app, "/api/v1/next", {"model": "gate", "ids": [1]})
        asked = asyncio.create_task(asking.run())
        await until(lambda: worker_of(api).n_jobs == 2)
        gate.opened.release(2)  # a token, and the answer
        await asyncio.wait_for(asked, 5)
        assert "event: done" not in writing.text
        writing.leaving.set()
        await asyncio.wait_for(task, 5)
        return asking.sent[0]["status"]

    assert asyncio.run(between()) == 200


def test_a_job_ends_when_its_last_reader_leaves_or_it_is_dropped(api, app, monkeypatch):
    """Red under way: its second reader leaves, its first too, and another job is dropped."""
    from glassgpt.serving import red

    step = asyncio.Event()

    async def leaving():
        loop = asyncio.get_running_loop()

        def slowly(*arguments):
            asyncio.run_coroutine_threadsafe(step.wait(), loop).result(20)
            return plain(*arguments)

        plain = red.hitting_probability
        monkeypatch.setattr(red, "hitting_probability", slowly)
        ask = {"model": BABY, "pattern": [0], "prompt_ids": [1, 1, 1], "horizon": 50}
        names = []
        for _ in range(2):
            visit = Visit(app, "/api/v1/red", ask)
            await visit.run()
            names.append(visit.text.split('"')[3])
        jobs = [api.jobs[name] for name in names]
        readers = [Visit(app, f"/api/v1/jobs/{names[0]}/events", method="GET") for _ in range(2)]
        tasks = [asyncio.create_task(reader.run()) for reader in readers]
        await until(lambda: jobs[0].events.n_readers == 2)
        readers[0].leaving.set()
        await asyncio.wait_for(tasks[0], 5)
        assert not jobs[0]._is_cancelled
        readers[1].leaving.set()
        await asyncio.wait_for(tasks[1], 5)
        assert jobs[0]._is_cancelled
        dropping = Visit(app, f"/api/v1/jobs/{names[1]}", method="DELETE")
        await dropping.run()
        step.set()
        await until(lambda: worker_of(api, BABY).n_jobs == 0)
        return [job.events._events[-1] for job in jobs]

    for last in asyncio.run(leaving()):
        assert last.name == "error" and last.data["type"] == "cancelled"


class Tower(Gate):
    """A gate with so many states that red is estimated."""

    context_length = 64


@pytest.fixture
def tower(api):
    tower = Tower()
    api.models.add(source_in_memory(tower, None, "tower"))
    yield tower
    tower.opened.release(10_000)


ESTIMATE = {"model": "tower", "pattern": [0, 0], "prompt_ids": [1, 1], "horizon": 50}


def test_an_estimate_ends_at_its_next_token_when_its_reader_leaves(api, app, tower, monkeypatch):
    monkeypatch.setattr("glassgpt.serving.red.PULSE", 0.0)

    async def leaving():
        asking = Visit(app, "/api/v1/red", ESTIMATE)
        await asking.run()
        reading = Visit(app, f"/api/v1/jobs/{as_json(asking.text)['job']}/events", method="GET")
        task = asyncio.create_task(reading.run())
        tower.opened.release(8)  # the prompt and the pattern after it, and some tokens
        await until(lambda: reading.text.count("event: progress") >= 2)
        reading.leaving.set()
        await asyncio.wait_for(task, 5)
        tower.opened.release(4)  # the token that is being read
        await until(lambda: worker_of(api, "tower").n_jobs == 0)
        return tower.n_asked

    assert asyncio.run(leaving()) <= 12


def test_an_estimate_that_nobody_listens_to_is_given_up(api, app, tower, monkeypatch):
    monkeypatch.setattr("glassgpt.serving.api.SECONDS_UNREAD", 0.2)
    monkeypatch.setattr("glassgpt.serving.red.PULSE", 0.0)

    async def unread():
        asking = Visit(app, "/api/v1/red", ESTIMATE)
        await asking.run()
        job = api.jobs[as_json(asking.text)["job"]]
        await until(lambda: job._is_cancelled)
        tower.opened.release(8)
        await until(lambda: worker_of(api, "tower").n_jobs == 0)
        return tower.n_asked

    assert asyncio.run(unread()) <= 8


def test_closing_ends_every_stream(api, app, gate):
    async def closing():
        writing = Visit(app, "/api/v1/generate", WRITE)
        waiting = Visit(app, "/api/v1/next", {"model": "gate", "ids": [1]})
        tasks = [asyncio.create_task(visit.run()) for visit in (writing, waiting)]
        await until(lambda: worker_of(api).n_jobs == 2)
        api.close()
        gate.opened.release(2)
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        return writing, waiting

    writing, waiting = asyncio.run(closing())
    assert events_of(writing.text)[-1][1]["type"] == "cancelled"
    assert waiting.sent[0]["status"] in (200, 503)  # it may have been the one under way
