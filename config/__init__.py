"""Settings of the platform: values only, read once at the edge and passed down.

`load_settings` reads them; `Settings` holds them; `ConfigurationError` says what is wrong with them. See
docs/configuration.md for the files, their order and the environment variables.
"""

from __future__ import annotations

from config.errors import ConfigurationError, NoSuchConfiguration, Problem
from config.findings import findings, is_loopback
from config.load import LoadedSettings, load_settings, load_with_origins, settings_of
from config.module_settings import Modules
from config.settings import Http, Migration, Runtime, Settings, Storage

__all__ = [
    "ConfigurationError",
    "Http",
    "LoadedSettings",
    "Migration",
    "Modules",
    "NoSuchConfiguration",
    "Problem",
    "Runtime",
    "Settings",
    "Storage",
    "findings",
    "is_loopback",
    "load_settings",
    "load_with_origins",
    "settings_of",
]
