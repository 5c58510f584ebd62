"""The keys that sign session tokens: HMAC-SHA-256, in the database, sealed with the state directory's key.

Invariant: a token is good only if one of our own keys, named in it, made its signature with HS256; no other algorithm
is ever tried. Every API process of a cloud shares the rows and the ``secret-key`` file (decision 0010), so one that
meets a key which it does not know yet looks once into the table. A replaced key verifies until its last token is over.
"""

import secrets
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlmodel import Field, Session, col, select

from gateway.identity.policy import LONGEST_SESSION_S
from gateway.kernel import clock
from gateway.kernel.db import Database
from gateway.kernel.errors import Unauthenticated
from gateway.kernel.row import Row
from gateway.kernel.secretbox import Sealed

if TYPE_CHECKING:
    from joserfc.jwk import OctKey

ALGORITHM = "HS256"
ISSUER = "stratograph"
_SECRET_BYTES = 32
_LONGEST_TOKEN = 2048
_LOOK_AGAIN_S = 1.0
_LEEWAY = timedelta(hours=1)


class SigningKey(Row, table=True):
    """A key: its name in tokens, and its bytes in hexadecimal, sealed."""

    __tablename__ = "signing_key"

    kid: str = Field(max_length=32, unique=True)
    sealed_secret: str = Field(max_length=255, repr=False)


@dataclass(frozen=True, slots=True)
class Claims:
    """What a good token says: TypeIDs of the session and its user."""

    session: str
    user: str
    expires_at: datetime


class Keyring:
    """This process's copy of the keys. Signs with the newest. Thread-safe.

    joserfc, which brings all of X.509 with it, is loaded with the first token: no start needs it, and no worker.
    """

    def __init__(self, db: Database, box: Sealed) -> None:
        self._db = db
        self._box = box
        self._lock = threading.Lock()
        self._keys: dict[str, bytes] = {}
        self._newest = ""
        self._looked_at = 0.0
        self._load()
        if not self._keys:
            db.run(lambda session: self._add(session, only_first=True))
            self._load()

    def sign(self, session_id: str, user_id: str, now: datetime, expires_at: datetime) -> str:
        """A token of that session."""
        from joserfc import jwt

        claims = {
            "iss": ISSUER, "sub": user_id, "sid": session_id, "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
        }  # fmt: skip
        with self._lock:
            kid, key = self._newest, self._keys[self._newest]
        return jwt.encode({"alg": ALGORITHM, "kid": kid}, claims, _signing(key), algorithms=[ALGORITHM])

    def read(self, token: str, now: datetime) -> Claims:
        """What a token says. Raises Unauthenticated for every token that is not ours or is over."""
        from joserfc import jwt
        from joserfc.errors import ExpiredTokenError, JoseError

        if len(token) > _LONGEST_TOKEN:
            raise Unauthenticated("This token is not valid.")
        rules = jwt.JWTClaimsRegistry(
            now=int(now.timestamp()), iss={"essential": True, "value": ISSUER}, exp={"essential": True},
            sub={"essential": True}, sid={"essential": True},
        )  # fmt: skip
        try:
            found = jwt.decode(token, self._named, algorithms=[ALGORITHM])
            rules.validate(found.claims)
            sid, sub, exp = found.claims["sid"], found.claims["sub"], found.claims["exp"]
            if not isinstance(sid, str) or found.header.get("typ") != "JWT":
                raise Unauthenticated("This token is not valid.")
            return Claims(sid, sub, datetime.fromtimestamp(exp, UTC))
        except ExpiredTokenError:
            raise Unauthenticated("This token has expired; sign in again.") from None
        except (JoseError, ValueError, TypeError, OverflowError, RecursionError):
            raise Unauthenticated("This token is not valid.") from None

    def rotate(self) -> str:
        """Make a new key, sign with it from now on, and forget those whose last token is over. The new key's name."""
        kid = self._db.run(lambda session: self._add(session, only_first=False))
        self._load()
        return kid

    def _named(self, token: Any) -> "OctKey":
        kid = token.headers().get("kid")
        key = self._keys.get(kid) if isinstance(kid, str) else None
        if key is None and isinstance(kid, str) and time.monotonic() - self._looked_at > _LOOK_AGAIN_S:
            self._load()
            key = self._keys.get(kid)
        if key is None:
            raise ValueError("no key of that name")
        return _signing(key)

    def _load(self) -> None:
        with self._lock:
            self._looked_at = time.monotonic()
            with self._db.read() as session:
                rows = session.exec(select(SigningKey).order_by(col(SigningKey.id))).all()
            self._keys = {each.kid: bytes.fromhex(self._box.open(each.sealed_secret)) for each in rows}
            self._newest = rows[-1].kid if rows else ""

    def _add(self, session: Session, *, only_first: bool) -> str:
        rows = list(session.exec(select(SigningKey).order_by(col(SigningKey.id))))
        if rows and only_first:
            return rows[-1].kid
        limit = clock.now(session) - timedelta(seconds=LONGEST_SESSION_S) - _LEEWAY
        for old, follower in pairwise(rows):
            if follower.created_at < limit:
                session.delete(old)
        kid = "first" if not rows else secrets.token_hex(8)
        session.add(SigningKey(kid=kid, sealed_secret=self._box.seal(secrets.token_bytes(_SECRET_BYTES).hex())))
        return kid


def _signing(secret: bytes) -> "OctKey":
    from joserfc.jwk import OctKey

    return OctKey.import_key(secret)


def of(session: Session) -> Keyring:
    """The keyring of the session's database (``db.provide("keyring", Keyring(db, box))``)."""
    found: Keyring = session.info["keyring"]
    return found
