"""URLs that carry their own permission: what may be done to one path, with which methods, until when.

The signature is HMAC-SHA256 over everything the URL permits: key id, methods, path, expiry and claims, each with its
length before it, so that no two permissions read alike. Invariants: nothing in a query is believed before the signature
held; the comparison takes the same time wherever it differs; a key's id travels with the URL, so keys can be rotated
while older URLs live on. Whose URL it is and whether the resource still wants it are the caller's questions: put what
they need into the claims. This module reads no clock: the caller says what time it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final
from urllib.parse import parse_qsl, urlencode

from gateway.kernel.secretbox import Sealed

Claims = Mapping[str, str | int]

MAX_QUERY_CHARACTERS: Final = 4096
MIN_KEY_BYTES: Final = 32
_VERSION: Final = b"stratograph-url-1"
_FIELDS: Final = frozenset({"kid", "methods", "expires", "claims", "signature"})
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_METHODS: Final = re.compile(r"[A-Z]{1,16}(?:,[A-Z]{1,16}){0,7}")
_SECONDS: Final = re.compile(r"\d{1,12}")
_MAX_EXPIRES: Final = 10**12 - 1
_claimed: Final = json.JSONEncoder(separators=(",", ":"), sort_keys=True, ensure_ascii=True).encode


class SignatureProblem(StrEnum):
    """Why a signed URL is not accepted."""

    MALFORMED = "MALFORMED"
    UNKNOWN_KEY = "UNKNOWN_KEY"
    BAD_SIGNATURE = "BAD_SIGNATURE"
    EXPIRED = "EXPIRED"
    WRONG_METHOD = "WRONG_METHOD"


class SignatureRefused(Exception):  # noqa: N818 - reads as a statement where it is caught
    """The URL permits nothing here and now. Tell a client no more than that; ``problem`` is for the log."""

    def __init__(self, problem: SignatureProblem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Secrets by key id, each of at least 32 random bytes; ``current`` signs, all of them verify."""

    secrets: Mapping[str, bytes]
    current: str

    def __post_init__(self) -> None:
        if self.current not in self.secrets:
            raise ValueError("the current key is not among the keys")
        for key_id, secret in self.secrets.items():
            if not _KEY_ID.fullmatch(key_id) or len(secret) < MIN_KEY_BYTES:
                raise ValueError(f"key {key_id!r} needs a plain id and a secret of {MIN_KEY_BYTES} bytes or more")

    def __repr__(self) -> str:
        return f"SigningKeys(current={self.current!r}, ids={sorted(self.secrets)!r})"


@lru_cache(maxsize=64)
def keys_of(box: Sealed, purpose: str) -> SigningKeys:
    """The keys that a box derives for one purpose, a constant of the program: a page has many links."""
    secrets = box.derive_all(purpose)
    named = {hashlib.sha256(secret).hexdigest()[:8]: secret for secret in secrets}
    return SigningKeys(named, hashlib.sha256(secrets[0]).hexdigest()[:8])


def sign(keys: SigningKeys, methods: Collection[str], path: str, expires_at: int, claims: Claims | None = None) -> str:
    """The query string that permits ``methods`` on ``path`` before ``expires_at`` (epoch seconds).

    ``path`` is the URL's path as the server will see it decoded, beginning with a slash. ``claims`` come back from
    :func:`verify`; they are signed but readable, so no secrets.

    Raises:
        ValueError: an argument that no URL could carry.
    """
    listed = ",".join(sorted(set(methods)))
    if not _METHODS.fullmatch(listed) or not path.startswith("/") or not 0 <= expires_at <= _MAX_EXPIRES:
        raise ValueError("methods are upper-case words, a path begins with a slash, expiry is in epoch seconds")
    text = _claimed(dict(claims or {}))
    fields = {
        "kid": keys.current,
        "methods": listed,
        "expires": str(expires_at),
        "claims": base64.urlsafe_b64encode(text.encode("ascii")).decode("ascii").rstrip("="),
    }
    query = urlencode({**fields, "signature": _signature(keys.secrets[keys.current], path, fields)})
    if len(query) > MAX_QUERY_CHARACTERS:
        raise ValueError("the claims are too long for a URL")
    return query


def verify(keys: SigningKeys, method: str, path: str, query: str, now: float) -> dict[str, str | int]:
    """The claims of a URL that permits ``method`` on ``path`` at ``now`` (epoch seconds).

    Raises:
        SignatureRefused: it does not.
    """
    fields = _fields(query)
    signature = fields.pop("signature")
    secret = keys.secrets.get(fields["kid"])
    if secret is None:
        raise SignatureRefused(SignatureProblem.UNKNOWN_KEY)
    if not hmac.compare_digest(_signature(secret, path, fields).encode(), signature.encode()):
        raise SignatureRefused(SignatureProblem.BAD_SIGNATURE)
    if now >= int(fields["expires"]):
        raise SignatureRefused(SignatureProblem.EXPIRED)
    if method not in fields["methods"].split(","):
        raise SignatureRefused(SignatureProblem.WRONG_METHOD)
    return _claims(fields["claims"])


def _fields(query: str) -> dict[str, str]:
    """The five fields, each exactly once and of its shape; nothing else may be in the query."""
    if len(query) > MAX_QUERY_CHARACTERS:
        raise SignatureRefused(SignatureProblem.MALFORMED)
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=len(_FIELDS))
    except ValueError as error:
        raise SignatureRefused(SignatureProblem.MALFORMED) from error
    fields = dict(pairs)
    if len(pairs) != len(_FIELDS) or fields.keys() != _FIELDS:
        raise SignatureRefused(SignatureProblem.MALFORMED)
    shapes = {"kid": _KEY_ID, "methods": _METHODS, "expires": _SECONDS}
    if not all(shape.fullmatch(fields[name]) and fields[name].isascii() for name, shape in shapes.items()):
        raise SignatureRefused(SignatureProblem.MALFORMED)
    return fields


def _signature(secret: bytes, path: str, fields: Mapping[str, str]) -> str:
    parts = [path, *(fields[name] for name in ("kid", "methods", "expires", "claims"))]
    message = _VERSION
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        message += len(data).to_bytes(4, "big") + data
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def _claims(text: str) -> dict[str, str | int]:
    try:
        claims = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError) as error:  # signed by us, yet by another version of us
        raise SignatureRefused(SignatureProblem.MALFORMED) from error
    if not isinstance(claims, dict):
        raise SignatureRefused(SignatureProblem.MALFORMED)
    return claims
