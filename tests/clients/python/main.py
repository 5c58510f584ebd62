"""A server's life from a typed client: ground to stand on, plan, create, follow, look, delete, follow, clean up.

    STRATOGRAPH_PASSWORD=... .venv/bin/python main.py [url]

``stratograph_client`` is generated from the schema and from operations/*.graphql; every answer is a pydantic model.
Progress goes to stderr, the outcome to stdout as JSON. What the cloud refuses ends the program with its code.
"""

# ruff: noqa: INP001, T201 - a program that stands alone, and prints

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Protocol
from uuid import uuid4

import httpx
from stratograph_client import (
    ImageCreateInput,
    ImageDeleteInput,
    JobStatus,
    NetworkCreateInput,
    NetworkDeleteInput,
    ServerCreateInput,
    ServerDeleteInput,
    ServerNetworkInput,
    SessionCreateInput,
    StratographClient,
    SubnetCreateInput,
    TenantCreateInput,
    TenantDeleteInput,
    UserErrorCode,
)

ENDED = {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.STUCK}
RUN = uuid4().hex[:8]
EMPTY_DISK = bytes(510) + b"\x55\xaa" + bytes((2 << 20) - 512)


class Reason(Protocol):
    """One reason why a mutation did not do what was asked."""

    code: UserErrorCode
    message: str


class WithId(Protocol):
    """Anything that was answered with its id."""

    id: str


def accepted(reasons: Sequence[Reason]) -> None:
    """End here when something was refused."""
    for reason in reasons:
        raise SystemExit(f"{reason.code.value}: {reason.message}")


def connect(url: str, token: str | None = None) -> StratographClient:
    """A client of that cloud; the token is sent over HTTP and when a WebSocket is opened."""
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return StratographClient(
        url=f"{url}/graphql",
        headers=headers,
        ws_url=f"ws{url.removeprefix('http')}/graphql",
        ws_connection_init_payload=headers,
    )


async def follow(cloud: StratographClient, job: WithId | None) -> None:
    """Wait for a job's end, pushed and not polled."""
    if job is None:
        return
    async for pushed in cloud.job_changed(job.id):
        seen = pushed.job_changed
        print(f"{seen.kind} {seen.status.value} {seen.progress:.0%}", file=sys.stderr)
        if seen.status in ENDED:
            if seen.status is not JobStatus.SUCCEEDED:
                raise SystemExit(f"{seen.kind} {seen.status.value}: {seen.error.message if seen.error else ''}")
            return
    raise SystemExit(f"the job {job.id} is not there")


async def make_network(cloud: StratographClient, tenant: str) -> str:
    """A network with a range of addresses."""
    made = (await cloud.create_network(NetworkCreateInput(name=f"net-{RUN}", tenant_id=tenant))).network_create
    accepted(made.user_errors)
    assert made.network is not None
    wanted = SubnetCreateInput(network_id=made.network.id, cidr="10.43.0.0/24")
    subnet = (await cloud.create_subnet(wanted)).subnet_create
    accepted(subnet.user_errors)
    await follow(cloud, subnet.job)
    return made.network.id


async def make_image(cloud: StratographClient, tenant: str) -> str:
    """An image of an empty disk; big data goes to a signed URL, never through GraphQL."""
    made = (await cloud.create_image(ImageCreateInput(name=f"disk-{RUN}", tenant_id=tenant))).image_create
    accepted(made.user_errors)
    assert made.image is not None
    assert made.image.upload is not None
    async with httpx.AsyncClient() as http:
        (await http.put(made.image.upload.url, content=EMPTY_DISK)).raise_for_status()
    image = (await cloud.image_state(made.image.id)).image
    await follow(cloud, image.active_job if image else None)
    image = (await cloud.image_state(made.image.id)).image
    if image is None or image.status.value != "ACTIVE":
        raise SystemExit(f"the image is not usable: {image}")
    return made.image.id


async def life(cloud: StratographClient, wanted: ServerCreateInput) -> list[str]:
    """Plan, create, follow, look, delete; what status was seen in turn."""
    plan = (await cloud.plan_server(wanted)).server_create_plan
    accepted(plan.user_errors)
    made = (await cloud.create_server(wanted)).server_create
    accepted(made.user_errors)
    assert made.server is not None
    again = (await cloud.create_server(wanted)).server_create.server
    assert again is not None
    assert again.id == made.server.id, "sent twice, made twice"
    await follow(cloud, made.job)
    active = (await cloud.server_state(made.server.id)).server
    assert active is not None
    print(f"{active.name} {active.status.value} {' '.join(active.addresses)}", file=sys.stderr)
    deleted = (await cloud.delete_server(ServerDeleteInput(id=active.id))).server_delete
    accepted(deleted.user_errors)
    await follow(cloud, deleted.job)
    left = (await cloud.server_state(active.id)).server
    return [made.server.status.value, active.status.value, "GONE" if left is None else left.status.value]


async def main(url: str, password: str) -> None:
    """The whole round trip."""
    async with connect(url) as visitor:
        session = (await visitor.sign_in(SessionCreateInput(username="admin", password=password))).session_create
        accepted(session.user_errors)
    async with connect(url, session.token) as cloud:
        ground = await cloud.ground("tiny")
        assert ground.viewer is not None
        assert ground.viewer.user is not None
        tenant = (await cloud.create_tenant(TenantCreateInput(name=f"py-{RUN}"))).tenant_create
        accepted(tenant.user_errors)
        assert tenant.tenant is not None
        network = await make_network(cloud, tenant.tenant.id)
        image = await make_image(cloud, tenant.tenant.id)
        wanted = ServerCreateInput(
            name=f"web-{RUN}",
            tenant_id=tenant.tenant.id,
            flavor_id=ground.flavors.nodes[0].id,
            image_id=image,
            networks=[ServerNetworkInput(network_id=network)],
            idempotency_key=f"web-{RUN}",
        )
        seen = await life(cloud, wanted)
        await follow(cloud, (await cloud.delete_image(ImageDeleteInput(id=image))).image_delete.job)
        await follow(cloud, (await cloud.delete_network(NetworkDeleteInput(id=network))).network_delete.job)
        accepted((await cloud.delete_tenant(TenantDeleteInput(id=tenant.tenant.id))).tenant_delete.user_errors)
        await cloud.sign_out()
    print(json.dumps({"user": ground.viewer.user.name, "server": seen}))


if __name__ == "__main__":
    usual = os.environ.get("STRATOGRAPH_URL", "http://127.0.0.1:8080")
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else usual, os.environ["STRATOGRAPH_PASSWORD"]))
