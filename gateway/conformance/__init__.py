"""``stratograph conformance``: the driver contract run against an operator's own host, told as a table.

The checks are the very ones that drivers are tested with (drivers/contract.py). What a run makes it makes under ids of
its own, in a place of its own where the driver can have one, remembers, and takes away again, whatever happens; nothing
else on the host is touched. What is needed of the test framework is in ``judging.py``, so none has to be installed.
"""
