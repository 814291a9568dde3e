"""Who calls, and what that caller may do. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from modules.core.errors import ValidationError

from .errors import NotAllowed

USER, ADMIN = "user", "admin"
SCOPES = (USER, ADMIN)


@dataclass(frozen=True, slots=True)
class Caller:
    """``name`` is for logs and audit. ``user_id``: the one user that the caller is bound to, or None for any user."""

    name: str
    scopes: frozenset[str]
    user_id: str | None = None

    def acting_for(self, user_id: str | None) -> str | None:
        """The user that a call is about; None where nobody is named. Raises NotAllowed for another than its own."""
        if self.user_id is not None and user_id not in (None, self.user_id):
            raise NotAllowed("this key is bound to another user", param="user_id")
        return user_id if self.user_id is None else self.user_id

    def needing_user(self, user_id: str | None) -> str:
        """The same, where somebody must be named. Raises ValidationError when nobody is."""
        user = self.acting_for(user_id)
        if user is None:
            raise ValidationError("Missing required parameter: 'user_id'.", param="user_id")
        return user

    def check_admin(self) -> None:
        """Raises NotAllowed."""
        if ADMIN not in self.scopes:
            raise NotAllowed("this needs a key with the scope admin")

    def check_owner(self, user_id: str) -> None:
        """For what is about all of a user: an administrator, or a key that is bound to that user."""
        if self.user_id != user_id:
            self.check_admin()
            self.acting_for(user_id)


# Where the server takes no keys, it listens on loopback alone, and who can reach it owns the machine.
ANYBODY = Caller("anybody", frozenset(SCOPES))
