"""What `stratograph serve` says when it is ready: where to go, how to sign in, what was found, what to do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import uvicorn
from rich.console import Console

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
    """Print the banner."""
    settings, first = cloud.settings, cloud.first
    found = ", ".join(f"{kind.lower()} ({lack})" if lack else kind.lower() for kind, lack in first.drivers.items())
    password = first.admin.password_file
    console = Console()
    console.print()
    console.print(f"  [bold]Stratograph[/] is ready.  Playground  [link]{settings.url}/playground[/]")
    console.print(
        f"  Sign in     user [bold]admin[/], password in {password}"
        if password
        else "  Sign in     user [bold]admin[/], with the password you set"
    )
    console.print(f"  Drivers     {found}")
    if first.accelerator is not None:
        slow = "" if first.accelerator == "KVM" else " (emulation: guests run, slowly)"
        console.print(f"  Accelerator {first.accelerator}{slow}")
    elif "KVM" not in first.drivers or first.drivers.get("KVM") is not None or not any("kvm" in h for h in first.hosts):
        console.print("  Accelerator none: libvirt is not there, so servers are [bold]simulated[/]")
    console.print(f"  Hosts       {', '.join(first.hosts) or 'none yet: hostRegister'}")
    console.print("  Next        [bold]make demo[/] in another terminal")
    console.print()
