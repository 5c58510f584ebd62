"""The inventory finds what asking every host finds, and learns what others change."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import Session, col, select

from gateway.compute import host as hosts
from gateway.compute import inventory, placing
from gateway.compute.host import Amount, Host, HostStatus, HostUpdate, Hypervisor
from gateway.compute.inventory import LOOK, Inventory
from gateway.compute.placement import Candidate, Request, decide, weigh
from gateway.kernel import noun
from gateway.kernel.access import CLOUD
from gateway.kernel.db import Database
from gateway.kernel.errors import NoValidHost
from tests.compute.test_placement import candidates, fits_by_brute_force, requests, unhurried
from tests.end_to_end.processes import wait_for
from tests.world import World

WISH = Request(vcpus=1, ram_mib=100, disk_gib=1, needs=frozenset({"MACHINES", "VOLUMES"}))
ONE = Amount(1, 100, 1)


@unhurried
@given(requests(), candidates(), st.lists(st.integers(0, 7), max_size=4), st.integers(-2, 64))
def test_the_inventory_ranks_as_if_all_hosts_were_asked(
    request: Request, found: list[Candidate], changed: list[int], free: int
) -> None:
    known = Inventory()
    known.learn(found)
    found = [replace(host, free_vcpus=min(free, host.vcpus)) if host.id in changed else host for host in found]
    known.learn(found)
    fitting = [host for host in found if fits_by_brute_force(request, host)]
    expected = sorted(fitting, key=lambda host: (-weigh(request, host), host.name))
    assert known.rank(request) == expected
    assert known.rank(request, 1) == expected[:1]
    decision = decide(request, found, known.rank(request))
    assert decision == decide(request, found)
    assert decision.chosen == (expected[0].uid if expected else None)


def test_of_very_many_alike_one_that_fits_is_found_wherever_it_lies() -> None:
    """All but one of a bucket have a full disk, and most have more vCPUs left than the one that fits."""
    known = Inventory()
    many = 12 * LOOK
    known.learn(
        Candidate(
            id=number, uid=f"host_{number}", name=f"h{number:05d}", hypervisor="SIM", availability_zone="default",
            enabled=True, online=True, vcpus=64, ram_mib=1024, disk_gib=100, free_vcpus=64 - number % 64,
            free_ram_mib=1024, free_disk_gib=50 if number == many - 1 else 10, capabilities=frozenset(),
        )
        for number in range(many)
    )  # fmt: skip
    best = known.rank(Request(vcpus=1, ram_mib=1, disk_gib=40))
    assert [host.id for host in best] == [many - 1]
    assert len(known.rank(Request(vcpus=1, ram_mib=1, disk_gib=5))) == inventory.MOST


def _hosts(world: World, *names: str) -> list[int]:
    def work(session: Session) -> list[int]:
        rows = [
            Host(
                name=name, endpoint="sim://n", hypervisor=Hypervisor.SIM, status=HostStatus.ONLINE, vcpus=10,
                vcpu_ratio=1.0, ram_mib=10_000, disk_gib=100, free_ram_mib=10_000, capabilities=["MACHINES", "VOLUMES"],
            )
            for name in names
        ]  # fmt: skip
        session.add_all(rows)
        session.flush()
        return [row.id for row in rows]

    return world.db.run(work)


def _seen(db: Database, known: Inventory) -> dict[str, int]:
    """How many vCPUs each host has left, as the inventory knows it."""
    with db.read() as session:
        known.refresh(session)
        return {host.name: host.free_vcpus for host in known.everyone(session)}


def test_the_inventory_learns_what_others_change(world: World) -> None:
    first, second, third = _hosts(world, "n0", "n1", "n2")
    known = Inventory()
    assert _seen(world.db, known) == {"n0": 10, "n1": 10, "n2": 10}
    world.db.run(lambda session: hosts.claim(session, second, ONE))
    assert _seen(world.db, known) == {"n0": 10, "n1": 9, "n2": 10}
    world.db.run(lambda session: hosts.release(session, second, ONE))
    public = noun.public(world.host_row("n0"))
    world.db.run(lambda session: hosts.update(session, CLOUD, HostUpdate(id=public, vcpu_ratio=2.0)))
    assert _seen(world.db, known) == {"n0": 20, "n1": 10, "n2": 10}
    world.db.run(lambda session: session.delete(session.get_one(Host, third)))
    _hosts(world, "late")
    assert _seen(world.db, known)["late"] == 10
    world.db.run(lambda session: hosts.claim(session, first, ONE))
    assert _seen(world.db, known)["n0"] == 19


def test_only_what_changed_is_read(world: World) -> None:
    first, *_others = _hosts(world, *(f"n{number}" for number in range(20)))
    known = Inventory()

    def is_up_to_date() -> bool:
        with world.db.read() as session:
            known.refresh(session)
            return list(inventory._changed_since(session, known._horizon)[1]) == []

    # PostgreSQL's horizon waits for the transactions of other tests on the same server.
    wait_for("the end of older transactions", is_up_to_date)
    world.db.run(lambda session: hosts.claim(session, first, ONE))
    with world.db.read() as session:
        horizon, rows = inventory._changed_since(session, known._horizon)
        assert [row.id for row in rows] == [first]
        everything = inventory._changed_since(session, None)
    assert everything[0] >= horizon
    assert len(everything[1]) == 20


def test_a_database_has_one_inventory_as_long_as_it_is_open(world: World) -> None:
    other = Database(world.db.url.render_as_string(hide_password=False), now=world.db.clock)
    found = [other.run(inventory.of) for _ in range(2)]
    assert found[0] is found[1]
    assert found[0] is not world.db.run(inventory.of)
    other.close()
    assert other.run(inventory.of) is not found[0]
    other.close()


def test_what_is_rolled_back_is_not_learnt(world: World) -> None:
    (only,) = _hosts(world, "n0")
    known = Inventory()
    _seen(world.db, known)

    def work(session: Session) -> None:
        assert hosts.claim(session, only, ONE)
        known.refresh(session)

    world.db.rehearse(work)
    assert _seen(world.db, known) == {"n0": 10}


def test_a_slower_transaction_is_not_missed(world: World) -> None:
    """On PostgreSQL numbers of transactions are given out before they commit, and not in that order."""
    if world.db.sqlite:
        return  # one writer at a time: there is no slower one
    first, second = _hosts(world, "n0", "n1")
    known = Inventory()
    _seen(world.db, known)
    with world.db.write() as slow:
        hosts.claim(slow, first, ONE)
        slow.flush()
        world.db.run(lambda session: hosts.claim(session, second, ONE))
        assert _seen(world.db, known) == {"n0": 10, "n1": 9}
    assert _seen(world.db, known) == {"n0": 9, "n1": 9}


def test_a_host_that_is_being_taken_is_left_for_the_next_best(world: World) -> None:
    first, second = _hosts(world, "n0", "n1")
    if world.db.sqlite:
        return  # one writer at a time
    with world.db.write() as slow:
        assert hosts.claim(slow, first, ONE)
        chosen = world.db.run(lambda session: placing.place(session, WISH, ONE, "server"))
        assert chosen is not None
        assert chosen.id == second


def test_a_host_that_went_is_forgotten(world: World) -> None:
    first, second = _hosts(world, "n0", "n1")
    known = Inventory()
    world.db.provide("inventory", known)
    _seen(world.db, known)
    world.db.run(lambda session: session.delete(session.get_one(Host, first)))
    chosen = world.db.run(lambda session: placing.place(session, WISH, ONE, "server"))
    assert chosen is not None
    assert chosen.id == second
    assert first in [host.id for host in known.rank(WISH)]  # nobody said that it went
    with world.db.read() as session:
        known.refresh(session)
    assert [host.id for host in known.rank(WISH)] == [second]


def test_parallel_placements_fill_all_hosts_and_no_further(world: World) -> None:
    """32 clients of two processes' inventories, 25 hosts for 10 each: 250 fit of 256."""
    _hosts(world, *(f"n{number}" for number in range(25)))
    other = Database(world.db.url.render_as_string(hide_password=False), now=world.db.clock)
    other.provide("inventory", Inventory())
    placed: list[int | None] = []

    def client(db: Database) -> None:
        for _ in range(8):
            try:
                found = db.run(lambda session: placing.place(session, WISH, ONE, "server"))
            except NoValidHost:
                placed.append(None)
            else:
                assert found is not None
                placed.append(found.id)

    threads = [threading.Thread(target=client, args=(db,)) for db in (world.db, other) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    counted = Counter(placed)
    assert counted.pop(None) == 6
    assert set(counted.values()) == {10}
    assert len(counted) == 25
    with world.db.read() as session:
        rows = session.exec(select(Host).order_by(col(Host.id))).all()
    assert {(row.used_vcpus, row.used_ram_mib, row.used_disk_gib, row.free_ram_mib) for row in rows} == {
        (10, 1000, 10, 9000)
    }
