"""What happens while something is under way, told as server-sent events, and JSON that any parser takes.

An `EventLog` is written by the thread that works and read by the event loop, as often and as late as anybody likes:
a page that is loaded anew reads again what it missed.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEEP_ALIVE = 15.0  # seconds without an event after which a comment is sent, so that nothing between us hangs up


def to_json(content: Any) -> str:
    """JSON in ASCII, so that half a surrogate pair in a hostile text is no trouble. Raises ValueError for NaN."""
    return json.dumps(content, allow_nan=False, separators=(",", ":"))


class Json(Response):
    """A small answer."""

    media_type = "application/json"

    def __init__(self, content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(to_json(content).encode(), status, headers)


@dataclass(frozen=True)
class Event:
    """Something that happened: `data` is what JSON can hold."""

    name: str
    data: Mapping[str, Any]

    def encoded(self) -> bytes:
        r"""The event as the stream has it.

        >>> Event("token", {"text": "a\n"}).encoded()
        b'event: token\ndata: {"text":"a\\n"}\n\n'
        """
        return f"event: {self.name}\ndata: {to_json(self.data)}\n\n".encode()


class EventLog:
    """Events in order, kept. Any thread may add; readers live in event loops."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._news: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}  # of each reader
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._events)

    @property
    def n_readers(self) -> int:
        return len(self._news)

    def add(self, event: Event) -> None:
        with self._lock:
            self._events.append(event)
            self._tell()

    def close(self) -> None:
        """Nothing more will come: readers end once they have read all."""
        with self._lock:
            self.is_closed = True
            self._tell()

    def _tell(self) -> None:
        for news, loop in self._news.items():
            with suppress(RuntimeError):  # a loop that is closed has no reader any more
                loop.call_soon_threadsafe(news.set)

    async def read(self, keep_alive: float = KEEP_ALIVE) -> AsyncGenerator[Event | None, None]:
        """Every event from the first on, as they come; None where none came for `keep_alive` seconds."""
        news = asyncio.Event()
        with self._lock:
            self._news[news] = asyncio.get_running_loop()
        try:
            n_read = 0
            while True:
                news.clear()
                is_last, waiting = self.is_closed, self._events[n_read:]
                for event in waiting:
                    yield event
                n_read += len(waiting)
                if is_last:
                    return
                try:
                    await asyncio.wait_for(news.wait(), keep_alive)
                except TimeoutError:
                    yield None
        finally:
            with self._lock:
                del self._news[news]


class EventStream(Response):
    """An `EventLog` as server-sent events, until it is closed or the client has gone; then `on_leave` is called.

    `wanted` says which events are told.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        log: EventLog,
        *,
        wanted: Callable[[Event], bool] = lambda event: True,
        on_leave: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.log, self.wanted, self.on_leave = log, wanted, on_leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        talking = asyncio.create_task(self._talk(send))
        try:
            await first_of(talking, asyncio.create_task(gone(receive)))
        finally:
            if talking.cancelled() or talking.exception() is not None:
                self.on_leave()

    async def _talk(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self.log.read()) as events:
            async for event in events:
                if event is None:
                    await _send_part(send, b": still here\n\n")
                elif self.wanted(event):
                    await _send_part(send, event.encoded())
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _send_part(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def gone(receive: Receive) -> None:
    """Returns when the client has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def first_of(*tasks: asyncio.Future[Any]) -> None:
    """Wait until one of the tasks is done, and let none of the others go on."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
