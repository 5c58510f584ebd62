"""The storm: many send the same mutation under the same keys at once, and each is carried out once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlmodel import Session, func, select

from gateway.jobs import idempotency
from gateway.jobs.idempotency import Asked
from gateway.kernel import noun
from gateway.network import network as networks
from gateway.network.network import Network, NetworkCreate
from tests.jobs.queue import BACKENDS, at_once
from tests.world import World

KEYS = 200
EACH = 10


@pytest.mark.parametrize("database", BACKENDS)
def test_two_hundred_keys_sent_ten_times_each_make_two_hundred_objects(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    url = request.getfixturevalue("migrated_url") if database == "postgresql" else f"sqlite:///{tmp_path / 'world.db'}"
    world = World.open(url, tmp_path)
    try:
        tenant = world.tenant()
        alice = world.member(tenant)
        limits = [{"resource": "NETWORKS", "limit": -1}]
        world.admin.do("quotaSet", "__typename", tenantId=noun.public(tenant), limits=limits)

        def once(key: int) -> str:
            command = NetworkCreate(name=f"n{key}", idempotency_key=f"key-{key}")
            asked = Asked("networkCreate", f"key-{key}", f"network {key}")

            def work(session: Session) -> str:
                """What the frame of every mutation does (resolvers.kernel.roots)."""
                kept = idempotency.answer(session, alice.subject, asked)
                if kept is not None:
                    return noun.public(kept["network"])
                idempotency.reserve(session, alice.subject, asked)
                made = networks.create(session, alice.subject, command)
                session.flush()
                idempotency.keep(session, alice.subject, asked, {"network": made})
                return noun.public(made)

            return world.db.run(work)

        def send(_thread: int) -> list[str]:
            """Over the graph for one key in forty, as the graph itself takes longest."""
            made = []
            for key in range(KEYS):
                if key % 40 == 0:
                    answer = alice.do("networkCreate", "network { id }", name=f"n{key}", idempotencyKey=f"key-{key}")
                    made.append(str(answer["network"]["id"]))
                else:
                    made.append(once(key))
            return made

        answers = at_once(EACH, send)
        assert all(each == answers[0] for each in answers)
        assert len(set(answers[0])) == KEYS
        with world.db.read() as session:
            assert session.exec(select(func.count()).select_from(Network)).one() == KEYS
        other = alice.refused("networkCreate", name="another", idempotencyKey="key-0")
        assert other == [("IDEMPOTENCY_KEY_MISMATCH", ["idempotencyKey"])]
        quota = "query($id: ID!) { tenant(id: $id) { quotas { resource used } } }"
        told = world.admin.ok(quota, id=noun.public(tenant))["tenant"]["quotas"]
        assert {"resource": "NETWORKS", "used": KEYS} in told
    finally:
        world.close()
