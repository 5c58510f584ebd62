"""What `stratograph serve` says when it is ready: where to go, how to sign in, what was found, what to do next."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn

if TYPE_CHECKING:
    from gateway.app import Cloud


class Announcing(uvicorn.Server):
    """Calls ``ready`` once it listens, and ``stopping`` as soon as it is told to stop: open streams end then, and do
    not hold the stop up.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._stopping = stopping

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Tell the streams, then stop."""
        self._stopping()
        await super().shutdown(sockets)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start, then announce."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def show(cloud: Cloud) -> None:
    """Print the banner. Bold by hand: what formats tables would hold the first requests up."""
    sys.stdout.write("\n".join(["", *lines(cloud), "", ""]))
    sys.stdout.flush()


def lines(cloud: Cloud) -> list[str]:
    """The banner's lines."""
    settings, first = cloud.settings, cloud.first
    password = first.admin.password_file
    known = f"password in {password}" if password else "with the password you set"
    found = ", ".join(f"{kind.lower()} ({lack})" if lack else kind.lower() for kind, lack in first.drivers.items())
    said = [
        f"{_bold('Stratograph')} is ready.  Playground  {settings.url}/playground",
        f"Sign in     user {_bold('admin')}, {known}",
        f"Drivers     {found}",
    ]
    if first.accelerator is not None:
        slow = "" if first.accelerator == "KVM" else " (emulation: guests run, slowly)"
        said.append(f"Accelerator {first.accelerator}{slow}")
    elif "KVM" not in first.drivers or first.drivers.get("KVM") is not None or not any("kvm" in h for h in first.hosts):
        said.append(f"Accelerator none: libvirt is not there, so servers are {_bold('simulated')}")
    said += [
        f"Hosts       {', '.join(first.hosts) or 'none yet: hostRegister'}",
        f"Next        {_bold('make demo')} in another terminal",
    ]
    return [f"  {each}" for each in said]


def _bold(text: str) -> str:
    return f"\x1b[1m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
