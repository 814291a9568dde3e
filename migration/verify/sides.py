"""The two trees that are compared, and how."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from migration.v2.names import V2Names
from migration.verify.comparison import Item, Tally
from migration.verify.jsontext import NotAnObject, ObjectFile, last_values, members, object_file
from migration.verify.names import shown
from migration.verify.timestamps import carries_offset
from migration.verify.tree import Tree, join


@dataclass(frozen=True, slots=True)
class Sides:
    """Both trees, the names of the source, and the zone that its naive times were given (or None).

    When not *deep*, only existence is compared.
    """

    source: Tree
    target: Tree
    names: V2Names
    zone: ZoneInfo | None = None
    deep: bool = True

    def object_or_attic(self, tally: Tally, user: str, path: str) -> ObjectFile | None:
        """The object in the source file *path*; where it is none, the file must be in the attic, whole."""
        file = object_file(self.source.read(path))
        if file is None:
            tally.notices.append(f"{shown(path)} holds no JSON object")
            self.attic(tally, user, path)
            return None
        if file.encoding != "utf-8":
            tally.notices.append(f"{shown(path)} is not UTF-8 and was read as {file.encoding}")
        tally.files["migrated"] += 1
        return file

    def object_or_none(self, path: str) -> ObjectFile | None:
        """The object in the source file *path*; None where there is no file, or no object in it."""
        data = self.source.read_or_none(path)
        return None if data is None else object_file(data)

    def expect_object(self, item: Item, path: str, what: str = "metadata.json") -> dict[str, bytes]:
        """Members of the target's JSON file; when it is absent or no object, that is found, and there are none."""
        data = self.target.read_or_none(path)
        if data is None:
            item.missing(what, path)
            return {}
        try:
            return last_values(members(data.strip()))
        except NotAnObject as error:
            item.differs(what, "an object", str(error))
            return {}

    def peek(self, path: str) -> dict[str, bytes]:
        """Members of the target's JSON file; none when it is absent or no object, which is reported elsewhere."""
        data = self.target.read_or_none(path)
        try:
            return last_values(members(data.strip())) if data is not None else {}
        except NotAnObject:
            return {}

    def attic(self, tally: Tally, user: str, path: str) -> None:
        """Compares a file that no rule claims with its copy, byte for byte."""
        item = Item("attic", user, shown(path))
        target = join("attic", path)
        tally.claims.add(target)
        tally.files["attic"] += 1
        absent = not self.same_file(item, "bytes", path, target)
        tally.close(item, absent=absent)

    def same_file(self, item: Item, what: str, source: str, target: str, tree: Tree | None = None) -> bool:
        """Compares the bytes of two files; False when the target has none. *tree* takes the source's place."""
        status = self.target.stat_or_none(target)
        if status is None:
            item.missing(what, shown(target))
        if self.deep:
            expected = (tree or self.source).digest(source)
            found = None if status is None else self.target.digest(target)
            with item.quietly(found is None):
                item.same(f"size of {what}", expected.size, found.size if found else None)
                item.same(f"sha256 of {what}", expected.sha256, found.sha256 if found else None)
        return status is not None

    def with_zone(self, expected: str, found: str | None) -> tuple[str, ...]:
        """What else a time may be: itself with the offset of the source's zone."""
        if found is not None and self.zone is not None and carries_offset(found, expected, self.zone):
            return (found,)
        return ()
