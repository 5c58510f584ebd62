"""``python -m tests.golden.write``: the committed texts that say who may do what, and what jobs consist of. What they
say is read by people in a review; tests only say when it changed.
"""

from __future__ import annotations

from pathlib import Path

from resolvers.kernel.roots import ROOTS
from resolvers.schema import schema
from workers.main import load_all
from workers.saga import SAGAS

POLICY = Path(__file__).with_name("policy.txt")
STEPS = Path(__file__).with_name("sagas.txt")


def policy() -> str:
    """One line for each root field: what it asks of its caller."""
    schema()
    lines = [f"{root.operation:<12} {root.name:<28} {root.need.value}" for root in ROOTS.values()]
    return "\n".join(sorted(lines)) + "\n"


def sagas() -> str:
    """One line for each kind of job: its steps in order; ``>`` goes only forward, ``(step)`` is not undone."""
    load_all()
    lines = []
    for kind, saga in sorted(SAGAS.items()):
        if not kind.startswith("test."):
            steps = [step.name if step.undo is not None else f"({step.name})" for step in saga.steps]
            lines.append(f"{kind:<24}{'>' if saga.forward else ' '} {' '.join(steps)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files."""
    POLICY.write_text(policy(), encoding="utf-8")
    STEPS.write_text(sagas(), encoding="utf-8")


if __name__ == "__main__":
    main()
