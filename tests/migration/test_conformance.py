"""``stratograph conformance`` as an operator runs it: in a process of its own, against the simulators."""

from __future__ import annotations

import hashlib
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from drivers.api import Deadline, VolumeSpec
from tests.drivers.esxi_host import MIB, SECONDS, connect, content_of, on_datastore, program_in, simulated
from tests.servers.daemon import wait_until
from tests.servers.esxsim import PASSWORD, USER, EsxSim

PROGRAM = [sys.executable, "-c", "from gateway.cli import main; main()", "conformance"]


COLLECTED = "what an earlier run left is taken away"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The operator's state folder."""
    monkeypatch.setenv("STRATOGRAPH_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def run(*given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *given], capture_output=True, text=True, timeout=240, check=False)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    checks = json.loads(done.stdout)["checks"]
    return {each["check"]: each for each in checks}


@pytest.fixture(scope="module")
def esxi(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EsxSim]:
    with simulated(program_in(tmp_path_factory)) as made:
        yield made


def test_every_check_of_the_contract_is_told() -> None:
    done = run("--driver", "sim", "--endpoint", "sim://probe", "--json")
    found = told(done)
    assert {each["result"] for each in found.values()} == {"passed", "unsupported"}, done.stdout
    assert done.returncode == 0
    assert found["nothing is left behind"]["result"] == "passed"
    assert found["a volume comes once and goes for good"]["result"] == "passed"
    unsupported = {name: each["reason"] for name, each in found.items() if each["result"] == "unsupported"}
    assert unsupported["a foreign machine is seen and is not ours"] == (
        "no machine of somebody else's is lent to be tried with"
    )
    assert len(found) > 80
    matrix = found["what was found is the published matrix"]
    assert (matrix["result"], matrix["reason"]) == ("passed", "not tried here: ADOPTION, CONSOLE_LOG, RELOCATE")
    # A host of one CPU's worth of memory fails what needs more, and says with which words.
    poor = run("--driver", "sim", "--endpoint", "sim://poor", "--option", "ram_mib=64", "--json", "--only", "machine")
    failed = [each for each in told(poor).values() if each["result"] == "failed"]
    assert poor.returncode == 1
    assert any("no memory left" in each["reason"] for each in failed)
    assert told(poor)["nothing is left behind"]["result"] == "passed"


def test_a_host_is_probed_by_its_fingerprint_and_left_as_it_was(esxi: EsxSim, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    pinned = hashlib.sha256(ssl.PEM_cert_to_DER_cert(esxi.certificate)).hexdigest()
    way = ["--driver", "esxi", "--endpoint", esxi.url, "--username", USER, "--password-file", str(password)]
    asked = run(*way, "--fingerprint", pinned)
    assert (asked.returncode, "vlan_pool" in asked.stderr) == (2, True)
    vlans = ["--option", "vlan_pool=3990-3999"]
    wrong = run(*way, *vlans, "--fingerprint", "00" * 32)
    assert (wrong.returncode, "another fingerprint" in wrong.stderr) == (2, True)
    before = sorted(vm.name for vm in machines(esxi))
    done = run(*way, *vlans, "--fingerprint", pinned, "--json", "--only", "network")
    found = told(done)
    assert done.returncode == 0, done.stdout
    assert found["a network comes once and goes for good"]["result"] == "passed"
    assert found["nothing is left behind"]["result"] == "passed"
    shown = run(*way, *vlans, "--fingerprint", pinned, "--only", "a machine comes once")
    assert shown.returncode == 0, shown.stdout
    assert "2 passed, 0 failed, 0 unsupported" in shown.stdout
    assert sorted(vm.name for vm in machines(esxi)) == before
    assert on_datastore(esxi, "*/volumes/*") + on_datastore(esxi, "*/machines/*") == []


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_run_that_was_ended_left_is_collected_and_nothing_else(
    esxi: EsxSim, tmp_path: Path, own_state: Path, end: signal.Signals
) -> None:
    """In the middle of its checks, on a host where a cloud has disks in the very same place."""
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    authority = tmp_path / "ca.pem"
    authority.write_text(esxi.certificate)
    way = ["--driver", "esxi", "--endpoint", esxi.url, "--username", USER, "--password-file", str(password)]
    way += ["--ca-file", str(authority), "--option", "vlan_pool=3990-3999", "--json"]
    driver = connect(esxi, shared="conformance")
    volume = uuid4()
    driver.volumes.ensure(VolumeSpec(volume, MIB), Deadline(SECONDS))
    before = sorted(vm.name for vm in machines(esxi))
    esxi.calls()
    esxi.delay("PowerOnVM_Task", 2000)
    with subprocess.Popen([*PROGRAM, *way, "--only", "a suspended machine"], stdout=subprocess.PIPE) as broken:
        wait_until(lambda: "PowerOnVM_Task" in esxi.calls(), 60, "a machine is being started")
        broken.send_signal(end)
        broken.wait(60)
    esxi.delay("PowerOnVM_Task", 20)
    left = [each for each in on_datastore(esxi, "pool-conformance/volumes/*") if each != str(volume)]
    assert (broken.returncode, bool(left)) == ((-9, True) if end is signal.SIGKILL else (143, False))
    again = run(*way, "--only", "removing an unknown machine")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (COLLECTED in told(again)) == bool(left)
    assert on_datastore(esxi, "pool-conformance/volumes/*") == [str(volume)]
    assert sorted(vm.name for vm in machines(esxi)) == before
    assert list((own_state / "conformance").iterdir()) == []
    driver.volumes.remove(volume, Deadline(SECONDS))
    driver.close()


def test_a_licence_that_only_lets_us_look_is_told(esxi: EsxSim, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    authority = tmp_path / "ca.pem"
    authority.write_text(esxi.certificate)
    esxi.fault("MakeDirectory", "RestrictedVersion", times=5)
    done = run(
        "--driver", "esxi", "--endpoint", esxi.url, "--username", USER, "--password-file", str(password),
        "--ca-file", str(authority), "--option", "vlan_pool=3990-3999",
    )  # fmt: skip
    esxi.fault("MakeDirectory", "RestrictedVersion", times=0)
    assert (done.returncode, done.stdout) == (2, "")
    assert "can be looked at and not changed" in " ".join(done.stderr.split())


def machines(esxi: EsxSim) -> list[Any]:
    from pyVmomi import vim

    content = content_of(esxi)
    return list(content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True).view)


def test_what_cannot_begin_is_said() -> None:
    assert run("--driver", "xen", "--endpoint", "xen://x").returncode == 2
    none = run("--driver", "sim", "--endpoint", "sim://probe", "--only", "no such check")
    assert (none.returncode, "no check" in none.stderr) == (2, True)
