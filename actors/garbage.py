"""How Python looks for garbage in a process that answers many requests."""

from __future__ import annotations

import gc

# New objects between two looks.
_EVERY = 20_000


def spare_what_is_loaded() -> None:
    """To be called once, when everything that stays has been loaded: it is not looked through again.

    What all requests under way hold is still looked through at each look; at Python's own 700 new objects between two,
    that took one twentieth of the processor.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_EVERY)
