"""First-boot data for a guest: cloud-init's VMware datasource (guestinfo keys), or a NoCloud ISO.

Guestinfo takes everything in the machine's configuration, without a file; the network goes into the metadata, as text
under ``network`` with its encoding beside it (a mapping there would be taken for the configuration itself). User and
vendor data may hold secrets: cloud-init is asked to empty them once it has read them, and first_boot.py does so anyway.
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
SECRETS = ("userdata", "vendordata")


def guestinfo(seed: Seed | None) -> dict[str, str]:
    """The keys of the machine's extraConfig."""
    if seed is None:
        return {}
    _check(seed)
    files = dict(seed.files)
    secrets = {
        key: files[name] for key, name in zip(SECRETS, ("user-data", "vendor-data"), strict=True) if name in files
    }
    metadata = _metadata(files.get("meta-data", b"{}"), files.get("network-config"), list(secrets))
    told: dict[str, str] = {}
    for key, content in {"metadata": metadata, **secrets}.items():
        told |= {f"guestinfo.{key}": _packed(content), f"guestinfo.{key}.encoding": ENCODING}
    return told


def blanked(told: Mapping[str, Any]) -> dict[str, str]:
    """What has to be emptied in extraConfig now that the guest has read it."""
    keys = [f"guestinfo.{key}{more}" for key in SECRETS for more in ("", ".encoding")]
    return {key: "" for key in keys if told.get(key)}


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


def _metadata(meta: bytes, network: bytes | None, secrets: list[str]) -> bytes:
    """The metadata with network and public keys where this datasource looks for them, and what it shall empty."""
    try:
        told = json.loads(meta)
    except ValueError:  # YAML of somebody's own: what we add goes below it
        lines = [meta.decode().rstrip("\n")]
        if network is not None:
            lines += [f"network: {_packed(network)}", f"network.encoding: {ENCODING}"]
        if secrets:
            lines += [f"redact: {json.dumps(secrets)}"]
        return ("\n".join(lines) + "\n").encode()
    if not isinstance(told, dict):
        raise Refused("the seed's meta-data is no mapping")
    if network is not None:
        told |= {"network": _packed(network), "network.encoding": ENCODING}
    if secrets:
        told.setdefault("redact", secrets)
    if keys := told.get("public-keys"):
        told["public-keys-data"] = "\n".join(keys)
    return json.dumps(told).encode()
