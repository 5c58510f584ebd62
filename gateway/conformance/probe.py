"""One probe of one host, from an operator's words to the list of verdicts.

A place of its own: on KVM a storage pool, on ESXi a folder of the datastore, both called ``conformance``, unless the
options name others. The image is a few blocks of noise that nothing can boot, unless a bootable one is given with the
text that its guest writes on its serial port; then shutdown, hot-plug and console are truly tried, too.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from drivers import registry
from drivers.api import (
    Deadline,
    DiskFormat,
    Driver,
    DriverError,
    DriverType,
    HostConfig,
    ImageSpec,
    capabilities,
)
from gateway.conformance import journal, judging, remembering
from gateway.conformance.run import Check, Course, Result, Verdict, checks
from gateway.image import conversion
from gateway.image.conversion import ConversionFailed, ConversionLimits
from gateway.image.formats import ImageFormat

MIB = 1 << 20
CONNECT_S = 30.0
CLEAN_S = 120.0
PLACES = {
    "KVM": {"pool": "conformance", "pool_path": "/var/lib/libvirt/images/conformance"},
    "ESXI": {"shared": "conformance"},
    "SIM": {"store": "memory"},
}
"""What makes a place of its own, by kind of driver."""
STAYS = {
    "KVM": "its storage pool stays, empty: {pool} in {pool_path}",
    "ESXI": "its folder on the datastore stays, with nothing in it but empty folders: stratograph/pool-{shared}",
}
"""What of that place no driver can take away: told, so that the operator can."""
NEEDED = {"ESXI": {"vlan_pool": "VLANs that the probe's port groups may bear, such as 3990-3999"}}
"""Options without which a host cannot be probed whole."""


BEYOND = {"test_a_machine_moves_off_and_running_and_back": "two hosts are needed to try this"}
"""Checks that one host is not enough for."""


class NotProbed(Exception):  # noqa: N818 - told to the operator, no fault of the program
    """The probe could not begin; its text says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator asked for. ``fingerprint`` is the SHA-256 of the host's certificate, in hexadecimal digits."""

    driver: str
    endpoint: str
    options: dict[str, str] = field(default_factory=dict)
    username: str | None = None
    secret: str | None = field(default=None, repr=False)
    fingerprint: str | None = None
    image: Path | None = None
    ready: str | None = None
    only: str | None = None
    seconds: float = 60.0
    boot_seconds: float = 300.0
    state: Path = Path(".state")


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it: the host in words, and every check."""

    host: str
    verdicts: tuple[Verdict, ...]

    @property
    def good(self) -> bool:
        """Whether nothing failed."""
        return all(each.result is not Result.FAILED for each in self.verdicts)


def probe(wish: Wish, heard: Callable[[Verdict], object] = lambda _: None) -> Told:
    """Run all checks; ``heard`` is told of each. Raises NotProbed."""
    kind = _kind(wish.driver)
    options = _options(wish, kind)
    contract = judging.contract()
    wanted = checks(contract, wish.only)
    if not wanted:
        raise NotProbed(f"no check is called like {wish.only!r}")
    with tempfile.TemporaryDirectory(prefix="stratograph-conformance-") as folder:
        scratch = Path(folder)
        config = HostConfig("conformance", wish.endpoint, scratch, options, wish.username, wish.secret)
        image = _image(wish, kind, scratch)
        with _connected(kind, config) as driver:
            facts = driver.facts(Deadline(CONNECT_S))
            if facts.restriction is not None:
                raise NotProbed(facts.restriction)
            where, folder_of_runs = journal.Where.of(kind.kind, wish.endpoint, options), wish.state / "conformance"
            verdicts = _collected(driver, folder_of_runs, where)
            for each in verdicts:
                heard(each)
            rig = _rig(contract, kind, driver, config, image, wish)
            stays = STAYS.get(kind.kind, "").format(**options) or None
            with journal.opened(folder_of_runs, where) as written:
                course = Course(contract, rig, scratch)
                verdicts += _judged(course, driver, wanted, heard, written, stays)
            if wish.only is None:
                verdicts.append(_compared(rig))
                heard(verdicts[-1])
    return Told(f"{facts.hypervisor} {facts.version}", tuple(verdicts))


def _judged(  # noqa: PLR0917 - the parts of a run
    course: Course,
    driver: Driver,
    wanted: list[Check],
    heard: Callable[[Verdict], object],
    written: journal.Journal,
    stays: str | None,
) -> list[Verdict]:
    made = remembering.remember(driver, written)
    verdicts = []
    try:
        for check in wanted:
            verdicts.append(_beyond(check) or course.judge(check))
            heard(verdicts[-1])
    finally:
        left = [*course.close(), *remembering.take_away(driver, made, CLEAN_S)]
        if not left:
            written.forget()
    result = Result.FAILED if left else Result.PASSED
    verdicts.append(Verdict("Probe", "nothing is left behind", result, 0.0, "; ".join(left) or stays))
    heard(verdicts[-1])
    return verdicts


def _collected(driver: Driver, folder: Path, where: journal.Where) -> list[Verdict]:
    """Take away what runs that were killed left on this host; nothing to tell when there were none."""
    begun, left = time.monotonic(), []
    with journal.left(folder, where) as runs:
        for run in runs:
            kept = remembering.take_away(driver, remembering.left_by(run), CLEAN_S)
            if not kept:
                run.path.unlink(missing_ok=True)
            left += kept
    if not runs:
        return []
    told = "; ".join(left) or f"runs that ended before their time: {len(runs)}"
    result = Result.FAILED if left else Result.PASSED
    return [
        Verdict("Probe", "what an earlier run left is taken away", result, round(time.monotonic() - begun, 3), told)
    ]


def _compared(rig: Any) -> Verdict:
    """What the checks saw to work and to be refused, against the published matrix."""
    differs = rig.found.contradictions(rig.type.capabilities - rig.lacks)
    untried = ", ".join(sorted(rig.found.open))
    result = Result.FAILED if differs else Result.PASSED
    reason = "; ".join(differs) or (f"not tried here: {untried}" if untried else None)
    return Verdict("Probe", "what was found is the published matrix", result, 0.0, reason)


def _beyond(check: Check) -> Verdict | None:
    why = BEYOND.get(check.method)
    return None if why is None else Verdict(check.area, check.name, Result.UNSUPPORTED, 0.0, why)


def _kind(name: str) -> DriverType:
    try:
        kind = registry.get(name.upper())
    except KeyError:
        known = ", ".join(sorted(each.lower() for each in registry.all_types()))
        raise NotProbed(f"there is no driver {name!r}; there are {known}") from None
    missing = kind.missing()
    if missing is not None:
        raise NotProbed(f"the driver cannot be used here, for it needs {missing}")
    return kind


def _options(wish: Wish, kind: DriverType) -> dict[str, str]:
    options = {**PLACES.get(kind.kind, {}), **wish.options}
    for name, meaning in NEEDED.get(kind.kind, {}).items():
        if name not in options:
            raise NotProbed(f"give --option {name}=...: {meaning}")
    if wish.fingerprint is not None:
        options["certificate"] = _pinned(wish.endpoint, wish.fingerprint)
    return options


def _pinned(endpoint: str, fingerprint: str) -> str:
    """The host's certificate, if it is the one with that fingerprint."""
    parts = urlsplit(endpoint)
    try:
        pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443), timeout=CONNECT_S)
    except OSError as error:
        raise NotProbed(f"the host's certificate cannot be had: {error}") from error
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    if found != fingerprint.replace(":", "").lower():
        raise NotProbed(f"the host's certificate has another fingerprint: {found}")
    return pem


