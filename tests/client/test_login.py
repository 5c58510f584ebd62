"""Signing in and out: what is kept, for whom to read, and what happens without it."""

from __future__ import annotations

import json
import stat

import pytest

from gateway.client import Client, Problem
from tests.client.conftest import Terminal
from tests.end_to_end.processes import PASSWORD
from tests.servers.daemon import free_port


def test_login_keeps_a_token_that_only_its_owner_can_read(terminal: Terminal, url: str) -> None:
    said = terminal.ok("login", "--url", f"{url}/", "-u", "admin", stdin=f"{PASSWORD}\n")
    assert said.out == ""
    assert said.err.startswith(f"Signed in to {url} as admin, until ")
    kept = json.loads(terminal.file.read_text())
    assert (kept["url"], kept["username"]) == (url, "admin")
    assert stat.S_IMODE(terminal.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(terminal.file.parent.stat().st_mode) == 0o700
    assert PASSWORD not in terminal.file.read_text()
    viewer = Client(url, kept["token"]).run("{ viewer { user { name } } }")
    assert viewer == {"viewer": {"user": {"name": "admin"}}}
    assert [each.name for each in terminal.file.parent.iterdir()] == ["session.json"]


def test_logout_revokes_the_token(signed_in: Terminal, url: str) -> None:
    token = json.loads(signed_in.file.read_text())["token"]
    assert signed_in.ok("logout").err == f"Signed out of {url}.\n"
    assert not signed_in.file.exists()
    with pytest.raises(Problem) as ended:
        Client(url, token).run("{ viewer { user { name } } }")
    assert ended.value.code == "UNAUTHENTICATED"
    assert signed_in.run("server", "list").code == 4
    assert signed_in.ok("logout").err == "Nobody was signed in.\n"


def test_a_wrong_password_is_told_with_its_code(terminal: Terminal, url: str) -> None:
    ended = terminal.run("login", "--url", url, "-u", "nobody", "--json", stdin="wrong password\n")
    assert (ended.code, ended.out) == (4, "")
    assert [each["code"] for each in json.loads(ended.err)["errors"]] == ["UNAUTHENTICATED"]
    assert not terminal.file.exists()


def test_nobody_signed_in_is_exit_code_4(terminal: Terminal) -> None:
    ended = terminal.run("server", "list")
    assert (ended.code, ended.out) == (4, "")
    assert "stratograph login" in ended.err


def test_a_token_that_was_revoked_is_exit_code_4(signed_in: Terminal, url: str) -> None:
    Client(url, json.loads(signed_in.file.read_text())["token"]).sign_out()
    ended = signed_in.run("server", "list")
    assert ended.code == 4
    assert ended.err.startswith("UNAUTHENTICATED: ")
    assert signed_in.run("logout").code == 0


def test_a_file_that_others_may_read_is_refused(signed_in: Terminal) -> None:
    signed_in.file.chmod(0o640)
    ended = signed_in.run("server", "list")
    assert ended.code == 4
    assert "can be read by others" in ended.err


def test_a_damaged_file_is_refused_and_replaced(signed_in: Terminal, url: str) -> None:
    signed_in.file.write_text("{")
    assert signed_in.run("server", "list").code == 4
    signed_in.login(url)
    assert signed_in.run("server", "list").code == 0


def test_no_cloud_there_is_exit_code_3(terminal: Terminal) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    ended = terminal.run("login", "--url", address, "-u", "admin", stdin="password\n")
    assert ended.code == 3
    assert ended.err.startswith("UNREACHABLE: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("login", "--url", "ftp://cloud.example"),
        ("login", "--url", "http://cloud.example"),
        ("login", "--url", "https://me@cloud.example"),
        ("login", "--ca", "/nowhere.pem"),
        ("login", "--url", "https://cloud.example", "-u", "me"),
        ("server",),
        ("server", "create", "web"),
        ("server", "fly"),
        ("server", "list", "--limit", "-1"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2(terminal: Terminal, arguments: tuple[str, ...]) -> None:
    assert terminal.run(*arguments).code == 2


def test_a_token_of_the_environment_goes_before_the_file(signed_in: Terminal, client: Client, url: str) -> None:
    made = client.do("apiKeyCreate", "apiKey { id } token", **_key(client))
    listed = signed_in.run("gql", "{ viewer { apiKey { id } } }", STRATOGRAPH_TOKEN=made["token"])
    assert listed.json["data"] == {"viewer": {"apiKey": {"id": made["apiKey"]["id"]}}}
    elsewhere = signed_in.run("gql", "{ viewer { user { name } } }", STRATOGRAPH_URL=f"http://127.0.0.1:{free_port()}")
    assert elsewhere.code == 4  # a token goes to the cloud that gave it and to no other
    assert Terminal(signed_in.folder / "other").run("server", "list", STRATOGRAPH_URL=url).code == 4


def _key(client: Client) -> dict[str, str]:
    tenant = client.do("tenantCreate", "tenant { id }", name="keys")["tenant"]["id"]
    return {"name": "ci", "tenantId": tenant, "role": "READER"}
