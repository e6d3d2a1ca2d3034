"""Families and their members: a family is a folder, a member is a file, its name is the file's name.

On the command line `-` and `_` are the same, and `top-2` is the member `top_k` with `k = 2`.
"""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

from repro.errors import UserError, unknown

_ROOT = Path(__file__).parent
FAMILIES = {
    "gates": ("moe.gates", "gate"),
    "experts": ("moe.experts", "experts back-end"),
    "backbones": ("moe.backbones", "backbone"),
    "corpora": ("data.corpora", "corpus"),
    "metrics": ("metrics", "metric"),
    "tasks": ("tasks", "task"),
    "tables": ("report.tables", "table"),
    "figures": ("report.figures", "figure"),
    "commands": ("cli.commands", "command"),
}
"""Family -> its package below `repro`, and what one member is called."""
_CONTRACT = ("__init__", "base")
"""Files of a family that are no members."""


def names(family: str) -> list[str]:
    """List the members of a family, sorted: its files besides the contract in `base.py`."""
    return sorted(path.stem for path in _folder(family).glob("*.py") if path.stem not in _CONTRACT)


def _folder(family: str) -> Path:
    return _ROOT.joinpath(*FAMILIES[family][0].split("."))


def resolve(family: str, name: str, *, where: str = "") -> tuple[str, dict[str, int]]:
    """Return the file that `name` stands for, and the options that its spelling fixes.

    `resolve("gates", "top-2")` is `("top_k", {"k": 2})`.

    Raises:
        UserError: no member has that name.
    """
    stem = name.replace("-", "_")
    members = names(family)
    if stem in members:
        return stem, {}
    numbered = re.fullmatch(r"(.+)_([0-9]{1,9})", stem)
    if numbered and f"{numbered[1]}_k" in members:
        return f"{numbered[1]}_k", {"k": int(numbered[2])}
    spelled = [member.replace("_", "-") if family == "gates" else member for member in members]
    if "top_k" in members:
        spelled += ["top-1", "top-2"]
    raise UserError(where + unknown(FAMILIES[family][1], name, spelled))


def load(family: str, name: str) -> ModuleType:
    """Import the module of one member; `load` in the `base.py` of its family returns it typed.

    Raises:
        UserError: no member has that name.
    """
    return importlib.import_module(module_name(family, resolve(family, name)[0]))


def module_name(family: str, member: str) -> str:
    """Return the dotted name of a member's module."""
    return f"repro.{FAMILIES[family][0]}.{member}"


def summary(family: str, name: str) -> str:
    """Read the first line of a member's docstring without importing it (importing may load torch)."""
    source = (_folder(family) / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
