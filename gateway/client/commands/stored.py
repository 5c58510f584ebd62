"""The session that ``stratograph login`` leaves for the commands after it: one small file only its owner can read.

It lies in ``$XDG_CONFIG_HOME/stratograph/session.json`` (``~/.config`` by default), mode 0600 from the moment it
exists; a file that others may read is refused, not repaired. The environment goes before it: ``STRATOGRAPH_TOKEN`` (a
session's or an API key) with ``STRATOGRAPH_URL``, and ``STRATOGRAPH_CA``. Passwords are never kept.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

DEFAULT_URL: Final = "http://127.0.0.1:8080"
URL: Final = "STRATOGRAPH_URL"
TOKEN: Final = "STRATOGRAPH_TOKEN"  # noqa: S105 - the name of a variable, not a token
CA: Final = "STRATOGRAPH_CA"


class Unusable(Exception):  # noqa: N818 - said of the file, not an error of ours
    """The session's file is there, and must not or cannot be used."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where to talk to, and as whom."""

    url: str
    token: str | None = None
    ca: str | None = None
    username: str | None = None
    expires_at: str | None = None


def path() -> Path:
    """The file of the session."""
    given = os.environ.get("XDG_CONFIG_HOME", "")
    # The XDG specification: a relative path there is invalid and is to be ignored.
    folder = Path(given) if Path(given).is_absolute() else Path.home() / ".config"
    return folder / "stratograph" / "session.json"


def load() -> Stored:
    """The session to use: of the environment, else of the file, else none yet. Raises Unusable."""
    found = kept()
    url, token, ca = (os.environ.get(name) or None for name in (URL, TOKEN, CA))
    if found is None:
        return Stored(url or DEFAULT_URL, token, ca)
    if token is not None or (url is not None and url.rstrip("/") != found.url):
        # A token goes to the cloud that gave it and to no other.
        return Stored(url or found.url, token, ca or (found.ca if url is None else None))
    return Stored(found.url, found.token, ca or found.ca, found.username, found.expires_at)


def save(stored: Stored) -> None:
    """Keep a session in place of the last one."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    number, name = tempfile.mkstemp(prefix=".session-", dir=target.parent)  # mkstemp makes it 0600
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            json.dump(asdict(stored), file, indent=2)
            file.write("\n")
        Path(name).replace(target)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def forget() -> None:
    """Delete the file."""
    path().unlink(missing_ok=True)


def kept() -> Stored | None:
    """What the file says, whatever the environment; None without a file. Raises Unusable."""
    target = path()
    try:
        with target.open(encoding="utf-8") as file:
            if os.fstat(file.fileno()).st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise Unusable(f"{target} can be read by others: delete it and sign in again.")
            return Stored(**json.load(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Unusable(f"{target} cannot be read ({error}): delete it and sign in again.") from error
