"""The schema as a product: releases, deprecations with dates that are kept, the future, the errors' page."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from graphql import build_schema
from starlette.applications import Starlette
from starlette.testclient import TestClient

from gateway.dashboard.routes import routes
from resolvers.release import CHANGELOG, HEAD, RELEASED, Refused, release
from resolvers.schema import sdl
from resolvers.schema_care.changes import between
from resolvers.schema_care.deprecation import deprecations, future, places
from resolvers.schema_care.errors import FOLDER, PAGE, page, pages

TODAY = date(2026, 6, 1)
OLD = """
enum Colour { RED GREEN @deprecated(reason: "Use `RED`. Removal on 2026-05-31.") }
input Wish { colour: Colour size: Int @deprecated(reason: "Use `colour`. Removal on 2026-07-01.") }
interface Thing { id: ID! }
type Lamp implements Thing {
  id: ID!
  name: String
  label(long: Boolean, short: Boolean @deprecated(reason: "Use `long`. Removal on 2026-06-01.")): String
  title: String @deprecated(reason: "Use `name`. Removal on 2026-06-01.")
}
type Query { lamp(wish: Wish): Lamp count: Int }
"""
KEPT = OLD.replace(' GREEN @deprecated(reason: "Use `RED`. Removal on 2026-05-31.")', "")


def test_what_clients_were_made_from_still_works() -> None:
    """The gate: nothing that was released breaks, except what was deprecated and whose date has come."""
    found = between(RELEASED.read_text(encoding="utf-8"), sdl(), datetime.now(tz=UTC).date())
    assert found.breaking == (), "this breaks clients of the released schema: deprecate first (resolvers/README.md)"


def test_the_changelog_is_generated() -> None:
    assert CHANGELOG.read_text(encoding="utf-8").startswith(HEAD)


def test_every_deprecation_says_what_to_use_and_keeps_its_date() -> None:
    found = deprecations(sdl())
    assert [each.place for each in found if each.removal is None] == [], 'write "Use `x`. Removal on YYYY-MM-DD."'
    today = datetime.now(tz=UTC).date()
    assert [each.place for each in found if each.removal is not None and each.removal < today] == [], "remove them now"


def test_the_page_of_errors_is_as_committed() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run python -m resolvers.schema_care.errors and commit it"


def test_every_type_of_user_error_has_a_page_as_committed() -> None:
    committed = {each.stem: each.read_text(encoding="utf-8") for each in FOLDER.glob("*.md")}
    assert pages() == committed, "run python -m resolvers.schema_care.errors and commit it"
    assert {"InvalidState", "NoValidHost", "Problem", "QuotaExceeded", "StaleVersion"} <= committed.keys()


def test_the_future_of_the_present_schema_is_a_schema() -> None:
    text = future(sdl())
    assert deprecations(text) == []
    assert build_schema(text).query_type is not None
    assert places(text) == places(sdl()) - {each.place for each in deprecations(sdl())}


def test_the_future_is_served_beside_the_present() -> None:
    client = TestClient(Starlette(routes=routes(sdl=OLD, future=lambda: future(OLD))))
    present, coming = client.get("/schema.graphql"), client.get("/schema.graphql?future")
    assert (present.text, coming.text) == (OLD, future(OLD))
    assert present.headers["etag"] != coming.headers["etag"]
    assert client.get("/schema.graphql?future", headers={"If-None-Match": coming.headers["etag"]}).status_code == 304


# ------------------------------------------------------------------------------------------------ the tools themselves


def test_deprecations_are_found_wherever_they_are() -> None:
    assert [(each.place, each.removal) for each in deprecations(OLD)] == [
        ("Colour.GREEN", date(2026, 5, 31)),
        ("Lamp.label(short)", date(2026, 6, 1)),
        ("Lamp.title", date(2026, 6, 1)),
        ("Wish.size", date(2026, 7, 1)),
    ]


@pytest.mark.parametrize(
    "reason",
    ["", "old", "Use `name`.", "Use name. Removal on 2026-06-01.", "Use `a`. Removal on 2026-13-01.",
     "Use `a`. Removal on 2026-06-01. Really."],
)  # fmt: skip
def test_an_odd_reason_has_no_date(reason: str) -> None:
    [found] = deprecations(f'type Query {{ a: Int @deprecated(reason: "{reason}") }}')
    assert (found.reason, found.removal) == (reason, None)


def test_the_future_lacks_what_is_deprecated_and_nothing_else() -> None:
    gone = {"Colour.GREEN", "Lamp.label(short)", "Lamp.title", "Wish.size"}
    assert places(future(OLD)) == places(OLD) - gone


def test_taking_away_what_was_announced_breaks_nothing() -> None:
    found = between(OLD, KEPT, TODAY)
    assert (found.breaking, found.removed) == ((), ("Colour.GREEN",))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("  name: String\n", "", "Field Lamp.name was removed."),
        (' size: Int @deprecated(reason: "Use `colour`. Removal on 2026-07-01.")', "", "Field Wish.size was removed."),
        ("lamp(wish: Wish)", "lamp(wish: Wish!)", "lamp(wish:)"),
    ],
)
def test_taking_away_anything_else_breaks(before: str, after: str, said: str) -> None:
    assert before in OLD
    [sentence] = between(OLD, OLD.replace(before, after), TODAY).breaking
    assert said in sentence


def test_what_is_dangerous_safe_and_newly_deprecated_is_told_apart() -> None:
    new = OLD.replace("enum Colour { RED", "enum Colour { BLUE RED").replace("type Query {", "type Query { more: Int ")
    new = new.replace("  name: String\n", '  name: String @deprecated(reason: "Use `id`. Removal on 2027-01-01.")\n')
    found = between(OLD, new, TODAY)
    assert found.breaking == ()
    assert len(found.dangerous) == 1
    assert "BLUE" in found.dangerous[0]
    assert [each for each in found.safe if "more" in each] == list(found.safe)
    assert found.deprecated == ("Lamp.name: Use `id`. Removal on 2027-01-01.",)


def test_a_release_writes_what_changed_and_refuses_what_breaks(tmp_path: Path) -> None:
    assert release(tmp_path, OLD, "1.0.0", TODAY) is not None
    assert release(tmp_path, OLD, "1.0.1", TODAY) is None
    log = tmp_path / CHANGELOG.name
    first = log.read_text()
    broken = KEPT.replace("  name: String\n", "")
    with pytest.raises(Refused, match=r"Lamp\.name"):
        release(tmp_path, broken, "1.1.0", TODAY)
    assert (log.read_text(), (tmp_path / RELEASED.name).read_text()) == (first, OLD)
    assert release(tmp_path, KEPT, "1.1.0", TODAY) is not None
    assert release(tmp_path, broken, "2.0.0", TODAY, breaking=True) is not None
    assert (tmp_path / RELEASED.name).read_text() == broken
    text = log.read_text()
    assert text.startswith(HEAD)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Changelog of the schema", "## 2.0.0, 2026-06-01", "### Breaking", "## 1.1.0, 2026-06-01",
        "### Removed as announced", "## 1.0.0, 2026-06-01",
    ]  # fmt: skip
    assert text.endswith(first.removeprefix(HEAD).lstrip("\n"))
