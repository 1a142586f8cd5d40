"""A server with a few small models: the untrained baby, a trained run, an n-gram without and one with words."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from tests.serving.asking import HOST, PLAIN, SAYS, SIX, Syllables, source_in_memory

from glassgpt.serving.api import Api
from glassgpt.serving.app import create_app
from glassgpt.serving.models import Models
from glassgpt.serving.sources import source_of, untrained_baby


@pytest.fixture(scope="module")
def api(baby_run):
    sources = [
        untrained_baby(),
        source_of(str(baby_run.path)),
        source_in_memory(PLAIN, None, "plain"),
        source_in_memory(SIX, Syllables(), "six"),
        source_in_memory(SAYS, Syllables(), "says"),
    ]
    return Api(Models(sources))


@pytest.fixture(scope="module")
def client(api):
    with TestClient(create_app(api), base_url=HOST) as client:
        yield client


@pytest.fixture(scope="module")
def ask(client):
    """Ask a route under /api/v1 with a JSON body."""
    return lambda path, **content: client.post(f"/api/v1/{path}", json=content)
