"""Who may ask. A server on one's own machine can be reached by every web site that one's browser visits, so the names
in `Host` and `Origin` are checked (a site may let its own name point here), and from other machines a key is needed.

Plain ASGI: Starlette's own base for such things hides from a route that its client has gone.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glassgpt.errors import UsageError
from glassgpt.serving.refusals import Refusal

API = "/api/"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
POLICY = "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'"  # CSP
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
SHORTEST_KEY = 8  # characters


@dataclass(frozen=True)
class Doors:
    """What is let in: `host` is where the server listens, `key` what a client must show.

    Raises UsageError for a host that other machines reach if there is no key, or one that is soon guessed.
    """

    host: str = "127.0.0.1"
    key: str | None = None

    def __post_init__(self) -> None:
        key = self.key
        if key is not None and not (len(key) >= SHORTEST_KEY and key.isascii() and key.isprintable()):
            raise UsageError(f"a key needs {SHORTEST_KEY} printable ASCII characters or more: give a longer --key")
        if self.key is None and not is_loopback(self.host):
            raise UsageError(
                f"{self.host} can be reached from other machines, and there is no key: give --key, or leave --host out"
            )

    def refuse_strangers(self, scope: Scope) -> None:
        """Raises Refusal unless the request names this server, comes from its own page or none, and shows the key."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self.is_ours(name_in(host)):
            cure = f"open http://{spelled(self.host)}:PORT, or start the server with --host and --key"
            raise Refusal("usage", f"this server is not {host!r:.80}", cure, 403)
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            raise Refusal("usage", f"pages of {origin!r:.80} may not ask here", "ask from this server's own page", 403)
        if not scope["path"].startswith(API):
            return
        if headers.get("sec-fetch-site") == "cross-site":
            raise Refusal("usage", "pages of other sites may not ask here", "ask from this server's own page", 403)
        if self.key is not None and not self._shows_key(headers.get("authorization", "")):
            raise Refusal("usage", "this server wants its key", "send Authorization: Bearer KEY", 401)

    def is_ours(self, name: str) -> bool:
        """Whether a client may call the server so. One that listens everywhere has names it can't know, and its key."""
        return name in LOOPBACK or name == self.host.lower() or (self.key is not None and not is_loopback(self.host))

    def _shows_key(self, authorization: str) -> bool:
        scheme, _, shown = authorization.partition(" ")
        assert self.key is not None
        return hmac.compare_digest(shown.encode(), self.key.encode()) and scheme.lower() == "bearer"


class Guard:
    """The doors before an app, and the headers that go with every answer."""

    def __init__(self, app: ASGIApp, doors: Doors) -> None:
        self.app, self.doors = app, doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
                if scope["path"].startswith(API):
                    MutableHeaders(scope=message)["Cache-Control"] = "no-store"
            await send(message)

        try:
            self.doors.refuse_strangers(scope)
        except Refusal as refusal:
            await refusal.response()(scope, receive, send_with_headers)
            return
        await self.app(scope, receive, send_with_headers)


def name_in(host: str) -> str:
    """The name in a Host header, without its port.

    >>> name_in("LOCALHOST:8000"), name_in("[::1]:8000"), name_in("[::1"), name_in("::1")
    ('localhost', '::1', '', '')
    """
    if host.startswith("["):
        name, bracket, rest = host[1:].partition("]")
        return name.lower() if bracket and (not rest or rest.startswith(":")) else ""
    name, _, port = host.partition(":")
    return name.lower() if not port or port.isdecimal() else ""


def spelled(host: str) -> str:
    """A host as an address has it: an IPv6 one in brackets."""
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("localhost")
    (True, False, True)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
