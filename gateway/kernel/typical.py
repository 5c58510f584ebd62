"""A subject who stands for all of its standing, and notices when somebody wants to know who it is.

Invariant: code that was given a :class:`Typical` and left ``asked`` False would have done exactly the same for every
subject with the same roles, since nothing else of the subject was read. That is how what one subscriber is pushed may
be pushed to others, without a list of the fields that depend on the person, which nobody would keep up.
"""

from __future__ import annotations

from typing import Any, Final, Self

from gateway.kernel.access import Subject

_STANDING: Final = frozenset({"admin", "roles", "role_in", "holds", "signed_in", "standing", "asked"})


class Typical(Subject):
    """See the module. It answers truly whatever it is asked."""

    asked: bool = False

    @classmethod
    def of(cls, subject: Subject) -> Self:
        """Somebody of this subject's standing."""
        made = cls(user_id=subject.user_id, admin=subject.admin, roles=subject.roles)
        for name in ("user_uid", "user_name", "session_id", "api_key_id", "request_id", "address", "user_agent"):
            object.__setattr__(made, name, getattr(subject, name))
        object.__setattr__(made, "asked", False)
        return made

    @property
    def signed_in(self) -> bool:
        """Whether somebody is known: part of the standing."""
        return bool(object.__getattribute__(self, "user_id"))

    def __getattribute__(self, name: str) -> Any:
        if name not in _STANDING and not name.startswith("__"):
            object.__setattr__(self, "asked", True)
        return object.__getattribute__(self, name)
