"""Running the contract's checks one after the other against one host, each judged by itself.

A check is a method of one of the contract's classes, once for each of its cases. It has passed when it came to its
end, is unsupported when it says that the driver declares no such thing, and has failed otherwise, with the reason or
the very line that did not hold. No check can end the run; an interruption ends it after what was made is taken away.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.conformance.judging import Failed, Skipped

REASON = 300


class Result(StrEnum):
    """What came of a check."""

    PASSED = "passed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One check. ``area`` is the part of the contract, ``reason`` why it failed or has no meaning here."""

    area: str
    check: str
    result: Result
    seconds: float
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As printed for programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """A method to be called on an instance of the contract, with the case's arguments."""

    area: str
    name: str
    method: str
    case: dict[str, Any]


def checks(contract: ModuleType, wanted: str | None = None) -> list[Check]:
    """All checks in the order of the source, or those with that text in the name."""
    found = []
    for part in contract.DriverContract.__mro__:
        area = part.__name__.removesuffix("Contract")
        for method, function in vars(part).items():
            if method.startswith("test_") and inspect.isfunction(function):
                found += [Check(area, _name(method, case), method, case) for case in _cases(function)]
    return [each for each in found if wanted is None or wanted in each.name or wanted == each.area.lower()]


def _cases(function: Any) -> Iterator[dict[str, Any]]:
    for chosen in itertools.product(*getattr(function, "cases", [])):
        yield {name: value for each in chosen for name, value in each.items()}


def _name(method: str, case: dict[str, Any]) -> str:
    told = ", ".join(str(getattr(value, "value", value)) for value in case.values())
    return method.removeprefix("test_").replace("_", " ") + (f" ({told})" if told else "")


class Course:
    """One run: an instance of the contract, its rig, and what lives as long as the run."""

    def __init__(self, contract: ModuleType, rig: Any, scratch: Path) -> None:
        self._instance = contract.DriverContract()
        self._kept: dict[str, Any] = {"rig": rig}
        self._open: list[Iterator[Any]] = []
        self._scratch = scratch

    def judge(self, check: Check) -> Verdict:
        """Carry one check out."""
        begun = time.monotonic()
        closing: list[Iterator[Any]] = []
        try:
            try:
                function = getattr(self._instance, check.method)
                function(**{name: self._argument(name, check.case, closing) for name in _names(function)})
            finally:
                _close(closing)
        except Skipped as skipped:
            return self._verdict(check, Result.UNSUPPORTED, begun, str(skipped))
        except Failed as failed:
            return self._verdict(check, Result.FAILED, begun, str(failed))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the check's result
            return self._verdict(check, Result.FAILED, begun, _reason(error))
        return self._verdict(check, Result.PASSED, begun, None)

    def close(self) -> list[str]:
        """End what lived as long as the run; what went wrong, one line each."""
        try:
            _close(self._open)
        except Exception as error:  # noqa: BLE001 - as above
            return [_reason(error)]
        return []

    def _verdict(self, check: Check, result: Result, begun: float, reason: str | None) -> Verdict:
        told = reason[:REASON] if reason else None
        return Verdict(check.area, check.name, result, round(time.monotonic() - begun, 3), told)

    def _argument(self, name: str, case: dict[str, Any], closing: list[Iterator[Any]]) -> Any:
        if name in case:
            return case[name]
        if name == "tmp_path":
            return Path(tempfile.mkdtemp(dir=self._scratch))
        if name in self._kept:
            return self._kept[name]
        maker = getattr(self._instance, name)
        lasting = maker.fixture_scope == "class"
        made = maker(**{each: self._argument(each, case, closing) for each in _names(maker)})
        if inspect.isgenerator(made):
            value = next(made)
            (self._open if lasting else closing).append(made)
            made = value
        if lasting:
            self._kept[name] = made
        return made


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


def _close(made: list[Iterator[Any]]) -> None:
    while made:
        next(made.pop(), None)  # its second half; it ends there


def _reason(error: Exception) -> str:
    """The error's words; for a bare assertion the line that did not hold."""
    frames = traceback.extract_tb(error.__traceback__)
    inside = next((each for each in reversed(frames) if "contracts" in each.filename), frames[-1])
    at = f"{Path(inside.filename).name}:{inside.lineno}"
    words = getattr(error, "reason", None) or str(error)
    if isinstance(error, AssertionError) and not words:
        return f"{linecache.getline(inside.filename, inside.lineno or 0).strip()} ({at})"
    return f"{type(error).__name__}: {words} ({at})"
