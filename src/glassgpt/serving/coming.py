"""The interface while it is still being made: torch is imported with it, which takes a second and more. The page's
files need not wait for that. What is asked does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from glassgpt.serving.refusals import refusal_of

if TYPE_CHECKING:
    from glassgpt.serving.api import Api
    from glassgpt.serving.sources import Source


class Coming:
    """To the app, an Api like any. `begin` has it made in a thread of its own."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = sources
        self._made: Future[Api] = Future()
        self._made.set_running_or_notify_cancel()  # whoever waits for it can give up waiting, and no more

    def begin(self) -> None:
        threading.Thread(target=self._make, name="interface").start()

    def _make(self) -> None:
        try:
            from glassgpt.serving.api import Api
            from glassgpt.serving.models import Models

            self._made.set_result(Api(Models(self.sources)))
        except BaseException as error:
            self._made.set_exception(error)

    @property
    def api(self) -> Api:
        """Once it is there."""
        return self._made.result()

    def routes(self) -> list[Route]:
        return [Route("/api/v1/{rest:path}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            api = await asyncio.wrap_future(self._made)
        except Exception as error:
            await refusal_of(error).response()(scope, receive, send)
            return
        await Router(api.routes(), redirect_slashes=False)(scope, receive, send)

    def close(self) -> None:
        """Close it, now or as soon as it is there. It is not waited for."""

        def closed(made: Future[Api]) -> None:
            if made.exception() is None:
                made.result().close()

        self._made.add_done_callback(closed)

    def wait_until_closed(self) -> None:
        if self._made.exception() is None:
            self.api.wait_until_closed()
