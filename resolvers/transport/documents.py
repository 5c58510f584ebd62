"""Documents by their hash: trusted documents from a manifest, and Apollo's automatic persisted queries.

Invariant: a hash is the SHA-256 of the text that it stands for, checked when the manifest is read and when a client
registers a text; so a hash can never be made to stand for something else. What clients register is bounded, is kept
only after it was compiled successfully, and lives in this process alone (a client that meets another process sends the
text once more). With ``trusted_only`` nothing but the manifest is run, whatever else a request says.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from resolvers.transport.errors import ErrorCode, RequestRefused
from resolvers.transport.requests import GraphQLRequest

_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_PREFIX: Final = "sha256:"


def sha256_hex(text: str) -> str:
    """The hash under which a document's text is known."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def read_manifest(path: Path) -> dict[str, str]:
    """Codegen's ``persisted-documents.json``: text by SHA-256 in hex (a ``sha256:`` prefix is accepted).

    Raises ValueError when the file is something else or a hash is not its text's.
    """
    content: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} must be one JSON object of hash: text")  # noqa: TRY004 - a value of a file
    manifest: dict[str, str] = {}
    for key, text in content.items():
        digest = key.removeprefix(_PREFIX)
        if not isinstance(text, str) or digest != sha256_hex(text):
            raise ValueError(f"{path.name}: {key} is not the SHA-256 of its document (codegen: hashAlgorithm sha256)")
        manifest[digest] = text
    return manifest


class Documents:
    """Finds the text of a request's document.

    ``registering`` lets clients register texts (APQ); ``entries_max`` and ``chars_max`` bound what they leave here.
    """

    def __init__(
        self,
        manifest: Mapping[str, str],
        *,
        trusted_only: bool = False,
        registering: bool = True,
        entries_max: int = 1_000,
        chars_max: int = 2_097_152,
    ) -> None:
        self._manifest = dict(manifest)
        self._trusted_texts = frozenset(self._manifest.values())
        self._trusted_only = trusted_only
        self._registering = registering and not trusted_only
        self._registered: OrderedDict[str, str] = OrderedDict()
        self._entries_max = entries_max
        self._chars_max = chars_max
        self._chars = 0

    def text(self, request: GraphQLRequest) -> str:
        """The document of this request. Raises :class:`RequestRefused`."""
        digest = _digest(request)
        # Clients whose protocol demands a query send an empty one along with a hash (npm graphql-ws under urql).
        given = request.query or None
        if digest is None:
            if request.query is None:
                raise RequestRefused(ErrorCode.BAD_REQUEST, "The request has neither query nor documentId.")
            if self._trusted_only and request.query not in self._trusted_texts:
                raise _untrusted()
            return request.query
        if given is not None and sha256_hex(given) != digest:
            raise RequestRefused(ErrorCode.BAD_REQUEST, "The hash is not the SHA-256 of the query.")
        known = self._manifest.get(digest) or self._recall(digest)
        if known is not None:
            return known
        if self._trusted_only:
            raise _untrusted()
        if given is not None:
            return given
        if request.document_id is not None or self._registering:
            # Apollo's clients look for this very message, then send the text along.
            raise RequestRefused(ErrorCode.PERSISTED_QUERY_NOT_FOUND, "PersistedQueryNotFound")
        raise RequestRefused(ErrorCode.PERSISTED_QUERY_NOT_SUPPORTED, "PersistedQueryNotSupported")

    def learn(self, request: GraphQLRequest) -> None:
        """Keeps a text that was sent with its hash; called once the document proved valid and within the limits."""
        if not self._registering or request.persisted_hash is None or request.query is None:
            return
        digest = request.persisted_hash
        if digest in self._manifest or digest in self._registered:
            return
        self._registered[digest] = request.query
        self._chars += len(request.query)
        while len(self._registered) > self._entries_max or self._chars > self._chars_max:
            _, evicted = self._registered.popitem(last=False)
            self._chars -= len(evicted)

    def _recall(self, digest: str) -> str | None:
        text = self._registered.get(digest)
        if text is not None:
            self._registered.move_to_end(digest)
        return text


def _digest(request: GraphQLRequest) -> str | None:
    """The hash a request names, from either convention, in lower-case hex."""
    if request.document_id is not None:
        digest = request.document_id.removeprefix(_PREFIX)
        if not request.document_id.startswith(_PREFIX) or _SHA256.fullmatch(digest) is None:
            raise RequestRefused(ErrorCode.BAD_REQUEST, "documentId must be sha256: and 64 hexadecimal digits.")
        return digest
    if request.persisted_hash is not None and _SHA256.fullmatch(request.persisted_hash) is None:
        raise RequestRefused(ErrorCode.BAD_REQUEST, "sha256Hash must be 64 hexadecimal digits.")
    return request.persisted_hash


def _untrusted() -> RequestRefused:
    return RequestRefused(ErrorCode.TRUSTED_DOCUMENT_REQUIRED, "Only documents of the trusted manifest are run here.")
