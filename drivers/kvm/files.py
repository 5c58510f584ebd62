"""The files of the storage pool: finding, uploading, reading and deleting them, and making them whole or not at all.

libvirt's pools cannot rename, so a file that takes time is made under its own name beside a marker
(``making-<kind>-<id>-<nonce>``); it counts as present only when it has no marker. A marker left by a worker that died
is taken over once nothing about it changed for a while, by the host's clock. No facet looks into the pool past this.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID

import libvirt

from drivers.api import Deadline, DriverError, Transient
from drivers.kvm import names, xml
from drivers.kvm.errors import found
from drivers.kvm.link import Link
from drivers.kvm.names import Making, PoolFile
from drivers.kvm.xml.common import strings

CHUNK_BYTES = 262_120  # the largest payload of one message of libvirt's stream
_DEAD_AFTER_SECONDS = 30.0


def pool(link: Link, deadline: Deadline) -> Any:
    """The storage pool of a live connection."""
    return link.open(deadline).storagePoolLookupByName(link.options.pool)


def look_up(where: Any, name: object) -> Any | None:
    """The libvirt volume of that name, whole or not."""
    return found(lambda: where.storageVolLookupByName(str(name)), "NO_STORAGE_VOL")


def whole(where: Any, kind: str, our_id: UUID) -> Any | None:
    """The libvirt volume of that kind and id, None when there is none or it is not whole."""
    listed = where.listVolumes()
    if any((mark := names.making(each)) and (mark.kind, mark.id) == (kind, our_id) for each in listed):
        return None
    for each in listed:
        file = names.pool_file(each)
        if file and (file.kind, file.id) == (kind, our_id):
            return look_up(where, each)
    return None


def all_whole(where: Any, kind: str) -> list[tuple[PoolFile, Any]]:
    """Every whole file of that kind with its libvirt volume."""
    listed = [(each.name(), each) for each in where.listAllVolumes(0)]
    unfinished = {(mark.kind, mark.id) for name, _ in listed if (mark := names.making(name))}
    ours = [(file, volume) for name, volume in listed if (file := names.pool_file(name)) and file.kind == kind]
    return [(file, volume) for file, volume in ours if (file.kind, file.id) not in unfinished]


def info(volume: Any) -> tuple[int, int] | None:
    """Size as the guest sees it and bytes allocated, None when the file is gone."""
    answer = found(volume.info, "NO_STORAGE_VOL")
    return (int(answer[1]), int(answer[2])) if answer else None


def delete(where: Any, *wanted: object) -> None:
    """Delete these files; those that are not there are no matter."""
    for each in wanted:
        volume = look_up(where, each)
        if volume is not None:
            found(partial(volume.delete, 0), "NO_STORAGE_VOL")


def remove(where: Any, kind: str, our_id: UUID) -> None:
    """Delete a file of ours, whole or not, and its markers last."""
    listed = where.listVolumes()
    files = [each for each in listed if (file := names.pool_file(each)) and (file.kind, file.id) == (kind, our_id)]
    delete(where, *files, *_marks(listed, kind, our_id))


def make(link: Link, file: PoolFile, work: Callable[[Any], None], deadline: Deadline) -> None:
    """Have ``work`` create that file in the pool it is given, unless it is there. What fails or dies leaves nothing
    that counts. Raises Transient when another worker is making it at this moment.
    """
    with link.only(deadline, "make", str(file)):
        where = pool(link, deadline)
        if whole(where, file.kind, file.id) is not None:
            return
        mark = Making(file.kind, file.id, secrets.token_hex(6))
        where.createXML(xml.text(xml.volume(str(mark), 0, "raw")), 0)
        try:
            if not _take_over(where, file, mark):
                return
            _work_under_mark(where, file, mark, work)
        finally:
            with suppress(libvirt.libvirtError):  # a marker that stays is taken over later
                delete(where, mark)


def _work_under_mark(where: Any, file: PoolFile, mark: Making, work: Callable[[Any], None]) -> None:
    try:
        work(where)
    except BaseException:  # what is told of progress may raise anything, and a file without its marker would count
        with suppress(libvirt.libvirtError):  # the first error is the one to tell; the marker hides the rest
            if look_up(where, mark) is not None:
                delete(where, file)
        raise
    if look_up(where, mark) is None:
        raise Transient(f"another worker took the making of {file} over")


def _take_over(where: Any, file: PoolFile, mine: Making) -> bool:
    """Clear away what a dead worker left. False: another finished it meanwhile."""
    others = [each for each in _marks(where.listVolumes(), file.kind, file.id) if each != str(mine)]
    now = _modified(where, mine)
    newest = max((_modified(where, each) for each in (*others, file)), default=0.0)
    if others and now - newest < _DEAD_AFTER_SECONDS:
        raise Transient(f"another worker is making {file}")
    if not others:
        return look_up(where, file) is None
    delete(where, file, *others)
    return True


def _marks(listed: Iterable[str], kind: str, our_id: UUID) -> list[str]:
    return [each for each in listed if (mark := names.making(each)) and (mark.kind, mark.id) == (kind, our_id)]


def _modified(where: Any, name: object) -> float:
    """When the file was last written, by the host's clock; 0 when it is not there."""
    volume = look_up(where, name)
    described = found(lambda: volume.XMLDesc(0), "NO_STORAGE_VOL") if volume is not None else None
    times = strings(xml.parse(described), "target/timestamps/mtime/text()") if described else []
    return float(times[0]) if times else 0.0


# ---------------------------------------------------------------------------------------------- content


def upload(volume: Any, source: BinaryIO, size_bytes: int, deadline: Deadline, seen: Callable[[bytes], None]) -> None:
    """Send exactly ``size_bytes`` of ``source`` into the volume; ``seen`` is told of each piece (for a checksum)."""
    stream = volume.connect().newStream(0)
    volume.upload(stream, 0, size_bytes, 0)
    try:
        left = size_bytes
        while left:
            deadline.check("uploading")
            piece = source.read(min(CHUNK_BYTES, left))
            if not piece:
                break  # too short: the caller compares the checksum
            seen(piece)
            left -= len(piece)
            _send(stream, piece)
    except BaseException:  # ``seen`` may raise anything, and a stream left open would keep the file busy
        with suppress(libvirt.libvirtError):  # the stream may be dead already
            stream.abort()
        raise
    stream.finish()


def download(volume: Any, offset: int, length: int, deadline: Deadline) -> bytes:
    """At most ``length`` bytes of the file from ``offset``."""
    stream = volume.connect().newStream(0)
    volume.download(stream, offset, length, 0)
    pieces: list[bytes] = []
    try:
        while piece := stream.recv(CHUNK_BYTES):
            deadline.check("downloading")
            pieces.append(piece)
    except (libvirt.libvirtError, DriverError):
        with suppress(libvirt.libvirtError):  # the stream may be dead already
            stream.abort()
        raise
    stream.finish()
    return b"".join(pieces)


def _send(stream: Any, piece: bytes) -> None:
    while piece:
        sent = stream.send(piece)
        if sent < 0:
            raise Transient("the host's stream takes nothing more")
        piece = piece[sent:]
