"""Read JSON into typed values, and refuse what does not fit in one line that says where."""

import json
from pathlib import Path
from typing import Self, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from repro.errors import UserError


class Record(BaseModel):
    """A frozen value that is exactly what its JSON says: no unknown keys, no converted types."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
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
            return cls.model_validate_json(text)
        except ValidationError as error:
            parse_object(text, where)
            raise UserError(f"{where}: {describe(error)}") from None

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


AnyRecord = TypeVar("AnyRecord", bound=Record)


def parse_object(text: str | bytes, where: object) -> dict[str, JsonValue]:
    """Parse one JSON object that is not checked any further.

    Raises:
        UserError: it is no JSON, or not an object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{where}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object")
    return value


def read_bytes(path: Path) -> bytes:
    """Read the content of a file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def describe(error: ValidationError) -> str:
    """Name the first problem of a value, and how many more there are."""
    first, *others = error.errors(include_url=False)
    place = ".".join(map(str, first["loc"]))
    more = f" (and {len(others)} more)" if others else ""
    return f"{f'{place}: ' if place else ''}{first['msg']}{more}"
