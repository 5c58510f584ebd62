"""A server's screen in a real browser: shown, typed into, and told why it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, expect

from drivers.sim.picture import PALETTE, WIDTH
from tests.compute.scene import Scene
from tests.compute.screens import Gateway, serving
from tests.dashboard.conftest import Visit
from tests.world import World

T = TypeVar("T")
LAMP = (WIDTH // 2, 170)
DOT = """([x, y]) => {
  const one = new OffscreenCanvas(1, 1).getContext("2d");
  one.drawImage(document.querySelector("#screen canvas"), x, y, 1, 1, 0, 0, 1, 1);
  return [...one.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}"""


@dataclass
class Room:
    """A running gateway with a server on it; ``ask`` runs what needs an event loop of its own, as the world does."""

    gateway: Gateway
    scene: Scene
    server: str
    ask: Callable[[Callable[[], Any]], Any]

    @property
    def address(self) -> str:
        """Where the gateway is."""
        return f"http://127.0.0.1:{self.gateway.port}"

    def page(self) -> str:
        """A new address of the server's screen."""
        ticket = self.ask(lambda: self.gateway.ticket(self.scene.alice, self.server))
        return f"{self.address}/console#{ticket}"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder: Path = tmp_path_factory.mktemp("console")
    with ThreadPoolExecutor(1) as pool:  # Playwright's event loop runs in this thread

        def ask(work: Callable[[], T]) -> T:
            return pool.submit(work).result()

        world = ask(lambda: World.open(f"sqlite:///{folder / 'world.db'}", folder))
        scene = ask(lambda: Scene.make(world))
        server = ask(lambda: scene.server(name="web"))
        with serving(world) as gateway:
            yield Room(gateway, scene, server, ask)
        ask(world.close)


@pytest.fixture
def visit(browser: Browser, room: Room) -> Iterator[Visit]:
    context = browser.new_context(viewport={"width": 900, "height": 700})
    page = context.new_page()
    page.set_default_timeout(20_000)
    visit = Visit(page, room)  # type: ignore[arg-type]  # all it asks of a cloud is its address
    visit.watch(context, read_sockets=False)
    yield visit
    context.close()
    assert visit.strangers == []
    assert visit.failures == []


def lamp(page: Page, keys: int) -> None:
    """Wait until the screen shows that so many keys were pressed."""
    page.wait_for_function(f"(at) => `${{({DOT})(at)}}` === '{','.join(map(str, PALETTE[keys % 8]))}'", arg=list(LAMP))


def test_a_screen_in_a_browser(visit: Visit, room: Room) -> None:
    page = visit.page
    page.goto(room.page())
    expect(page.locator("#status")).to_have_text("Connected")
    expect(page.locator("#name")).to_have_text("[simulated] web")
    assert page.url == f"{room.address}/console"
    lamp(page, 0)
    page.keyboard.press("a")
    lamp(page, 1)
    page.get_by_role("button", name="Ctrl-Alt-Del").click()
    lamp(page, 4)
    page.get_by_role("button", name="Type text").click()
    page.get_by_label("Text to type").fill("ls C\n\x07é")
    page.get_by_role("button", name="Type it").click()
    lamp(page, 4 + 7)  # l s space shift C enter é; a bell is no key
    page.keyboard.press("b")  # the screen has the keyboard again
    lamp(page, 4 + 8)
    room.ask(lambda: room.scene.do_and_work("serverStop", id=room.server, gracefulTimeoutS=0))
    expect(page.locator("#status")).to_contain_text("The console is over. Ask for a new address")
    expect(page.locator("#keys")).to_be_hidden()
    room.ask(lambda: room.scene.do_and_work("serverStart", id=room.server))
    page.reload()
    expect(page.locator("#status")).to_contain_text("There is no ticket in this address.")


def test_an_address_opens_once_and_says_why_not(visit: Visit, room: Room) -> None:
    page, address = visit.page, room.page()
    page.goto(address)
    expect(page.locator("#status")).to_have_text("Connected")
    page.goto("about:blank")
    page.goto(address)
    expect(page.locator("#status")).to_contain_text(
        "This ticket was used, is over, or never was. Ask for a new address"
    )
    visit.forgive("code: 4404")  # noVNC's own report


def test_no_address_that_the_browser_asks_for_holds_more_than_the_ticket(visit: Visit, room: Room) -> None:
    page, address = visit.page, room.page()
    page.goto(address)
    expect(page.locator("#status")).to_have_text("Connected")
    ticket = address.partition("#")[2]
    asked = [each for each in visit.requests if ticket in each]
    assert asked == [f"ws://127.0.0.1:{room.gateway.port}/console/socket?ticket={ticket}"]
    assert ticket not in visit.stored()
