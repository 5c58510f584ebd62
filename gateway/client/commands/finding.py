"""How the commands find things: by name, by id, page by page.

A name stands for one thing or for none: where several bear it, the command is refused with the candidates' ids, never
settled by a guess. An id is never looked up: the API says itself whether it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.client.commands import documents
from gateway.client.commands.nouns import Noun
from gateway.client.problem import Problem

if TYPE_CHECKING:
    from gateway.client.client import Client

PAGE: Final = 100
_CANDIDATES: Final = 20


def find(client: Client, noun: Noun, text: str, *, tenant: str | None = None) -> str:
    """The id of what is named. Raises Problem: NOT_FOUND, or AMBIGUOUS with the candidates."""
    if re.fullmatch(rf"{noun.name}_[0-9a-hjkmnp-tv-z]{{26}}", text):
        return text
    wanted = {"name": text, **({"tenantId": tenant} if tenant is not None and noun.owned else {})}
    found = client.run(documents.by_name(noun), filter=wanted, first=_CANDIDATES)[noun.plural]["nodes"]
    if not found:
        raise Problem("NOT_FOUND", f"There is no {noun.name} called {text}.")
    if len(found) > 1:
        candidates = [
            f"{each['id']}" + (f" (tenant {each['tenant']['name']})" if each.get("tenant") else "") for each in found
        ]
        message = f"Several {noun.plural} are called {text}: give an id."
        raise Problem("AMBIGUOUS", message, data={"candidates": candidates})
    return str(found[0]["id"])


def get(client: Client, noun: Noun, public_id: str) -> dict[str, Any]:
    """The thing with an id. Raises Problem NOT_FOUND."""
    found: dict[str, Any] | None = client.run(documents.by_id(noun), id=public_id)[noun.name]
    if found is None:
        raise Problem("NOT_FOUND", f"There is no {noun.name} {public_id}.")
    return found


def pages(client: Client, noun: Noun, wanted: Mapping[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The things that a filter asks for, page by page; at most ``limit``, 0 for all."""
    given, after = 0, None
    while True:
        first = PAGE if not limit else min(PAGE, limit - given)
        page = client.run(documents.page(noun), filter=dict(wanted), first=first, after=after)[noun.plural]
        yield from page["nodes"]
        given += len(page["nodes"])
        if not page["pageInfo"]["hasNextPage"] or (limit and given >= limit):
            return
        after = page["pageInfo"]["endCursor"]
