"""A file that a module keeps, for whoever gives it out: where it stands, and as what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredFile:
    """``key`` is below the base, to be opened through `FlatFiles.opened`. ``name`` is what its owner calls it, and
    ``content_type`` what it is: both go back to where it came from and promise nothing."""

    key: str
    name: str
    content_type: str
