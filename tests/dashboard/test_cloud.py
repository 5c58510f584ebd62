"""The playground against the whole cloud: its own default tabs make a server on a simulated host, and follow it.

As in every visit, any page error, breach of the page's policy or call to another host fails the test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.dashboard.conftest import Visit
from tests.dashboard.test_playground import _ANSWER, answer, enter, run
from tests.end_to_end.processes import PASSWORD, cloud, wait_for
from tests.end_to_end.scene import Scene, small_disk

_READ = """(name) => {
  const { tabs, activeTabIndex } = JSON.parse(localStorage.getItem("graphiql:tabState") ?? '{"tabs":[]}');
  return tabs[activeTabIndex]?.operationName === name; }"""


_VARIABLES = """(text) => __MONACO.editor.getModels().find((model) => model.uri.path.endsWith("variables.json"))
  .setValue(text)"""


@dataclass(frozen=True)
class Place:
    """The gateway that is visited, and what a server there can be made of."""

    address: str
    scene: Scene


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A gateway process on simulated hosts, with a network and an image."""
    folder = tmp_path_factory.mktemp("playground")
    with cloud(folder) as made, made.gateways[0].client() as client:
        yield Place(made.gateways[0].url, Scene.make(client, small_disk(folder)))


@pytest.fixture
def page(browser: Browser, place: Place) -> Iterator[Page]:
    """The playground, signed in."""
    context = browser.new_context(viewport={"width": 1400, "height": 860})
    visit = Visit(context.new_page(), place)  # type: ignore[arg-type]  # a visit asks for its cloud's address alone
    visit.page.set_default_timeout(20_000)
    visit.watch(context)
    enter(visit)
    visit.page.get_by_label("User name").fill("admin")
    visit.page.get_by_label("Password").fill(PASSWORD)
    visit.page.get_by_role("button", name="Sign in").click()
    expect(visit.page.get_by_test_id("user")).to_have_text("admin")
    yield visit.page
    assert PASSWORD not in visit.stored()
    context.close()
    assert visit.strangers == []
    assert visit.failures == []


def _tab(page: Page, name: str, variables: dict[str, Any] | None = None) -> None:
    page.locator(".graphiql-tab-button", has_text=re.compile(f"^{name}$")).click()
    # GraphiQL reads a tab's operation a moment after it was opened, and sends its name with the document.
    page.wait_for_function(_READ, arg=name)
    if variables is not None:
        page.evaluate(_VARIABLES, json.dumps(variables, indent=2))  # typed in, the editor would close brackets twice
    run(page)


def _answered(page: Page, pattern: str) -> dict[str, Any]:
    """The answer in the active tab, once it has what the (JavaScript) pattern says."""
    text = "__MONACO.editor.getModels().find((model) => model.uri.path.endsWith('response.json')).getValue()"
    page.wait_for_function(f"() => /{pattern}/.test({text})")
    return answer(page)


def test_a_server_is_made_and_followed_in_the_default_tabs(page: Page, place: Place) -> None:
    _tab(page, "SignedIn")
    assert _answered(page, '"viewer"')["data"]["viewer"]["user"] == {"name": "admin"}

    _tab(page, "Choices")
    assert place.scene.flavor in {each["id"] for each in _answered(page, '"flavors"')["data"]["flavors"]["nodes"]}

    _tab(page, "PlanServer", {"input": place.scene.wanted()})
    assert _answered(page, '"serverCreatePlan"')["data"]["serverCreatePlan"]["possible"] is True

    _tab(page, "CreateServer", {"input": place.scene.wanted()})
    made = _answered(page, '"serverCreate"')["data"]["serverCreate"]
    assert made["userErrors"] == []

    _tab(page, "FollowJob", {"id": made["job"]["id"]})
    followed = _answered(page, '"(SUCCEEDED|FAILED|STUCK|CANCELLED)"')["data"]["jobChanged"]
    assert (followed["status"], followed["progress"], followed["error"]) == ("SUCCEEDED", 1.0, None)
    assert place.scene.server(made["server"]["id"])["status"] == "ACTIVE"

    _tab(page, "DeleteServer", {"input": {"id": made["server"]["id"]}})
    place.scene.wait(_answered(page, '"serverDelete"')["data"]["serverDelete"])
    assert place.scene.server(made["server"]["id"]) is None


def test_a_subscription_shows_the_cloud_at_work(page: Page, place: Place) -> None:
    server = place.scene.make_server()
    _tab(page, "WatchEvents")

    def told() -> bool:
        # "From now on" begins when the gateway has the subscription: something has to happen after that.
        place.scene.client.do("serverUpdate", "server { id }", id=server, description=uuid4().hex)
        return '"server.changed"' in page.evaluate(f"({_ANSWER})()")

    wait_for("an event in the page", told, 20)
    page.get_by_role("button", name="Stop query").click()
    seen = answer(page)["data"]["events"]
    assert (seen["changed"], seen["object"]["id"]) == (["description"], server)
    place.scene.act("serverDelete", id=server)
