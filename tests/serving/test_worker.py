"""Work in a thread: in turns, bounded, given up when nobody waits for it, and never without an end."""

from __future__ import annotations

import threading

import pytest

from glassgpt.errors import UsageError
from glassgpt.serving.events import Event
from glassgpt.serving.refusals import Cancelled, Refusal
from glassgpt.serving.worker import Worker


@pytest.fixture
def worker():
    worker = Worker("a model", most=3)
    yield worker
    worker.close()
    worker.wait_until_closed()


def held(worker):
    """A job that is under way until the event is set."""
    gate, begun = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert gate.wait(20)
        return "done"

    job = worker.submit(work)
    assert begun.wait(20)
    return job, gate


def names(job):
    return [event.name for event in job.events._events]


def test_an_answer_comes_from_another_thread(worker):
    assert worker.submit(threading.get_ident).answer.result(20) != threading.get_ident()


def test_events_come_before_the_answer_which_is_the_last(worker):
    def work():
        yield Event("half", {"n": 1})
        return {"n": 2}

    job = worker.submit(work)
    assert job.answer.result(20) == {"n": 2}
    assert [(event.name, event.data) for event in job.events._events] == [("half", {"n": 1}), ("done", {"n": 2})]
    assert job.events.is_closed


def test_what_goes_wrong_is_the_answer_and_the_worker_goes_on(worker):
    def work():
        yield Event("half", {})
        raise UsageError("not so")

    job = worker.submit(work)
    with pytest.raises(UsageError, match="not so"):
        job.answer.result(20)
    assert names(job) == ["half", "error"] and job.events._events[-1].data["type"] == "usage"
    assert worker.submit(lambda: 3).answer.result(20) == 3


def test_the_queue_is_bounded_and_frees_itself(worker):
    job, gate = held(worker)
    waiting = [worker.submit(lambda: 1) for _ in range(2)]
    with pytest.raises(Refusal, match="3 requests") as refusal:
        worker.submit(lambda: 1)
    assert refusal.value.kind == "busy" and refusal.value.response().headers["retry-after"] == "1"
    assert worker.n_jobs == 3
    gate.set()
    assert [one.answer.result(20) for one in (job, *waiting)] == ["done", 1, 1]
    assert worker.submit(lambda: 2).answer.result(20) == 2 and worker.n_jobs == 0


def test_a_job_that_waits_and_is_cancelled_is_never_begun_and_takes_no_place(worker):
    _, gate = held(worker)
    begun = []
    waiting = [worker.submit(lambda: begun.append(1)) for _ in range(2)]
    waiting[0].cancel()
    with pytest.raises(Cancelled):
        waiting[0].answer.result(0)
    assert names(waiting[0]) == ["error"] and worker.n_jobs == 2
    last = worker.submit(lambda: "last")
    gate.set()
    assert last.answer.result(20) == "last" and begun == [1]


def test_a_job_that_is_under_way_and_is_cancelled_ends_at_its_next_event(worker):
    closed, begun, step = threading.Event(), threading.Event(), threading.Semaphore(0)

    def work():
        try:
            for i in range(1000):
                begun.set()
                assert step.acquire(timeout=20)
                yield Event("token", {"i": i})
        finally:
            closed.set()

    job = worker.submit(work)
    assert begun.wait(20)
    job.cancel()
    assert not job.is_done  # what is under way can't be broken off
    step.release(10)
    with pytest.raises(Cancelled):
        job.answer.result(20)
    assert closed.wait(20) and names(job) == ["token", "error"]
    assert worker.submit(lambda: 4).answer.result(20) == 4


def test_cancelling_what_is_done_changes_nothing(worker):
    job = worker.submit(lambda: 5)
    assert job.answer.result(20) == 5
    job.cancel()
    assert job.answer.result(0) == 5


def test_long_jobs_take_turns_and_short_ones_come_first(worker):
    told, gates = [], {name: threading.Semaphore(0) for name in "ab"}

    def work(name):
        for i in range(3):
            assert gates[name].acquire(timeout=20)
            told.append(f"{name}{i}")
            yield Event("token", {})

    a, b = worker.submit(lambda: work("a")), worker.submit(lambda: work("b"))
    short = worker.submit(lambda: told.append("short"))
    for gate in gates.values():
        gate.release(3)
    for job in (a, b, short):
        job.answer.result(20)
    assert told.index("short") < told.index("a2") and told.index("b0") < told.index("a2") < told.index("b2")


def test_a_worker_that_is_closed_leaves_nobody_waiting():
    worker = Worker("a model")
    job, gate = held(worker)
    waiting = worker.submit(lambda: 1)
    worker.close()
    with pytest.raises(Cancelled):
        waiting.answer.result(0)
    with pytest.raises(Cancelled, match="no more"):
        worker.submit(lambda: 1)
    gate.set()
    worker.wait_until_closed()
    assert job.answer.result(0) == "done" and not worker._thread.is_alive()
