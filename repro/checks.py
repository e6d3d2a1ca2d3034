"""What values of settings may be, and what is wrong with one in words: plain names, limits, free options."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, Field, ValidationError
from pydantic_core import PydanticCustomError

from repro.errors import unknown

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_SOURCE = re.compile(r"synthetic|hub|folder:[0-9a-f]{16}")
LARGEST = 2**32 - 1
"""Largest whole number of any setting."""


def is_plain(name: str) -> bool:
    """Return whether a name is of letters, digits, `.`, `_` and `-`: a path made of it stays inside."""
    return _PLAIN.fullmatch(name) is not None


def _plain(name: str) -> str:
    if not is_plain(name):
        raise PydanticCustomError("not_plain", "expected letters, digits, '.', '_' and '-'")
    return name


def _source(name: str) -> str:
    if not _SOURCE.fullmatch(name):
        raise PydanticCustomError("no_source", "expected synthetic, hub or folder:<fingerprint>")
    return name


PlainName = Annotated[str, AfterValidator(_plain)]
"""A name that becomes part of the name of a file."""
SourceName = Annotated[str, AfterValidator(_source)]
"""Where data are from."""
Seed = Annotated[int, Field(ge=0, le=LARGEST)]
"""What every library takes as the start of its random numbers."""
Scalar = str | bool | int | float
OptionValue = Scalar | tuple[Scalar, ...]
"""What a free option may be."""
Options = tuple[tuple[str, OptionValue], ...]
"""Free-form options of a library (a Hugging Face configuration), sorted by name."""
Where = Callable[[str], str]
"""Names the origin of a key, for messages: a file, or the option that set it."""


def shown(value: object) -> str:
    """Return the representation of a value, cut to the length of a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def spelled(text: str) -> str:
    """Return a text as it was typed if that makes a line, else its representation."""
    return text if text.isprintable() and len(text) <= 80 else shown(text)


def option_value(value: object) -> OptionValue:
    """Return the value of a free option: a scalar, or a list of them as a tuple.

    Raises:
        ValueError: it is something else: a table, a date, a number that is not finite or too large.
    """
    if isinstance(value, list | tuple):
        return tuple(_scalar(part) for part in value)
    return _scalar(value)


def _scalar(value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be finite, got {value!r}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"must be at most {LARGEST}, got {shown(value)}")
    if not isinstance(value, str | bool | int | float):
        raise ValueError(f"expected a number, text, true, false or a list of them, got {shown(value)}")
    plain: Scalar = unsigned(value)
    return plain


def unsigned(value: object) -> Any:
    """Return zero for minus zero, which is the same setting and must not name another run."""
    return value + 0.0 if isinstance(value, float) else value


def is_optional(hint: Any) -> bool:
    """Return whether a type has None."""
    return get_origin(hint) in (Union, UnionType) and type(None) in get_args(hint)


def describe(problem: Mapping[str, Any], cls: Any, key: str, hints: Mapping[str, Any], value: object) -> str:
    """Say what is wrong with a value of a class of settings.

    Args:
        problem: pydantic's error.
        hints: field of the class -> type.
    """
    kind = problem["type"]
    if kind == "unexpected_keyword_argument":
        return unknown("key", key, hints)
    if kind in ("missing", "missing_keyword_only_argument"):
        return "missing; give a value for it"
    if kind in ("not_plain", "no_source"):
        return f"{problem['msg']}, got {shown(value)}"
    limits = _limits(cls.__pydantic_fields__[key].metadata)
    if kind == "finite_number":
        needed = limits if limits and value != math.inf else ["finite", *limits]
        return f"must be {' and '.join(needed)}, got {value!r}"
    if kind in ("greater_than", "greater_than_equal", "less_than_equal"):
        return f"must be {limits[0]}, got {shown(value)}"
    return f"expected {_type_name(hints[key])}, got {shown(value)}"


def _type_name(hint: Any) -> str:
    """Name the type of a field in words."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    names = {float: "a number", int: "a whole number", str: "text", bool: "true or false"}
    return names.get(hint, "none")


def _limits(metadata: Iterable[object]) -> list[str]:
    """Put the limits of a field in words: nothing, or one phrase."""
    low = next((limit.ge for limit in metadata if isinstance(limit, Ge)), None)
    high = next((limit.le for limit in metadata if isinstance(limit, Le)), None)
    above = next((limit.gt for limit in metadata if isinstance(limit, Gt)), None)
    if low is not None and high is not None:
        return [f"between {low} and {high}"]
    if above is not None and high is not None:
        return [f"greater than {above} and at most {high}"]
    if low is not None:
        return [f"at least {low}"]
    return [f"greater than {above}"] if above is not None else []


def decode(cls: type, values: object, prefix: str, where: Where, problems: list[str]) -> Any:
    """Make settings of plain values, strictly: unknown keys, missing ones and wrong types are problems.

    Args:
        cls: a class of `config.settings`.
        prefix: of its keys in messages, such as `training.`.
        where: names the origin of a dotted key.
        problems: gets a line for everything that is wrong.

    Returns:
        An instance of `cls`; None if something is wrong.
    """
    if not isinstance(values, Mapping):
        problems.append(f"{where(prefix[:-1])}{prefix[:-1]}: expected an object, got {shown(values)}")
        return None
    hints = get_type_hints(cls)
    wrong: dict[str, str] = {}
    plain = {}
    for key, value in values.items():
        found = dict(_wrong(hints.get(key), key, value))
        wrong |= found
        if not found:
            plain[key] = _taken(hints.get(key), value)
    made = None
    try:
        made = cls(**plain)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            key = str(problem["loc"][0])
            if key in plain or key not in values:
                wrong[key] = describe(problem, cls, key, hints, values.get(key))
    places = {key: place for place, key in enumerate(values)}
    in_order = sorted(wrong, key=lambda key: places.get(key.partition(".")[0], len(places)))
    problems += [f"{where(prefix + key)}{prefix + key}: {wrong[key]}" for key in in_order]
    return made


def _wrong(hint: Any, key: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield keys and what is wrong with their values that no type of a field says."""
    if hint == Options:
        if not isinstance(value, Mapping):
            yield key, f"expected options by name, got {shown(value)}"
            return
        for name, option in value.items():
            try:
                option_value(option)
            except ValueError as error:
                yield f"{key}.{name}", str(error)
    elif type(value) is int and abs(value) > LARGEST:
        yield key, f"must be at most {LARGEST}, got {shown(value)}"


def _taken(hint: Any, value: Any) -> Any:
    """Return the value as the field takes it: `none` stands for None, options are sorted by name."""
    if hint == Options:
        return tuple(sorted((name, option_value(option)) for name, option in value.items()))
    return None if value == "none" and is_optional(hint) else unsigned(value)
