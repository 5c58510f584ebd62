"""A running cloud, and a real Chromium shut off from every other host, which reports all that went wrong in a page."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, WebSocketRoute, sync_playwright

from tests.dashboard.cloud import Cloud, running

_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_REPORT_VIOLATIONS = """
  window.addEventListener("securitypolicyviolation", (event) =>
    console.error(`CSP ${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    with running() as cloud:
        yield cloud


def chromium() -> Path | None:
    """Debian's or the machine's own Chromium: STRATOGRAPH_CHROMIUM, or the usual names on PATH."""
    stated = os.environ.get("STRATOGRAPH_CHROMIUM")
    names = [stated] if stated else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    found = next((path for name in names if (path := shutil.which(name))), None)
    return Path(found) if found else None


@pytest.fixture(scope="module")  # no longer: Playwright's event loop keeps every other test from running one of its own
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("no Chromium on this machine")
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        yield browser
        browser.close()


@dataclass
class Visit:
    """One page of one visitor, and what it did that it must not: errors, policy violations, calls to other hosts."""

    page: Page
    cloud: Cloud
    failures: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    socket_messages: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext, *, read_sockets: bool = True) -> None:
        """Report what the page does. ``read_sockets`` puts a WebSocket of Playwright's own in place of the browser's,
        which noVNC does not take; without it sockets are seen, and not read.
        """
        own = urlsplit(self.cloud.address).netloc

        def gate(route: Route) -> None:
            address = route.request.url
            if urlsplit(address).netloc == own:
                self.requests.append(address)
                route.continue_()
            else:
                self.strangers.append(address)
                route.abort()

        def socket_gate(socket: WebSocketRoute) -> None:
            self.requests.append(socket.url)
            server = socket.connect_to_server()

            def pass_on(message: str | bytes) -> None:
                self.socket_messages.append(str(message))
                server.send(message)

            socket.on_message(pass_on)

        def socket_stranger(socket: WebSocketRoute) -> None:
            self.strangers.append(socket.url)

        context.add_init_script(_REPORT_VIOLATIONS)
        context.route("**/*", gate)
        if read_sockets:
            context.route_web_socket(lambda url: urlsplit(url).netloc == own, socket_gate)
            context.route_web_socket(lambda url: urlsplit(url).netloc != own, socket_stranger)
        else:
            self.page.on(
                "websocket",
                lambda made: (self.requests if urlsplit(made.url).netloc == own else self.strangers).append(made.url),
            )
        self.page.on("pageerror", lambda error: self.failures.append(f"page error: {error}"))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        if message.type in {"error", "warning"}:
            self.failures.append(f"console {message.type}: {message.text}")

    def forgive(self, report: str) -> None:
        """Drops the browser's own reports of an answer that the test provoked; there must be one."""
        kept = [failure for failure in self.failures if report not in failure]
        assert len(kept) < len(self.failures)
        self.failures[:] = kept

    def stored(self) -> str:
        """All of local and session storage and the cookies, as text."""
        return str(
            self.page.evaluate(
                "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
            )
        )


@pytest.fixture
def visit(browser: Browser, cloud: Cloud) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 1400, "height": 860})
    page = context.new_page()
    page.set_default_timeout(20_000)
    visit = Visit(page, cloud)
    visit.watch(context)
    yield visit
    context.close()
    assert visit.strangers == []
    assert visit.failures == []
