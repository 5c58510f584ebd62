"""A live gateway, asked by HTTP; and what every answer of one in good order has in common."""

from __future__ import annotations

import re
from typing import Any

import httpx2

from tests.end_to_end.processes import Gateway

JSON = {"content-type": "application/json"}
INSIDE = re.compile(r'Traceback|File "|sqlalchemy|sqlite3?\.|OperationalError|\.py\b|INTERNAL')


def sane(response: httpx2.Response) -> Any:
    """The answer of a gateway in good order."""
    assert response.status_code < 500, response.text[:500]
    assert not INSIDE.search(response.text), response.text[:500]
    body = response.json()
    assert body.get("errors") or "data" in body
    for each in body.get("errors", []):
        assert each["extensions"]["code"]
        assert each["extensions"]["requestId"]
    return body


def post(gateway: Gateway, content: bytes, token: str | None = None, **headers: str) -> httpx2.Response:
    """POST a body."""
    bearer = {} if token is None else {"authorization": f"Bearer {token}"}
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{gateway.url}/graphql", content=content, headers={**JSON, **bearer, **headers})
