"""Disks in transit on an ESXi host when things go wrong: leases that die, lost answers, what a dead worker leaves."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from drivers import api
from drivers.api import (
    Deadline,
    DiskFormat,
    DiskSource,
    Driver,
    DriverError,
    HostAtFault,
    ImageSpec,
    Refused,
    Transient,
    Unsupported,
)
from drivers.contracts.rig import wait_for
from drivers.esxi import nfc, vmdk
from drivers.esxi.connection import EsxiConnection
from tests.drivers.esxi_host import (
    MIB,
    SECONDS,
    TRANSFER,
    carriers,
    connect,
    content,
    content_of,
    file_of,
    finished,
    flat,
    on_datastore,
    simulated,
    stream,
)
from tests.servers.esxsim import EsxSim

# ------------------------------------------------------------------------------------------ what goes wrong


def test_a_file_that_is_no_stream_is_refused_before_anything_is_sent(
    sim: EsxSim, driver: Driver, tmp_path: Path, base: ImageSpec
) -> None:
    raw, plain = tmp_path / "image.raw", tmp_path / "plain.vmdk"
    options = ["-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicSparse"]
    subprocess.run(["qemu-img", "convert", *options, str(raw), str(plain)], check=True, timeout=60)
    made = plain.read_bytes()
    sparse = replace(base, path=plain, size_bytes=len(made), sha256=hashlib.sha256(made).hexdigest())
    sim.calls()
    for wrong in (sparse, replace(base, path=raw, size_bytes=MIB), replace(base, virtual_size_bytes=2 * MIB)):
        with pytest.raises(Refused):
            driver.volumes.ensure_image(wrong, Deadline(SECONDS))
    with pytest.raises(Unsupported):
        driver.volumes.ensure_image(replace(base, format=DiskFormat.QCOW2), Deadline(SECONDS))
    assert not {"ImportVApp", "MakeDirectory"} & set(sim.calls())


def test_an_import_of_wrong_content_is_aborted_and_leaves_nothing(
    sim: EsxSim, driver: EsxiConnection, base: ImageSpec
) -> None:
    sim.calls()
    with pytest.raises(Refused, match="checksum"):
        driver.volumes.ensure_image(replace(base, sha256="0" * 64), Deadline(SECONDS))
    with pytest.raises(Refused, match="checksum"):
        driver.import_disk(uuid4(), replace(file_of(base), sha256="0" * 64), Deadline(SECONDS))
    calls = sim.calls()
    assert calls["HttpNfcLeaseAbort"] == 2
    assert "HttpNfcLeaseComplete" not in calls
    assert carriers(sim) == on_datastore(sim, "*/images/*") == on_datastore(sim, "*/volumes/*") == []


@pytest.mark.parametrize("how", ["cut", "expire", "drop"])
def test_an_import_that_breaks_off_begins_anew_and_leaves_one_disk(
    sim: EsxSim, driver: EsxiConnection, base: ImageSpec, how: str
) -> None:
    volume = uuid4()
    sim.fault("POST /nfc", how)
    sim.calls()
    assert driver.import_disk(volume, file_of(base), Deadline(SECONDS)).size_bytes == MIB
    calls = sim.calls()
    assert (calls["ImportVApp"], calls["HttpNfcLeaseComplete"]) == (2, 1)
    assert flat(sim, volume) == content(MIB)
    assert carriers(sim) == []
    driver.volumes.remove(volume, Deadline(SECONDS))


@pytest.mark.parametrize("how", ["cut", "expire", "http"])
def test_an_export_that_breaks_off_begins_anew_or_leaves_no_file(
    sim: EsxSim, driver: EsxiConnection, standing: tuple[ImageSpec, UUID], tmp_path: Path, how: str
) -> None:
    _, volume = standing
    target = tmp_path / "out.vmdk"
    sim.fault("GET /nfc", how)
    try:
        file = driver.export_disk(DiskSource(volume), target, Deadline(SECONDS))
    except Transient:
        assert how == "http"
        assert not target.exists()
        file = driver.export_disk(DiskSource(volume), target, Deadline(SECONDS))
    assert vmdk.is_whole(target)
    assert file.size_bytes == target.stat().st_size
    assert carriers(sim) == []


@pytest.mark.parametrize("method", ["ExportVm", "GET /nfc", "HttpNfcLeaseComplete", "CreateVM_Task", "UnregisterVM"])
@pytest.mark.parametrize("how", ["lost", "expired"])
def test_an_export_survives_a_lost_answer_and_an_ended_session(
    sim: EsxSim, driver: EsxiConnection, standing: tuple[ImageSpec, UUID], tmp_path: Path, *, method: str, how: str
) -> None:
    base, volume = standing
    sim.lease(2)
    if how == "lost":
        sim.fault(method, "drop")
    else:
        sim.expire_at(method)
    file = driver.export_disk(DiskSource(volume), tmp_path / "out.vmdk", Deadline(SECONDS))
    sim.lease(300)
    assert file.virtual_size_bytes == base.virtual_size_bytes
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "vmdk", "-O", "raw", str(file.path), str(raw)], check=True, timeout=60)
    assert raw.read_bytes() == content(MIB)
    left = carriers(sim)
    assert len(left) <= 2 * (method == "ExportVm" and how == "lost")  # held by the lease of the lost answer
    clear(sim)


@pytest.mark.parametrize("method", TRANSFER)
def test_an_import_whose_answer_is_lost_leaves_one_disk(
    sim: EsxSim, driver: EsxiConnection, base: ImageSpec, method: str
) -> None:
    volume = uuid4()
    sim.lease(2)
    sim.fault(method, "drop")
    driver.import_disk(volume, file_of(base), Deadline(SECONDS))
    sim.lease(300)
    assert flat(sim, volume) == content(MIB)
    assert [each.id for each in driver.volumes.list(Deadline(SECONDS))] == [volume]
    wait_for(lambda: not carriers(sim), SECONDS, "the host ends the lease of the lost answer, and what it made goes")
    driver.volumes.remove(volume, Deadline(SECONDS))


def test_a_lease_is_kept_alive_while_the_host_is_slow(sim: EsxSim, driver: EsxiConnection, base: ImageSpec) -> None:
    volume = uuid4()
    sim.lease(1)
    sim.delay("POST /nfc", 2500)
    sim.calls()
    try:
        driver.import_disk(volume, file_of(base), Deadline(SECONDS))
    finally:
        sim.delay("POST /nfc", 0)
        sim.lease(300)
    calls = sim.calls()
    assert calls["HttpNfcLeaseProgress"] >= 3
    assert calls["ImportVApp"] == 1
    assert flat(sim, volume) == content(MIB)
    driver.volumes.remove(volume, Deadline(SECONDS))


def test_a_deadline_in_the_middle_leaves_nothing(sim: EsxSim, driver: EsxiConnection, base: ImageSpec) -> None:
    sim.delay("POST /nfc", 3000)
    try:
        volume = uuid4()
        with pytest.raises(Transient):
            driver.import_disk(volume, file_of(base), Deadline(1.0))
    finally:
        sim.delay("POST /nfc", 0)
    assert carriers(sim) == []
    assert driver.volumes.list(Deadline(SECONDS)) == []
    driver.volumes.remove(volume, Deadline(SECONDS))
    assert on_datastore(sim, "*/volumes/*") == []


@pytest.mark.parametrize(
    ("method", "fault", "error"),
    [
        ("ImportVApp", "NoDiskSpace", HostAtFault),
        ("ImportVApp", "NoPermission", HostAtFault),
        ("ImportVApp", "RestrictedVersion", HostAtFault),
        ("ExportVm", "TaskInProgress", Transient),
        ("ExportVm", "NotSupported", Unsupported),
    ],
)
def test_what_a_host_refuses_of_transfers_is_told_and_leaves_nothing(
    sim: EsxSim,
    driver: EsxiConnection,
    base: ImageSpec,
    tmp_path: Path,
    *,
    method: str,
    fault: str,
    error: type[DriverError],
) -> None:
    volume, before = uuid4(), on_datastore(sim, "*/volumes/*")
    driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
    verbs: dict[str, Callable[[], object]] = {
        "ImportVApp": lambda: driver.import_disk(uuid4(), file_of(base), Deadline(SECONDS)),
        "ExportVm": lambda: driver.export_disk(DiskSource(volume), tmp_path / "out", Deadline(SECONDS)),
    }
    sim.fault(method, fault)
    with pytest.raises(error):
        verbs[method]()
    if method == "ImportVApp":
        sim.fault(method, fault)
        with pytest.raises(error):
            driver.volumes.ensure_image(base, Deadline(SECONDS))
    assert not (tmp_path / "out").exists()
    assert carriers(sim) == on_datastore(sim, "*/images/*") == []
    assert sorted(on_datastore(sim, "*/volumes/*")) == sorted([*before, str(volume)])
    assert [each.id for each in driver.volumes.list(Deadline(SECONDS))] == [volume]
    driver.volumes.remove(volume, Deadline(SECONDS))


# ------------------------------------------------------------------------------------------ what a dead worker left


@pytest.mark.parametrize("first", ["import", "volume"])
def test_what_a_dead_worker_left_is_found_by_its_mark_and_nothing_else_is(
    sim: EsxSim, driver: EsxiConnection, base: ImageSpec, first: str
) -> None:
    """Two carriers whose time is over and one that is still wanted, each with half a disk."""
    driver.volumes.list(Deadline(SECONDS))
    root = driver.volumes.store.path("", Deadline(SECONDS))
    over, bare, wanted = uuid4(), uuid4(), uuid4()
    for each, until_s in ((over, 1_000_000_000), (bare, 1_000_000_000), (wanted, 99_999_999_999)):
        driver.volumes.store.make_folder(f"carriers/{each}/until_{until_s}", Deadline(SECONDS))
        (folder,) = sim.daemon.folder.glob(f"*/stratograph/*/carriers/{each}")
        (folder / "disk-flat.vmdk").write_bytes(b"half")
        if each is not bare:
            leave_machine(sim, each, f"{root}carriers/{each}/carrier.vmx", until_s)
    volume = uuid4()
    if first == "import":
        driver.import_disk(volume, file_of(base), Deadline(SECONDS))
    else:  # the first change of a worker that was started anew
        (datastore,) = {each.parent for each in sim.daemon.folder.glob("*/stratograph")}
        (datastore / "stratograph/shared/locks/dead_1/until_1").mkdir(parents=True)
        anew = connect(sim)
        anew.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
        anew.close()
        assert on_datastore(sim, "shared/locks/*") == []
    assert sorted(carriers(sim)) == sorted([f"stratograph-carrier-{wanted}", str(wanted)])
    driver.volumes.remove(volume, Deadline(SECONDS))
    clear(sim)


def test_a_volume_on_its_way_out_is_not_taken_and_one_left_behind_is(
    sim: EsxSim, driver: EsxiConnection, tmp_path: Path
) -> None:
    volume, machine, carrier = uuid4(), uuid4(), uuid4()
    driver.volumes.ensure(api.VolumeSpec(volume, MIB), Deadline(SECONDS))
    driver.volumes.store.make_folder(f"carriers/{carrier}/until_99999999999", Deadline(SECONDS))
    vmx = driver.volumes.store.path(f"carriers/{carrier}/carrier.vmx", Deadline(SECONDS))
    disk = driver.volumes.store.path(f"volumes/{volume}/disk.vmdk", Deadline(SECONDS))
    left = leave_machine(sim, carrier, vmx, 99_999_999_999, disk)
    spec = api.MachineSpec(machine, "m", 1, 64, (api.DiskSpec(volume, "vda"),))
    for verb in (
        lambda: driver.volumes.remove(volume, Deadline(SECONDS)),
        lambda: driver.volumes.extend(volume, 2 * MIB, Deadline(SECONDS)),
        lambda: driver.machines.ensure(spec, Deadline(SECONDS)),
    ):
        with pytest.raises(Transient, match="on its way"):
            verb()
    driver.export_disk(DiskSource(volume), tmp_path / "out", Deadline(SECONDS))  # looking does no harm
    mark(left, 1_000_000_000)
    assert driver.machines.ensure(spec, Deadline(SECONDS)).volumes == {volume: "vda"}
    driver.machines.remove(machine, Deadline(SECONDS))
    driver.volumes.remove(volume, Deadline(SECONDS))
    clear(sim)


def leave_machine(sim: EsxSim, carrier: UUID, vmx: str, until_s: int, disk: str | None = None) -> Any:
    """A carrier as a worker that died would leave it, made by another client."""
    from pyVmomi import vim

    from drivers.esxi import carriers as ours

    datacenter = content_of(sim).rootFolder.childEntity[0]
    computer = datacenter.hostFolder.childEntity[0]
    spec = ours.config(ours.Carrier(carrier, until_s), vmx, ours.disk(disk or "[x] y"), create=False)
    if disk is None:
        spec.deviceChange = []
    assert isinstance(spec, vim.vm.ConfigSpec)
    return finished(
        datacenter.vmFolder.CreateVM_Task(config=spec, pool=computer.resourcePool, host=computer.host[0])
    )  # fmt: skip


def mark(machine: Any, until_s: int) -> None:
    from pyVmomi import vim

    told = vim.option.OptionValue(key="stratograph.carrier", value=str(until_s))
    finished(machine.ReconfigVM_Task(vim.vm.ConfigSpec(extraConfig=[told])))


def clear(sim: EsxSim) -> None:
    """Take away what carriers a test left, by another client's hands."""
    from pyVmomi import vim

    host = content_of(sim).rootFolder.childEntity[0].hostFolder.childEntity[0].host[0]

    def gone() -> bool:
        for vm in [each for each in host.vm if str(each.name).startswith("stratograph-carrier")]:
            try:
                vm.UnregisterVM()
            except vim.fault.TaskInProgress:  # a lease holds it for a moment
                return False
        return True

    wait_for(gone, SECONDS, "leases let go of carriers")
    for folder in sim.daemon.folder.glob("*/stratograph/*/carriers/*"):
        subprocess.run(["rm", "-r", str(folder)], check=True, timeout=10)


