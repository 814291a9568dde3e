"""All routes, by a table: what is served, whose it is, which paths take files, and what is asked for most.

A module's routes stand here whether it runs or not: where it does not, they answer 404 `module_not_found`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.routing import Route

from . import (
    agents,
    completions,
    console,
    documents,
    health,
    media,
    memories,
    messages,
    migrations,
    models,
    personas,
    routing,
    search,
    sessions,
    tools,
    traces,
    users,
)


@dataclass(frozen=True, slots=True)
class Routes:
    """``uploads``: paths whose bodies are files, and may be as long as ``http.max_upload_bytes``. ``busiest``: what
    `serve.shortcut` leads to."""

    router: APIRouter
    uploads: tuple[str, ...] = ()
    busiest: tuple[Callable[..., Any], ...] = ()


# In this order they are matched.
ROUTES: tuple[Routes, ...] = (
    Routes(health.router),
    Routes(messages.router, busiest=(messages.send_message, messages.list_messages)),
    Routes(sessions.router),
    Routes(completions.router),
    Routes(models.router),
    Routes(search.router),
    Routes(documents.router, documents.UPLOADS),
    Routes(memories.router),
    Routes(agents.router),
    Routes(media.router, media.UPLOADS),
    Routes(tools.router),
    Routes(personas.router),
    Routes(routing.router),
    Routes(users.router),
    Routes(migrations.router),
    Routes(traces.router),
    Routes(console.router),
)


def busiest() -> tuple[APIRoute, ...]:
    return tuple(
        route
        for routes in ROUTES
        for route in routes.router.routes
        if isinstance(route, APIRoute) and route.endpoint in routes.busiest
    )


def methods_at(path: str) -> tuple[str, ...]:
    """The methods that a path takes, over all routes."""
    found = {
        method
        for routes in ROUTES
        for route in routes.router.routes
        if isinstance(route, Route) and route.path_regex.match(path)
        for method in route.methods or ()
    }
    return tuple(sorted(found))
