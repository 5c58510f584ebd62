"""qemu-img's opinion of an image whose header we already found harmless: does it agree, and are the tables sound?

Invariant: qemu-img is always told the format and never left to guess it; a disagreement about anything (format, size,
a file beside this one) refuses the image, and so does any failure to answer in time and within the bounds. ``check``
finds tables that share clusters, which is how a small file pretends to hold much data. Never asked before ``headers``
and oslo.utils have looked, and nothing is ever repaired.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from gateway.image import qemu_img
from gateway.image.formats import GIB, MIB, ImageFormat, ImageRefused, Inspection, InspectionLimits, RefusalCode

_CHECK_SOUND: Final = 0
_CHECK_LEAKS: Final = 3  # clusters nobody uses: waste, not damage
_CHECK_UNSUPPORTED: Final = 63
_LARGEST_CLUSTER_BYTES: Final = 2 * MIB
_ERROR_CHARACTERS: Final = 160


def refuse(path: Path, inspection: Inspection, limits: InspectionLimits) -> None:
    """Refuse the image unless qemu-img confirms ``inspection``.

    Raises:
        ImageRefused: it does not, or is not installed.
    """
    try:
        _refuse_info(path, inspection, limits)
        _refuse_check(path, inspection, limits)
    except qemu_img.ToolMissing as missing:
        raise ImageRefused(
            RefusalCode.TOOL_MISSING, f"{missing.tool} is not installed here, so the image cannot be checked"
        ) from missing
    except qemu_img.RunTimedOut as late:
        raise ImageRefused(RefusalCode.TOO_COMPLEX, "checking the image took too long") from late


def _refuse_info(path: Path, inspection: Inspection, limits: InspectionLimits) -> None:
    outcome = _ask("info", path, inspection, limits.info_timeout_s, limits.memory_bytes)
    if outcome.exit_status != _CHECK_SOUND:
        raise ImageRefused(RefusalCode.CORRUPT, f"qemu-img cannot open the image: {_reason(outcome.error, path)}")
    info = _answer(outcome)
    size_bytes = info.get("virtual-size")
    if info.get("format") != inspection.format.qemu_name or size_bytes != inspection.virtual_size_bytes:
        raise ImageRefused(
            RefusalCode.CORRUPT,
            f"the header says {inspection.virtual_size_bytes} bytes, qemu-img says {size_bytes}",
        )
    if info.get("backing-filename") or info.get("full-backing-filename"):
        raise ImageRefused(RefusalCode.BACKING_FILE, "the image needs a backing file")
    if info.get("encrypted"):
        raise ImageRefused(RefusalCode.ENCRYPTED, "the image is encrypted")
    if info.get("snapshots"):
        raise ImageRefused(RefusalCode.SNAPSHOTS, "the image has internal snapshots")
    specific = info.get("format-specific", {}).get("data", {})
    if specific.get("data-file"):
        raise ImageRefused(RefusalCode.EXTERNAL_DATA_FILE, "the image keeps its data in an external file")
    extents = specific.get("extents", [])
    if any(extent.get("filename") != qemu_img.absolute(path) for extent in extents) or len(extents) > 1:
        raise ImageRefused(RefusalCode.VMDK_DESCRIPTOR, "the image consists of several files")


def _refuse_check(path: Path, inspection: Inspection, limits: InspectionLimits) -> None:
    seconds = check_seconds(inspection.size_bytes, limits)
    outcome = _ask("check", path, inspection, seconds, limits.memory_bytes)
    if outcome.exit_status not in {_CHECK_SOUND, _CHECK_LEAKS, _CHECK_UNSUPPORTED}:
        raise ImageRefused(RefusalCode.CORRUPT, "qemu-img check finds the image's tables damaged")
    if outcome.exit_status == _CHECK_UNSUPPORTED:
        return
    answer = _answer(outcome)
    # The last cluster may be cut where its data end, so compare in whole clusters of the largest kind.
    if (
        inspection.format is ImageFormat.QCOW2
        and answer.get("image-end-offset", 0) > inspection.size_bytes + _LARGEST_CLUSTER_BYTES
    ):
        raise ImageRefused(RefusalCode.TRUNCATED, "the image's data lie beyond the end of the file")
    _refuse_expansion(answer, inspection, limits)


def _refuse_expansion(answer: dict[str, Any], inspection: Inspection, limits: InspectionLimits) -> None:
    """Refuse a small file that unpacks to a great deal of data (only qcow2 says how much it holds)."""
    total = answer.get("total-clusters", 0)
    if not total:
        return
    allocated_bytes = inspection.virtual_size_bytes * answer.get("allocated-clusters", 0) // total
    if allocated_bytes > max(limits.expansion_floor_bytes, inspection.size_bytes * limits.max_expansion_ratio):
        raise ImageRefused(
            RefusalCode.EXPANSION,
            f"a file of {inspection.size_bytes} bytes claims to hold {allocated_bytes} bytes of data",
        )


def check_seconds(size_bytes: int, limits: InspectionLimits) -> float:
    """Seconds which the check of a file of this size may take."""
    return limits.check_timeout_s + limits.check_timeout_per_gib_s * size_bytes / GIB


def _ask(verb: str, path: Path, inspection: Inspection, timeout_s: float, memory_bytes: int) -> qemu_img.Outcome:
    arguments = [verb, "--output=json", "-f", inspection.format.qemu_name, qemu_img.absolute(path)]
    return qemu_img.run(arguments, qemu_img.Bounds(timeout_s=timeout_s, memory_bytes=memory_bytes))


def _answer(outcome: qemu_img.Outcome) -> dict[str, Any]:
    try:
        answer = json.loads(outcome.output)
    except ValueError as error:
        raise ImageRefused(RefusalCode.CORRUPT, "qemu-img gave no clear answer about the image") from error
    if not isinstance(answer, dict):
        raise ImageRefused(RefusalCode.CORRUPT, "qemu-img gave no clear answer about the image")
    return answer


def _reason(error: str, path: Path) -> str:
    """qemu-img's own sentence for the user, without our directory in it."""
    text = error.strip().splitlines()[-1] if error.strip() else "no reason given"
    text = text.removeprefix("qemu-img: ").replace(qemu_img.absolute(path), "the image").replace(str(path), "the image")
    return "".join(character for character in text if character.isprintable())[:_ERROR_CHARACTERS]
