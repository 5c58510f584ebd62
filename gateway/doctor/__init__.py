"""`stratograph doctor`: what is there, what is missing, what does not truly work, and the remedy for each.

`examine()` looks and changes nothing but its own remembered verdict on acceleration; `show()` prints; `accelerator()`
is the short question that the composition root asks at start. The doctor imports no driver: the caller hands in what
the drivers say of themselves.
"""

from gateway.doctor.acceleration import accelerator
from gateway.doctor.examination import examine
from gateway.doctor.report import Finding, Report, Status, show

__all__ = ["Finding", "Report", "Status", "accelerator", "examine", "show"]
