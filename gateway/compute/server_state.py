"""What a server is doing, as three separate facts and one pure function.

``phase`` is what the cloud is doing with it, ``wanted`` what its owner asked for, ``observed`` what the hypervisor said
last. The public status follows from them and from nothing else.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """What the cloud is doing with a server."""

    BUILDING = "BUILDING"
    READY = "READY"
    VERIFY_RESIZE = "VERIFY_RESIZE"
    FAILED = "FAILED"
    DELETING = "DELETING"


class Wanted(StrEnum):
    """What the owner wants."""

    ON = "ON"
    OFF = "OFF"


class Observed(StrEnum):
    """What the hypervisor said last; ABSENT: it has no such machine, UNKNOWN: it cannot be asked."""

    RUNNING = "RUNNING"
    OFF = "OFF"
    PAUSED = "PAUSED"
    SUSPENDED = "SUSPENDED"
    CRASHED = "CRASHED"
    UNKNOWN = "UNKNOWN"
    ABSENT = "ABSENT"


class ServerStatus(StrEnum):
    """Where a server stands."""

    BUILDING = "BUILDING"
    """A job is making it."""
    ACTIVE = "ACTIVE"
    """It runs."""
    STOPPED = "STOPPED"
    """It is powered off."""
    PAUSED = "PAUSED"
    """Its processors stand still; its memory is kept."""
    SUSPENDED = "SUSPENDED"
    """Its memory is saved on disk."""
    CRASHED = "CRASHED"
    """The guest or its hypervisor process crashed; start it again."""
    VERIFY_RESIZE = "VERIFY_RESIZE"
    """It has its new size; serverResizeConfirm keeps it, serverResizeRevert brings the old one back."""
    UNKNOWN = "UNKNOWN"
    """Its host cannot be asked; it may well run on."""
    ERROR = "ERROR"
    """It could not be made, or is gone from its host; `statusReason` says why. Delete it."""
    DELETING = "DELETING"
    """On its way out."""


class Action(StrEnum):
    """What may be asked of a server now."""

    __graphql_name__ = "ServerAction"

    START = "START"
    """serverStart."""
    STOP = "STOP"
    """serverStop."""
    REBOOT = "REBOOT"
    """serverReboot."""
    DELETE = "DELETE"
    """serverDelete."""
    ATTACH_VOLUME = "ATTACH_VOLUME"
    """volumeAttach."""
    DETACH_VOLUME = "DETACH_VOLUME"
    """volumeDetach."""
    UPDATE = "UPDATE"
    """serverUpdate."""
    SUSPEND = "SUSPEND"
    """serverSuspend."""
    RESUME = "RESUME"
    """serverResume."""
    PAUSE = "PAUSE"
    """serverPause."""
    UNPAUSE = "UNPAUSE"
    """serverUnpause."""
    ATTACH_PORT = "ATTACH_PORT"
    """portAttach."""
    DETACH_PORT = "DETACH_PORT"
    """portDetach."""
    RESIZE = "RESIZE"
    """serverResize."""
    RESIZE_CONFIRM = "RESIZE_CONFIRM"
    """serverResizeConfirm."""
    RESIZE_REVERT = "RESIZE_REVERT"
    """serverResizeRevert."""
    RELOCATE = "RELOCATE"
    """serverRelocate."""
    SNAPSHOT = "SNAPSHOT"
    """serverSnapshotCreate."""
    REVERT = "REVERT"
    """serverSnapshotRevert."""
    OPEN_CONSOLE = "OPEN_CONSOLE"
    """serverConsoleCreate; while it runs."""


_OBSERVED = {
    Observed.RUNNING: ServerStatus.ACTIVE,
    Observed.OFF: ServerStatus.STOPPED,
    Observed.PAUSED: ServerStatus.PAUSED,
    Observed.SUSPENDED: ServerStatus.SUSPENDED,
    Observed.CRASHED: ServerStatus.CRASHED,
    Observed.UNKNOWN: ServerStatus.UNKNOWN,
    Observed.ABSENT: ServerStatus.ERROR,
}

_ALWAYS = frozenset({Action.DELETE, Action.UPDATE})
DEVICES = frozenset({Action.ATTACH_VOLUME, Action.DETACH_VOLUME, Action.ATTACH_PORT, Action.DETACH_PORT})
"""What changes the devices that a machine has."""
MOMENTS = frozenset({Action.SNAPSHOT, Action.REVERT})
"""What keeps a machine at one moment, and brings it back there."""
MOVES = frozenset({Action.RESIZE, Action.RELOCATE})
"""What gives a machine another size or place."""

STANDING = (Phase.READY, Phase.VERIFY_RESIZE)
"""The phases in which a server is made, and what its hypervisor says of it is recorded."""

_RUNNING = frozenset({Action.STOP, Action.REBOOT, Action.SUSPEND, Action.PAUSE})

ALLOWED: dict[ServerStatus, frozenset[Action]] = {
    ServerStatus.BUILDING: _ALWAYS,
    ServerStatus.ACTIVE: _ALWAYS | DEVICES | MOVES | MOMENTS | _RUNNING | {Action.OPEN_CONSOLE},
    ServerStatus.STOPPED: _ALWAYS | DEVICES | MOVES | MOMENTS | {Action.START},
    ServerStatus.PAUSED: _ALWAYS | {Action.STOP, Action.UNPAUSE, Action.REVERT, Action.OPEN_CONSOLE},
    ServerStatus.SUSPENDED: _ALWAYS | {Action.START, Action.STOP, Action.RESUME, Action.REVERT},
    ServerStatus.CRASHED: _ALWAYS | DEVICES | MOMENTS | {Action.START, Action.STOP},
    ServerStatus.VERIFY_RESIZE: _ALWAYS | {Action.RESIZE_CONFIRM, Action.RESIZE_REVERT, Action.OPEN_CONSOLE},
    ServerStatus.UNKNOWN: _ALWAYS,
    ServerStatus.ERROR: frozenset({Action.DELETE, Action.UPDATE}),
    ServerStatus.DELETING: frozenset(),
}


def status(phase: Phase, observed: Observed | None) -> ServerStatus:
    """The one function from facts to status."""
    match phase:
        case Phase.BUILDING:
            return ServerStatus.BUILDING
        case Phase.FAILED:
            return ServerStatus.ERROR
        case Phase.DELETING:
            return ServerStatus.DELETING
        case Phase.VERIFY_RESIZE if observed not in (None, Observed.UNKNOWN, Observed.ABSENT):
            return ServerStatus.VERIFY_RESIZE
        case Phase.READY | Phase.VERIFY_RESIZE:
            return ServerStatus.UNKNOWN if observed is None else _OBSERVED[observed]


def states_allowing(action: Action) -> list[ServerStatus]:
    """The states in which an action may be asked for."""
    return [each for each in ServerStatus if action in ALLOWED[each]]
