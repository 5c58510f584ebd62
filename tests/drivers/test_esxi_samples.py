"""How ESXi's intervals become totals, and how good they say they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from pyVmomi import vim

from drivers import api
from drivers.api import Deadline, Driver, Power, PowerAction, Quality
from drivers.esxi.samples import BATCH, COUNTERS, INTERVAL_S, TOTALS, Total, add_up
from tests.drivers.esxi_host import MIB, SECONDS, connect, program_in, simulated
from tests.servers.esxsim import EsxSim

BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
KEYS = dict(enumerate(COUNTERS))
CPU = list(COUNTERS).index("cpu.used.summation")


def answer(intervals: int, *, without: int | None = None, value: int = 3) -> Any:
    kinds = vim.PerformanceManager
    ends = [BEGUN + timedelta(seconds=INTERVAL_S * (at + 1)) for at in range(intervals)]
    series = [
        kinds.IntSeries(id=kinds.MetricId(counterId=key, instance=""), value=[value] * intervals)
        for key in KEYS
        if key != without
    ]
    info = [kinds.SampleInfo(timestamp=each, interval=INTERVAL_S) for each in ends]
    return kinds.EntityMetric(sampleInfo=info, value=series)


def fresh() -> Total:
    return Total(BEGUN, BEGUN, dict.fromkeys(TOTALS, 0))


def test_intervals_are_added_up_once() -> None:
    total = fresh()
    assert add_up(total, answer(2), KEYS)
    assert total.values["cpu_time_ns"] == 2 * 3 * 1_000_000
    assert total.values["disk_read_bytes"] == 2 * 3 * 1024 * INTERVAL_S
    assert add_up(total, answer(3), KEYS)
    assert total.values["cpu_time_ns"] == 3 * 3 * 1_000_000
    assert add_up(total, answer(3), KEYS)
    assert total.values["disk_writes"] == 3 * 3


def test_what_was_not_measured_is_not_counted_and_told() -> None:
    total = fresh()
    assert not add_up(total, answer(2, without=CPU), KEYS)
    assert total.values["cpu_time_ns"] == 0
    total = fresh()
    assert not add_up(total, answer(2, value=-1), KEYS)
    assert set(total.values.values()) == {0}
    assert add_up(total, answer(2), KEYS)  # nothing new, and nothing missing


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        made.delay("*", 5)
        yield made


@pytest.fixture(scope="module")
def driver(sim: EsxSim) -> Iterator[Driver]:
    opened = connect(sim)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def ids(driver: Driver) -> list[UUID]:
    """Four machines, the last of which stays off."""
    made = [uuid4() for _ in range(4)]
    for each in made:
        driver.volumes.ensure(api.VolumeSpec(each, MIB), Deadline(SECONDS))
        spec = api.MachineSpec(each, "m", 1, 64, (api.DiskSpec(each, "vda"),))
        driver.machines.ensure(spec, Deadline(SECONDS))
    for each in made[:3]:
        driver.machines.power(each, PowerAction.ON, Deadline(SECONDS))
    return made


def samples(driver: Driver) -> dict[UUID, api.Sample]:
    return {each.machine_id: each for each in driver.machines.sample(Deadline(SECONDS))}


def test_one_question_for_many_machines_and_none_for_those_that_are_off(
    sim: EsxSim, driver: Driver, ids: list[UUID]
) -> None:
    assert len(ids) < BATCH
    sim.calls()
    seen = samples(driver)
    assert sim.calls()["QueryPerf"] == 1
    assert set(seen) == set(ids)
    assert {seen[each].quality for each in ids[:3]} <= {Quality.SUMMED, Quality.PARTIAL}
    off = seen[ids[3]]
    assert (off.power, off.cpu_time_ns, off.disk_reads, off.ram_used_mib) == (Power.OFF, None, None, None)
    driver.machines.power(ids[0], PowerAction.SUSPEND, Deadline(SECONDS))
    asleep = samples(driver)[ids[0]]
    assert (asleep.power, asleep.cpu_time_ns, asleep.net_sent_bytes) == (Power.SUSPENDED, None, None)
