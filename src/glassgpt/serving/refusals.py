"""What goes wrong, told in one shape by every route: {"error": {"type", "message", "cure"}}."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from glassgpt.errors import GlassGPTError, TooLargeError, UnsupportedError, UsageError
from glassgpt.serving.events import Json

STATUS = {"usage": 400, "missing": 404, "busy": 429, "too_big": 413, "cancelled": 503, "failed": 500}
CURES = {
    "usage": "change what is asked for as the message says",
    "missing": "ask /api/v1/info what there is",
    "busy": "wait a moment, then ask again",
    "too_big": "ask for less, or of a smaller model",
    "cancelled": "ask again if you still want it",
    "failed": "look at the model's files; if they are sound, report this",
}
SECONDS_TO_WAIT = "1"
Handler = Callable[[Request], Awaitable[Response]]


class Refusal(GlassGPTError):
    """A request that is not answered. `kind` is one of STATUS; `status` is its HTTP status unless given."""

    def __init__(self, kind: str, message: str, cure: str = "", status: int | None = None) -> None:
        super().__init__(message)
        self.kind, self.cure, self.status = kind, cure or CURES[kind], status or STATUS[kind]

    def told(self) -> dict[str, str]:
        return {"type": self.kind, "message": str(self), "cure": self.cure}

    def response(self) -> Json:
        headers = {"Retry-After": SECONDS_TO_WAIT} if self.kind == "busy" else {}
        return Json({"error": self.told()}, self.status, headers)


class Cancelled(Refusal):
    """Work that nobody waits for any more."""

    def __init__(self, message: str = "the work was cancelled before it was done") -> None:
        super().__init__("cancelled", message)


def refusal_of(error: BaseException) -> Refusal:
    """Any error as a refusal. Of a defect of ours only its kind is told: its message may be anything."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, UsageError):
        return Refusal("usage", str(error))
    if isinstance(error, UnsupportedError):
        return Refusal("usage", str(error), status=501)
    if isinstance(error, TooLargeError):
        return Refusal("too_big", str(error))
    if isinstance(error, MemoryError):
        return Refusal("too_big", "there is not enough memory for this")
    if isinstance(error, GlassGPTError):
        return Refusal("failed", str(error))
    return Refusal("failed", f"a defect in GlassGPT ({type(error).__name__})", "report it, with what you asked for")


def answering(handler: Handler) -> Handler:
    """The handler, with whatever goes wrong told in the one shape, and nowhere else."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Cancelled("the client has gone").response()
        except Exception as error:
            return refusal_of(error).response()

    return answer
