from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.image.egress import AddressPolicy
from gateway.image.fetch import Fetched, FetchFailed, FetchLimits, FetchProblem, fetch
from gateway.image.store import ImageStore, UploadTooLarge
from tests.image import web

DATA = bytes(range(256)) * 4096
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")
OPEN = FetchLimits(max_bytes=2 * len(DATA), timeout_s=20, idle_timeout_s=5, allowed_networks=(LOOPBACK,))


@dataclass
class Memory:
    """A sink that remembers; ``restarts`` counts how often it had to forget."""

    data: bytearray = field(default_factory=bytearray)
    restarts: int = 0

    def write(self, chunk: bytes) -> None:
        self.data += chunk

    def restart(self) -> None:
        self.data.clear()
        self.restarts += 1


@pytest.fixture
def site() -> Iterator[web.Site]:
    with web.serving() as site:
        yield site


@pytest.fixture
def sink() -> Memory:
    return Memory()


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names and what they resolve to, one answer a lookup, the last for ever. Only numbers reach the real resolver."""
    table: dict[str, list[list[str]]] = {"localhost": [["127.0.0.1"]]}
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        if host not in table:
            return real(host, port, *arguments, **{**named, "flags": socket.AI_NUMERICHOST})
        answers = table[host].pop(0) if len(table[host]) > 1 else table[host][0]
        return [entry for address in answers for entry in real(address, port, *arguments, **named)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


def failure(url: str, sink: Memory, limits: FetchLimits = OPEN) -> FetchFailed:
    with pytest.raises(FetchFailed) as failed:
        fetch(url, sink, limits=limits)
    return failed.value


def test_file_arrives_whole_with_progress(site: web.Site, sink: Memory) -> None:
    site.pages["/disk?a=b%20c"] = web.answer(DATA)
    heard: list[tuple[int, int | None]] = []
    url = site.url("/disk?a=b%20c#fragment")
    assert fetch(url, sink, limits=OPEN, progress=lambda *step: heard.append(step)) == Fetched(len(DATA), 0)
    assert bytes(sink.data) == DATA
    assert heard[-1] == (len(DATA), len(DATA))
    path, headers = site.asked[0]
    assert path == "/disk?a=b%20c"
    assert headers["host"] == f"127.0.0.1:{site.port}"
    assert headers["accept-encoding"] == "identity"


def test_environment_proxies_are_ignored(site: web.Site, sink: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/disk"] = web.answer(DATA)
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert fetch(site.url("/disk"), sink, limits=OPEN).size_bytes == len(DATA)


# --------------------------------------------------------------------------------------------- addresses

INSIDE = [
    "127.0.0.1", "127.8.9.1", "0.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "192.88.99.1",
    "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001:0:7f00:1::", "fe80::1", "fec0::1", "fc00::1",
    "fd00:ec2::254", "ff02::1", "2001:db8::1", "100::1", "3fff::1", "5f00::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "8.8.8.8", "185.199.108.133", "2606:4700:4700::1111", "2a00:1450::1", "64:ff9b::808:808",
           "::ffff:8.8.8.8", "2002:808:808::1"]  # fmt: skip


@pytest.mark.parametrize("text", INSIDE)
def test_inner_address_is_forbidden(text: str) -> None:
    assert not AddressPolicy().permits(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", OUTSIDE)
def test_public_address_is_permitted(text: str) -> None:
    assert AddressPolicy().permits(ipaddress.ip_address(text))


def test_private_can_be_opened_without_loopback_or_metadata() -> None:
    policy = AddressPolicy(allowed_private=True)
    opened = {text for text in INSIDE if policy.permits(ipaddress.ip_address(text))}
    assert opened == {"10.1.2.3", "172.16.0.1", "192.168.1.1", "fc00::1"}


@given(st.ip_addresses(v=4))
def test_hiding_an_ipv4_address_changes_no_judgement(inner: ipaddress.IPv4Address) -> None:
    policy, number = AddressPolicy(), int(inner)
    mapped = ipaddress.IPv6Address(0xFFFF << 32 | number)
    nat64 = ipaddress.IPv6Address((0x64FF9B << 96) | number)
    sixtofour = ipaddress.IPv6Address(0x2002 << 112 | number << 80 | 1)
    assert {policy.permits(one) for one in (inner, mapped, nat64, sixtofour)} == {policy.permits(inner)}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "localhost", "0",
     "[::1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "169.254.169.254", "[64:ff9b::a9fe:a9fe]"],
)  # fmt: skip
def test_no_spelling_of_an_inner_host_is_dialled(host: str, site: web.Site, sink: Memory) -> None:
    site.pages["/"] = web.answer(DATA)
    failed = failure(site.url("/", host), sink, replace(OPEN, allowed_networks=()))
    assert failed.problem in {FetchProblem.FORBIDDEN_ADDRESS, FetchProblem.BAD_URL}
    assert not failed.retryable
    assert "127" not in failed.message.replace(host, "")
    assert site.asked == []


def test_name_with_one_forbidden_address_is_refused_whole(
    site: web.Site, sink: Memory, names: dict[str, list[list[str]]]
) -> None:
    names["both.test"] = [["127.0.0.1", "10.0.0.1"]]
    assert failure(site.url("/", "both.test"), sink).problem is FetchProblem.FORBIDDEN_ADDRESS
    assert site.asked == []


def test_address_that_was_checked_is_the_one_dialled(
    site: web.Site, sink: Memory, names: dict[str, list[list[str]]]
) -> None:
    """The name answers well once and then with a forbidden address: a second lookup would be refused, or worse."""
    site.pages["/"] = web.answer(DATA)
    names["rebinding.test"] = [["127.0.0.1"], ["169.254.169.254"]]
    assert fetch(site.url("/", "rebinding.test"), sink, limits=OPEN).size_bytes == len(DATA)
    assert site.asked[0][1]["host"] == f"rebinding.test:{site.port}"
    failed = failure(site.url("/", "rebinding.test"), sink)
    assert failed.problem is FetchProblem.FORBIDDEN_ADDRESS


def test_next_address_is_tried_when_one_does_not_answer(
    site: web.Site, sink: Memory, names: dict[str, list[list[str]]]
) -> None:
    site.pages["/"] = web.answer(DATA)
    names["two.test"] = [["127.0.0.9", "127.0.0.1"]]  # the server listens on the second only
    assert fetch(site.url("/", "two.test"), sink, limits=OPEN).size_bytes == len(DATA)


def test_unknown_name_and_closed_port(sink: Memory) -> None:
    failed = failure("http://no-such-host.invalid/", sink)
    assert (failed.problem, failed.retryable) == (FetchProblem.UNRESOLVED, True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    failed = failure(f"http://127.0.0.1:{port}/", sink)
    assert (failed.problem, failed.retryable) == (FetchProblem.CONNECTION, True)


# --------------------------------------------------------------------------------------------- URLs and redirects


@pytest.mark.parametrize(
    "url",
    ["", "disk.img", "//host/x", "ftp://example.org/x", "file:///etc/passwd", "gopher://example.org/", "http://",
     "http:///x", "http://user@example.org/", "http://user:word@example.org/", "http://:w@example.org/",
     "http://example.org:0/", "http://example.org:99999/", "http://exa mple.org/", "http://example.org/\r\nX: y",
     "http://[::1", "http://" + "a" * 3000, "http://\x00/", "javascript:alert(1)", "data:,x", "http://xn--/"],
)  # fmt: skip
def test_bad_url_is_refused_without_a_connection(url: str, sink: Memory) -> None:
    failed = failure(url, sink)
    assert failed.problem in {FetchProblem.BAD_URL, FetchProblem.UNRESOLVED}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(max_size=60))
def test_no_text_after_the_scheme_makes_a_surprise(text: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        fetch("http://" + text, Memory(), limits=FetchLimits(timeout_s=0.0))
    assert failed.value.problem in {FetchProblem.BAD_URL, FetchProblem.UNRESOLVED, FetchProblem.FORBIDDEN_ADDRESS,
                       FetchProblem.TIMEOUT}  # fmt: skip


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(status: int, site: web.Site, sink: Memory) -> None:
    site.pages["/a/one"] = web.redirect("../b/two", status)
    site.pages["/b/two"] = web.redirect(site.url("/three"), status)
    site.pages["/three"] = web.answer(DATA)
    assert fetch(site.url("/a/one"), sink, limits=OPEN).size_bytes == len(DATA)
    assert bytes(sink.data) == DATA


def test_redirects_are_counted(site: web.Site, sink: Memory) -> None:
    for number in range(7):
        site.pages[f"/{number}"] = web.redirect(f"/{number + 1}")
    site.pages["/7"] = web.answer(DATA)
    assert failure(site.url("/0"), sink).problem is FetchProblem.TOO_MANY_REDIRECTS
    assert len(site.asked) == 6
    assert fetch(site.url("/2"), sink, limits=OPEN).size_bytes == len(DATA)


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("http://169.254.169.254/latest/meta-data/", FetchProblem.FORBIDDEN_ADDRESS),
        ("http://[::ffff:10.0.0.1]/", FetchProblem.FORBIDDEN_ADDRESS),
        ("http://inner.test/", FetchProblem.FORBIDDEN_ADDRESS),
        ("file:///etc/passwd", FetchProblem.BAD_URL),
        ("http://user:word@127.0.0.1/", FetchProblem.BAD_URL),
    ],
)
def test_redirect_is_judged_like_the_first_url(
    location: str, problem: FetchProblem, site: web.Site, sink: Memory, names: dict[str, list[list[str]]]
) -> None:
    names["inner.test"] = [["192.168.0.1"]]
    site.pages["/"] = web.redirect(location)
    assert failure(site.url("/"), sink).problem is problem
    assert sink.data == b""


# --------------------------------------------------------------------------------------------- TLS


def test_tls_is_verified_for_the_name_in_the_url(
    tmp_path: Path, sink: Memory, names: dict[str, list[list[str]]]
) -> None:
    names["images.test"] = names["other.test"] = [["127.0.0.1"]]
    context, ca_file = web.certify(tmp_path, "images.test")
    seen: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: seen.append(name)
    with web.serving(tls=context) as site:
        site.pages["/"] = web.answer(DATA)
        trusting = replace(OPEN, ca_file=ca_file)
        assert fetch(site.url("/", "images.test", "https"), sink, limits=trusting).size_bytes == len(DATA)
        assert seen == ["images.test"]
        for host, limits in (("other.test", trusting), ("127.0.0.1", trusting), ("images.test", OPEN)):
            failed = failure(site.url("/", host, "https"), sink, limits)
            assert (failed.problem, failed.retryable) == (FetchProblem.TLS, False)
        assert len(site.asked) == 1


def test_https_never_leads_to_http(tmp_path: Path, site: web.Site, sink: Memory) -> None:
    context, ca_file = web.certify(tmp_path, "127.0.0.1")
    site.pages["/disk"] = web.answer(DATA)
    with web.serving(tls=context) as secure:
        secure.pages["/"] = web.redirect(site.url("/disk"))
        failed = failure(secure.url("/", scheme="https"), sink, replace(OPEN, ca_file=ca_file))
    assert failed.problem is FetchProblem.INSECURE_REDIRECT
    assert site.asked == []


def test_plain_server_behind_https_and_missing_authorities(site: web.Site, sink: Memory, tmp_path: Path) -> None:
    assert failure(site.url("/", scheme="https"), sink).problem in {FetchProblem.TLS, FetchProblem.CONNECTION}
    missing = replace(OPEN, ca_file=tmp_path / "none.pem")
    assert failure(site.url("/", scheme="https"), sink, missing).problem is FetchProblem.TLS


# --------------------------------------------------------------------------------------------- size and time


def test_size_is_capped_by_what_is_said_and_by_what_is_sent(site: web.Site, sink: Memory) -> None:
    limits = replace(OPEN, max_bytes=len(DATA) - 1)
    site.pages["/said"] = web.answer(DATA)
    assert failure(site.url("/said"), sink, limits).problem is FetchProblem.TOO_BIG
    assert sink.data == b""

    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()  # no length: the connection's end is the file's end
        while True:
            request.wfile.write(DATA)

    site.pages["/sent"] = endless
    assert failure(site.url("/sent"), sink, limits).problem is FetchProblem.TOO_BIG
    assert len(sink.data) <= limits.max_bytes
    assert fetch(site.url("/said"), Memory(), limits=replace(OPEN, max_bytes=len(DATA))).size_bytes == len(DATA)


def test_silent_server_meets_the_deadline(sink: Memory) -> None:
    with web.silent() as port:
        started = time.monotonic()
        failed = failure(f"http://127.0.0.1:{port}/", sink, replace(OPEN, timeout_s=0.4))
        assert (failed.problem, failed.retryable) == (FetchProblem.TIMEOUT, True)
        assert time.monotonic() - started < 5
        assert failure(f"http://127.0.0.1:{port}/", sink, replace(OPEN, idle_timeout_s=0.2)).problem is (
            FetchProblem.TIMEOUT
        )


@pytest.mark.parametrize("where", ["headers", "body"])
def test_server_that_drips_meets_the_deadline(where: str, site: web.Site, sink: Memory) -> None:
    def drip(request: BaseHTTPRequestHandler) -> None:
        if where == "body":
            request.send_response(200)
            request.send_header("Content-Length", "100000")
            request.end_headers()
        else:
            request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while True:
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)

    site.pages["/"] = drip
    started = time.monotonic()
    assert failure(site.url("/"), sink, replace(OPEN, timeout_s=0.8)).problem is FetchProblem.TIMEOUT
    assert time.monotonic() - started < 5


# --------------------------------------------------------------------------------------------- answers


def speaking(text: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def page(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(text)

    return page


WHOLE = {"Content-Range": f"bytes 0-{len(DATA) - 1}/{len(DATA)}"}
ANSWERS: list[tuple[Callable[[BaseHTTPRequestHandler], None], FetchProblem]] = [
    (web.answer(b"secret page", status=404), FetchProblem.HTTP_STATUS),
    (web.answer(b"", status=204), FetchProblem.HTTP_STATUS),
    (web.answer(DATA, status=206, headers=WHOLE), FetchProblem.HTTP_STATUS),
    (web.answer(DATA, headers={"Content-Encoding": "gzip"}), FetchProblem.ENCODED),
    (speaking(b"SSH-2.0-OpenSSH\r\n"), FetchProblem.CONNECTION),
    (speaking(b""), FetchProblem.CONNECTION),
    (speaking(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90_000), FetchProblem.CONNECTION),
]


@pytest.mark.parametrize(("page", "problem"), ANSWERS)
def test_answer_that_is_no_file(
    page: Callable[[BaseHTTPRequestHandler], None], problem: FetchProblem, site: web.Site, sink: Memory
) -> None:
    site.pages["/"] = page
    failed = failure(site.url("/"), sink)
    assert failed.problem is problem
    assert "secret" not in str(failed)


def test_server_error_may_pass(site: web.Site, sink: Memory) -> None:
    site.pages["/"] = web.answer(b"", status=503)
    failed = failure(site.url("/"), sink)
    assert (failed.status, failed.retryable) == (503, True)


# --------------------------------------------------------------------------------------------- broken transfers


ONE = {"ETag": '"v1"'}


def ranged(data: bytes, *, drop_after: list[int], headers: web.Headers) -> Callable[[BaseHTTPRequestHandler], None]:
    """A page that knows ranges and breaks off after so many bytes of each answer, until the list is used up."""

    def page(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        fresh = request.headers.get("If-Range") in {headers.get("ETag"), headers.get("Last-Modified")}
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and fresh else 0
        sent = drop_after.pop(0) if drop_after else None
        if start:
            parts = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}", **headers}
            web.answer(data[start:], status=206, sent=sent, headers=parts)(request)
        else:
            web.answer(data, sent=sent, headers=headers)(request)

    return page


@pytest.mark.parametrize("headers", [{"ETag": '"v1"'}, {"Last-Modified": "Mon, 02 Nov 2026 10:00:00 GMT"}])
def test_dropped_transfer_goes_on_where_it_stopped(headers: dict[str, str], site: web.Site, sink: Memory) -> None:
    site.pages["/"] = ranged(DATA, drop_after=[300_000, 400_000, 1], headers=headers)
    assert fetch(site.url("/"), sink, limits=OPEN) == Fetched(len(DATA), 3)
    assert (bytes(sink.data), sink.restarts) == (DATA, 0)
    assert [asked.get("range") for _path, asked in site.asked] == [
        None, "bytes=300000-", "bytes=700000-", "bytes=700001-",
    ]  # fmt: skip
    assert site.asked[1][1]["if-range"] == next(iter(headers.values()))


def test_without_proof_of_sameness_it_begins_anew(site: web.Site, sink: Memory) -> None:
    for headers in (web.NONE, {"ETag": 'W/"weak"'}):
        sink.data.clear()
        site.pages["/"] = web.in_turn(web.answer(DATA, sent=5000, headers=headers), web.answer(DATA))
        assert fetch(site.url("/"), sink, limits=OPEN) == Fetched(len(DATA), 1)
        assert bytes(sink.data) == DATA
        assert "range" not in site.asked[-1][1]
    assert sink.restarts == 2


def test_changed_file_is_taken_from_its_start(site: web.Site, sink: Memory) -> None:
    other = DATA[::-1]
    site.pages["/"] = web.in_turn(
        ranged(DATA, drop_after=[5000], headers=ONE), ranged(other, drop_after=[], headers={"ETag": '"v2"'})
    )
    assert fetch(site.url("/"), sink, limits=OPEN) == Fetched(len(other), 1)
    assert (bytes(sink.data), sink.restarts) == (other, 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": f"bytes 4999-{len(DATA) - 1}/{len(DATA)}", "ETag": '"v1"'},
        {"Content-Range": f"bytes 5000-{len(DATA) - 1}/{len(DATA) + 1}", "ETag": '"v1"'},
        {"Content-Range": f"bytes 5000-{len(DATA) - 1}/{len(DATA)}", "ETag": '"v2"'},
        {"Content-Range": "nonsense", "ETag": '"v1"'},
        {"ETag": '"v1"'},
    ],
)
def test_wrong_part_is_not_joined_on(headers: dict[str, str], site: web.Site, sink: Memory) -> None:
    site.pages["/"] = web.in_turn(
        web.answer(DATA, sent=5000, headers=ONE), web.answer(DATA[5000:], status=206, headers=headers), web.answer(DATA)
    )
    assert fetch(site.url("/"), sink, limits=OPEN).size_bytes == len(DATA)
    assert (bytes(sink.data), sink.restarts) == (DATA, 1)


def test_resuming_is_bounded(site: web.Site, sink: Memory) -> None:
    site.pages["/"] = ranged(DATA, drop_after=[10] * 99, headers=ONE)
    failed = failure(site.url("/"), sink, replace(OPEN, max_resumes=3))
    assert (failed.problem, failed.retryable, len(site.asked)) == (FetchProblem.INCOMPLETE, True, 4)


def test_file_shorter_than_it_said_never_looks_whole(site: web.Site, sink: Memory) -> None:
    site.pages["/"] = web.answer(DATA, length=len(DATA) + 1)
    assert failure(site.url("/"), sink, replace(OPEN, max_resumes=1)).problem is FetchProblem.INCOMPLETE


def test_store_is_a_sink_and_its_refusal_ends_the_fetch(site: web.Site, tmp_path: Path) -> None:
    store, uid = ImageStore(tmp_path, keep_free_bytes=0), uuid4()
    data = os.urandom(len(DATA))
    site.pages["/"] = web.in_turn(web.answer(data, sent=70_000), web.answer(data))
    with store.writing(uid, 0) as upload:
        fetch(site.url("/"), upload, limits=OPEN)
    assert store.upload_path(uid).read_bytes() == data
    site.pages["/big"] = web.answer(data)
    with pytest.raises(UploadTooLarge), store.writing(uuid4(), 0, max_size_bytes=1000) as upload:
        fetch(site.url("/big"), upload, limits=OPEN)


def test_tls_context_of_the_test_server_is_real(tmp_path: Path) -> None:
    context, _ca_file = web.certify(tmp_path, "images.test")
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
