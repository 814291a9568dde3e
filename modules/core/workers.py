"""Other processes that a module may have work done in, maybe on other machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Workers(Protocol):
    async def run(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """What a module-level function returns, called in another process. Arguments and result are values that pickle.

        The function may be called again when its process went away, so it must do no harm twice. Raises what it raises;
        Unavailable when its process goes away again and again.
        """
        ...
