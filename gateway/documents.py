"""The parts of the documents that are made from the code, so that they cannot differ from it.

A document keeps such a part between two markers, ``<!-- generated: NAME -->`` and ``<!-- /generated -->``; what stands
between them is replaced by what the function of that name says. ``python -m gateway.documents`` writes the documents
anew, and a test compares. Whoever needs one more table writes one more function here; prose is never generated.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from drivers import registry
from drivers.api import Capability, DiskFormat
from gateway.kernel import noun
from gateway.kernel.settings import PREFIX, Settings
from workers import main as workers
from workers.saga import SAGAS, Step
from workers.sweep import RECONCILERS

ROOT = Path(__file__).parents[1]

DOCUMENTS = ("README.md", "gateway/README.md", "workers/README.md")
"""The documents that have generated parts, by their paths in the tree."""

_PART = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def settings() -> str:
    """Every setting of ``gateway.kernel.settings``."""
    rows = []
    for name, field in Settings.model_fields.items():
        value = field.default
        shown = ",".join(value) if isinstance(value, list) else "" if value is None else str(value)
        rows.append((f"`{PREFIX}{name.upper()}`", f"`{shown}`" if shown else "", field.description or ""))
    return _table(("setting", "default", "meaning"), rows)


_MEANINGS = {
    Capability.MACHINES: "servers: create, power, delete, counters",
    Capability.VOLUMES: "volumes and base images",
    Capability.NETWORKS: "networks, subnets and ports",
    Capability.SECURITY_GROUPS: "packet rules and anti-spoofing at each port",
    Capability.DHCP: "address leases",
    Capability.OVERLAPPING_SUBNETS: "two networks with overlapping ranges on one host",
    Capability.VOLUME_HOT_ATTACH: "attach and detach while the guest runs",
    Capability.VOLUME_HOT_EXTEND: "grow a volume while the guest runs",
    Capability.VOLUME_SNAPSHOT: "snapshots of volumes, also of those in use",
    Capability.PORT_HOT_ATTACH: "plug network ports in and out, running or not",
    Capability.SUSPEND: "memory saved on disk, and on from there",
    Capability.PAUSE: "processors stand still, and go on",
    Capability.MACHINE_SNAPSHOT: "snapshots of whole machines, with memory, as a tree",
    Capability.RELOCATE: "move a machine, running or not, to another host of its kind (ESXi: of its vCenter)",
    Capability.DISK_TRANSPORT: "a disk out of the host into a file, and back in (migration between hypervisors)",
    Capability.ADOPTION: "machines that somebody else made become servers",
    Capability.VMWARE_DEVICES: "guests that were installed on VMware find the devices that they know",
    Capability.CONSOLE_LOG: "what the guest wrote on its serial port",
    Capability.GUEST_SIGNS: "whether the guest's agent answers, and what address it asked for (migration's proof)",
    Capability.GRAPHICAL_CONSOLE: (
        "the screen, keyboard and pointer in a browser (KVM: of hosts reached by a local socket)"
    ),
    Capability.STATE_EVENTS: "changes of power pushed instead of polled",
    Capability.UEFI: "the driver can boot by UEFI (the graph does not offer a choice yet)",
}


def capabilities() -> str:
    """What each installed driver declares."""
    types = registry.all_types()
    rows = [
        (f"`{each}`", _MEANINGS[each], *("yes" if each in kind.capabilities else "" for kind in types.values()))
        for each in _MEANINGS
    ]
    formats = (
        ", ".join(each for each in DiskFormat if each in kind.image_formats) or "none" for kind in types.values()
    )
    rows.append(("image formats", "what the host takes; others are converted before", *formats))
    return _table(("capability", "what it is", *types), rows)


def targets() -> str:
    """The targets of the Makefile."""
    found = re.findall(r"^([a-z]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    return _table(("target", "what it does"), ((f"`make {name}`", text) for name, text in found))


def nouns() -> str:
    """Every noun with its id prefix and home."""
    noun.load_all()
    rows = []
    for service in noun.SERVICES:
        for prefix, each in sorted(noun.BY_PREFIX.items()):
            module = each.table.__module__.split(".")
            if module[1] == service:
                rows.append((service, f"`{prefix}`", f"`{'/'.join(module)}.py`"))
    return _table(("service", "id prefix", "meaning and rules"), rows)


def _told(step: Step) -> str:
    return f"**{step.name}**" if step.undo is not None else step.name


def sagas() -> str:
    """Every kind of job with its steps; those that can be taken back are bold."""
    workers.load_all()
    rows = (
        (f"`{kind}`", " → ".join(_told(step) for step in saga.steps), "goes on trying" if saga.forward else "unwinds")
        for kind, saga in sorted(SAGAS.items())
    )
    return _table(("job", "steps (bold: with undo)", "when a step fails"), rows)


def reconcilers() -> str:
    """Every reconciler with its beat."""
    workers.load_all()
    rows = (
        (f"`{each.name}`", f"{each.every_s:g} s", (each.look.__doc__ or "").partition("\n")[0])
        for each in sorted(RECONCILERS.values(), key=lambda one: one.name)
    )
    return _table(("reconciler", "every", "what it does"), rows)


PARTS: dict[str, Callable[[], str]] = {
    each.__name__: each for each in (settings, capabilities, targets, nouns, sagas, reconcilers)
}


def filled(text: str) -> str:
    """A document with its generated parts anew. Raises KeyError for a part nobody makes."""
    return _PART.sub(lambda found: f"{found[1]}{PARTS[found[2]]()}{found[3]}", text)


def write() -> list[str]:
    """Bring every document up to date; the paths of those that changed."""
    changed = []
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(name)
    return changed


if __name__ == "__main__":
    for each in write():
        sys.stderr.write(f"{each} was written anew\n")
