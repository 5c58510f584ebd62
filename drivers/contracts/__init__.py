"""The parts of :mod:`drivers.contract`, one file per facet."""
