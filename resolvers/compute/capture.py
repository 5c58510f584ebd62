"""Making an image of a disk, in the graph."""

from __future__ import annotations

from gateway.compute import capture
from gateway.image import image
from gateway.jobs import job
from gateway.kernel.access import Need
from resolvers.kernel.roots import mutation

mutation(
    "imageCapture", capture.capture, capture.ImageCapture, Need.MEMBER,
    "Make an image of a volume, a snapshot or a stopped server's root disk; its `downloadUrl` is how a disk leaves.",
    payload={"image": (image.NOUN, "The new image."), "job": (job.NOUN, "The job that fills it.")},
)  # fmt: skip
