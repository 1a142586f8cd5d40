"""Events for whoever reads, whenever they come, and the end of a client that left."""

from __future__ import annotations

import asyncio
import threading

import pytest
from tests.serving.asking import Visit, events_of, until

from glassgpt.serving.events import Event, EventLog, EventStream


def numbered(i):
    return Event("token", {"i": i})


async def read_all(log, keep_alive=20.0):
    return [event async for event in log.read(keep_alive)]


def test_readers_get_all_events_however_late_they_come():
    async def reading():
        log = EventLog()
        early = asyncio.create_task(read_all(log))
        await until(lambda: log.n_readers == 1)
        writer = threading.Thread(target=lambda: ([log.add(numbered(i)) for i in range(100)], log.close()))
        writer.start()
        first, late = await early, await read_all(log)
        writer.join()
        assert log.n_readers == 0
        return first, late

    first, late = asyncio.run(reading())
    assert first == late == [numbered(i) for i in range(100)]


def test_what_comes_while_one_reads_is_not_lost():
    async def reading():
        log, heard = EventLog(), []
        log.add(numbered(0))
        async for event in log.read():
            heard.append(event)
            if len(heard) < 5:
                log.add(numbered(len(heard)))
            else:
                log.close()
        return heard

    assert asyncio.run(reading()) == [numbered(i) for i in range(5)]


def test_a_reader_hears_that_nothing_has_come():
    async def reading():
        log = EventLog()
        async for event in log.read(0.01):
            return event

    assert asyncio.run(reading()) is None


def test_json_that_is_none_is_never_sent():
    with pytest.raises(ValueError):
        Event("token", {"logprob": float("-inf")}).encoded()


def test_a_stream_ends_with_its_log_and_nobody_is_told_of_leaving():
    log, left = EventLog(), []
    log.add(numbered(1))
    log.add(Event("frame", {"step": 3}))
    log.close()
    stream = EventStream(log, wanted=lambda event: event.name == "token", on_leave=lambda: left.append(1))
    visit = Visit(stream, "/")
    asyncio.run(visit.run())
    assert events_of(visit.text) == [("token", {"i": 1})] and not left
    headers = dict(visit.sent[0]["headers"])
    assert headers[b"content-type"] == b"text/event-stream; charset=utf-8" and headers[b"cache-control"] == b"no-store"
    assert b"content-length" not in headers


def test_a_client_that_leaves_is_noticed_at_once_and_only_once():
    async def leaving():
        log, left = EventLog(), []
        visit = Visit(EventStream(log, on_leave=lambda: left.append(log.n_readers)), "/")
        stay = Visit(EventStream(log, on_leave=lambda: left.append("not I")), "/")
        going, staying = asyncio.create_task(visit.run()), asyncio.create_task(stay.run())
        log.add(numbered(1))
        await until(lambda: "token" in visit.text and "token" in stay.text)
        visit.leaving.set()
        await asyncio.wait_for(going, 5)
        log.add(numbered(2))
        log.close()
        await asyncio.wait_for(staying, 5)
        return left, events_of(stay.text)

    left, heard = asyncio.run(leaving())
    assert left == [1]  # the other reader
    assert heard == [("token", {"i": 1}), ("token", {"i": 2})]


def test_a_client_that_can_not_be_written_to_has_left():
    async def leaving():
        log, left = EventLog(), []
        visit = Visit(EventStream(log, on_leave=lambda: left.append(1)), "/")

        async def refuse(message):
            raise OSError("broken pipe")

        visit.send = refuse
        await asyncio.wait_for(visit.run(), 5)
        return left

    assert asyncio.run(leaving()) == [1]
