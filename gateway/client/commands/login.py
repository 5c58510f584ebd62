"""``stratograph login`` and ``logout``: a token is fetched for a password, kept, and given back.

The password comes from a prompt, or from the first line of the standard input, and goes nowhere but to the cloud: not
over plain HTTP to another machine unless that is asked for in so many words.
"""

from __future__ import annotations

import getpass
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from gateway.client.commands import documents, options, output, stored, talk
from gateway.client.commands.stored import Stored
from gateway.client.problem import Problem

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_MAX_PASSWORD: Final = 1024


def login(
    *,
    url: Annotated[str | None, typer.Option(help="The cloud's address; the last one used by default.")] = None,
    username: Annotated[
        str | None, typer.Option("--username", "-u", help="Whom to sign in; asked for if absent.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Certificates (PEM) of the authority to trust.", exists=True, dir_okay=False)
    ] = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="Send the password unencrypted to another machine.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Sign in. The password is asked for, or read from the first line of the standard input."""
    with talk.refusals(machine=as_json):
        known = _wanted(url, ca)
        _check_secrecy(known.url, allowed=plain_http)
        name = username or typer.prompt("Username", default=known.username or getpass.getuser(), err=True)
        with talk.opened(replace(known, token=None)) as client:
            given = {"username": name, "password": _password(name, known.url)}
            made = client.do("sessionCreate", documents.SELECTIONS["sessionCreate"], **given)
        user = made["user"]["name"]
        stored.save(Stored(known.url, made["token"], known.ca, user, made["expiresAt"]))
        if as_json:
            output.as_json({"url": known.url, "username": user, "expiresAt": made["expiresAt"]})
        else:
            output.say(f"Signed in to {known.url} as {user}, until {made['expiresAt']}.")


def logout(*, as_json: options.Json = False) -> None:
    """Sign out: the token is revoked and its file deleted."""
    try:
        kept = stored.kept()
    except stored.Unusable:
        kept = None
    stored.forget()
    if kept is None or kept.token is None:
        output.say("Nobody was signed in.")
        return
    with talk.refusals(machine=as_json), talk.opened(kept) as client:
        try:
            client.sign_out()
        except Problem as problem:
            if problem.code != "UNAUTHENTICATED":  # an expired session needs no end
                raise
    output.say(f"Signed out of {kept.url}.")


def _wanted(url: str | None, ca: Path | None) -> Stored:
    """Whom to ask: what was given, else what was used last."""
    try:
        known = stored.load()
    except stored.Unusable:
        known = Stored(stored.DEFAULT_URL)
    if url is None:
        return replace(known, ca=str(ca.resolve()) if ca is not None else known.ca)
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username is not None:
        raise typer.BadParameter(f"{url} is no http or https address", param_hint="--url")
    same = known.url == url.rstrip("/")
    authority = str(ca.resolve()) if ca is not None else (known.ca if same else None)
    return Stored(url.rstrip("/"), None, authority, known.username if same else None)


def _check_secrecy(url: str, *, allowed: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not allowed:
        raise typer.BadParameter(
            f"{url} is not encrypted: use https, or say --plain-http if the way to it is trusted", param_hint="--url"
        )


def _password(name: str, url: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"Password of {name} at {url}", hide_input=True, err=True))
    line = sys.stdin.readline(_MAX_PASSWORD + 2).rstrip("\r\n")
    if not line:
        raise typer.BadParameter("no password on the standard input", param_hint="password")
    return line
