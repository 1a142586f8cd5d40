"""The interface while it is still being made: the page is there, what is asked waits, and all of it ends."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as StillWaiting

import pytest
from starlette.testclient import TestClient
from tests.serving.asking import HOST, PLAIN, as_json, refused, source_in_memory

from glassgpt.serving.app import create_app
from glassgpt.serving.coming import Coming


@pytest.fixture
def coming():
    return Coming([source_in_memory(PLAIN, None, "plain")])


def test_the_page_is_there_at_once_and_what_is_asked_waits(coming):
    with ThreadPoolExecutor() as threads, TestClient(create_app(coming), base_url=HOST) as client:
        asked = threads.submit(client.get, "/api/v1/info")
        assert client.get("/").headers["content-type"].startswith("text/html")
        with pytest.raises(StillWaiting):
            asked.result(0.2)
        coming.begin()
        (model,) = as_json(asked.result(30).content)["models"]
        assert model["id"] == "plain"
        refused(client.get("/api/v1/nothing"), 404, "missing")
        refused(client.post("/api/v1/info"), 405, "usage")


def test_an_interface_that_cannot_be_made_says_so():
    coming = Coming([None])  # no source
    with TestClient(create_app(coming), base_url=HOST) as client:
        coming.begin()
        refused(client.get("/api/v1/info"), 500, "failed")


def test_what_is_closed_before_it_is_there_is_closed_then(coming):
    coming.close()
    coming.begin()
    coming.wait_until_closed()
    assert coming.api.models._is_closed


def test_the_server_listens_without_torch():
    code = "import sys, glassgpt.serving.server, glassgpt.serving.sources as sources; sources.untrained_baby()\n"
    code += "print({'torch', 'scipy', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_a_model_is_made_without_torchs_compiler():
    code = "import sys, glassgpt.serving.api, glassgpt.models.gpt_torch\nprint('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stdout + done.stderr