@contextmanager
def _connected(kind: DriverType, config: HostConfig) -> Iterator[Driver]:
    try:
        driver = kind.connect(config, Deadline(CONNECT_S))
    except DriverError as error:
        raise NotProbed(f"the host does not take a connection: {error.reason}") from error
    try:
        yield driver
    finally:
        driver.close()


def _image(wish: Wish, kind: DriverType, scratch: Path) -> ImageSpec:
    """The image in a format that the driver takes."""
    own, path = ImageFormat.RAW, scratch / "image.raw"
    if wish.image is None:
        path.write_bytes(random.Random(1).randbytes(4096) * (2 * MIB // 4096))  # noqa: S311 - noise, no secret
    else:
        own, path = _format(wish.image), scratch / "image"
        shutil.copyfile(wish.image, path)
    takes = [ImageFormat(each.value) for each in kind.image_formats]
    target = own if own in takes else takes[0]
    try:
        if target is not own:
            made = conversion.convert(path, own, scratch / "image.made", target, limits=ConversionLimits())
            size, virtual, digest, path = made.size_bytes, made.virtual_size_bytes, made.sha256, made.path
        else:
            data = path.read_bytes()
            size, digest = len(data), hashlib.sha256(data).hexdigest()
            virtual = size if own is ImageFormat.RAW else _virtual(path, own)
    except ConversionFailed as error:
        raise NotProbed(f"the image cannot be made fit for the host: {error.message}") from error
    return ImageSpec(uuid4(), path, DiskFormat(target.value), size, virtual, digest)


def _format(path: Path) -> ImageFormat:
    with path.open("rb") as file:
        head = file.read(4)
    return {b"QFI\xfb": ImageFormat.QCOW2, b"KDMV": ImageFormat.VMDK}.get(head, ImageFormat.RAW)


def _virtual(path: Path, own: ImageFormat) -> int:
    from gateway.image import inspection
    from gateway.image.formats import ImageRefused, InspectionLimits

    try:
        return inspection.inspect(path, declared=own, limits=InspectionLimits()).virtual_size_bytes
    except ImageRefused as error:
        raise NotProbed(f"this is no image to probe with: {error.message}") from error


def _rig(contract: Any, kind: DriverType, driver: Driver, config: HostConfig, image: ImageSpec, wish: Wish) -> Any:  # noqa: PLR0917 - the parts of a rig
    given: dict[str, Any] = {
        "connect": lambda: kind.connect(config, Deadline(CONNECT_S)),
        "seconds": wish.seconds,
        "boot_seconds": wish.boot_seconds,
        "ready": wish.ready.encode() if wish.ready is not None else None,
        # What one connection of a kind lacks (a host alone, beside those of a vCenter) is not tried on it.
        "lacks": kind.capabilities - capabilities(driver, kind),
    }
    known = {each.name for each in fields(contract.Rig)}
    return contract.Rig(driver, kind, image, **{name: value for name, value in given.items() if name in known})
