"""Readings straight from a hypervisor, for the few things that are not kept: the console log, and the screen.

The gateway's process holds one :class:`Live` (it has connections of its own); nothing here changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from socket import socket

import structlog
from sqlmodel import select

from drivers.api import Capability, ConsoleLog, Deadline, Driver, DriverError, ForeignPage, GraphicalConsole
from drivers.api import Unsupported as DriverUnsupported
from gateway.compute.host import Host
from gateway.compute.server import Server
from gateway.kernel import errors
from gateway.kernel.db import Database
from workers.compute.adopt import adopting
from workers.hypervisor import Hosts
from workers.reach import address_of

READ_S = 5.0
LIST_S = 20.0
OPEN_S = 10.0
MAX_BYTES = 1 << 20

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Live:
    """The way from a resolver to a hypervisor."""

    db: Database
    hosts: Hosts

    def console_log(self, server: Server) -> str | None:
        """The newest MiB of what the server wrote on its serial port; None when it cannot be had now."""
        if server.host_id is None:
            return None
        with self.db.read() as session:
            host = session.exec(select(Host).where(Host.id == server.host_id)).first()
            if host is None:
                return None
            where = address_of(session, host)

        def work(driver: Driver, deadline: Deadline) -> bytes | None:
            return driver.console_log(server.uid, MAX_BYTES, deadline) if isinstance(driver, ConsoleLog) else None

        try:
            found: bytes | None = self.hosts.call(where, work, seconds=READ_S)
        except DriverError as error:
            log.info("console log could not be read", reason=error.reason)
            return None
        return None if found is None else found.decode(errors="replace")

    def open_console(self, server: Server) -> socket:
        """A connected stream to a server's screen, to be closed by the caller. Raises Unsupported, HypervisorError."""
        with self.db.read() as session:
            host = session.exec(select(Host).where(Host.id == server.host_id)).first()
            if host is None:
                raise errors.HypervisorError("The server is on no host.", reason="the server is on no host")
            where = address_of(session, host)

        def work(driver: Driver, deadline: Deadline) -> socket:
            if not isinstance(driver, GraphicalConsole):
                raise DriverUnsupported(Capability.GRAPHICAL_CONSOLE, "this hypervisor's driver shows no screens")
            return driver.open_console(server.uid, deadline)

        try:
            line: socket = self.hosts.call(where, work, seconds=OPEN_S)
        except DriverUnsupported as error:
            raise errors.Unsupported(error.reason, capability=error.capability.value, hypervisor=where.kind) from error
        except DriverError as error:
            raise errors.HypervisorError("The screen cannot be shown now.", reason=error.reason) from error
        return line

    def foreign_machines(self, host: Host, after: str | None, limit: int) -> ForeignPage:
        """Machines on a host that are not the cloud's, as they are now. Raises Unsupported, HypervisorError."""
        with self.db.read() as session:
            where = address_of(session, host)

        def work(driver: Driver, deadline: Deadline) -> ForeignPage:
            return adopting(driver).list_foreign(after, limit, deadline)

        try:
            found: ForeignPage = self.hosts.call(where, work, seconds=LIST_S)
        except DriverUnsupported as error:
            raise errors.Unsupported(error.reason, capability=error.capability.value, hypervisor=where.kind) from error
        except DriverError as error:
            raise errors.HypervisorError("The host cannot be asked now.", reason=error.reason) from error
        return found
