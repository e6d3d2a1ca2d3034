"""Commands: a file `commands/<name>.py` is `repro <name>`; its function `command` is what Typer calls.

Everything heavy is imported inside that function, so that help and lists answer at once.
"""
