"""What can be done with an image: a table of operations and their arguments, checked before anything is decoded.

A request is a list of names (``"grayscale"``) and of objects (``{"type": "resize", "width": 640}``). Operations that
change the image apply one after the other; those that measure see the image as it is at their place in the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from modules.core.errors import ValidationError

MOST_OPERATIONS = 32
ENCODERS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "avif": "AVIF"}
FITS = ("contain", "cover", "stretch")

Operation = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Argument:
    """A number from ``least`` to ``most``, one of ``choices``, or true or false where neither is given."""

    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    default: Any = None
    is_whole: bool = True
    is_needed: bool = False

    def checked(self, name: str, value: Any) -> Any:
        if self.choices:
            if not isinstance(value, str) or value not in self.choices:
                raise _wrong(f"{name} must be one of {', '.join(self.choices)}, not {value!r}")
        elif self.least is None or self.most is None:
            if not isinstance(value, bool):
                raise _wrong(f"{name} must be true or false, not {value!r}")
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
            if not number or (self.is_whole and value != int(value)) or not self.least <= value <= self.most:
                kind = "whole number" if self.is_whole else "number"
                raise _wrong(f"{name} must be a {kind} from {self.least:g} to {self.most:g}, not {value!r}")
            return int(value) if self.is_whole else float(value)
        return value


@dataclass(frozen=True, slots=True)
class Kind:
    """``changes``: the image is another one after it. ``some_of``: at least one of these must be given."""

    arguments: Mapping[str, Argument]
    changes: bool
    some_of: tuple[str, ...] = ()


_SIDE = Argument(1, 65_535)
_NEEDED_SIDE = Argument(1, 65_535, is_needed=True)
_PLACE = Argument(0, 65_535, default=0)

OPERATIONS: Mapping[str, Kind] = {
    "resize": Kind(
        {"width": _SIDE, "height": _SIDE, "fit": Argument(choices=FITS, default="contain")},
        changes=True,
        some_of=("width", "height"),
    ),
    "crop": Kind(
        {"left": _PLACE, "top": _PLACE, "width": _NEEDED_SIDE, "height": _NEEDED_SIDE},
        changes=True,
    ),
    "rotate": Kind(
        {"degrees": Argument(-360, 360, is_whole=False, is_needed=True), "expand": Argument(default=True)},
        changes=True,
    ),
    "thumbnail": Kind({"size": Argument(1, 4096, default=256)}, changes=True),
    "grayscale": Kind({}, changes=True),
    "blur": Kind({"radius": Argument(0.1, 200, is_whole=False, default=2.0)}, changes=True),
    "edges": Kind({"low": Argument(0, 1000, default=100), "high": Argument(0, 1000, default=200)}, changes=True),
    "convert": Kind(
        {
            "format": Argument(choices=tuple(ENCODERS), is_needed=True),
            "quality": Argument(1, 100, default=85),
        },
        changes=True,
    ),
    "histogram": Kind({"bins": Argument(1, 256, default=256)}, changes=False),
    "blur_score": Kind({}, changes=False),
    "perceptual_hash": Kind({}, changes=False),
    "faces": Kind({"min_score": Argument(0, 1, is_whole=False, default=0.9)}, changes=False),
    "exif": Kind({}, changes=False),
    "ocr": Kind({}, changes=False),
}


def checked(operations: Sequence[str | Mapping[str, Any]]) -> list[Operation]:
    """The operations with every argument in place, in the one form that results are cached by.

    Raises ValidationError for an unknown name, an argument that is missing, unknown or out of range, the same
    measurement twice, and for too many.
    """
    if isinstance(operations, str | Mapping) or not isinstance(operations, Sequence):
        raise _wrong("operations must be a list of names and objects with a type")
    if not 1 <= len(operations) <= MOST_OPERATIONS:
        raise _wrong(f"operations must be 1 to {MOST_OPERATIONS} in number, not {len(operations)}")
    found = [_checked(one) for one in operations]
    measured = [one["type"] for one in found if not OPERATIONS[one["type"]].changes]
    for name in measured:
        if measured.count(name) > 1:
            raise _wrong(f"{name} can be measured once in a list of operations")
    return found


def changes_image(operations: Sequence[Operation]) -> bool:
    return any(OPERATIONS[one["type"]].changes for one in operations)


def _checked(given: str | Mapping[str, Any]) -> Operation:
    arguments: Mapping[str, Any] = {"type": given} if isinstance(given, str) else given
    if not isinstance(arguments, Mapping) or not isinstance(arguments.get("type"), str):
        raise _wrong(f"an operation is a name, or an object with a type; not {given!r}")
    name = arguments["type"]
    kind = OPERATIONS.get(name)
    if kind is None:
        raise _wrong(f"no operation {name!r}; there are {', '.join(OPERATIONS)}")
    unknown = [key for key in arguments if key != "type" and key not in kind.arguments]
    if unknown:
        allowed = ", ".join(kind.arguments) or "none"
        raise _wrong(f"{name} has no argument {unknown[0]!r}; it has {allowed}")
    found: Operation = {"type": name}
    for key, argument in kind.arguments.items():
        value = arguments.get(key)
        if value is None:
            if argument.is_needed:
                raise _wrong(f"{name} needs {key}")
            found[key] = argument.default
        else:
            found[key] = argument.checked(f"{key} of {name}", value)
    if kind.some_of and all(found[key] is None for key in kind.some_of):
        raise _wrong(f"{name} needs {' or '.join(kind.some_of)}")
    return found


def _wrong(message: str) -> ValidationError:
    return ValidationError(message, param="operations")
