"""The `repro` command: assemble the commands, turn errors into one line each, and exit."""

import sys
from typing import Annotated, Any

import typer

from repro import __version__
from repro.cli.commands.base import load
from repro.cli.console import out, printed_notices, say
from repro.errors import Interrupted, UserError

_INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Adaptive gating in mixture-of-experts language models: train, evaluate, compare.",
)


def _show_version(asked: bool) -> None:
    if asked:
        out.print(version_line(), markup=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show versions and the commit of the code.",
            callback=_show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Handle the options that stand before a command."""


for _name in ("train", "eval", "ablate", "analyze", "bench", "report", "list"):
    app.command(_name)(load(_name).command)

# Typer exports the leaves of its usage errors, not their base.
_UsageError: Any = typer.BadParameter.__base__


def version_line() -> str:
    """Return the versions of this package and of what it computes with, and the commit."""
    from repro import provenance

    versions = provenance.package_versions()
    commit = provenance.git_commit()
    state = f" ({commit[:8]}{'+' if provenance.git_modified() else ''})" if commit else ""
    return f"repro {__version__}{state}, torch {versions['torch']}, transformers {versions['transformers']}"


def main() -> None:
    """Run the command line: errors of the user become one line each and exit status 2."""
    try:
        with printed_notices():
            status = app(standalone_mode=False)
        if status == _INTERRUPTED:  # typer's way to tell of Ctrl-C
            raise KeyboardInterrupt
    except UserError as error:
        for problem in error.problems:
            say(problem)
        sys.exit(2)
    except _UsageError as error:
        say(error.format_message())
        sys.exit(2)
    except FloatingPointError as error:
        say(str(error))
        sys.exit(1)
    except Interrupted as error:
        say(f"{error}; the same command continues")
        sys.exit(_INTERRUPTED)
    except (KeyboardInterrupt, typer.Abort):
        say("interrupted")
        sys.exit(_INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)
