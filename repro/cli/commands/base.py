"""Contract of the commands: a file `commands/<name>.py` is `repro <name>`.

Everything heavy is imported inside the function, so that help and lists answer at once.
"""

from collections.abc import Callable
from typing import Protocol, cast

from repro import plugins


class CommandModule(Protocol):
    """A file `commands/<name>.py`."""

    @property
    def command(self) -> Callable[..., None]:
        """The function that Typer calls; its signature is the command's options."""


def load(name: str) -> CommandModule:
    """Import a command.

    Raises:
        UserError: no command has that name.
    """
    return cast(CommandModule, plugins.load("commands", name))
