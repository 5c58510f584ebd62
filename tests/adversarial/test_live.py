"""Generated operations over HTTP, as every role of a tenant, while workers carry out what they set in motion: never a
status of 500, nothing of the inside, and afterwards all work is done and the process is as well as before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import strategies as st

from gateway.client import Client
from tests.adversarial.documents import operations
from tests.adversarial.examples import SCHEMA, Drawn, Root, every_root
from tests.adversarial.live import post, sane
from tests.end_to_end.processes import Gateway, asked, cloud, wait_for
from tests.end_to_end.scene import Scene, small_disk

pytestmark = pytest.mark.timeout(300)
WORD = "a long pass phrase"


@dataclass(frozen=True)
class People:
    """A gateway, the tokens of a tenant's people by role (nobody has none), and ids to meddle with."""

    gateway: Gateway
    admin: Client
    tokens: dict[str, str | None]
    ids: list[str]


@pytest.fixture
def people(tmp_path: Path) -> Iterator[People]:
    with ExitStack() as stack:
        gateway = stack.enter_context(cloud(tmp_path / "cloud")).gateways[0]
        admin = stack.enter_context(gateway.client())
        scene = Scene.make(admin, small_disk(tmp_path))
        server, volume = scene.make_server(), scene.make_volume(sizeGib=1)
        tokens: dict[str, str | None] = {"nobody": None}
        users = []
        for role in ("READER", "MEMBER", "MANAGER"):
            user = admin.do("userCreate", "user { id }", name=role.lower(), password=WORD)["user"]["id"]
            admin.do("memberAdd", "__typename", tenantId=scene.tenant, user={"id": user}, role=role)
            client = stack.enter_context(Client(gateway.url))
            client.sign_in(role.lower(), WORD)
            users.append(user)
            tokens[role.lower()] = client.token
        ids = [scene.tenant, scene.network, scene.image, scene.flavor, server, volume, *users]
        yield People(gateway, admin, tokens, ids)


def test_generated_operations_leave_the_process_well(people: People) -> None:
    def check(root: Root, data: Drawn) -> None:
        role = data.draw(st.sampled_from(sorted(people.tokens)))
        document, values = data.draw(operations(SCHEMA, people.ids, root, people.ids))
        body = json.dumps({"query": document, "variables": values}).encode()
        sent[f"generated-{len(sent):06}"] = f"{role}: {body.decode()}"
        sane(post(people.gateway, body, people.tokens[role], **{"x-request-id": next(reversed(sent))}))

    sent: dict[str, str] = {}
    seen = len(people.gateway.told())
    every_root("query", 1, check)
    every_root("mutation", 2, check)
    live = "{ jobs(filter: { live: true }) { totalCount } }"
    wait_for("the end of all jobs", lambda: people.admin.run(live)["jobs"]["totalCount"] == 0, 60)
    assert asked(f"{people.gateway.url}/healthz")["status"] == "ok"
    told = people.gateway.told()[seen:].splitlines()
    bugs = [line for line in told if '"level": "error"' in line or "Traceback" in line]
    assert bugs == [], [sent[each] for line in bugs for each in re.findall(r"generated-\d{6}", line)]
