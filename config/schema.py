"""The files of this package that are written from the models: JSON Schemas and files of defaults.

``python -m config.schema`` writes them again after a change to the models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.load import PACKAGED
from config.module_settings import Modules
from config.settings import Settings


def generated_files() -> dict[str, str]:
    """Path within the package -> content, for every file that is written from the models."""
    defaults = Settings().model_dump(mode="json", exclude={"modules"})
    files = {
        "default.json": _json(defaults),
        "schemas/settings.json": _schema(Settings.model_json_schema(), "Settings: default.json, environments/*.json"),
    }
    for name, field in Modules.model_fields.items():
        settings = field.default
        files[f"modules/{name}.json"] = _json(settings.model_dump(mode="json"))
        files[f"schemas/{name}.json"] = _schema(type(settings).model_json_schema(), f"Settings: modules/{name}.json")
    return files


def write(directory: Path) -> list[str]:
    """Writes the generated files below *directory*; the names of those that changed."""
    changed = []
    for name, content in generated_files().items():
        path = directory / name
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
            changed.append(name)
    return changed


def _schema(schema: Mapping[str, Any], title: str) -> str:
    return _json({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": title})


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in write(PACKAGED):
        sys.stdout.write(f"written: {name}\n")
