"""Well-formed image files of every format, and the tools that make others of them; the register of what is hostile."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pycdlib

from gateway.image.formats import ImageFormat, RefusalCode

MIB = 1 << 20
SECTOR = 512
CONTENT = b"stratograph!" * 5000


@dataclass(frozen=True)
class Hostile:
    """One hostile file: ``make`` writes it into a directory and answers its path; ``code`` is the refusal it meets."""

    name: str
    make: Callable[[Path], Path]
    code: RefusalCode


HOSTILE: list[Hostile] = []


def hostile(code: RefusalCode) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        HOSTILE.append(Hostile(make.__name__, make, code))
        return make

    return register


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, timeout=30)


def disk(folder: Path, image_format: ImageFormat, *options: str, size_bytes: int = 10 * MIB) -> Path:
    """A disk of ``size_bytes`` which holds CONTENT at offset 1 MiB, in the given format."""
    raw = folder / "source.raw"
    with raw.open("wb") as file:
        file.truncate(size_bytes)
        file.seek(MIB)
        file.write(CONTENT)
    if image_format is ImageFormat.RAW:
        return raw
    path = folder / f"disk.{image_format.suffix}"
    qemu_img("convert", "-f", "raw", "-O", image_format.qemu_name, *options, raw, path)
    raw.unlink()
    return path


def iso(folder: Path) -> Path:
    text = b"#cloud-config\n" * 20_000
    disc, path = pycdlib.PyCdlib(), folder / "disk.iso"
    disc.new(interchange_level=3, joliet=3, vol_ident="cidata")
    disc.add_fp(io.BytesIO(text), len(text), "/USERDATA.;1", joliet_path="/user-data")
    disc.write(str(path))
    disc.close()
    return path


def honest(folder: Path, image_format: ImageFormat) -> Path:
    return iso(folder) if image_format is ImageFormat.ISO else disk(folder, image_format)


def patch(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


def cut(path: Path, size_bytes: int) -> Path:
    with path.open("r+b") as file:
        file.truncate(size_bytes)
    return path
