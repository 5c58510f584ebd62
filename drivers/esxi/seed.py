"""First-boot data for a guest: cloud-init's VMware datasource (guestinfo keys), or a NoCloud ISO.

Guestinfo takes everything in the machine's configuration, without a file; the network goes into the metadata. The user
data may hold secrets and stays readable there, so it is blanked once the machine starts for a second time or is asked
to stop after its first start.
Keys: https://docs.cloud-init.io/en/latest/reference/datasources/vmware.html
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import pycdlib

from drivers.api import Refused, Seed

ENCODING = "gzip+base64"
BYTES_MOST = 1024**2
STARTED = "stratograph.started"
SECRET = ("guestinfo.userdata", "guestinfo.userdata.encoding")


def guestinfo(seed: Seed | None) -> dict[str, str]:
    """The keys of the machine's extraConfig."""
    if seed is None:
        return {}
    _check(seed)
    files = dict(seed.files)
    metadata = _metadata(files.get("meta-data", b"{}"), files.get("network-config"))
    told = {"guestinfo.metadata": _packed(metadata), "guestinfo.metadata.encoding": ENCODING}
    if "user-data" in files:
        told |= {"guestinfo.userdata": _packed(files["user-data"]), "guestinfo.userdata.encoding": ENCODING}
    if "vendor-data" in files:
        told |= {"guestinfo.vendordata": _packed(files["vendor-data"]), "guestinfo.vendordata.encoding": ENCODING}
    return told


def blanked(told: Mapping[str, Any]) -> dict[str, str]:
    """What has to be emptied in extraConfig now that the guest has read it."""
    return {key: "" for key in SECRET if told.get(key)}


def iso(seed: Seed) -> bytes:
    """A NoCloud image."""
    _check(seed)
    image = pycdlib.PyCdlib()
    image.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident="cidata")
    try:
        for number, (name, content) in enumerate(sorted(seed.files.items())):
            image.add_fp(BytesIO(content), len(content), f"/F{number}.;1", rr_name=name, joliet_path=f"/{name}")
        target = BytesIO()
        image.write_fp(target)
    finally:
        image.close()
    return target.getvalue()


def _check(seed: Seed) -> None:
    if sum(map(len, seed.files.values())) > BYTES_MOST:
        raise Refused("the first-boot data is larger than 1 MiB")


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _metadata(meta: bytes, network: bytes | None) -> bytes:
    """The metadata with network and public keys where this datasource looks for them."""
    try:
        told = json.loads(meta)
    except ValueError:  # YAML of somebody's own: what we add goes below it
        lines = [meta.decode().rstrip("\n")]
        if network is not None:
            lines += ["network:", f"  config: {_packed(network)}", f"  encoding: {ENCODING}"]
        return ("\n".join(lines) + "\n").encode()
    if not isinstance(told, dict):
        raise Refused("the seed's meta-data is no mapping")
    if network is not None:
        told["network"] = {"config": _packed(network), "encoding": ENCODING}
    if keys := told.get("public-keys"):
        told["public-keys-data"] = "\n".join(keys)
    return json.dumps(told).encode()
