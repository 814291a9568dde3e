"""What the commands of cut-over, backup and disk answer."""

from __future__ import annotations

from migration.answers import CLEAN, LOOK, REFUSED, RETRY, Command, answering

__all__ = ["CLEAN", "LOOK", "REFUSED", "RETRY", "Command", "answered"]

answered = answering("`cutover status` or `backup recover` says where it stands")
