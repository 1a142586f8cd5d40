"""Reading what was asked: strict JSON of a bounded size, and each value of the kind and range that it must have.

What nobody asked about is refused by name rather than ignored: a misspelt `temprature` would else be answered with
numbers that look right.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, NoReturn

from starlette.requests import Request

from glassgpt.serving.refusals import Refusal

MOST_BYTES = 8 << 20  # of a request's body
MOST_IDS = 1 << 20  # token ids in one request
LARGE = 1 << 18  # bytes that would hold up the event loop
SECONDS_FOR_BODY = 30.0
SHOWN = 60  # characters of a wrong value


class Asked:
    """The object that a request holds. Each value is taken once; `nothing_else` refuses what is left."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._left = dict(content)

    def take(self, name: str, default: Any = ...) -> Any:
        """The value as it is. Without a default it must be there."""
        if name not in self._left and default is ...:
            raise Refusal("usage", f"the request lacks {name!r}", f"add {name!r}")
        return self._left.pop(name, default)

    def has(self, name: str) -> bool:
        """Whether a value that may be left out is there, and is not null."""
        if self._left.get(name) is not None:
            return True
        self._left.pop(name, None)
        return False

    def whole(self, name: str, low: int, high: int, default: Any = ...) -> int:
        value = self.take(name, default)
        if type(value) is not int or not low <= value <= high:
            _refuse(name, f"a whole number from {low:,} to {high:,}", value)
        return value

    def number(self, name: str, low: float, high: float, default: Any = ...) -> float:
        value = self.take(name, default)
        if type(value) not in (int, float) or not low <= value <= high:
            _refuse(name, f"a number from {low:g} to {high:g}", value)
        return float(value)

    def text(self, name: str, default: Any = ...) -> str:
        """A text that is one: half a surrogate pair is no character."""
        value = self.take(name, default)
        if not isinstance(value, str):
            _refuse(name, "a text", value)
        _refuse_half_a_pair(name, value)
        return value

    def texts(self, name: str, most: int) -> list[str]:
        values = self.take(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values) or len(values) > most:
            _refuse(name, f"a list of up to {most} texts", values)
        for value in values:
            _refuse_half_a_pair(name, value)
        return values

    def ids(self, name: str, vocab_size: int, *, least: int = 1, most: int = MOST_IDS) -> list[int]:
        """Token ids, `least` to `most` of them."""
        values = self.take(name)
        if not isinstance(values, list) or not all(type(value) is int for value in values):
            _refuse(name, "a list of token ids", values)
        if len(values) < least:
            _refuse(name, f"{least} token ids at least", values)
        if len(values) > most:
            raise Refusal("too_big", f"{name} holds {len(values):,} token ids, and at most {most:,} are taken")
        wrong = next((value for value in values if not 0 <= value < vocab_size), None)
        if wrong is not None:
            _refuse(name, f"ids of a vocabulary of {vocab_size:,} tokens, 0 to {vocab_size - 1:,}", wrong)
        return values

    def part(self, name: str) -> Asked:
        """An object inside the object."""
        value = self.take(name)
        if not isinstance(value, dict):
            _refuse(name, "an object", value)
        return Asked(value)

    def nothing_else(self) -> None:
        if self._left:
            name = f"{next(iter(self._left))!r:.{SHOWN}}"
            raise Refusal("usage", f"the request says {name}, which means nothing here", "leave it out")


def _refuse(name: str, expected: str, got: Any) -> NoReturn:
    raise Refusal("usage", f"{name} must be {expected}, got {_short(got)}", f"give {expected} as {name!r}")


def _refuse_half_a_pair(name: str, value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what = f"{name} holds half a surrogate pair at character {error.start}, which is no character"
        raise Refusal("usage", what, "take it out") from None


def _short(value: Any) -> str:
    shown = ascii(value if not isinstance(value, (list, str)) else value[:SHOWN])
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "..."


async def read_asked(request: Request) -> Asked:
    """The request's body. Raises Refusal for what is no JSON object in UTF-8, or too large."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of another site can't say so, and a script of one would be asked first
        cure = "send it with Content-Type: application/json"
        raise Refusal("usage", f"a request's body must be application/json, got {_short(kind)}", cure, 415)
    try:
        body = await asyncio.wait_for(_body(request), SECONDS_FOR_BODY)
    except TimeoutError:
        raise Refusal("usage", f"the request's body took over {SECONDS_FOR_BODY:g} s", "send it at once", 408) from None
    content = parse(body) if len(body) < LARGE else await asyncio.to_thread(parse, body)
    if not isinstance(content, dict):
        raise Refusal("usage", f"a request must be a JSON object, got {_short(content)}")
    return Asked(content)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise Refusal("too_big", f"a request may have {MOST_BYTES:,} bytes, and this has more", "send less")
    return bytes(body)


def parse(body: bytes) -> Any:
    """Strict JSON: no NaN or Infinity, no number beyond a float, no name twice, no bottomless nesting."""
    try:
        return json.loads(
            body.decode(), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_without_twins
        )
    except UnicodeDecodeError:
        raise Refusal("usage", "the request's body is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else f"{error!s:.{SHOWN}}"
        raise Refusal("usage", f"the request's body is not JSON: {why}") from None


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number in JSON")


def _finite(word: str) -> float:
    if not math.isfinite(value := float(word)):
        raise ValueError("a number is too large")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a name occurs twice in an object")
    return content
