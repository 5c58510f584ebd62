"""Reads the options of a simulated host (``HostConfig.endpoint`` and ``HostConfig.options``) into one checked value.

The manual (README.md beside this file) lists them. An unknown option or a bad value is refused when connecting, with
its name, so that a typing mistake never becomes a silently different host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from drivers.api import HostConfig, Refused

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KNOWN = frozenset(
    {
        "state",
        "store",
        "vcpus",
        "ram_mib",
        "disk_gib",
        "vcpu_overcommit",
        "ram_overcommit",
        "latency_ms",
        "boot_ms",
        "guest_agent",
        "clock",
        "seed",
    }
)
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """One host's settings. ``folder`` None keeps the state in this process; ``latency_ms`` maps verbs to waits."""

    name: str
    folder: Path | None
    seed: str
    vcpus: int = 64
    ram_mib: int = 262_144
    disk_gib: int = 10_240
    vcpu_overcommit: float = 16.0
    ram_overcommit: float = 1.5
    latency_ms: tuple[tuple[str, float], ...] = ()
    boot_ms: int = 0
    guest_agent: bool = False
    manual_ns: int | None = None


def parse(config: HostConfig) -> Options:
    """The host's settings. Raises Refused, naming the option, when one is unknown or wrong."""
    options = dict(config.options)
    if unknown := sorted(options.keys() - KNOWN):
        raise Refused(f"the sim driver has no option {unknown[0]!r}; it has {', '.join(sorted(KNOWN))}")
    name = host_name(config.endpoint)
    store = options.get("store", "file")
    if store not in {"file", "memory"}:
        raise Refused(f"option 'store' is 'file' or 'memory', not {store!r}")
    folder = Path(options.get("state") or config.scratch)
    return Options(
        name,
        None if store == "memory" else folder,
        options.get("seed", name),
        vcpus=_whole(options, "vcpus", 64, 65_536),
        ram_mib=_whole(options, "ram_mib", 262_144, 1 << 40),
        disk_gib=_whole(options, "disk_gib", 10_240, 1 << 40),
        vcpu_overcommit=_number(options, "vcpu_overcommit", 16.0),
        ram_overcommit=_number(options, "ram_overcommit", 1.5),
        latency_ms=_latency(options.get("latency_ms", "")),
        boot_ms=_whole(options, "boot_ms", 0, 3_600_000, least=0),
        guest_agent=_yes(options, "guest_agent"),
        manual_ns=_clock(options.get("clock", "system")),
    )


def host_name(endpoint: str) -> str:
    """``rack-1`` of ``sim://rack-1``. Raises Refused for anything else."""
    name = endpoint.removeprefix("sim://").rstrip("/")
    if not endpoint.startswith("sim://") or not NAME.fullmatch(name):
        raise Refused(f"a simulated host is addressed as sim://NAME (letters, digits, '.', '_', '-'), not {endpoint!r}")
    return name


def nanoseconds(at: datetime) -> int:
    """Nanoseconds since 1970. A time without a zone is refused."""
    if at.tzinfo is None:
        raise Refused(f"the time {at.isoformat()} has no zone")
    delta = at - datetime(1970, 1, 1, tzinfo=UTC)
    return ((delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds) * 1000


def _whole(options: dict[str, str], key: str, otherwise: int, most: int, least: int = 1) -> int:
    text = options.get(key)
    if text is None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,15}", text) or not least <= int(text) <= most:
        raise Refused(f"option {key!r} is a whole number from {least} to {most}, not {text!r}")
    return int(text)


def _yes(options: dict[str, str], key: str) -> bool:
    text = options.get(key, "no")
    if text not in ("yes", "no"):
        raise Refused(f"option {key!r} is 'yes' or 'no', not {text!r}")
    return text == "yes"


def _number(options: dict[str, str], key: str, otherwise: float) -> float:
    text = options.get(key)
    if text is None:
        return otherwise
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text) or not float(text):
        raise Refused(f"option {key!r} is a number above 0, not {text!r}")
    return float(text)


def _latency(text: str) -> tuple[tuple[str, float], ...]:
    """``20`` for every verb, or ``machines.power=500,volumes.*=20``; the first that fits counts."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    found = []
    for part in parts:
        verb, _, number = part.rpartition("=")
        if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,3})?", number) or not re.fullmatch(r"[a-z_.*]*", verb):
            raise Refused(f"option 'latency_ms' is '20' or 'machines.power=500,volumes.*=20', not {text!r}")
        found.append((verb or "*", float(number)))
    return tuple(found)


def _clock(text: str) -> int | None:
    if text == "system":
        return None
    try:
        return nanoseconds(datetime.fromisoformat(text))
    except ValueError as error:
        raise Refused(f"option 'clock' is 'system' or a time like 2026-01-01T00:00:00+00:00, not {text!r}") from error
