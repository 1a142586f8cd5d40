"""The app in a process: uvicorn on a socket that is open already, until a signal comes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import uvicorn

from glassgpt.serving.app import create_app
from glassgpt.serving.coming import Coming
from glassgpt.serving.guard import Doors

if TYPE_CHECKING:
    from glassgpt.serving.api import Api
    from glassgpt.serving.sources import Source

SECONDS_TO_END = 5  # that answers under way may take once the server is to stop
LONGEST_HEADERS = 64 << 10  # bytes


def serve(sources: Sequence[Source], doors: Doors, sock: socket.socket, on_start: Callable[[], object]) -> None:
    """Serve until Ctrl-C or SIGTERM, which end all streams first and are raised again once all is closed."""
    server(sources, doors, on_start).run(sockets=[sock])


def server(sources: Sequence[Source], doors: Doors, on_start: Callable[[], object] = lambda: None) -> Server:
    coming = Coming(sources)
    config = uvicorn.Config(
        create_app(coming, doors),
        log_level="error",  # nothing that was asked is ever written down
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        http="h11",
        loop="asyncio",
        h11_max_incomplete_event_size=LONGEST_HEADERS,
        timeout_graceful_shutdown=SECONDS_TO_END,
    )
    return Server(config, coming, on_start)


class Server(uvicorn.Server):
    """uvicorn's, that says when it has begun, and lets go of what is under way before it waits for it to end."""

    def __init__(self, config: uvicorn.Config, coming: Coming, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self.coming, self.on_start = coming, on_start

    @property
    def api(self) -> Api:
        """The interface, once it is there."""
        return self.coming.api

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_start()
            self.coming.begin()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.coming.close()
        await super().shutdown(sockets)
