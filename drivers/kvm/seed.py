"""First-boot data as an ISO image by cloud-init's NoCloud layout: a small file system labelled ``cidata``.

Built in memory by pycdlib with Joliet and Rock Ridge, so that every guest sees the real file names. The driver puts it
into the pool as a file named after the machine, and takes it away with the machine.
"""

from __future__ import annotations

import io
import re

from pycdlib import PyCdlib

from drivers.api import Refused, Seed

_MOST_BYTES = 1024 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def iso(seed: Seed) -> bytes:
    """The image. Raises Refused when there is too much of it or a file's name is no plain name."""
    if sum(len(content) for content in seed.files.values()) > _MOST_BYTES:
        raise Refused("the first-boot data is larger than 1 MiB")
    image = PyCdlib()
    image.new(interchange_level=3, vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for number, (name, content) in enumerate(sorted(seed.files.items())):
        if not _NAME.fullmatch(name):
            raise Refused(f"first-boot data cannot have a file named {name!r}")
        image.add_fp(io.BytesIO(content), len(content), f"/F{number:07d}.;1", rr_name=name, joliet_path=f"/{name}")
    out = io.BytesIO()
    image.write_fp(out)
    image.close()
    return out.getvalue()
