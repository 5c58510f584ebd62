"""Jobs that are stuck and what else happens to their objects meanwhile."""

from __future__ import annotations

from pathlib import Path

from sqlmodel import select

from drivers.api import Refused
from gateway.compute import server
from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.identity.quota import Quota
from gateway.jobs.job import Job, Status
from gateway.kernel import noun
from gateway.volume.volume import Volume
from tests.sagas import disturbance
from tests.sagas.scenarios import SCENARIOS
from tests.sagas.stage import Template


def test_a_server_whose_making_is_stuck_can_be_deleted_and_the_job_retried(tmp_path: Path) -> None:
    template = Template.make(tmp_path / "stage", SCENARIOS["server.create"])
    with template.copy() as stage:
        stage.centre.fail("machines.ensure", Refused, after=True, times=1)
        stage.centre.fail("machines.remove", Refused, times=None)
        stage.world.work()
        with stage.world.db.read() as session:
            assert session.get_one(Job, template.job.id).status is Status.STUCK
            made = session.exec(select(Server)).one()
        stage.centre.heal()
        stage.order(server.delete, server.ServerDelete(id=noun.public(made)))
        stage.world.work()
        disturbance.retry(stage, template.job)
        stage.world.work()
        with stage.world.db.read() as session:
            assert session.get_one(Job, template.job.id).status is Status.FAILED
            assert session.exec(select(Server)).all() == []
            kept = session.exec(select(Volume)).all()
            host = session.exec(select(Host)).one()
            used = {each.resource.value: each.used for each in session.exec(select(Quota)) if each.used}
        size = sum(volume.size_gib for volume in kept)
        assert (host.used_vcpus, host.used_ram_mib, host.used_disk_gib) == (0, 0, size)
        assert {key: used.get(key, 0) for key in ("SERVERS", "VCPUS", "PORTS", "VOLUMES")} == {
            "SERVERS": 0,
            "VCPUS": 0,
            "PORTS": 0,
            "VOLUMES": len(kept),
        }
        there = stage.centre.snapshot_of_world()
        assert there.machines == {}
        assert set(there.volumes) == {str(volume.uid) for volume in kept}
