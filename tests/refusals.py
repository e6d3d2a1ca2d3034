"""What every refusal of the user's input has in common."""

import re
from pathlib import Path

from command_line import Answer


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder; None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refused(answer: Answer, *problems: str) -> list[str]:
    """The lines of an answer that must list exactly these problems, each given by a pattern.

    Small runs with an adaptive gate are in random order, which is a notice and no problem.
    """
    assert answer.status == 2, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    lines = [line for line in answer.err.splitlines() if ": data in random order, as " not in line]
    assert len(lines) == len(problems), answer.err
    assert all(line.startswith("repro: ") for line in lines), answer.err
    for problem in problems:
        assert any(re.search(problem, line) for line in lines), f"no line matches {problem!r}:\n{answer.err}"
    return lines
