from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta

from gateway.jobs import job as jobs
from tests.compute.scene import Scene
from tests.world import World
from workers.main import disown_the_dead, runner_name


def test_jobs_of_a_process_that_died_here_go_on_at_once(world: World) -> None:
    scene = Scene.make(world)
    made = [world.job(scene.create()["job"]["id"]).id for _ in range(3)]
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead, alive = runner_name(int(ended.stdout)), runner_name(os.getpid())
    for job_id, runner in zip(made, (dead, alive, "elsewhere-1"), strict=True):
        world.db.run(lambda s, j=job_id, r=runner: jobs.claim(s, j, r, timedelta(hours=1)))  # type: ignore[misc]  # mypy cannot infer a defaulted lambda
    with world.db.read() as session:
        assert jobs.due(session) == []
    disown_the_dead(world.db)
    with world.db.read() as session:
        assert jobs.due(session) == [made[0]]
        assert jobs.holders(session) == {alive, "elsewhere-1"}
