"""The console: one page, its script and its style, from this package."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from starlette.responses import Response

from modules.core.errors import NotFound
from serve.paths import PathId

router = APIRouter(tags=["console"])

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_FILES = {
    "index.html": "text/html; charset=utf-8",
    "console.js": "text/javascript; charset=utf-8",
    "console.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@router.get("/", response_class=Response, responses={200: {"description": "The page.", "content": {"text/html": {}}}})
async def get_console() -> Response:
    """Chat, sessions, the modules' health and the progress of a migration, in a browser."""
    return _file("index.html")


@router.get("/console/{name}", response_class=Response, include_in_schema=False)
async def get_console_file(name: PathId) -> Response:
    if name not in _FILES:
        raise NotFound("the console has no such file")
    return _file(name)


def _file(name: str) -> Response:
    content = files("serve").joinpath("console", name).read_bytes()
    headers = {"content-security-policy": _CSP, "cache-control": "no-cache", "content-type": _FILES[name]}
    return Response(content, headers=headers)
