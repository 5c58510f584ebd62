"""Keypairs: a user's SSH public keys. Import one, or have one generated: the private part is answered once and kept
nowhere. Keypairs belong to users, not tenants.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import sqlalchemy as sa
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_public_key,
)
from pydantic import StringConstraints
from sqlmodel import Field, Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from gateway.identity import account
from gateway.identity.user import User
from gateway.kernel import row
from gateway.kernel.access import Subject
from gateway.kernel.command import AnyId, Command, Name, Retryable
from gateway.kernel.db import unique
from gateway.kernel.errors import Invalid
from gateway.kernel.noun import Noun, register
from gateway.kernel.row import Row

MIN_RSA_BITS = 2048
_COMMENT = re.compile(r"[\w@.:+\- ]{0,255}")


class KeyType(StrEnum):
    """Kinds of keys that can be generated."""

    ED25519 = "ED25519"
    """Short and fast; right unless the guest is very old."""
    RSA = "RSA"
    """3072 bits, for old guests."""


class Keypair(Row, table=True):
    """A public key of one user, as OpenSSH writes it."""

    __tablename__ = "keypair"

    user_id: int = row.ref("user_account.id")
    name: str = Field(max_length=255)
    public_key: str = Field(max_length=4096)
    fingerprint: str = Field(max_length=64)

    __table_args__ = (sa.UniqueConstraint("user_id", "name"),)


NOUN = register(Noun("keypair", Keypair, lambda subject: col(Keypair.user_id) == subject.user_id))

ORDERS: dict[str, Any] = {"NAME": col(Keypair.name)}


class KeypairCreate(Retryable):
    """A key to import, or to have generated when `publicKey` is absent."""

    name: Name = Field(description="Its name, unique among your keypairs.")
    public_key: Annotated[str, StringConstraints(strip_whitespace=True, max_length=4096)] | None = Field(
        default=None,
        description="One line as in `~/.ssh/id_ed25519.pub`: Ed25519, ECDSA, or RSA of at least 2048 bits.",
    )
    type: KeyType = Field(default=KeyType.ED25519, description="What to generate; has no effect on an import.")


class KeypairDelete(Retryable):
    """The keypair to delete."""

    id: AnyId = Field(description="The keypair.")


class Filter(Command):
    """Which keypairs."""

    name: str | None = Field(default=None, max_length=255, description="With exactly this name.")


@dataclass(frozen=True, slots=True)
class Generated:
    """A fresh key; ``private_key`` is OpenSSH's PEM text."""

    public_key: str
    private_key: str


def generate(_db: object, _subject: Subject, command: KeypairCreate) -> Generated | None:
    """Make the key outside of any transaction, when none is imported."""
    if command.public_key is not None:
        return None
    private: Any = (
        ed25519.Ed25519PrivateKey.generate()
        if command.type is KeyType.ED25519
        else rsa.generate_private_key(public_exponent=65537, key_size=3072)
    )
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    return Generated(public, text)


def create(session: Session, subject: Subject, command: KeypairCreate, made: Generated | None) -> dict[str, Any]:
    """Keep a public key. Raises Invalid for anything that is none, Conflict when the name is taken."""
    public = made.public_key if made is not None else parse(command.public_key or "")
    blob = base64.b64decode(public.split()[1])
    fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    keypair = Keypair(user_id=subject.user_id, name=command.name, public_key=public, fingerprint=fingerprint)
    with unique(session, "You have a keypair of this name already.", "name"):
        session.add(keypair)
    return {"keypair": keypair, "private_key": made.private_key if made is not None else None}


def delete(session: Session, subject: Subject, command: KeypairDelete) -> dict[str, Any]:
    """Forget a keypair; servers made with it keep the key in their guests."""
    keypair = NOUN.get(session, subject, command.id, "id")
    public = NOUN.public(keypair)
    session.delete(keypair)
    return {"id": public}


def find(subject: Subject, wanted: Filter) -> SelectOfScalar[Keypair]:
    """The caller's own keypairs."""
    found = select(Keypair).where(NOUN.scope(subject))
    return found.where(Keypair.name == wanted.name) if wanted.name is not None else found


def parse(text: str) -> str:
    """A public key in its canonical one-line form. Raises Invalid at ``publicKey``."""
    if len(text.splitlines()) != 1:
        raise Invalid("Give one SSH public key, on one line.", path=("publicKey",))
    kind, _, rest = text.partition(" ")
    _, _, comment = rest.partition(" ")
    try:
        key = load_ssh_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise Invalid("This is not an SSH public key.", path=("publicKey",)) from None
    if isinstance(key, dsa.DSAPublicKey):
        raise Invalid("DSA keys are no longer safe.", path=("publicKey",))
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise Invalid(f"RSA keys need at least {MIN_RSA_BITS} bits.", path=("publicKey",))
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey):
        raise Invalid(f"Keys of type {kind} are not supported.", path=("publicKey",))
    if not _COMMENT.fullmatch(comment):
        raise Invalid("The key's comment has characters that are not allowed.", path=("publicKey",))
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line} {comment}".rstrip()


def _drop_all(session: Session, user: User) -> None:
    session.execute(sa.delete(Keypair).where(col(Keypair.user_id) == user.id))


account.on_delete.append(_drop_all)