# ------------------------------------------------------------------------------------------ whom disks go to


def test_another_host_of_the_endpoint_is_spoken_to_only_with_the_certificate_that_was_told(
    driver: EsxiConnection, program: Path
) -> None:
    import ssl

    with simulated(program) as other:
        der = ssl.PEM_cert_to_DER_cert(other.certificate)
        url = f"https://localhost:{other.port}/nfc/lease-1/disk-0.vmdk"
        site = driver.volumes.site
        for thumbprint in (hashlib.sha256(der).hexdigest(), hashlib.sha1(der).hexdigest().upper()):  # noqa: S324 - theirs
            connection, target, headers = nfc.connection_to(site, url, thumbprint, Deadline(SECONDS))
            connection.close()
            assert (target, headers) == ("/nfc/lease-1/disk-0.vmdk", {})
        other.calls()
        for wrong in (None, "", "00", hashlib.sha256(b"x").hexdigest()):
            with pytest.raises(HostAtFault):
                nfc.connection_to(site, url, wrong, Deadline(SECONDS))
        assert other.calls() == {}
    with pytest.raises(HostAtFault):
        nfc.connection_to(site, "http://localhost/nfc/x", None, Deadline(SECONDS))


def test_streams_are_known_by_their_header_and_their_end(tmp_path: Path) -> None:
    raw, good = tmp_path / "raw", tmp_path / "good.vmdk"
    raw.write_bytes(content(MIB))
    stream(raw, good)
    header = vmdk.of(good)
    assert header is not None
    assert (header.streams, header.capacity_bytes) == (True, MIB)
    assert vmdk.is_whole(good)
    cut = tmp_path / "cut.vmdk"
    for left_bytes in (good.stat().st_size // 2, 16_384, 4096, 512):
        cut.write_bytes(good.read_bytes()[:left_bytes])
        assert not vmdk.is_whole(cut)
    raw.write_bytes(bytes(MIB))
    stream(raw, good)
    assert vmdk.is_whole(good)  # a blank disk has no grains
    assert vmdk.of(raw) is None
    assert vmdk.read(b"KDMV") is None
    head = vmdk.HEADER.pack(
        b"KDMV", 3, 0x30001, 2048, 128, 1, 20, 512, 0, vmdk.AT_END, 128, 0, b"\n", b" ", b"\r", b"\n", 1
    ).ljust(512, b"\0")  # tables at the end, as hosts write it
    cut.write_bytes(head + b"grains".ljust(2048, b"g") + head + bytes(512))
    assert vmdk.is_whole(cut)
    cut.write_bytes(head + b"grains".ljust(2048, b"g") + head)
    assert not vmdk.is_whole(cut)
