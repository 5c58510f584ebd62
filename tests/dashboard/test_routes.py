"""What the dashboard's routes answer: pages, files, their negotiation and their headers."""

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import gateway.dashboard
from gateway.dashboard.asset import takes_gzip
from gateway.dashboard.routes import routes

_ASSETS = Path(gateway.dashboard.__file__).parent / "assets"
_MANIFEST = json.loads((_ASSETS / "manifest.json").read_text(encoding="utf-8"))
_SDL = 'type Query {\n  "Ünicode" a: Int\n}\n'


@pytest.fixture(name="client")
def _client() -> TestClient:
    return TestClient(Starlette(routes=routes(sdl=_SDL)))


@pytest.mark.parametrize("name", sorted(_MANIFEST["files"]))
def test_every_file_comes_packed_and_plain_and_is_the_same(client: TestClient, name: str) -> None:
    packed = client.get(f"/playground/assets/{name}", headers={"accept-encoding": "br, gzip"})
    plain = client.get(f"/playground/assets/{name}", headers={"accept-encoding": "identity"})
    assert (packed.status_code, plain.status_code) == (200, 200)
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == (_ASSETS / f"{name}.gz").stat().st_size
    assert "content-encoding" not in plain.headers
    assert packed.content == plain.content
    assert hashlib.sha256(plain.content).hexdigest() == _MANIFEST["files"][name]["sha256"]
    assert len(plain.content) == _MANIFEST["files"][name]["size_bytes"]
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]


def test_hashed_files_are_kept_for_ever_and_others_are_asked_for_again(client: TestClient) -> None:
    for name in _MANIFEST["files"]:
        hashed = re.search(r"-[A-Z0-9]{8}\.\w+$", name) is not None
        wanted = "public, max-age=31536000, immutable" if hashed else "public, no-cache"
        assert client.get(f"/playground/assets/{name}").headers["cache-control"] == wanted
    assert client.get("/schema.graphql").headers["cache-control"] == "public, no-cache"


def test_a_client_that_has_the_file_gets_none(client: TestClient) -> None:
    address = f"/playground/assets/{_MANIFEST['entries']['playground.js']}"
    etag = client.get(address).headers["etag"]
    for asked in (etag, f'W/{etag}, "other"', "*"):
        again = client.get(address, headers={"if-none-match": asked})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    other = client.get(address, headers={"if-none-match": etag, "accept-encoding": "identity"})
    assert other.status_code == 200


@pytest.mark.parametrize(
    "path",
    ["manifest.json", "../routes.py", "..%2froutes.py", "%2e%2e/routes.py", "none.js", "playground.js", "a/b", ""],
)
def test_nothing_but_listed_files_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/playground/assets/{path}")
    assert answer.status_code == 404
    assert b"import" not in answer.content


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("*", True),
        ("*;q=0.1", True),
        ("", False),
        ("identity", False),
        ("br", False),
        ("gzip;q=0", False),
        ("gzip; q=0.0", False),
        ("*;q=0", False),
        ("gzip;q=0, *", False),
        ("gzip;q=nonsense", False),
        (",;=,", False),
    ],
)
def test_reads_accept_encoding(header: str, *, taken: bool) -> None:
    assert takes_gzip(header) is taken


def test_the_schema_is_served_as_text(client: TestClient) -> None:
    answer = client.get("/schema.graphql")
    assert answer.headers["content-type"] == "application/graphql; charset=utf-8"
    assert answer.content.decode() == _SDL
    assert TestClient(Starlette(routes=routes())).get("/schema.graphql").status_code == 404


@pytest.mark.parametrize("path", ["/", "/playground", "/schema.graphql", "/playground/assets/third-party-notices.txt"])
def test_every_answer_is_guarded(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = _directives(headers["content-security-policy"])
    assert (
        policy["default-src"] == policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == ["'none'"]
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"


def test_the_playground_is_given_no_more_than_it_needs(client: TestClient) -> None:
    first, second = client.get("/playground"), client.get("/playground")
    policy = _directives(first.headers["content-security-policy"])
    nonce = re.search(r'<meta property="csp-nonce" nonce="([\w-]{22})">', first.text)
    assert nonce is not None
    assert nonce[1] not in second.text
    assert first.headers["cache-control"] == "no-store"
    assert {name: sources for name, sources in policy.items() if sources != ["'none'"]} == {
        "script-src": ["'self'"],
        "worker-src": ["'self'"],
        "connect-src": ["'self'"],
        "style-src-elem": ["'self'", f"'nonce-{nonce[1]}'"],
        "style-src-attr": ["'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
    }
    assert re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", first.text) is None


def test_the_landing_page_may_run_nothing(client: TestClient) -> None:
    answer = client.get("/")
    policy = _directives(answer.headers["content-security-policy"])
    granted = {name: sources for name, sources in policy.items() if sources != ["'none'"]}
    assert granted == {"style-src": ["'self'"], "img-src": ["'self'"]}
    assert "<script" not in answer.text


def test_a_strange_prefix_cannot_leave_its_attribute() -> None:
    app = Starlette(routes=routes())
    answer = TestClient(app, root_path='/a"><script>alert(1)</script>').get("/")
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert '"/ascriptalert1/script/playground"' in answer.text


def test_addresses_follow_the_prefix() -> None:
    client = TestClient(Starlette(routes=[Mount("/cloud", routes=routes(sdl=_SDL))]))
    page = client.get("/cloud/playground").text
    assert 'data-endpoint="/cloud/graphql"' in page
    sources = re.findall(r'(?:src|href|data-logo)="([^"]+)"', page)
    assert len(sources) == 5
    for address in sources:
        assert address.startswith("/cloud/playground/assets/")
        assert client.get(address).status_code == 200


def test_packed_files_name_no_builder() -> None:
    """The gzip header holds neither time nor name, so the same content gives the same bytes."""
    for path in _ASSETS.glob("*.gz"):
        header = path.read_bytes()[:10]
        assert header[:4] == b"\x1f\x8b\x08\x00"
        assert header[4:8] == b"\0\0\0\0"
        gzip.decompress(path.read_bytes())


def _directives(policy: str) -> dict[str, list[str]]:
    parts = [part.split() for part in policy.split("; ")]
    return {name: sources for name, *sources in parts}
