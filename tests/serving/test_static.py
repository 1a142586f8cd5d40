"""The built page: whole, typed, remembered by browsers as long as it may be, and nothing beside it."""

from __future__ import annotations

import asyncio

import pytest
from starlette.testclient import TestClient
from tests.serving.asking import HOST, Visit, as_json, refused

from glassgpt.serving.app import create_app
from glassgpt.serving.static import Pages

FILES = {
    "index.html": b"<!doctype html><title>page</title>",
    "assets/index-Ab12_x9Z.js": b"export {}",
    "assets/index-Ab12_x9Z.css": b"body {}",
    "assets/icon.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "golden.bin": b"\0\1",
    "apple-touch-icon.png": b"\x89PNG",
}
KINDS = {
    "/": "text/html; charset=utf-8",
    "/index.html": "text/html; charset=utf-8",
    "/assets/index-Ab12_x9Z.js": "text/javascript; charset=utf-8",
    "/assets/index-Ab12_x9Z.css": "text/css; charset=utf-8",
    "/assets/icon.svg": "image/svg+xml",
    "/golden.bin": "application/octet-stream",
    "/apple-touch-icon.png": "image/png",
}


@pytest.fixture
def page(tmp_path, api):
    folder = tmp_path / "page"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return TestClient(create_app(api, pages=Pages(folder)), base_url=HOST)


@pytest.mark.parametrize("path", KINDS)
def test_a_file_comes_whole_and_with_its_kind(page, path):
    response = page.get(path)
    assert response.content == FILES[path[1:] or "index.html"]
    assert response.headers["content-type"] == KINDS[path]


def test_what_never_changes_is_kept_for_ever_and_the_rest_asked_about(page):
    assert page.get("/assets/index-Ab12_x9Z.js").headers["cache-control"] == "public, max-age=31536000, immutable"
    for path in ("/", "/index.html", "/assets/icon.svg", "/golden.bin", "/apple-touch-icon.png"):
        assert page.get(path).headers["cache-control"] == "no-cache"


def test_what_a_browser_has_already_is_not_sent_again(page):
    tag = page.get("/").headers["etag"]
    again = page.get("/", headers={"If-None-Match": tag})
    assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
    assert page.get("/", headers={"If-None-Match": '"another"'}).status_code == 200


def test_a_head_is_the_headers_alone(page):
    response = page.head("/")
    assert response.status_code == 200 and response.content == b""
    assert response.headers["content-type"] == KINDS["/"]


@pytest.mark.parametrize(
    "path",
    ["/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/..\\secret.txt", "/assets/../../secret.txt",
     "/link.txt", "//index.html", "/index.html/", "/assets", "/assets/", "/index.html\0", "/C:\\secret.txt",
     "/.git/config", "/index.html;x", "/INDEX.HTML", "", "index.html", "/" + "x" * 10_000],
)  # fmt: skip
def test_nothing_else_can_be_had(page, path):
    visit = Visit(page.app, path, method="GET")
    asyncio.run(visit.run())
    assert visit.sent[0]["status"] == 404 and as_json(visit.text)["error"]["type"] == "missing"


def test_where_the_page_is_not_built_one_is_told_how(tmp_path, api):
    client = TestClient(create_app(api, pages=Pages(tmp_path / "nowhere")), base_url=HOST)
    response = client.get("/")
    assert response.headers["content-type"] == KINDS["/"] and "npm run build" in response.text
    assert "<script" not in response.text and "http" not in response.text.replace("<!doctype html>", "")
    refused(client.get("/index.html"), 404, "missing")
