"""libvirt's errors and an operator's options, as the contract's answers."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import libvirt
import pytest

from drivers.api import Capability, Deadline, DriverError, HostAtFault, HostConfig, Refused, Transient, Unsupported
from drivers.kvm import DRIVER, errors, options


def failure(code: str, message: str = "words", number: int = 0) -> libvirt.libvirtError:
    error = libvirt.libvirtError("words")
    error.err = (getattr(libvirt, f"VIR_ERR_{code}"), libvirt.VIR_FROM_QEMU, message, 2, None, None, None, number, 0)
    return error


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (failure("OPERATION_TIMEOUT", "cannot acquire state change lock"), Transient),
        (failure("RPC", "connection lost"), Transient),
        (failure("INTERNAL_ERROR", "client socket is closed"), Transient),
        (failure("SYSTEM_ERROR", "cannot connect", errno.ECONNREFUSED), Transient),
        (failure("SYSTEM_ERROR", "cannot open", errno.ENOENT), HostAtFault),
        (failure("SYSTEM_ERROR", "cannot write", errno.ENOSPC), HostAtFault),
        (failure("INTERNAL_ERROR", "qemu-img: No space left on device"), HostAtFault),
        (failure("INTERNAL_ERROR", "process exited while connecting to monitor"), HostAtFault),
        (failure("INTERNAL_ERROR", 'qemu-img: Failed to get "write" lock'), Transient),
        (failure("INTERNAL_ERROR", "Network is already in use by interface eth0"), Refused),
        (failure("NO_MEMORY"), HostAtFault),
        (failure("AUTH_FAILED"), HostAtFault),
        (failure("ACCESS_DENIED"), HostAtFault),
        (failure("XML_ERROR"), Refused),
        (failure("INVALID_ARG"), Refused),
        (failure("NO_DOMAIN"), Refused),
        (failure("OPERATION_INVALID", "domain is not running"), Transient),
        (failure("OPERATION_INVALID", "volume 'x' is still being allocated."), Transient),
        (failure("CONFIG_UNSUPPORTED"), Unsupported),
        (failure("NO_SUPPORT"), Unsupported),
        (failure("HOOK_SCRIPT_FAILED"), HostAtFault),
    ],
)
def test_each_error_has_one_answer(error: libvirt.libvirtError, answer: type[DriverError]) -> None:
    with pytest.raises(DriverError) as caught, errors.told("trying", Capability.VOLUMES):
        raise error
    assert type(caught.value) is answer
    assert caught.value.reason == f"trying: {error.get_error_message()}"
    if isinstance(caught.value, Unsupported):
        assert caught.value.capability is Capability.VOLUMES
    else:
        assert caught.value.vendor_code == errors.code_name(error)


def test_an_error_without_words_is_asked_again() -> None:
    """A thread's last error is forgotten by any later call of the thread: also by one of a finaliser."""
    with pytest.raises(Transient) as caught, errors.told("trying"):
        raise libvirt.libvirtError("virDomainLookupByUUIDString() failed")
    assert (caught.value.reason, caught.value.vendor_code) == ("trying: virDomainLookupByUUIDString() failed", "NONE")


def test_the_tables_name_errors_that_libvirt_has() -> None:
    for name in {*errors.CODES, *errors.UNSUPPORTED} - {"NONE"}:  # which says that there is no code
        code = getattr(libvirt, f"VIR_ERR_{name}")
        assert errors.code_name(failure(name)) == name, code
    assert not set(errors.CODES) & errors.UNSUPPORTED


def test_a_new_error_is_named_by_its_number() -> None:
    error = failure("NO_DOMAIN")
    error.err = (99999, *error.err[1:])
    assert errors.code_name(error) == "99999"
    assert isinstance(errors.translate(error, "trying"), HostAtFault)


def test_what_is_absent_is_none_and_other_errors_stay() -> None:
    def fail() -> None:
        raise failure("NO_DOMAIN")

    assert errors.found(lambda: 1) == 1
    assert errors.found(fail, "NO_NETWORK", "NO_DOMAIN") is None
    with pytest.raises(libvirt.libvirtError):
        errors.found(fail, "NO_NETWORK")


# ---------------------------------------------------------------------------------------------- options


def config(endpoint: str = "qemu:///system", **changes: str) -> HostConfig:
    return HostConfig("host", endpoint, Path("/nowhere"), changes)


@pytest.mark.parametrize(
    "wrong",
    [
        config(acelerator="kvm"),
        config(accelerator="xen"),
        config(pool_path="relative"),
        config(pool="a/b"),
        config(disk_cache="unsafe"),
        config("test:///default"),
        config("qemu:///session"),
        config("qemu+ext://host/system?command=/bin/sh"),
        config("qemu+ssh://host/system?command=/bin/sh"),
        config("qemu+tls://host/system?no_verify=1"),
        config("qemu+tcp://host/system"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_opened(wrong: HostConfig) -> None:
    with pytest.raises(Refused):
        DRIVER.connect(wrong, Deadline(5))


def test_options_have_defaults_and_take_values() -> None:
    assert options.read(config()) == options.Options()
    assert (
        options.read(config("qemu+tcp://10.0.0.1/system", allow_plain_tcp="true", accelerator="tcg")).accelerator
        == "tcg"
    )


def test_the_declaration_imports_no_libvirt() -> None:
    program = "import sys, drivers.kvm; sys.exit('libvirt' in sys.modules or drivers.kvm.DRIVER.kind != 'KVM')"
    assert subprocess.run((sys.executable, "-c", program), check=False).returncode == 0
