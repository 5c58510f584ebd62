"""A running cloud, shared by the command's tests, and the command itself in an account of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from gateway.client import Client
from gateway.client.commands.documents import every
from gateway.client.stream import Stream
from gateway.commands import app
from tests.end_to_end.processes import PASSWORD, Cloud, cloud
from tests.end_to_end.scene import Scene, small_disk

SENDING: Final = {Client.answer.__code__, Stream.values.__code__}
"""Where a document leaves a client."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be JSON and nothing else."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Its standard output, which must be JSON line by line."""
        return [json.loads(each) for each in self.out.splitlines()]


@contextmanager
def heard() -> Iterator[set[str]]:
    """The documents that this thread's clients send meanwhile, as they leave."""
    documents: set[str] = set()

    def listen(frame: FrameType, what: str, _value: object) -> None:
        if what == "call" and frame.f_code in SENDING:
            documents.add(frame.f_locals["document"])

    sys.setprofile(listen)
    try:
        yield documents
    finally:
        sys.setprofile(None)


@dataclass
class Terminal:
    """The real program with its own configuration folder; ``environment`` is put beside the process's own."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str | Path, stdin: str = "", **more: str) -> Ended:
        """Run the command."""
        clean: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRATOGRAPH_")}
        gql = arguments[:1] == ("gql",)
        environment: Mapping[str, str | None] = {
            **clean, "XDG_CONFIG_HOME": str(self.folder), "COLUMNS": "200", **self.environment, **more,
        }  # fmt: skip
        with heard() as documents:
            result = CliRunner().invoke(app, [str(each) for each in arguments], input=stdin, env=environment)
        assert gql or documents <= every(), "a document that a cloud of trusted documents would refuse"
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, result.stdout, result.stderr)

    def ok(self, *arguments: str | Path, stdin: str = "") -> Ended:
        """Run a command that must succeed."""
        ended = self.run(*arguments, stdin=stdin)
        assert ended.code == 0, ended
        return ended

    def login(self, url: str, username: str = "admin", password: str = PASSWORD) -> None:
        """Sign in."""
        self.ok("login", "--url", url, "--username", username, stdin=f"{password}\n")

    @property
    def file(self) -> Path:
        """Where the session lies."""
        return self.folder / "stratograph" / "session.json"


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One gateway process on sim."""
    with cloud(tmp_path_factory.mktemp("cloud")) as here:
        yield here


@pytest.fixture(scope="session")
def url(running: Cloud) -> str:
    return running.gateways[0].url


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """Nobody is signed in."""
    return Terminal(tmp_path / "config")


@pytest.fixture
def signed_in(terminal: Terminal, url: str) -> Terminal:
    """The operator is signed in."""
    terminal.login(url)
    return terminal


@pytest.fixture
def client(running: Cloud) -> Client:
    """To see by the API what a command did."""
    return running.gateways[0].client()


@pytest.fixture
def scene(client: Client, tmp_path: Path) -> Scene:
    """A tenant with a network `net` and an image `disk`."""
    return Scene.make(client, small_disk(tmp_path))
