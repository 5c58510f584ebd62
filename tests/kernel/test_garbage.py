"""What lives long is not looked at again and again, and what it leaves behind is found all the same."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import gc, json, sys, time, weakref
from gateway.kernel.garbage import Aside

class Knot:
    def __init__(self):
        self.itself = self

pauses = []
aside = Aside(least=30_000)
gc.disable()
aside.begin(young=1_000)
gc.callbacks.append(lambda phase, info: pauses.append(info["generation"]) if phase == "stop" else None)
kept, first = [], Knot()
fate = weakref.ref(first)
kept.append(first)
for _ in range(10_000):
    kept.append([Knot()])
put_aside, looks = gc.get_freeze_count(), pauses.count(2)
young = len(gc.get_objects(0)) + len(gc.get_objects(1)) + len(gc.get_objects(2))
del first
kept.clear()
gone_at_once = fate() is None
until = time.monotonic() + 60
while fate() is not None and time.monotonic() < until:
    kept.extend([Knot()] for _ in range(1_000))
json.dump({"aside": put_aside, "looks": looks, "young": young, "at_once": gone_at_once, "found": fate() is None,
           "pauses": pauses.count(0) + pauses.count(1), "all": pauses.count(2)}, sys.stderr)
"""


def test_what_is_put_aside_is_not_looked_at_until_enough_was() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    # The log, which another thread writes, is on stdout.
    found = json.loads(done.stderr.splitlines()[-1])
    assert found["looks"] == 0, "twenty thousand objects are fewer than what was there, and than what must be"
    assert found["young"] < 5_000, "what is looked at stays small"
    assert found["aside"] > 15_000, "most were put aside"
    assert not found["at_once"], "a cycle that was put aside is not found by the way"
    assert found["found"], "but it is, when as much was put aside as was there"
    assert found["all"] * 10 <= found["pauses"], "looks at everything are few"
