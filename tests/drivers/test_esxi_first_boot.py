"""What a guest on an ESXi host is told at its first boot, and that it does not stay readable on the host."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pycdlib import PyCdlib

from drivers import api
from drivers.api import Deadline, Driver, HostAtFault, PowerAction, Refused
from drivers.esxi import seed
from tests.drivers.esxi_host import MIB, SECONDS, connect, content_of, machine_of, on_datastore, program_in, simulated
from tests.servers.esxsim import EsxSim

SEED = api.Seed(
    {
        "meta-data": b'{"instance-id": "i", "public-keys": ["a", "b"]}',
        "user-data": b"#cloud-config\npassword: secret\n",
        "vendor-data": b"#cloud-config\n",
        "network-config": b'{"version": 2}',
    }
)
SECRETS = ("guestinfo.userdata", "guestinfo.vendordata")


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        made.delay("*", 5)
        yield made


@pytest.fixture(params=["guestinfo", "iso"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(sim: EsxSim, way: str) -> Iterator[Driver]:
    opened = connect(sim, seed=way)
    yield opened
    opened.close()


@pytest.fixture
def machine(driver: Driver) -> Iterator[UUID]:
    volume, machine = uuid4(), uuid4()
    driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
    spec = api.MachineSpec(machine, "m", 1, 64, (api.DiskSpec(volume, "vda"),), seed=SEED)
    driver.machines.ensure(spec, Deadline(SECONDS))
    yield machine
    driver.machines.remove(machine, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))


def told(sim: EsxSim, machine: UUID) -> dict[str, Any]:
    return {each.key: each.value for each in machine_of(content_of(sim), machine).config.extraConfig}


def readable(sim: EsxSim, machine: UUID) -> bool:
    """Whether somebody who may look at the host finds the secret."""
    keys = told(sim, machine)
    texts = [unpacked(keys[key]) for key in SECRETS if keys.get(key)]
    files = [path.read_bytes() for path in sim.daemon.folder.glob(f"*/stratograph/*/machines/{machine}/*")]
    return any(b"secret" in each for each in (*texts, *files))


def act(driver: Driver, machine: UUID, *actions: PowerAction) -> None:
    for each in actions:
        driver.machines.power(machine, each, Deadline(SECONDS))


def unpacked(text: str) -> bytes:
    return gzip.decompress(base64.b64decode(text))


def test_secrets_go_when_the_machine_stops_after_its_first_start(sim: EsxSim, driver: Driver, machine: UUID) -> None:
    assert readable(sim, machine)
    act(driver, machine, PowerAction.ON, PowerAction.RESET)
    assert readable(sim, machine)  # its first boot may not have come to its end
    act(driver, machine, PowerAction.OFF)
    assert not readable(sim, machine)
    config = machine_of(content_of(sim), machine).config
    assert not [each for each in config.hardware.device if "seed.iso" in str(getattr(each.backing, "fileName", ""))]
    assert on_datastore(sim, "*/machines/*/seed.iso") == []
    act(driver, machine, PowerAction.ON, PowerAction.OFF)
    assert not readable(sim, machine)


def test_a_start_that_failed_finds_the_data_when_it_is_tried_again(sim: EsxSim, driver: Driver, machine: UUID) -> None:
    for _ in range(2):
        sim.fault("PowerOnVM_Task", "task:InsufficientMemoryResourcesFault")
        with pytest.raises(HostAtFault):
            act(driver, machine, PowerAction.ON)
    act(driver, machine, PowerAction.OFF)
    assert readable(sim, machine)
    sim.fault("PowerOnVM_Task", "drop")
    act(driver, machine, PowerAction.ON)
    assert readable(sim, machine)
    act(driver, machine, PowerAction.ON)  # asked twice is once
    assert readable(sim, machine)


@pytest.mark.parametrize("way", ["guestinfo"], indirect=True)
def test_a_guest_that_went_off_by_itself_is_emptied_at_its_next_start(
    sim: EsxSim, driver: Driver, machine: UUID
) -> None:
    act(driver, machine, PowerAction.ON)
    machine_of(content_of(sim), machine).PowerOffVM_Task()
    deadline = Deadline(SECONDS)
    while (seen := driver.machines.inspect(machine, deadline)) is None or seen.power is not api.Power.OFF:
        deadline.check("the guest goes off")
    assert readable(sim, machine)
    act(driver, machine, PowerAction.ON)
    assert not readable(sim, machine)
    metadata = json.loads(unpacked(told(sim, machine)["guestinfo.metadata"]))
    assert metadata["instance-id"] == "i"  # what is no secret stays, or it would be another first boot


def test_guestinfo_is_what_cloud_init_reads() -> None:
    """Keys and shapes of cloud-init's VMware datasource; Debian 12's own parser was given the same by hand."""
    keys = seed.guestinfo(SEED)
    assert {each for each in keys if each.endswith(".encoding")} == {
        f"guestinfo.{each}.encoding" for each in ("metadata", "userdata", "vendordata")
    }
    assert {keys[each] for each in keys if each.endswith(".encoding")} == {"gzip+base64"}
    metadata = json.loads(unpacked(keys["guestinfo.metadata"]))
    assert unpacked(metadata.pop("network")) == SEED.files["network-config"]
    assert metadata == {
        "instance-id": "i",
        "public-keys": ["a", "b"],
        "public-keys-data": "a\nb",
        "network.encoding": "gzip+base64",
        "redact": ["userdata", "vendordata"],
    }
    assert unpacked(keys["guestinfo.userdata"]) == SEED.files["user-data"]
    assert seed.guestinfo(None) == {}
    assert "redact" not in json.loads(unpacked(seed.guestinfo(api.Seed({"meta-data": b"{}"}))["guestinfo.metadata"]))


def test_metadata_in_yaml_keeps_what_it_says_and_gains_the_network() -> None:
    text = b"instance-id: i\nlocal-hostname: h\n"
    given = api.Seed({"meta-data": text, "network-config": b"version: 2\n", "user-data": b"x"})
    lines = unpacked(seed.guestinfo(given)["guestinfo.metadata"]).decode().splitlines()
    assert lines[:2] == ["instance-id: i", "local-hostname: h"]
    assert unpacked(lines[2].removeprefix("network: ")) == b"version: 2\n"
    assert lines[3:] == ["network.encoding: gzip+base64", 'redact: ["userdata"]']


@pytest.mark.parametrize("wrong", [{"user-data": bytes(MIB + 1)}, {"meta-data": b"[]"}])
def test_data_that_no_guest_could_read_is_refused(wrong: dict[str, bytes]) -> None:
    with pytest.raises(Refused):
        seed.guestinfo(api.Seed(wrong))


@pytest.mark.parametrize("way", ["iso"], indirect=True)
def test_the_iso_holds_the_files_under_their_names(sim: EsxSim, machine: UUID) -> None:
    (path,) = sim.daemon.folder.glob(f"*/stratograph/*/machines/{machine}/seed.iso")
    image = PyCdlib()
    image.open_fp(BytesIO(Path(path).read_bytes()))
    for name, wanted in SEED.files.items():
        out = BytesIO()
        image.get_file_from_iso_fp(out, joliet_path=f"/{name}")
        assert out.getvalue() == wanted
    assert image.pvd.volume_identifier.strip() == b"cidata"
    assert not [each for each in told(sim, machine) if each.startswith("guestinfo")]
