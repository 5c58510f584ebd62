"""Our folder on a host's datastore: folders, what lies in them, disks, and files sent to it.

A folder's *name* is all that is ever recorded (``whole``, ``port_...``): making a folder is one step on every file
system, needs no content that could be torn, and one search of the tree answers every list. Paths are relative to the
host's own root folder; nothing outside of it is ever named.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from pyVmomi import vim

from drivers.api import Deadline, HostAtFault, Transient
from drivers.esxi.session import BROKEN, LostAnswerError
from drivers.esxi.site import Site

SHARED = "shared"
WHOLE = "whole"
DISK = "disk.vmdk"
KIB = 1024
FOUND = frozenset({200, 201, 204})
UNAUTHORIZED, FULL = 401, 507


@dataclass(slots=True)
class Folder:
    """A folder of ours: the names of the folders in it, and its disks by name: (capacity, taken) in bytes."""

    marks: set[str] = field(default_factory=set)
    disks: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def whole(self) -> str | None:
        """The mark by which what is in it counts, None when it was never finished."""
        return next((each for each in self.marks if each.startswith(WHOLE)), None)


class Store:
    """The files of one host that are ours; with ``within``, a folder beside it that all hosts on the datastore have in
    common (``""``: the one above them all).
    """

    def __init__(self, site: Site, *, within: str | None = None) -> None:
        self.site = site
        self._within = within

    def path(self, relative: str, deadline: Deadline) -> str:
        """``volumes/...`` as a datastore path."""
        return f"[{self.site.place(deadline).datastore_name}] {self._folder(deadline)}/{relative}"

    def _folder(self, deadline: Deadline) -> str:
        """The root folder without its datastore."""
        place = self.site.place(deadline)
        if self._within is None:
            return place.folder
        pooled = place.own_prefix and self._within  # hosts that share a folder share nothing with the rest
        return f"{place.folder if pooled else place.folder.rpartition('/')[0]}/{self._within}".rstrip("/")

    # ------------------------------------------------------------------------------------- folders

    def search(self, relative: str, deadline: Deadline) -> Mapping[str, Folder]:
        """Every folder at and below a path, by its path relative to it (``""`` is itself); one task."""
        place = self.site.place(deadline)
        start = self.path(relative, deadline)
        disks = vim.host.DatastoreBrowser.VmDiskQuery(
            details=vim.host.DatastoreBrowser.VmDiskQuery.Details(
                diskType=False, capacityKb=True, hardwareVersion=False, controllerType=False, diskExtents=False
            )
        )
        spec = vim.host.DatastoreBrowser.SearchSpec(
            query=[vim.host.DatastoreBrowser.FolderQuery(), disks],
            details=vim.host.DatastoreBrowser.FileInfo.Details(
                fileType=True, fileSize=True, modification=False, fileOwner=False
            ),
            matchPattern=["*"],
        )
        try:
            found = self.site.carry_out(
                lambda: place.browser.SearchDatastoreSubFolders_Task(datastorePath=start, searchSpec=spec), deadline
            )
        except vim.fault.FileNotFound:
            return {}
        return _folders(start, found or ())

    def make_folder(self, relative: str, deadline: Deadline) -> None:
        """Make a folder and those above it. One that is there is fine."""
        place = self.site.place(deadline)
        path = self.path(relative, deadline)

        def make() -> None:
            self.site.content.fileManager.MakeDirectory(path, place.datacenter, True)

        try:
            self.site.send(make, deadline)
        except (vim.fault.FileAlreadyExists, vim.fault.AlreadyExists):
            return

    def make_only(self, relative: str, deadline: Deadline) -> bool:
        """Make a folder in one that is there; False when it was there already. Exactly one of many gets True."""
        place = self.site.place(deadline)
        path = self.path(relative, deadline)
        try:
            self.site.send(
                lambda: self.site.content.fileManager.MakeDirectory(path, place.datacenter, False), deadline
            )  # fmt: skip
        except (vim.fault.FileAlreadyExists, vim.fault.AlreadyExists):
            return False
        return True

    def move_folder(self, source: str, target: str, deadline: Deadline) -> None:
        """Rename a folder; of many who ask, one succeeds."""
        place = self.site.place(deadline)
        files = self.site.content.fileManager
        names = (self.path(source, deadline), place.datacenter, self.path(target, deadline), place.datacenter, False)
        self.site.carry_out(lambda: files.MoveDatastoreFile_Task(*names), deadline)

    def delete(self, relative: str, deadline: Deadline) -> None:
        """Delete a folder with all that is in it. None being there is fine."""
        place = self.site.place(deadline)
        path = self.path(relative, deadline)
        files = self.site.content.fileManager
        try:
            self.site.carry_out(lambda: files.DeleteDatastoreFile_Task(path, place.datacenter), deadline)
        except vim.fault.FileNotFound:
            return

    # ------------------------------------------------------------------------------------- disks

    def create_disk(self, relative: str, size_bytes: int, deadline: Deadline) -> None:
        """A blank thin disk."""
        spec = vim.VirtualDiskManager.FileBackedVirtualDiskSpec(
            diskType="thin", adapterType="lsiLogic", capacityKb=kib(size_bytes)
        )
        self._disk_task("CreateVirtualDisk_Task", relative, deadline, spec)

    def extend_disk(self, relative: str, size_bytes: int, deadline: Deadline) -> None:
        """Grow a disk that no running machine has."""
        self._disk_task("ExtendVirtualDisk_Task", relative, deadline, kib(size_bytes), False)

    def copy_disk(self, source: str, target: str, deadline: Deadline) -> None:
        """A copy on its own of a disk (a whole path); one that outlived an earlier call's deadline is waited for."""
        place = self.site.place(deadline)
        disks = self.site.content.virtualDiskManager
        names = (source, place.datacenter, self.path(target, deadline), place.datacenter)
        self.site.carry_out(lambda: disks.CopyVirtualDisk_Task(*names), deadline, key=target)

    def move_disk(self, source: str, target: str, deadline: Deadline) -> None:
        """Give a disk another place on the datastore; both are whole paths."""
        place = self.site.place(deadline)
        disks = self.site.content.virtualDiskManager
        names = (source, place.datacenter, target, place.datacenter)
        self.site.carry_out(lambda: disks.MoveVirtualDisk_Task(*names), deadline)

    def delete_disk(self, relative: str, deadline: Deadline) -> None:
        """Delete one disk of a folder. None being there is fine."""
        with suppress(vim.fault.FileNotFound):
            self._disk_task("DeleteVirtualDisk_Task", relative, deadline)

    def _disk_task(self, task: str, relative: str, deadline: Deadline, *more: object) -> None:
        place = self.site.place(deadline)
        start = getattr(self.site.content.virtualDiskManager, task)
        name = self.path(relative, deadline)
        self.site.carry_out(lambda: start(name, place.datacenter, *more), deadline)

    # ------------------------------------------------------------------------------------- files

    def upload(self, relative: str, chunks: Iterable[bytes], size_bytes: int, deadline: Deadline) -> None:
        """Write a file of so many bytes. Raises LostAnswerError when it is not known to have arrived whole."""
        place = self.site.place(deadline)
        query = urlencode({"dcPath": place.dc_path, "dsName": place.datastore_name})
        at = self.site.session.endpoint
        self.site.look(self.site.session.check, deadline)
        deadline.check("sending a file to the host")
        connection = http.client.HTTPSConnection(at.host, at.port, timeout=deadline.remaining, context=at.trust)
        headers = {
            "Cookie": self.site.session.cookie,
            "Content-Length": str(size_bytes),
            "Content-Type": "application/octet-stream",
        }
        target = f"/folder/{quote(f'{self._folder(deadline)}/{relative}')}?{query}"
        try:
            connection.request("PUT", target, body=_timed(chunks, deadline), headers=headers)
            answer = connection.getresponse()
            answer.read()
        except TimeoutError as error:
            raise Transient("the deadline passed while sending a file to the host") from error
        except BROKEN as error:
            raise LostAnswerError("the host broke off a file", vendor_code=type(error).__name__) from error
        finally:
            connection.close()
        if answer.status == UNAUTHORIZED:
            raise LostAnswerError("the session ended before a file was sent", vendor_code="401")
        if answer.status not in FOUND:
            kind = HostAtFault if answer.status == FULL else Transient
            raise kind("the host did not take a file", vendor_code=str(answer.status))


def kib(size_bytes: int) -> int:
    """Whole KiB, the unit of a disk's capacity."""
    return -(-size_bytes // KIB)


def _timed(chunks: Iterable[bytes], deadline: Deadline) -> Iterable[bytes]:
    for chunk in chunks:
        deadline.check("sending a file to the host")
        yield chunk


def _folders(start: str, results: Iterable[Any]) -> dict[str, Folder]:
    found: dict[str, Folder] = {}
    for result in results:
        at = str(result.folderPath).rstrip("/").removeprefix(start).strip("/")
        here = found.setdefault(at, Folder())
        for file in result.file or ():
            if isinstance(file, vim.host.DatastoreBrowser.FolderInfo):
                here.marks.add(str(file.path).strip("/"))
            elif isinstance(file, vim.host.DatastoreBrowser.VmDiskInfo):
                here.disks[str(file.path)] = (int(file.capacityKb or 0) * KIB, int(file.fileSize or 0))
        if at:  # where a search names only files, a folder shows by its own entry
            parent, _, name = at.rpartition("/")
            found.setdefault(parent, Folder()).marks.add(name)
    return found
