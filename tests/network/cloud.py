"""What the tests of networks share: short ways to make things, to put a port on a host as a server's saga does, and to
count SQL statements.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, SQLModel, col, select

from drivers.sim import DataCentre
from gateway.identity.quota import Quota, Resource
from gateway.identity.tenant import Tenant
from gateway.jobs import job as jobs
from gateway.jobs.event import Event
from gateway.jobs.job import Job, Order
from gateway.kernel import ids, noun
from gateway.kernel.access import CLOUD
from gateway.kernel.errors import Invalid
from gateway.network.port import Port
from tests.world import Client, World
from workers.network import port as port_work
from workers.saga import Run, Step, saga


def _on(run: Run) -> None:
    port_work.ensure_on_host(run, run.arguments["port_id"], run.arguments["host_id"])


def _off(run: Run) -> None:
    port_work.remove_from_host(run, run.arguments["port_id"], run.arguments["host_id"])


def _fail(run: Run) -> None:
    if run.arguments["fail"]:
        raise Invalid("asked to fail")


saga(
    "test.port",
    Step("on", _on, _off),
    Step("fail", _fail, kept="nothing"),
)
saga("test.port-off", Step("off", _off, kept="nothing"), forward=True)


def network(client: Client, *cidrs: str, name: str = "net", **given: Any) -> str:
    """A network with subnets; its id."""
    made: str = client.do("networkCreate", "network { id }", name=name, **given)["network"]["id"]
    for cidr in cidrs:
        subnet(client, made, cidr)
    return made


def subnet(client: Client, network_id: str, cidr: str, **given: Any) -> str:
    """A subnet; its id."""
    made: str = client.do("subnetCreate", "subnet { id }", networkId=network_id, cidr=cidr, **given)["subnet"]["id"]
    return made


def port(client: Client, network_id: str, **given: Any) -> dict[str, Any]:
    """A port with its addresses."""
    selection = "port { id macAddress ipAddresses }"
    made: dict[str, Any] = client.do("portCreate", selection, networkId=network_id, **given)["port"]
    return made


def group(client: Client, name: str = "web") -> str:
    """A security group; its id."""
    made: str = client.do("securityGroupCreate", "securityGroup { id }", name=name)["securityGroup"]["id"]
    return made


def blocked(client: Client, mutation: str, public_id: str) -> list[str]:
    """What stands in the way of a deletion, which must be refused as IN_USE at ``id``."""
    kind = f"{mutation[0].upper()}{mutation[1:]}Input!"
    selection = "userErrors { code path ... on InUse { blockers } }"
    document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {selection} }} }}"
    (told,) = client.ok(document, input={"id": public_id})[mutation]["userErrors"]
    assert (told["code"], told["path"]) == ("IN_USE", ["id"])
    found: list[str] = told["blockers"]
    return found


def key(world: World, public_id: str) -> int:
    """The internal key of a public id."""
    prefix, _, _ = public_id.rpartition("_")
    with world.db.read() as session:
        return int(noun.BY_PREFIX[prefix].get(session, CLOUD, public_id).id)


def carry(world: World, public_id: str, centre: DataCentre, *, on: bool = True, fail: bool = False) -> Job:
    """Put a port on a host, or take it off, by a job as a server's does it; the job when it has ended."""
    arguments = {"port_id": key(world, public_id), "host_id": world.host_row(centre.name).id, "fail": fail}
    order = Order("test.port" if on else "test.port-off", None, target=public_id, arguments=arguments)
    made = world.db.run(lambda session: jobs.submit(session, CLOUD, order))
    world.work()
    return world.job(jobs.NOUN.public(made))


def used(world: World, tenant: Tenant, resource: Resource) -> int:
    """What a tenant's quota says is used."""
    with world.db.read() as session:
        statement = select(Quota.used).where(Quota.tenant_id == tenant.id, Quota.resource == resource)
        return session.exec(statement).one()


def rows(world: World) -> dict[str, list[Any]]:
    """All rows of the network service and its quotas, to show that nothing changed."""
    tables = ("network", "network_host", "subnet", "free_range", "port", "port_address", "port_security_group",
              "security_group", "security_group_rule", "quota", "usage_interval")  # fmt: skip
    with world.db.read() as session:
        return {name: sorted(session.execute(sa.select(_known(name))).all(), key=str) for name in tables}


def _known(name: str) -> sa.Table:
    return SQLModel.metadata.tables[name]


def host_of(world: World, public_id: str) -> int | None:
    """The key of the host that a port is recorded on."""
    with world.db.read() as session:
        return session.get_one(Port, key(world, public_id)).host_id


def events(session: Session, public_id: str) -> list[str]:
    """The kinds of a thing's events, oldest first."""
    _, uid = ids.decode(public_id)
    return list(session.exec(select(Event.kind).where(Event.object_uid == uid).order_by(col(Event.id))))


@contextmanager
def counted() -> Iterator[list[str]]:
    """The SQL statements sent meanwhile, by every engine of this process, without transaction control."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.split(maxsplit=1)[0] in {"SELECT", "INSERT", "UPDATE", "DELETE"}:
            sent.append(statement)

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
