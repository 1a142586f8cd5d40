"""The server as it runs: uvicorn on a free port, a socket that hangs up, and an end that leaves nothing behind."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import closing, contextmanager

import numpy as np
import pytest
from safetensors.numpy import load
from tests.serving.asking import Gate, events_of, source_in_memory

from glassgpt.decoding.generate import generate
from glassgpt.serving.guard import Doors
from glassgpt.serving.server import server
from glassgpt.serving.sources import untrained_baby

BABY = "baby-gpt-untrained"


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.release(10_000)


@contextmanager
def running(*sources):
    """A server on a free port: (server, port). It must be gone within seconds once it is to end."""
    begun = threading.Event()
    made = server(sources, Doors(), begun.set)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        thread = threading.Thread(target=made.run, kwargs={"sockets": [sock]})
        thread.start()
        try:
            assert begun.wait(20)
            yield made, port
        finally:
            made.should_exit = True
            thread.join(15)
            assert not thread.is_alive()


def asked(port: int, method: str, path: str, content=None):
    headers = {} if content is None else {"Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, None if content is None else json.dumps(content), headers)
        with connection.getresponse() as response:
            return response.status, response.read(), response.headers


def opened(port: int, path: str, content) -> socket.socket:
    """A connection on which a request was sent, and nothing read yet."""
    body = json.dumps(content).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def until_so(is_so, seconds: float = 5.0) -> None:
    for _ in range(int(seconds * 200)):
        if is_so():
            return
        time.sleep(0.005)
    raise AssertionError("it never came to be so")


def test_over_a_real_socket_the_numbers_and_texts_are_the_models(gate):
    model = untrained_baby().read(None, lambda done, total: None)
    with running(untrained_baby()) as (_, port):
        status, page, headers = asked(port, "GET", "/")
        assert status == 200 and page.lower().startswith(b"<!doctype html>") and "server" not in headers
        status, content, _ = asked(port, "POST", "/api/v1/next", {"model": BABY, "ids": [1, 0, 1]})
        assert status == 200
        assert np.array_equal(load(content)["logits"], model.next_token_logits([[1, 0, 1]])[0])
        ask = {"model": BABY, "ids": [1], "max_new_tokens": 9, "seed": 5, "temperature": 0.7}
        status, content, headers = asked(port, "POST", "/api/v1/generate", ask)
        assert status == 200 and headers["content-type"].startswith("text/event-stream")
        assert events_of(content.decode())[-1][1]["ids"] == generate(model, [1], 9, seed=5, temperature=0.7)


def test_a_token_is_sent_as_soon_as_it_is_drawn(gate):
    write = {"model": "gate", "ids": [0], "max_new_tokens": 2}
    with running(source_in_memory(gate, None, "gate")) as (_, port), opened(port, "/api/v1/generate", write) as sock:
        gate.opened.release(1)
        told = b""
        while b"event: token" not in told:
            told += sock.recv(4096)
        assert b"event: done" not in told
        gate.opened.release(1)
        while b"event: done" not in told:
            told += sock.recv(4096)


@pytest.mark.parametrize("path", ["/api/v1/generate", "/api/v1/next"])
def test_a_client_that_hangs_up_frees_the_worker(gate, path):
    with running(source_in_memory(gate, None, "gate")) as (made, port):
        worker = made.api.models.all_of_them()[0].worker
        first = opened(port, "/api/v1/generate", {"model": "gate", "ids": [0], "max_new_tokens": 100})
        until_so(gate.was_asked.is_set)
        more = {"max_new_tokens": 100} if path.endswith("generate") else {}
        waiting = opened(port, path, {"model": "gate", "ids": [1], **more})
        until_so(lambda: worker.n_jobs == 2)
        waiting.close()
        until_so(lambda: worker.n_jobs == 1)
        first.close()
        time.sleep(0.2)
        gate.opened.release(1)
        until_so(lambda: worker.n_jobs == 0)
        assert gate.n_asked == 1


def test_headers_without_an_end_are_refused():
    with running(untrained_baby()) as (_, port), socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert b"400" in sock.recv(100)


def test_a_server_that_is_to_end_ends_its_streams_first(gate):
    with running(source_in_memory(gate, None, "gate"), untrained_baby()) as (made, port):
        config = {"vocab_size": 2, "context_length": 2, "n_layer": 1, "n_head": 1, "n_embd": 4}
        train = {"config": config, "sequence": "0010110", "steps": 1000}
        run = json.loads(asked(port, "POST", "/api/v1/train", train)[1])["run"]
        asked(port, "POST", f"/api/v1/train/{run}/pause")
        folder = made.api.trainings._folder
        with opened(port, "/api/v1/generate", {"model": "gate", "ids": [0]}) as sock:
            until_so(gate.was_asked.is_set)
            made.should_exit = True
            until_so(lambda: made.api.models._is_closed)
            gate.opened.release(1)  # the step that was under way
            told = b""
            while part := sock.recv(4096):
                told += part
        assert b'"type":"cancelled"' in told
    assert folder is not None and not folder.exists()
