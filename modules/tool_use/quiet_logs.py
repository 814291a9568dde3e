"""What the HTTP and MCP libraries log of their own accord, without what may be secret in it.

One logs every address with its query, which holds a tool's parameters; the other the ids of sessions and, with its
errors, pieces of answers.
"""

from __future__ import annotations

import logging
from typing import Any

_HTTP = "httpx2"
_MCP = ("mcp.client.streamable_http", "mcp.client.session")


class WithoutSecrets(logging.Filter):
    """For the loggers of these libraries only."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name != _HTTP:
            record.exc_info = None
            return record.levelno >= logging.WARNING
        if isinstance(record.args, tuple):
            record.args = tuple(_without_query(arg) for arg in record.args)
        return True


def keep_secrets_out_of_logs() -> None:
    """Once is enough; more often does no harm."""
    for name in (_HTTP, *_MCP):
        logger = logging.getLogger(name)
        if not any(isinstance(one, WithoutSecrets) for one in logger.filters):
            logger.addFilter(WithoutSecrets())


def _without_query(arg: Any) -> Any:
    copy_with = getattr(arg, "copy_with", None)  # an address
    return arg if copy_with is None else copy_with(userinfo=b"", query=None, fragment=None)
