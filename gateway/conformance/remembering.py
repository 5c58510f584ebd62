"""Remembering what a run makes on a host, and taking away what is left of it.

Only ids that a run asked for are ever removed: what a cloud makes on the same host meanwhile is not looked at. They are
written down before the host is asked (journal.py), so that what a killed run left is taken away by the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from drivers.api import Adoption, Deadline, Driver, DriverError, Snapshots
from gateway.conformance.journal import Journal, Left


@dataclass(slots=True)
class Made:
    """Ids of what was asked for, by kind; ``ports`` are (network, port), ``adopted`` machines that others made."""

    machines: set[UUID] = field(default_factory=set)
    adopted: set[UUID] = field(default_factory=set)
    ports: set[tuple[UUID, UUID]] = field(default_factory=set)
    networks: set[UUID] = field(default_factory=set)
    snapshots: set[UUID] = field(default_factory=set)
    volumes: set[UUID] = field(default_factory=set)
    images: set[UUID] = field(default_factory=set)

    def add(self, kind: str, *identities: UUID) -> bool:
        """Note one; whether it is new."""
        known: set[Any] = getattr(self, kind)
        one = identities if kind == "ports" else identities[0]
        fresh = one not in known
        known.add(one)
        return fresh


def remember(driver: Driver, journal: Journal) -> Made:
    """From now on, note whatever this connection is asked to make, and write it down before the host is asked."""
    made = Made()

    def note(kind: str, *identities: UUID) -> None:
        if made.add(kind, *identities):
            journal.note(kind, *identities)

    _on(driver.machines, "ensure", lambda spec, *_: note("machines", spec.id))
    _on(driver.volumes, "ensure", lambda spec, *_: note("volumes", spec.id))
    _on(driver.volumes, "ensure_image", lambda spec, *_: note("images", spec.id))
    _on(driver.networks, "ensure", lambda spec, *_: note("networks", spec.id))
    _on(driver.networks, "ensure_port", lambda spec, *_: note("ports", spec.network_id, spec.id))
    _on(driver, "snapshot", lambda _volume, snapshot_id, *_: note("snapshots", snapshot_id))
    _on(driver, "import_disk", lambda volume_id, *_: note("volumes", volume_id))
    _on(driver, "adopt", lambda spec, *_: note("adopted", spec.id))
    return made


def left_by(run: Left) -> Made:
    """What an earlier run wrote down."""
    made = Made()
    for kind, identities in run.made:
        made.add(kind, *identities)
    return made


def _on(of: Any, verb: str, note: Callable[..., object]) -> None:
    asked = getattr(of, verb, None)
    if asked is None:
        return

    def noting(*args: Any, **kwargs: Any) -> Any:
        note(*args)
        return asked(*args, **kwargs)

    setattr(of, verb, noting)


def take_away(driver: Driver, made: Made, seconds: float) -> list[str]:
    """Remove what is left, users before what they use; what could not be removed, one line each."""
    left = []
    for what, remove in _removals(driver, made):
        try:
            remove(Deadline(seconds))
        except DriverError as error:
            left.append(f"{what}: {error.reason}")
    return left


def _removals(driver: Driver, made: Made) -> Iterator[tuple[str, Callable[[Deadline], object]]]:
    kinds: list[tuple[str, Iterable[tuple[UUID, ...]], Callable[..., object]]] = [
        ("adopted machine", _each(made.adopted), driver.disown if isinstance(driver, Adoption) else _nothing),
        ("machine", _each(made.machines - made.adopted), driver.machines.remove),
        ("port", made.ports, driver.networks.remove_port),
        ("network", _each(made.networks), driver.networks.remove),
        ("snapshot", _each(made.snapshots), driver.remove_snapshot if isinstance(driver, Snapshots) else _nothing),
        ("volume", _each(made.volumes), driver.volumes.remove),
        ("image", _each(made.images), driver.volumes.remove_image),
    ]
    for what, identities, remove in kinds:
        for identity in identities:
            yield f"{what} {identity[-1]}", partial(remove, *identity)


def _nothing(*_given: object) -> None:
    """The driver has no such verb, so nothing of the kind was made."""


def _each(identities: set[UUID]) -> list[tuple[UUID, ...]]:
    return [(identity,) for identity in identities]
