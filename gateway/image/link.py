"""Signed links to an image's data: one to upload it, one to download the file.

A link is the whole permission, so that a browser, curl or a tus client needs no token: it names one image, one use and
a last moment, and is signed with a key derived from the state directory's. It is handed out only to those who may use
it that way, and it dies with the state that allowed it: an upload link works while the image takes data, a download
link while it is ACTIVE. What is done with the data is told by ``reception``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlmodel import Session

from gateway.image import image as images
from gateway.image import signed_url
from gateway.image.image import WAITING, Image, ImageStatus
from gateway.image.reception import store_of
from gateway.image.signed_url import SigningKeys
from gateway.kernel import clock
from gateway.kernel.access import Role, Subject
from gateway.kernel.clock import Informed

UPLOAD_LASTS: Final = timedelta(hours=6)
DOWNLOAD_LASTS: Final = timedelta(hours=1)
UPLOAD_METHODS: Final = ("HEAD", "PATCH", "PUT")
DOWNLOAD_METHODS: Final = ("GET", "HEAD")
_PURPOSE: Final = "stratograph signed URLs of images 1"


class Use(StrEnum):
    """What a link is for."""

    UPLOAD = "UPLOAD"
    """Sending the image's data."""
    DOWNLOAD = "DOWNLOAD"
    """Getting its file."""


@dataclass(frozen=True, slots=True)
class UploadLink:
    """Where to send the data, until when, and from which byte on."""

    url: str
    expires_at: datetime
    offset: int


@dataclass(frozen=True, slots=True)
class Permit:
    """What a good link permits. ``user_id`` is who it was handed out to."""

    use: Use
    user_id: int
    expires_at: int


def path_of(image: Image) -> str:
    """The path of an image's data."""
    return f"/images/{images.NOUN.public(image)}/data"


def upload(known: Informed, subject: Subject, image: Image) -> UploadLink | None:
    """The link to send the image's data to; None unless it waits for data and the subject may change it."""
    if image.status not in WAITING or image.source_url is not None or not subject.holds(Role.MEMBER, image.tenant_id):
        return None
    expires_at = clock.now(known).replace(microsecond=0) + UPLOAD_LASTS
    received = store_of(known.info["settings"]).received(image.uid)
    return UploadLink(_signed(known, subject, image, Use.UPLOAD, expires_at), expires_at, received or 0)


def download(known: Informed, subject: Subject, image: Image) -> str | None:
    """The link to the image's file, for everyone who may see the image; None unless it is ACTIVE."""
    if image.status is not ImageStatus.ACTIVE:
        return None
    return _signed(known, subject, image, Use.DOWNLOAD, clock.now(known) + DOWNLOAD_LASTS)


def permitted(session: Session, method: str, path: str, query: str) -> Permit:
    """What the link permits now. Raises SignatureRefused."""
    claims = signed_url.verify(_keys(session), method, path, query, clock.now(session).timestamp())
    return Permit(Use(str(claims["use"])), int(claims["user"]), int(claims["expires"]))


def _signed(known: Informed, subject: Subject, image: Image, use: Use, expires_at: datetime) -> str:
    moment = int(expires_at.timestamp())
    methods = UPLOAD_METHODS if use is Use.UPLOAD else DOWNLOAD_METHODS
    claims: dict[str, str | int] = {"use": use.value, "user": subject.user_id, "expires": moment}
    query = signed_url.sign(_keys(known), methods, path_of(image), moment, claims)
    return f"{known.info['settings'].url}{path_of(image)}?{query}"


def _keys(known: Informed) -> SigningKeys:
    return signed_url.keys_of(known.info["sealed"], _PURPOSE)
