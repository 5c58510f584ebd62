"""The one table from what vSphere, its SDK and its wire answer to the four errors of a driver.

The most derived fault decides: NotAuthenticated is a NoPermission, NoDiskSpace a FileFault. A fault that the table does
not know is the host's fault, since asking again the same way would not help. Messages of faults hold paths and names of
the platform; they stay in the chained exception, the reason is ours.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from xml.parsers.expat import ExpatError

from pyVmomi import vmodl

from drivers.api import Capability, DriverError, HostAtFault, Refused, Transient, Unsupported

FAULTS: dict[str, tuple[type[DriverError], str]] = {
    # who we are
    "NotAuthenticated": (Transient, "the session ended and a new login did not help"),
    "InvalidLogin": (HostAtFault, "the host refuses this user name and password"),
    "PasswordExpired": (HostAtFault, "the password has expired"),
    "NoPermission": (HostAtFault, "the host's user lacks a privilege"),
    "SSLVerifyFault": (HostAtFault, "the host does not trust a certificate"),
    "RestrictedVersion": (HostAtFault, "the host's licence does not allow this"),
    "LicenseRestricted": (HostAtFault, "the host's licence does not allow this"),
    "LicenseExpired": (HostAtFault, "the host's licence has expired"),
    "NotEnoughLicenses": (HostAtFault, "the host has not enough licences"),
    # busy, or gone for a while
    "TaskInProgress": (Transient, "the object is busy with another task"),
    "ConcurrentAccess": (Transient, "the object was changed by somebody else"),
    "FileLocked": (Transient, "the file is locked"),
    "ManagedObjectNotFound": (Transient, "the object is gone"),
    "Timedout": (Transient, "the host did it too slowly"),
    "HostCommunication": (Transient, "vCenter cannot reach the host"),
    "HostNotReachable": (Transient, "vCenter cannot reach the host"),
    "HostNotConnected": (HostAtFault, "vCenter is not connected to the host"),
    "HostConnectFault": (HostAtFault, "vCenter cannot connect to the host"),
    # this host cannot, another could
    "NoDiskSpace": (HostAtFault, "the datastore is full"),
    "InsufficientStorageSpace": (HostAtFault, "the datastore is full"),
    "DatastoreNotWritableOnHost": (HostAtFault, "the host cannot write to the datastore"),
    "InaccessibleDatastore": (HostAtFault, "the host cannot reach the datastore"),
    "InsufficientResourcesFault": (HostAtFault, "the host has not enough left"),
    "NoCompatibleHost": (HostAtFault, "no host fits"),
    # wrong everywhere
    "ResourceInUse": (Refused, "it is in use"),
    "DuplicateName": (Refused, "the name is taken"),
    "AlreadyExists": (Refused, "it is there already"),
    "FileAlreadyExists": (Refused, "the file is there already"),
    "FileNotFound": (Refused, "the file is not there"),
    "NotFound": (Refused, "it is not there"),
    "QuestionPending": (HostAtFault, "the machine waits for an operator's answer to a question of its host"),
    "InvalidState": (Refused, "it is in no state for this"),
    "InvalidArgument": (Refused, "an argument is wrong"),
    "InvalidRequest": (Refused, "the request is wrong"),
    "InvalidName": (Refused, "the name is not allowed"),
    "VmConfigFault": (Refused, "the machine cannot be built so"),
    "InvalidDatastore": (Refused, "the path on the datastore is wrong"),
    "InvalidFolder": (Refused, "the folder is wrong"),
    "InvalidProperty": (Refused, "a property does not exist"),
    "SnapshotFault": (Refused, "the snapshot cannot be made or used"),
    "MigrationFault": (Refused, "the machine cannot be moved"),
    "ToolsUnavailable": (Transient, "nobody listens in the guest"),
    "HostConfigFault": (HostAtFault, "the host cannot be configured so"),
}
BROKE = (Transient, "the connection to the host broke")
WIRE: tuple[tuple[tuple[type[BaseException], ...], tuple[type[DriverError], str]], ...] = (
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), BROKE),
    ((ssl.SSLError,), (HostAtFault, "no TLS connection comes about with the host")),
    ((ConnectionRefusedError,), (HostAtFault, "the host refuses connections")),
    ((TimeoutError,), (Transient, "the deadline passed while waiting for the host")),
    ((OSError, HTTPException, ExpatError), BROKE),
)
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError)
"""What pyVmomi raises on an answer that it cannot decode."""
ABSENT = {"MethodNotFound", "NotImplemented", "NotSupported", "MethodDisabled"}


def driver_error(error: BaseException) -> DriverError:
    """The driver's error for what went wrong."""
    if isinstance(error, DriverError):
        return error
    if isinstance(error, vmodl.MethodFault):
        return _fault(error)
    kind, reason = _on_the_wire(error)
    return kind(reason, vendor_code=type(error).__name__)


def _on_the_wire(error: BaseException) -> tuple[type[DriverError], str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        return HostAtFault, f"the host's certificate is not trusted: {error.verify_message}"
    for kinds, answer in WIRE:
        if isinstance(error, kinds):
            return answer
    return HostAtFault, "the host's answer cannot be understood"


def _fault(error: vmodl.MethodFault) -> DriverError:
    names = [kind.__name__.rpartition(".")[2] for kind in type(error).__mro__]
    if ABSENT.intersection(names):
        return Unsupported(Capability.MACHINES, "the host does not know this call")
    for name in names:
        if name in FAULTS:
            kind, reason = FAULTS[name]
            return kind(reason, vendor_code=names[0])
    return HostAtFault("the host failed", vendor_code=names[0])


@contextmanager
def as_driver_errors() -> Iterator[None]:
    """Raise whatever the SDK or the wire raises as one of the four."""
    try:
        yield
    except (vmodl.MethodFault, OSError, HTTPException, ExpatError, *UNREADABLE) as error:
        raise driver_error(error) from error
