"""A vSphere endpoint for tests: Debian's govmomi simulator behind a front of ours that ends sessions and breaks calls.

`EsxSim.create` builds the Go program once a test run (packages `golang-go` and `golang-github-vmware-govmomi-dev`; some
20 seconds when Go's cache is cold) and starts one endpoint with its own port, certificate and datastore. It is a
simulator: it shows which calls a driver sends and how it takes the answers, not what a real host does.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlencode

from tests.servers.counter import locked
from tests.servers.daemon import Daemon, PackageMissingError, ServerError, free_port, make_folder

SOURCE = Path(__file__).resolve().parent
LIBRARIES = Path("/usr/share/gocode")
PACKAGES = "golang-go golang-github-vmware-govmomi-dev"
USER, PASSWORD = "root", "secret"
HTTP_OK = 200


def build(folder: Path) -> Path:
    """The program, built into that folder by the first caller. Raises PackageMissingError without its packages."""
    binary = folder / "esxsim"
    with locked(folder / "esxsim.lock"):
        if binary.exists():
            return binary
        if shutil.which("go") is None or not (LIBRARIES / "src/github.com/vmware/govmomi/simulator").is_dir():
            raise PackageMissingError(f"the vSphere simulator needs: apt-get install {PACKAGES}")
        environment = {
            **os.environ,
            "GOPATH": str(LIBRARIES),
            "GO111MODULE": "off",
            "GOCACHE": os.environ.get("GOCACHE", str(Path.home() / ".cache/go-build")),
        }
        done = subprocess.run(
            ["go", "build", "-o", str(binary), "."],
            cwd=SOURCE,
            env=environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"the vSphere simulator does not build:\n{done.stderr[-2000:]}")
        return binary


@dataclass
class EsxSim:
    """One endpoint. `certificate` is its own in PEM; `url` is what a HostConfig names."""

    daemon: Daemon
    port: int
    address: str = "127.0.0.1"

    @classmethod
    def create(
        cls,
        binary: Path,
        *,
        mode: str = "esxi",
        machines: int = 2,
        ours: bool = False,
        hosts: int = 2,
        address: str = "127.0.0.1",
    ) -> EsxSim:
        """Start an endpoint (`esxi`, `vcenter` with hosts on their own, `cluster` with hosts in one) with so many
        machines on each host: somebody else's, or with the driver's mark.

        Its certificate is for 127.0.0.1 and localhost, whatever address it listens on.
        """
        folder, port = make_folder("esxsim"), free_port()
        options = {"mode": mode, "machines": machines, "hosts": hosts, "dir": folder, "cert": folder / "cert.pem"}
        options |= {"ours": str(ours).lower()}
        options |= {"listen": f"{address}:{port}", "user": USER, "password": PASSWORD}
        command = [str(binary), *(f"-{name}={value}" for name, value in options.items())]
        made = cls(Daemon(command=command, folder=folder, answers=lambda: _listens(address, port)), port, address)
        made.daemon.start()
        return made

    @property
    def url(self) -> str:
        """The address of its SOAP service."""
        return f"https://{self.address}:{self.port}/sdk"

    @property
    def certificate(self) -> str:
        """Its certificate of this start, in PEM."""
        return (self.daemon.folder / "cert.pem").read_text()

    def fault(self, method: str, fault: str, times: int = 1, skip: int = 0) -> None:
        """Break the next calls of a method, after `skip` good ones: a vSphere fault's name (after `task:`: in its
        task), or `http`, `drop` (done, its answer lost), `hang`. Uploads are the method `PUT /folder`; disks through a
        lease are `POST /nfc` and `GET /nfc`, which know also `cut` (broken off half-way) and `expire` (the lease dies
        meanwhile).
        """
        self._control("fault", method=method, fault=fault, n=times, skip=skip)

    def delay(self, method: str, milliseconds: int) -> None:
        """Make every call of a method take so long; `*` is every task."""
        self._control("delay", method=method, ms=milliseconds)

    def expire(self, *, empty: bool = False) -> None:
        """End all sessions; `empty`: bulk reads then answer with nothing, as old ESXi does."""
        self._control("expire", **({"empty": 1} if empty else {}))

    def expire_at(self, method: str) -> None:
        """End all sessions when that method is called next, before it is carried out."""
        self._control("expireAt", method=method)

    def lease(self, seconds: int) -> None:
        """How long a lease lives without progress, from the next one on; 300 at first, as on a host."""
        self._control("lease", seconds=seconds)

    def ticket(self, seconds: int = 30, *, host: str = "", thumbprint: str = "") -> None:
        """What tickets for consoles are like from the next one on: how long one lives, and which host and certificate
        it names in place of the endpoint's own.
        """
        self._control("ticket", seconds=seconds, host=host, thumbprint=thumbprint)

    def tools(self, *, on: bool) -> None:
        """Whether guests listen to a shutdown or reboot; at first they do not."""
        self._control("tools", **({"on": 1} if on else {}))

    def calls(self) -> dict[str, int]:
        """How often each method was called since last asked."""
        answer: dict[str, int] = json.loads(self._control("calls"))
        return answer

    def sent(self) -> dict[str, int]:
        """How many bytes the answers of each method had since last asked."""
        answer: dict[str, int] = json.loads(self._control("sent"))
        return answer

    def restart(self) -> None:
        """Come back on the same port with another certificate and an empty inventory."""
        self.daemon.kill()
        self.daemon.start()

    def stop(self) -> None:
        """End it and delete its folder."""
        self.daemon.stop()

    def _control(self, what: str, **query: str | int) -> bytes:
        trust = ssl.create_default_context(cadata=self.certificate)
        trust.check_hostname = False
        connection = HTTPSConnection(self.address, self.port, timeout=10, context=trust)
        try:
            connection.request("GET", f"/ctl/{what}?{urlencode(query)}")
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != HTTP_OK:
            raise ServerError(f"the simulator answers {answer.status} to {what}")
        return text


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:
        return False
