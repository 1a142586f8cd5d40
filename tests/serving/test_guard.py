"""Who may ask: by the names in Host and Origin, and from other machines by a key."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient
from tests.serving.asking import HOST, as_json, refused

from glassgpt.errors import UsageError
from glassgpt.serving.app import create_app
from glassgpt.serving.guard import HEADERS, Doors

KEY = "correct-horse"
ROUTES = [
    ("GET", "/api/v1/info"),
    ("POST", "/api/v1/tokenize"),
    ("POST", "/api/v1/next"),
    ("POST", "/api/v1/pieces"),
    ("POST", "/api/v1/chain"),
    ("POST", "/api/v1/generate"),
    ("POST", "/api/v1/beams"),
    ("POST", "/api/v1/score"),
    ("POST", "/api/v1/trace"),
    ("POST", "/api/v1/ablations"),
    ("POST", "/api/v1/weights"),
    ("POST", "/api/v1/project"),
    ("POST", "/api/v1/neighbours"),
    ("POST", "/api/v1/red"),
    ("POST", "/api/v1/landscape"),
    ("POST", "/api/v1/lessons/digits"),
    ("POST", "/api/v1/train"),
    ("POST", "/api/v1/train/x/stop"),
    ("GET", "/api/v1/train/x/events"),
    ("GET", "/api/v1/train/x/frames/1"),
    ("GET", "/api/v1/jobs/x/events"),
    ("DELETE", "/api/v1/jobs/x"),
]


def behind(api, doors, host=HOST):
    return TestClient(create_app(api, doors), base_url=host)


def test_the_list_of_routes_is_whole(api):
    paths = {(method, route.path) for route in api.routes() for method in route.methods - {"HEAD"}}
    assert len(paths) == len(ROUTES)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8765", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:80", "LocalHost"]
)
def test_this_machine_may_be_called_by_its_own_names(client, host):
    assert client.get("/api/v1/info", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.com", "evil.com:8765", "localhost.evil.com", "evillocalhost", "127.0.0.1.evil.com", "", "localhost:x",
     "[::1", "::1", "0.0.0.0", "localhost@evil.com", "[localhost]evil", "127.0.0.2"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/api/v1/info", "/nothing"])
def test_a_name_that_only_points_here_is_refused(client, host, path):
    told = refused(client.get(path, headers={"Host": host}), 403, "usage")
    assert "not" in told["message"]


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://localhost:3000", "http://localhost.evil.com", "file://", "https://127.0.0.1"])  # fmt: skip  # noqa: E501
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_other_sites_may_not_ask(client, method, path, origin):
    response = client.request(method, path, headers={"Origin": origin})
    refused(response, 403, "usage")
    assert "access-control-allow-origin" not in response.headers


def test_the_own_page_may_ask(client):
    assert client.get("/api/v1/info", headers={"Origin": HOST}).status_code == 200
    beside = {"Host": "localhost:8765", "Origin": "http://localhost:8765", "Sec-Fetch-Site": "same-origin"}
    assert client.get("/api/v1/info", headers=beside).status_code == 200


def test_a_picture_of_another_site_can_not_ask(client):
    refused(client.get("/api/v1/info", headers={"Sec-Fetch-Site": "cross-site"}), 403, "usage")
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page


def test_a_browser_that_asks_first_whether_it_may_is_told_no(client):
    asking = {"Origin": "http://evil.com", "Access-Control-Request-Method": "POST"}
    assert client.options("/api/v1/next", headers=asking).status_code == 403


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("shown", [None, "", KEY, "Bearer", "Bearer ", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Basic {KEY}", "Bearer " + "x" * 10_000])  # fmt: skip  # noqa: E501
def test_every_route_wants_the_key(api, method, path, shown):
    client = behind(api, Doors("0.0.0.0", KEY), "http://192.168.1.7:8765")
    told = refused(
        client.request(method, path, headers={} if shown is None else {"Authorization": shown}), 401, "usage"
    )
    assert KEY not in str(told)


@pytest.mark.parametrize("path", ["/api/v1/info", "/%61pi/v1/info", "/api/v1/../v1/info"])
def test_no_spelling_of_an_address_leads_past_the_key(api, path):
    response = behind(api, Doors("0.0.0.0", KEY), "http://box").get(path)
    assert response.status_code in (401, 404)


def test_with_the_key_all_is_as_ever_and_the_page_needs_none(api):
    client = behind(api, Doors("0.0.0.0", KEY), "http://192.168.1.7:8765")
    assert client.get("/").status_code == 200
    response = client.get("/api/v1/info", headers={"Authorization": f"bearer {KEY}"})
    assert as_json(response.content)["models"] and KEY not in response.text + str(response.headers)


def test_a_key_does_not_open_this_machine_to_other_names(api):
    client = behind(api, Doors("127.0.0.1", KEY))
    shown = {"Authorization": f"Bearer {KEY}"}
    assert client.get("/api/v1/info", headers=shown).status_code == 200
    refused(client.get("/api/v1/info", headers=shown | {"Host": "evil.com"}), 403, "usage")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "box.local", ""])
def test_other_machines_are_let_in_with_a_key_alone(host):
    with pytest.raises(UsageError, match="--key"):
        Doors(host)
    Doors(host, KEY)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.9"])
def test_this_machine_needs_no_key(host):
    Doors(host)


@pytest.mark.parametrize("key", ["", "short", "with\nline", "schlüssel-lang"])
def test_a_key_that_is_soon_guessed_or_can_not_be_sent_is_refused(key):
    with pytest.raises(UsageError, match="8 printable"):
        Doors("0.0.0.0", key)


@pytest.mark.parametrize("path", ["/", "/api/v1/info", "/nothing", "/api/v1/next"])
def test_every_answer_keeps_scripts_and_frames_of_others_out(client, path):
    for response in (client.get(path), client.get(path, headers={"Host": "evil.com"})):
        for name, value in HEADERS.items():
            assert response.headers[name] == value
        if path.startswith("/api/"):
            assert response.headers["cache-control"] == "no-store"


def test_the_policy_is_that_of_the_page(client):
    assert client.get("/").headers["content-security-policy"] == (
        "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'"
    )
