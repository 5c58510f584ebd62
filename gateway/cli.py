"""The ``stratograph`` command.

The processes take nothing but settings, so they are begun without what reads a command line and shows tables: a cloud
starts sooner and holds less. All else is in :mod:`gateway.commands`.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point."""
    match sys.argv[1:]:
        case ["serve"]:
            from gateway import processes

            processes.serve()
        case ["worker"]:
            from gateway import processes

            processes.worker()
        case _:
            from gateway import commands

            commands.app()
