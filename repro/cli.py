"""The `repro` command: assembles the commands, turns errors into one line each, and exits."""

import sys
from typing import Any

import typer

from repro import plugins
from repro._terminal import err
from repro.errors import Interrupted, UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Adaptive gating in mixture-of-experts language models: train, evaluate, compare.",
)
for _name in ("train", "eval", "ablate", "analyze", "bench", "report", "list"):
    app.command(_name)(plugins.load("commands", _name).command)

# Typer exports the leaves of its usage errors, not their base.
_UsageError: Any = typer.BadParameter.__base__


def main() -> None:
    """Entry point: errors of the user become one line each and exit status 2."""
    try:
        status = app(standalone_mode=False)
    except UserError as error:
        for problem in error.problems:
            err.print(f"repro: {problem}", markup=False)
        sys.exit(2)
    except _UsageError as error:
        err.print(f"repro: {error.format_message()}", markup=False)
        sys.exit(2)
    except FloatingPointError as error:
        err.print(f"repro: {error}", markup=False)
        sys.exit(1)
    except Interrupted as error:
        err.print(f"repro: {error}; the same command continues", markup=False)
        sys.exit(130)
    except (KeyboardInterrupt, typer.Abort):
        err.print("repro: interrupted")
        sys.exit(130)
    sys.exit(status if isinstance(status, int) else 0)
