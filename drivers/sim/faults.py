"""What goes wrong on a simulated host, on order: refusals, lost answers, hangs, latency, a host that is down.

The weather is a record of the host (:class:`~drivers.sim.records.ConditionsRecord`), so a fault that a test sets in its
own process strikes the worker in another one. :func:`before` runs ahead of each verb and :func:`after` behind its
commit: a fault *before* means nothing happened, a fault *after* means that it happened and the answer was lost, which
is the case that idempotence is for. Nothing here is random; chance belongs to the test that sets the faults.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import StrEnum
from fnmatch import fnmatchcase

from drivers.api import Capability, Deadline, DriverError, HostAtFault, Refused, Transient, Unsupported
from drivers.sim.options import Options
from drivers.sim.records import ConditionsRecord
from drivers.sim.store import Store, Transaction

ERRORS: dict[str, type[DriverError]] = {each.__name__: each for each in (Transient, HostAtFault, Refused, Unsupported)}
CALM = ConditionsRecord(ConditionsRecord.KEY)


class When(StrEnum):
    """BEFORE: nothing happened. AFTER: it happened, the answer was lost. HANG: no answer until the deadline."""

    BEFORE = "BEFORE"
    AFTER = "AFTER"
    HANG = "HANG"


def conditions(transaction: Transaction) -> ConditionsRecord:
    """The host's weather."""
    return transaction.get(ConditionsRecord, ConditionsRecord.KEY) or CALM


def before(store: Store, options: Options, verb: str, deadline: Deadline) -> bool:
    """Let the weather act ahead of a verb. Answers whether a fault may be waiting behind it.

    Raises what was ordered, or Transient when the deadline passes in waiting.
    """
    deadline.check(f"asking a simulated host for {verb}")
    with store.read(deadline) as transaction:
        weather = conditions(transaction)
    if weather.down:
        raise ERRORS[weather.down]("the simulated host is down", vendor_code="SIM_DOWN")
    _wait(_latency(weather, options, verb), verb, deadline)
    if not weather.faults:
        return False
    if _due(store, verb, When.HANG, deadline) is not None:
        _wait(float("inf"), verb, deadline)
    if fault := _due(store, verb, When.BEFORE, deadline):
        raise fault
    return True


def after(store: Store, verb: str, deadline: Deadline) -> None:
    """Raise the fault that was ordered behind this verb, if any."""
    if fault := _due(store, verb, When.AFTER, deadline):
        raise fault


def is_deaf(weather: ConditionsRecord, request: str, machine_id: str) -> bool:
    """Whether that machine's guest ignores the request, ``shutdown`` or ``detach``."""
    return not {"*", machine_id}.isdisjoint(weather.deaf.get(request, ()))


def _due(store: Store, verb: str, when: When, deadline: Deadline) -> DriverError | None:
    """Take one strike of the first fault that fits. Faults that were told to let calls pass count this one."""
    with store.read(deadline) as transaction:
        if not any(_fits(each, verb, when) for each in conditions(transaction).faults):
            return None
    with store.write(Deadline(5)) as transaction:  # even for a call that has no time left, a strike is a strike
        weather = conditions(transaction)
        kept: list[dict[str, object]] = []
        struck: DriverError | None = None
        for each in weather.faults:
            fault = dict(each)
            if _fits(fault, verb, when) and struck is None:
                if int(str(fault["skip"])) > 0:
                    fault["skip"] = int(str(fault["skip"])) - 1
                else:
                    struck = _error(fault)
                    if fault["times"] is not None:
                        fault["times"] = int(str(fault["times"])) - 1
            if fault["times"] != 0:
                kept.append(fault)
        transaction.put(replace(weather, faults=kept))
        return struck


def _fits(fault: dict[str, object], verb: str, when: When) -> bool:
    return fault["when"] == when and fnmatchcase(verb, str(fault["verb"]))


def _error(fault: dict[str, object]) -> DriverError:
    kind, reason = str(fault["error"]), str(fault["reason"])
    if kind == "Unsupported":
        return Unsupported(Capability(str(fault["capability"])), reason)
    return ERRORS[kind](reason, vendor_code="SIM_FAULT")


def _latency(weather: ConditionsRecord, options: Options, verb: str) -> float:
    """Seconds this verb takes by itself: what a test set first, then what the options say."""
    for pattern, milliseconds in (*weather.latency_ms.items(), *options.latency_ms):
        if fnmatchcase(verb, pattern):
            return milliseconds / 1000
    return 0.0


def _wait(seconds: float, verb: str, deadline: Deadline) -> None:
    if seconds <= 0:
        return
    remaining = deadline.remaining
    time.sleep(min(seconds, remaining))
    if seconds >= remaining:
        raise Transient(f"the deadline passed while a simulated host worked on {verb}")
