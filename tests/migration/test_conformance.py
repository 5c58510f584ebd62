"""``stratograph conformance`` as an operator runs it: in a process of its own, against the simulators."""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.drivers.esxi_host import content_of, on_datastore, program_in, simulated
from tests.servers.esxsim import PASSWORD, USER, EsxSim

PROGRAM = [sys.executable, "-c", "from gateway.cli import main; main()", "conformance"]


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


def machines(esxi: EsxSim) -> list[Any]:
    from pyVmomi import vim

    content = content_of(esxi)
    return list(content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True).view)


def test_what_cannot_begin_is_said() -> None:
    assert run("--driver", "xen", "--endpoint", "xen://x").returncode == 2
    none = run("--driver", "sim", "--endpoint", "sim://probe", "--only", "no such check")
    assert (none.returncode, "no check" in none.stderr) == (2, True)
