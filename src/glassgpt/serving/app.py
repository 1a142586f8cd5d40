"""The whole server as one ASGI app: the doors, the interface under /api/v1, and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from glassgpt.serving.guard import Doors, Guard
from glassgpt.serving.refusals import Refusal, answering
from glassgpt.serving.static import Pages

if TYPE_CHECKING:
    from glassgpt.serving.api import Api
    from glassgpt.serving.coming import Coming


def create_app(api: Api | Coming, doors: Doors | None = None, pages: Pages | None = None) -> ASGIApp:
    """The app that serves `api` and `pages` (by default the built page) behind `doors` (by default this machine's)."""
    found = answering((pages or Pages()).answer)

    async def otherwise(request: Request, error: Exception) -> Response:
        """What no route knows: a file of the page, or nothing."""
        assert isinstance(error, HTTPException)
        if error.status_code == 404 and request.method in ("GET", "HEAD"):
            return await found(request)
        if error.status_code == 405:
            what = f"{request.method[:10]!a} is not what this address takes"
            response = Refusal("usage", what, "see /api/v1/info and the documentation", 405).response()
            response.headers.update(error.headers or {})
            return response
        return Refusal("missing", "there is nothing at this address", status=error.status_code).response()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            api.close()
            await asyncio.to_thread(api.wait_until_closed)

    app = Starlette(routes=api.routes(), exception_handlers={HTTPException: otherwise}, lifespan=lifespan)
    app.router.redirect_slashes = False
    return Guard(app, doors or Doors())
