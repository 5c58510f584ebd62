"""Secrets at rest: host credentials and the like are encrypted with the state directory's key.

The key file (``secret-key``, 0600) is made once. Fernet keys, newest first, one a line: put a new one on top to rotate;
old ones still open what they sealed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

FILE = "secret-key"


class Sealed:
    """Seals and opens short texts."""

    def __init__(self, keys: list[bytes]) -> None:
        self._keys = tuple(keys)
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self._oldest = hashlib.sha256(b"fingerprint" + keys[-1]).digest()

    def seal(self, text: str) -> str:
        """The text, encrypted and authenticated."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text. Raises ValueError when no key opens it."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise ValueError("no key of the state directory opens this secret") from None

    def fingerprint(self, text: str) -> str:
        """A digest that only holders of the key can compute: of texts that might be guessed, such as passwords."""
        return hmac.new(self._oldest, text.encode(), "sha256").hexdigest()

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose, of the newest key."""
        return self.derive_all(purpose)[0]

    def derive_all(self, purpose: str) -> list[bytes]:
        """What :meth:`derive` gives, of every key, newest first: older ones still verify what they signed."""
        return [HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(key) for key in self._keys]


def load(state_dir: Path) -> Sealed:
    """The box of a state directory; its key is made when there is none."""
    path = state_dir / FILE
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    else:
        with os.fdopen(descriptor, "wb") as file:
            file.write(Fernet.generate_key() + b"\n")
    return Sealed([line for line in path.read_bytes().split() if line])
