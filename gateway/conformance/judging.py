"""The few words of pytest that the driver contract is written in, for where pytest is not installed.

The contract is shipped and imports pytest for ``raises``, ``skip``, ``fail``, ``fixture`` and ``mark.parametrize``.
Here they mean the same and nothing more. :func:`contract` imports the contract with them in pytest's place, whether
pytest is installed or not, so that one way of running it is enough. It must come before anybody else's import of it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

NAME = "drivers.contract"


class Skipped(BaseException):
    """The check has no meaning for this driver; ``args[0]`` says why. No ``except Exception`` may catch it."""


class Failed(BaseException):
    """The check says by itself that it failed, and why."""


class Caught:
    """What :func:`raises` caught."""

    value: BaseException


@contextmanager
def raises(expected: type[BaseException]) -> Iterator[Caught]:
    """Hold that what happens inside raises that error."""
    caught = Caught()
    try:
        yield caught
    except expected as error:
        caught.value = error
    else:
        raise Failed(f"did not raise {expected.__name__}")


def skip(reason: str) -> None:
    """Leave the check."""
    raise Skipped(reason)


def fail(reason: str) -> None:
    """Fail the check."""
    raise Failed(reason)


def fixture(*given: Callable[..., Any], scope: str = "function") -> Any:
    """Mark a function as one that makes a check's argument; ``class``: once for all checks of a run."""

    def mark(function: Any) -> Any:
        getattr(function, "__func__", function).fixture_scope = scope  # a class's method holds its function
        return function

    return mark(given[0]) if given else mark


class _Marks:
    @staticmethod
    def parametrize(names: str | Sequence[str], values: Sequence[Any]) -> Callable[[Any], Any]:
        """Run the check once for each of the values."""
        split = [each.strip() for each in names.split(",")] if isinstance(names, str) else list(names)

        def mark(function: Any) -> Any:
            rows = [value if len(split) > 1 else (value,) for value in values]
            function.cases = [*getattr(function, "cases", []), [dict(zip(split, row, strict=True)) for row in rows]]
            return function

        return mark


def _module() -> ModuleType:
    made: Any = ModuleType("pytest")
    made.raises, made.skip, made.fail, made.fixture, made.mark = raises, skip, fail, fixture, _Marks()
    made.register_assert_rewrite = lambda *_names: None
    return made  # type: ignore[no-any-return]  # a module takes any attribute


def contract() -> ModuleType:
    """The contract's module. Raises RuntimeError when it was imported with pytest in this process."""
    there = sys.modules.get(NAME)
    if there is not None:
        if there.pytest.fixture is not fixture:
            raise RuntimeError("the contract was imported with pytest in this process")
        return there
    before = sys.modules.get("pytest")
    sys.modules["pytest"] = _module()
    try:
        return importlib.import_module(NAME)
    finally:
        del sys.modules["pytest"]
        if before is not None:
            sys.modules["pytest"] = before
