"""Read JSON into typed values, and refuse what does not fit in one line that says where."""

import math
import re
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import PydanticCustomError, from_json

from repro import plugins
from repro.checks import shown
from repro.errors import UserError, unknown

_CONFLICT = re.compile(rb"^(?:<{7}|\|{7}|={7}|>{7})(?: |\r?$)", re.MULTILINE)
"""What git leaves in a file that it could not merge."""
_SUSPECT = re.compile(rb"[\[:,\s]-?(?:NaN|Infinity|[0-9]{300}|[0-9.]+[eE]\+?[0-9]{3})")
"""What is in every text with a number that is not finite."""


def wrong(problem: str) -> PydanticCustomError:
    """Return the error by which a model refuses a value, to be raised."""
    return PydanticCustomError("wrong", "{problem}", {"problem": problem})


def _task(name: str) -> str:
    tasks = plugins.names("tasks")
    if name not in tasks:
        raise wrong(unknown("task", name[:80], tasks))
    return name


TaskName = Annotated[str, AfterValidator(_task)]
"""A member of `tasks`."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
Amount = Annotated[float, Field(ge=0)]
"""A measure that is never negative, such as a time."""
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A frozen value that is exactly what its JSON says: no unknown keys, no converted types, no NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        protected_namespaces=(),
    )

    @classmethod
    def parse(cls, text: str | bytes, where: object) -> Self:
        """Check one JSON object.

        Args:
            where: the file, and if need be the line, for messages.

        Raises:
            UserError: it is no JSON, or not of this shape; the first thing that is wrong is named.
        """
        try:
            value = cls.model_validate_json(text)
        except ValidationError as error:
            parse_object(text, where)
            raise UserError(f"{where}: {describe(error)}") from None
        if _SUSPECT.search(text.encode() if isinstance(text, str) else text):
            parse_object(text, where)
        return value

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file that holds one such object.

        Raises:
            UserError: it cannot be read, or does not hold that.
        """
        return cls.parse(read_bytes(path), path)

    def to_json(self) -> dict[str, object]:
        """Return the plain data that is written: aliases as keys, without keys that an older file lacked."""
        return self.model_dump(mode="json", exclude_unset=True)


def parse_object(text: str | bytes, where: object) -> dict[str, JsonValue]:
    """Parse one JSON object that is not checked any further.

    Raises:
        UserError: it is no JSON, not an object, or has a number that is not finite.
    """
    content = text.encode() if isinstance(text, str) else text
    try:
        value: JsonValue = from_json(content)
    except ValueError as error:
        raise UserError(f"{where}: {_unreadable(content, error)}") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object")
    if _SUSPECT.search(content) and (problem := _not_finite(value)):
        raise UserError(f"{where}: {problem}")
    return value


def _unreadable(content: bytes, error: ValueError) -> str:
    """Say why a text is no JSON."""
    conflict = _CONFLICT.search(content)
    if conflict:
        return f"an unresolved merge conflict{_line(content, conflict.start())}"
    if content.startswith(b"\xef\xbb\xbf"):
        return "starts with a byte order mark; save it as UTF-8 without one"
    try:
        content.decode()
    except UnicodeDecodeError as other:
        return f"not UTF-8{_line(content, other.start)}"
    reason = str(error)
    return f"cannot be read ({reason if _has_lines(content) else reason.replace('line 1 ', '')})"


def _has_lines(content: bytes) -> bool:
    return b"\n" in content.rstrip()


def _line(content: bytes, place: int) -> str:
    """Name the line of a place in a text of several lines."""
    number = content.count(b"\n", 0, place) + 1
    return f" at line {number}" if _has_lines(content) else ""


def _not_finite(value: JsonValue, place: str = "") -> str | None:
    """Name the first number that is not finite; None if all are."""
    if isinstance(value, dict | list):
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        problems = (_not_finite(entry, f"{place}.{_shown(key)}") for key, entry in entries)
        return next(filter(None, problems), None)
    if isinstance(value, float) and not math.isfinite(value):
        return f"{place[1:]}: {value} is not a finite number"
    return None


def wrong_version(where: object, what: str, found: JsonValue, expected: int) -> str:
    """Say that a file is of another version."""
    return f"{where}: {what} {shown(found)}, expected {expected}; written by another version of repro"


def _shown(key: str | int) -> str:
    """Return a key as it can be printed: on one line, and not too long."""
    return repr(key)[1:-1][:80] if isinstance(key, str) else str(key)


def read_bytes(path: Path) -> bytes:
    """Read the content of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def describe(error: ValidationError) -> str:
    """Name the first problem of a value, and how many more there are."""
    first, *others = error.errors(include_url=False)
    place = ".".join(map(_shown, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    return f"{f'{place}: ' if place else ''}{first['msg']}{more}"
