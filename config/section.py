"""What every section of the settings is made of: the frozen base class and the kinds of values."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr


class Section(BaseModel):
    """One section: frozen, no unknown keys, every key with a default, so that any file may leave any key out."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )


def _not_empty(value: object) -> object:
    if value == "":
        raise ValueError("an empty path")
    return value


def _server_address(value: str) -> str:
    """Raises `ValueError` for what is no http(s) address, or could carry a secret to where addresses are shown."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an http or https address")
    _ = parts.port  # raises for what is no port
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("an address with a user, a query or a fragment")
    return value.rstrip("/")


def _network(value: str) -> str:
    """Raises `ValueError` for what is neither an address nor a network."""
    ip_network(value)
    return value


Directory = Annotated[Path, BeforeValidator(_not_empty)]
Name = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
Network = Annotated[str, AfterValidator(_network), Field(json_schema_extra={"format": "ip-network"})]
Fraction = Annotated[float, Field(ge=0, le=1)]
ServerAddress = Annotated[
    str,
    AfterValidator(_server_address),
    Field(json_schema_extra={"format": "uri", "pattern": r"^https?://[^/@?#]+[^@?#]*$"}),
]


class Provider(Section):
    """Who answers a model call: an embedded model by its name, or any OpenAI-compatible server."""

    provider: Name
    """Name of the embedded model, or any other name for an OpenAI-compatible server."""

    model: Name | None = None
    """Model that the server is asked for; embedded models need none."""

    base_url: ServerAddress | None = None
    """Address of the server up to and with ``/v1``; ``openai`` alone has one of its own."""

    api_key: SecretStr | None = None
    """Key for the server; best given as a reference or an environment variable."""

    timeout_seconds: Seconds = 60.0
    """How long a model may be silent: before the first piece of its answer, and between pieces."""
