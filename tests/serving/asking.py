"""What tests of the server share: asking it as a page does, models that are slow on purpose, a client that leaves."""

from __future__ import annotations

import asyncio
import base64
import json
import threading

import numpy as np
from safetensors.numpy import load

from glassgpt.errors import UsageError
from glassgpt.interface import LanguageModel, Tokenizer
from glassgpt.models.ngram import NGram
from glassgpt.serving.sources import Source

HOST = "http://localhost"
PLAIN = NGram(np.random.default_rng(3).integers(0, 4, 300), 4, n=3)
SIX = NGram(np.random.default_rng(4).integers(0, 6, 400), 6, n=3)
SAYS = NGram([5, 1, 0, 3, 4, 2, 5] * 3, 6, n=3, smoothing=0.0)  # a, ab, é, b, the end


def never(constant):
    raise AssertionError(f"{constant} in JSON")


def as_json(content: bytes | str):
    return json.loads(content, parse_constant=never)


def events_of(content: str) -> list[tuple[str, dict]]:
    """A stream of server-sent events as (name, data)."""
    found = []
    for block in content.split("\n\n"):
        if block and not block.startswith(":"):
            (kind, name), (field, data) = (line.split(": ", 1) for line in block.split("\n"))
            assert (kind, field) == ("event", "data")
            found.append((name, as_json(data)))
    return found


def tensors_of(response) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    length = int.from_bytes(response.content[:8], "little")
    assert length % 8 == 0  # so that a browser may look at the numbers where they lie
    return load(response.content), as_json(response.content[8 : 8 + length])["__metadata__"]


def numbers_of(frame: dict) -> np.ndarray:
    """The logits that stand in a frame's event."""
    return np.frombuffer(base64.b64decode(frame["logits"]), "<f4").reshape(frame["n_states"], frame["vocab_size"])


def refused(response, status: int, kind: str) -> dict:
    """The error of an answer, whose shape is checked."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    content = as_json(response.content)
    assert content.keys() == {"error"} and content["error"].keys() == {"type", "message", "cure"}
    assert content["error"]["type"] == kind, content
    assert content["error"]["message"] and content["error"]["cure"]
    return content["error"]


class Syllables(Tokenizer):
    """Tokens of some characters, of half a character, and one that ends the text."""

    vocab_size = 6
    special = {"<|end|>": 5}  # noqa: RUF012
    end_token = 5
    spelled = (b"ab", b"a", b"b", b"\xc3", b"\xa9", b"")

    def encode(self, text):
        parts = text.replace("ab", "0").replace("a", "1").replace("b", "2")
        if not set(parts) <= set("012"):
            raise UsageError("only a and b can be written")
        return ["012".index(part) for part in parts]

    def token_bytes(self, token):
        return self.spelled[token]


class Gate(LanguageModel):
    """Two equally likely tokens, each of them only once somebody has opened the gate for it. `n_asked`: how often it
    was asked, and was let through or not."""

    vocab_size, context_length = 2, 4

    def __init__(self):
        self.opened, self.n_asked, self.was_asked = threading.Semaphore(0), 0, threading.Event()

    def next_token_logits(self, contexts):
        self.n_asked += 1
        self.was_asked.set()
        assert self.opened.acquire(timeout=20), "nobody opened the gate"
        return np.zeros((len(contexts), 2), dtype=np.float32)


def source_in_memory(model: LanguageModel, tokenizer: Tokenizer | None, title: str, **more) -> Source:
    return Source(
        ref=title,
        title=title,
        vocab_size=model.vocab_size,
        context_length=model.context_length,
        read=lambda step, progress: model,
        read_tokenizer=lambda: tokenizer,
        **more,
    )


class Visit:
    """One request straight to an ASGI app, by a client that may leave before it is answered."""

    def __init__(self, app, path: str, content: dict | None = None, method: str = "POST") -> None:
        self.app, self.body = app, b"" if content is None else json.dumps(content).encode()
        self.sent: list[dict] = []
        self.leaving, self.heard = asyncio.Event(), asyncio.Event()
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
        }
        self.is_read = False

    async def receive(self):
        if not self.is_read:
            self.is_read = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.leaving.wait()
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)
        self.heard.set()

    async def run(self):
        await self.app(self.scope, self.receive, self.send)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


async def until(is_so, seconds: float = 10.0) -> None:
    """Wait until something is so, which must not take long."""
    for _ in range(int(seconds * 200)):
        if is_so():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never came to be so")
