"""Images at work: bringing one to a host, in a format which that host's driver takes.

The variant of an image in another format is made once, beside the original in the store, and found again by its name.
"""

from __future__ import annotations

from sqlmodel import Session, select

from drivers.api import DiskFormat, Driver, DriverType, ImageSpec, Refused
from gateway.image import conversion
from gateway.image.conversion import ConversionFailed, ConversionLimits
from gateway.image.formats import ImageFormat
from gateway.image.image import Image, ImageCopy, ImageStatus
from gateway.image.store import ImageStore
from gateway.image.upload import file_sha256
from gateway.kernel import errors
from gateway.kernel.settings import Settings
from workers.reach import address
from workers.saga import Run

BRING_S = 3600.0


def store(settings: Settings) -> ImageStore:
    """The image store of a state directory."""
    return ImageStore(settings.state_dir / "images", max_size_bytes=settings.max_image_gib << 30)


def ensure_on_host(run: Run, image_id: int, host_id: int) -> None:
    """Bring an ACTIVE image to a host, if it is not there. Raises InvalidState, Refused, or the driver's errors."""
    with run.read() as session:
        image = session.get(Image, image_id)
        if image is None or image.status is not ImageStatus.ACTIVE or image.format is None:
            current = "gone" if image is None else image.status.value
            raise errors.InvalidState(f"The image is {current}.", current=current, allowed=["ACTIVE"])
        copied = session.exec(
            select(ImageCopy.id).where(ImageCopy.image_id == image_id, ImageCopy.host_id == host_id)
        ).first()
        where = address(session, host_id)
    if copied is not None:
        return
    wanted = _variant(run.settings, image, run.hosts.type_of(where))

    def bring(driver: Driver, deadline: object) -> None:
        driver.volumes.ensure_image(wanted, deadline)  # type: ignore[arg-type]  # Hosts.call hands over a Deadline

    run.hosts.call(where, bring, seconds=BRING_S)

    def note(session: Session) -> None:
        known = select(ImageCopy.id).where(ImageCopy.image_id == image_id, ImageCopy.host_id == host_id)
        if session.exec(known).first() is None:
            session.add(ImageCopy(image_id=image_id, host_id=host_id))

    run.db.run(note)


def _variant(settings: Settings, image: Image, kind: DriverType) -> ImageSpec:
    """The image's file in a format the driver takes; converted when there is none yet."""
    kept = store(settings)
    own = image.format
    if own is None:
        raise AssertionError("an ACTIVE image has a format")
    takes = [ImageFormat(each.value) for each in kind.image_formats]
    if own in takes:
        path = kept.path(image.uid, own)
        return ImageSpec(
            id=image.uid,
            path=path,
            format=DiskFormat(own.value),
            size_bytes=path.stat().st_size,
            virtual_size_bytes=image.virtual_size_bytes or 0,
            sha256=image.sha256 or "",
        )
    target = takes[0]
    path = kept.path(image.uid, target)
    if path.exists():
        with path.open("rb") as file:
            digest = file_sha256(file.fileno())
    else:
        limits = ConversionLimits(max_target_bytes=settings.max_virtual_gib << 30)
        try:
            digest = conversion.convert(kept.path(image.uid, own), own, path, target, limits=limits).sha256
        except ConversionFailed as error:
            raise Refused(f"the image cannot be converted to {target.value}: {error.message}") from error
    return ImageSpec(
        id=image.uid,
        path=path,
        format=DiskFormat(target.value),
        size_bytes=path.stat().st_size,
        virtual_size_bytes=image.virtual_size_bytes or 0,
        sha256=digest,
    )
