"""The one kind of error that is the user's: reported in one line per problem, exit status 2. And notices."""

import difflib
import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

_LOGGER = logging.getLogger("repro")
_Item = TypeVar("_Item")
_Checked = TypeVar("_Checked")


class UserError(Exception):
    """Something the user typed or gave is wrong.

    Each problem is one line that says where, what, the nearest valid name and the way out.
    Several problems found together are reported together.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class InUse(UserError):  # noqa: N818 (the user may have meant it)
    """Another process works on what was asked for."""


class Interrupted(Exception):  # noqa: N818 (nothing went wrong)
    """The run was asked to stop and has saved a checkpoint; exit status 130."""


def notice(message: str) -> None:
    """Tell the user, in one line, something that is no error; the command line prints it on stderr."""
    _LOGGER.warning("%s", message)


def for_all(check: Callable[[_Item], _Checked], items: Iterable[_Item]) -> list[_Checked]:
    """Return what a check gives for every item.

    Raises:
        UserError: with the problems of all items that it refuses.
    """
    checked: list[_Checked] = []
    problems: list[str] = []
    for item in items:
        try:
            checked.append(check(item))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*problems)
    return checked


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """Say that a name is unknown, which valid one is nearest, and all valid ones if they are few."""
    names = list(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = f" Known: {', '.join(names) or 'none'}." if len(names) <= 15 or not near else ""
    spelled = name if len(name) <= 80 else f"{name[:77]}..."
    return f"unknown {what} {spelled!r}.{hint}{listed}"


def one_line(error: BaseException) -> str:
    """Return the message of a library's error, on one line."""
    return " ".join(str(error).split())


def named_line(error: BaseException) -> str:
    """Return the type of an error and its message, on one line."""
    return f"{type(error).__name__}: {one_line(error)}"
