"""The playground as a visitor uses it: a real Chromium, a real server, one host.

Each visit also fails on any page error, any breach of the page's policy and any call to another host (see `visit`).
"""

import datetime as dt
import json
import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from gateway.dashboard.asset import Assets
from tests.dashboard.cloud import PASSWORD, running
from tests.dashboard.conftest import Visit

_ANSWER = '() => __MONACO.editor.getModels().find((model) => model.uri.path.endsWith("response.json")).getValue()'
_WHO = "query Who { viewer { user { name } } }"
_TICKS = "subscription Ticks { ticks(upto: 5) { count seenBy } }"


def enter(visit: Visit, address: str | None = None) -> Page:
    visit.page.goto(f"{address or visit.cloud.address}/playground")
    expect(visit.page.locator(".graphiql-query-editor .view-line").first).to_be_visible()
    return visit.page


def sign_in(page: Page, password: str = PASSWORD) -> None:
    page.get_by_label("User name").fill("ada")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def write(page: Page, editor: str, text: str) -> None:
    page.locator(f"section[aria-label='{editor}'] .graphiql-editor:not(.hidden) .monaco-editor").click()
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(text)
    name = re.match(r"(?:query|mutation|subscription) (\w+)", text)
    if name:  # GraphiQL reads the operation's name a moment after the last key, and sends it with the document
        expect(page.locator(".graphiql-tab-active")).to_contain_text(name[1])


def run(page: Page) -> None:
    page.get_by_role("button", name="Execute query").click()


def answer(page: Page) -> dict[str, Any]:
    page.wait_for_function(f"""() => {{ const text = ({_ANSWER})(); return text.trim().endsWith("}}"); }}""")
    return dict(json.loads(page.evaluate(_ANSWER)))


def ask(page: Page, document: str) -> dict[str, Any]:
    write(page, "Operation Editor", document)
    run(page)
    return answer(page)


def test_signs_in_asks_and_signs_out(visit: Visit) -> None:
    page = enter(visit)
    assert ask(page, _WHO)["data"] == {"viewer": None}

    sign_in(page)
    expect(page.get_by_test_id("user")).to_have_text("ada")
    expect(page.locator("time")).to_have_text(re.compile(r"^expires in 11 h 59 min$"))
    token = list(visit.cloud.sessions.expiries)[-1]
    assert ask(page, _WHO)["data"] == {"viewer": {"user": {"name": "ada"}}}
    expect(page.locator(".graphiql-response")).to_contain_text('"ada"')

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("User name")).to_be_visible()
    assert visit.cloud.sessions.revoked[-1] == token
    assert ask(page, _WHO)["data"] == {"viewer": None}


def test_signs_in_and_reads_the_schema_where_only_trusted_documents_run(visit: Visit) -> None:
    with running(trusted=Assets().documents) as cloud:
        visit.cloud = cloud
        visit.page.context.unroute_all()
        visit.watch(visit.page.context)
        page = enter(visit)
        sign_in(page)
        expect(page.get_by_test_id("user")).to_have_text("ada")
        page.get_by_label("Show Documentation Explorer").click()
        expect(page.locator(".graphiql-doc-explorer")).to_contain_text("Subscription")
        assert ask(page, _WHO)["errors"][0]["extensions"]["code"] == "TRUSTED_DOCUMENT_REQUIRED"
        visit.forgive("400 (Bad Request)")
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("User name")).to_be_visible()
        assert len(cloud.sessions.revoked) == 1


