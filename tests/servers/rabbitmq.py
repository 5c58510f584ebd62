"""A RabbitMQ of the tests' own: own node name, cookie, epmd, ports and data, all on the loopback address.

`RabbitServer.create()` gives a running broker; `new_url()` gives each test a virtual host of its own, so that queues
of the same name do not meet. The virtual hosts are made at start from a definitions file, since making one later
costs a second and a half of processor time. Erlang's epmd is a child of the guard and ends with it.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from tests.servers.counter import next_number
from tests.servers.daemon import Daemon, PackageMissingError, ServerError, free_port, make_folder

PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
VIRTUAL_HOSTS = 100
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"


def answers(port: int) -> bool:
    """Whether an AMQP broker opens the conversation on that port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(PROTOCOL_HEADER)
            return connection.recv(1) == b"\x01"  # a method frame: Connection.Start
    except OSError:
        return False


def write_files(folder: Path) -> None:
    """The broker's configuration, definitions and cookie."""
    cookie = folder / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(16))
    cookie.chmod(0o400)
    hosts = ["/", *(f"test{number}" for number in range(VIRTUAL_HOSTS))]
    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "users": [{"name": "guest", "password": "guest", "tags": "administrator"}],
        "vhosts": [{"name": host} for host in hosts],
        "permissions": [{"user": "guest", "vhost": host, **everything} for host in hosts],
    }
    (folder / "definitions.json").write_text(json.dumps(definitions))
    (folder / "rabbitmq.conf").write_text(
        "\n".join(
            [
                f"load_definitions = {folder}/definitions.json",
                "log.console.level = warning",
                "log.file = false",
                "vm_memory_high_watermark.absolute = 1GB",
                "disk_free_limit.absolute = 50MB",
                "",
            ]
        )
    )
    (folder / "enabled_plugins").write_text("[].\n")


def environment(folder: Path, port: int, distribution_port: int, epmd_port: int) -> dict[str, str]:
    """Everything that keeps this node apart from any other on the machine."""
    return {
        "HOME": str(folder),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_CRASH_DUMP_BYTES": "0",
        "RABBITMQ_NODENAME": f"stratograph{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +A 16",
        "RUNNING_UNDER_SYSTEMD": "true",  # the Erlang machine in place of a shell around it: signals arrive
    }


@dataclass
class RabbitServer:
    """A running RabbitMQ."""

    port: int
    daemon: Daemon

    @classmethod
    def create(cls) -> RabbitServer:
        """Make a new node and start it; about 5 s."""
        if not PROGRAM.exists():
            raise PackageMissingError("RabbitMQ is not installed: apt-get install rabbitmq-server")
        folder = make_folder("rabbitmq")
        try:
            write_files(folder)
            (folder / "ports.json").write_text(json.dumps([free_port(), free_port()]))
            server = cls.attached(free_port(), folder)
            server.daemon.start(seconds=120)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return server

    @classmethod
    def attached(cls, port: int, folder: Path, guard_pid: int = 0) -> RabbitServer:
        """The broker of that port and folder, started here or in another process of this test run."""
        distribution_port, epmd_port = json.loads((folder / "ports.json").read_text())
        daemon = Daemon(
            command=[str(PROGRAM)],
            folder=folder,
            environment=environment(folder, port, distribution_port, epmd_port),
            answers=lambda: answers(port),
            guard_pid=guard_pid,
        )
        return cls(port, daemon)

    @property
    def url(self) -> str:
        """The address of the broker's default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def new_url(self) -> str:
        """The address of a virtual host that no other test has had. Raises ServerError after VIRTUAL_HOSTS of them."""
        number = next_number(self.daemon.folder, "virtual-hosts")
        if number >= VIRTUAL_HOSTS:
            raise ServerError(f"more than {VIRTUAL_HOSTS} virtual hosts were asked for: raise VIRTUAL_HOSTS")
        return f"amqp://guest:guest@127.0.0.1:{self.port}/test{number}"

    def pause(self) -> None:
        """Freeze the broker: connections hang."""
        self.daemon.pause()

    def resume(self) -> None:
        """Let a paused broker go on."""
        self.daemon.resume()

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.daemon.kill()

    def restart(self) -> None:
        """Start a killed broker again on the same port with the same data."""
        self.daemon.start(seconds=120)

    def stop(self) -> None:
        """End it, its epmd too, and delete its data."""
        self.daemon.stop()