def test_watches_a_subscription_with_the_session_token(visit: Visit) -> None:
    page = enter(visit)
    sign_in(page)
    expect(page.get_by_test_id("user")).to_have_text("ada")
    token = list(visit.cloud.sessions.expiries)[-1]

    write(page, "Operation Editor", _TICKS)
    run(page)
    page.wait_for_function(f"""() => ({_ANSWER})().includes('"count": 5')""")
    assert answer(page)["data"] == {"ticks": {"count": 5, "seenBy": "ada"}}
    assert visit.cloud.sessions.callers[-1].transport == "websocket"
    first = json.loads(visit.socket_messages[0])
    assert first == {"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}
    assert visit.cloud.address.replace("http", "ws") + "/graphql" in visit.requests


def test_a_subscription_without_a_session_says_why(visit: Visit) -> None:
    page = enter(visit)
    write(page, "Operation Editor", _TICKS)
    run(page)
    expect(page.locator(".graphiql-response")).to_contain_text("Sign in first.")
    assert json.loads(visit.socket_messages[0]) == {"type": "connection_init", "payload": {}}


def test_a_session_ended_elsewhere_ends_here(visit: Visit) -> None:
    page = enter(visit)
    sign_in(page)
    expect(page.get_by_test_id("user")).to_have_text("ada")
    write(page, "Operation Editor", "subscription Ticks { ticks(upto: 100000) { count seenBy } }")
    run(page)
    page.wait_for_function(f"""() => ({_ANSWER})().includes('"count"')""")
    visit.cloud.sessions.end(list(visit.cloud.sessions.expiries)[-1])
    expect(page.locator(".bar-message")).to_have_text("The session has ended: sign in again.")
    expect(page.locator(".graphiql-response")).to_contain_text("The gateway closed the connection")
    assert ask(page, _WHO)["data"] == {"viewer": None}


def test_a_refused_token_ends_the_session_at_the_next_request(visit: Visit) -> None:
    page = enter(visit)
    with page.expect_response(lambda response: "authorization" in response.request.headers):
        sign_in(page)  # after which GraphiQL reads the schema again, with the token
    visit.cloud.sessions.end(list(visit.cloud.sessions.expiries)[-1])
    assert ask(page, _WHO)["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    expect(page.locator(".bar-message")).to_have_text("The session has ended: sign in again.")
    visit.forgive("401 (Unauthorized)")


def test_no_secret_is_ever_stored(visit: Visit) -> None:
    page = enter(visit)
    sign_in(page)
    expect(page.get_by_test_id("user")).to_have_text("ada")
    token = list(visit.cloud.sessions.expiries)[-1]
    document = "mutation Join($input: SessionCreateInput!) { sessionCreate(input: $input) { token } }"
    write(page, "Operation Editor", document)
    write(page, "Variables", json.dumps({"input": {"username": "ada", "password": "another secret"}}))
    run(page)
    assert answer(page)["data"] == {"sessionCreate": {"token": None}}
    write(page, "Variables", json.dumps({"input": {"username": token, "comment": PASSWORD}}))
    run(page)
    page.wait_for_function("() => localStorage.getItem('graphiql:tabState') !== null")
    page.get_by_role("tab", name="Servers").click()
    page.wait_for_function("() => JSON.parse(localStorage.getItem('graphiql:tabState')).activeTabIndex === 2")

    stored = visit.stored()
    assert "query Servers" in stored
    for secret in (token, PASSWORD, "another secret", "Bearer"):
        assert secret not in stored
    page.reload()
    expect(page.get_by_label("User name")).to_be_visible()


def test_a_refusal_is_shown_in_words(visit: Visit) -> None:
    page = enter(visit)
    sign_in(page, password="wrong")
    expect(page.locator(".bar-message")).to_have_text("User name or password is wrong.")
    sign_in(page)
    expect(page.get_by_test_id("user")).to_have_text("ada")
    expect(page.locator(".bar-message")).to_have_count(0)


def test_takes_a_token_and_does_not_revoke_it(visit: Visit) -> None:
    token, _ = visit.cloud.sessions.open()
    page = enter(visit)
    page.get_by_role("button", name="Use a token").click()
    page.get_by_label("API key or token").fill("ses_unknown")
    page.get_by_role("button", name="Use token").click()
    expect(page.locator(".bar-message")).to_have_text("The token is not valid, or has expired.")
    visit.forgive("401 (Unauthorized)")

    page.get_by_label("API key or token").fill(f" {token}\n")
    page.get_by_role("button", name="Use token").click()
    expect(page.get_by_test_id("user")).to_have_text("ada")
    assert ask(page, _WHO)["data"] == {"viewer": {"user": {"name": "ada"}}}
    page.get_by_role("button", name="Forget token").click()
    expect(page.get_by_label("User name")).to_be_visible()
    assert token not in visit.cloud.sessions.revoked
    assert token not in visit.stored()


def test_a_session_that_expires_signs_out_by_itself(visit: Visit) -> None:
    visit.cloud.sessions.lifetime = dt.timedelta(seconds=2)
    try:
        page = enter(visit)
        sign_in(page)
        expect(page.locator("time")).to_have_text("expires in under a minute")
        expect(page.locator(".bar-message")).to_have_text("The session has expired: sign in again.")
        assert ask(page, _WHO)["data"] == {"viewer": None}
    finally:
        visit.cloud.sessions.lifetime = dt.timedelta(hours=12)


def test_an_unreachable_gateway_is_told_in_words(visit: Visit) -> None:
    page = enter(visit)
    page.context.route("**/graphql", lambda route: route.abort())
    sign_in(page)
    expect(page.locator(".bar-message")).to_have_text("The gateway cannot be reached.")
    visit.forgive("net::ERR_FAILED")


def test_the_schema_drives_the_editor(visit: Visit) -> None:
    """The graphql worker marks what the schema does not have and completes what it has; the documentation is read."""
    page = enter(visit)
    write(page, "Operation Editor", "query Wrong { viewerr { user { name } } }")
    expect(page.locator(".graphiql-query-editor .squiggly-error").first).to_be_attached()
    write(page, "Operation Editor", "query Half { vie")
    page.keyboard.press("Control+Space")
    expect(page.locator(".suggest-widget .monaco-list-row").first).to_contain_text("viewer")
    page.keyboard.press("Escape")
    page.get_by_label("Show Documentation Explorer").click()
    expect(page.locator(".graphiql-doc-explorer")).to_contain_text("Subscription")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_dialog_opens_under_the_policy(visit: Visit, scheme: Any) -> None:
    page = visit.page
    page.emulate_media(color_scheme=scheme)
    enter(visit)
    page.get_by_label("Open settings dialog").click()
    expect(page.get_by_role("dialog")).to_contain_text("Theme")
    expect(page.get_by_role("dialog")).not_to_contain_text("Persist headers")
    page.keyboard.press("Escape")
    page.get_by_label("Open short keys dialog").click()
    expect(page.get_by_role("dialog")).to_contain_text("Short Keys")
    page.keyboard.press("Escape")
    page.locator(".graphiql-query-editor .monaco-editor").click()
    page.keyboard.press("Control+F")
    expect(page.locator(".graphiql-query-editor .find-widget.visible")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("F1")
    expect(page.locator(".quick-input-widget")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_label("Show History").click()
    expect(page.locator(".graphiql-history")).to_be_visible()


def test_examples_are_the_first_tabs_and_come_back(visit: Visit) -> None:
    page = enter(visit)
    titles = page.locator(".graphiql-tab-button")
    expected = [
        "SignedIn",
        "Choices",
        "Servers",
        "PlanServer",
        "CreateServer",
        "FollowJob",
        "WatchEvents",
        "DeleteServer",
    ]
    expect(titles).to_have_text(expected)
    page.get_by_role("button", name="Open an example").click()
    page.get_by_role("menuitem", name="Create a server").click()
    expect(titles).to_have_text([*expected, "CreateServer"])
    expect(page.locator(".graphiql-query-editor")).to_contain_text("serverCreate")


def test_works_under_a_prefix(visit: Visit) -> None:
    with running("/cloud/one") as cloud:
        visit.cloud = cloud
        page = visit.page
        page.context.unroute_all()
        visit.watch(page.context)
        enter(visit)
        sign_in(page)
        expect(page.get_by_test_id("user")).to_have_text("ada")
        write(page, "Operation Editor", _TICKS)
        run(page)
        page.wait_for_function(f"""() => ({_ANSWER})().includes('"count": 5')""")
        assert all(
            address.startswith((cloud.address, cloud.address.replace("http", "ws"))) for address in visit.requests
        )


def test_the_landing_page_leads_everywhere(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.cloud.address}/")
    expect(page.get_by_role("heading", name="Stratograph")).to_be_visible()
    for link in page.get_by_role("link").all():
        address = link.get_attribute("href") or ""
        assert page.request.get(f"{visit.cloud.address}{address}").status == 200
    page.get_by_role("link", name="Open the playground").click()
    expect(page.locator(".graphiql-query-editor .view-line").first).to_be_visible()
    page.get_by_role("link", name="Stratograph").click()
    expect(page).to_have_url(f"{visit.cloud.address}/")
