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
_SINGULAR = {
    "gates": "gate",
    "experts": "experts back-end",
    "backbones": "backbone",
    "corpora": "corpus",
    "metrics": "metric",
    "tasks": "task",
    "studies": "study",
    "tables": "table",
    "commands": "command",
    "figures": "figure",
}


def names(family: str) -> list[str]:
    """The members of a family, sorted; files that start with `_` are private helpers."""
    return sorted(path.stem for path in (_ROOT / family).glob("[!_]*.py"))


def resolve(family: str, name: str, *, where: str = "") -> tuple[str, dict[str, int]]:
    """The file that `name` stands for, and the options its spelling fixes.

    `resolve("gates", "top-2")` is `("top_k", {"k": 2})`.

    Raises:
        UserError: no member has that name.
    """
    stem = name.replace("-", "_")
    members = names(family)
    if stem in members:
        return stem, {}
    numbered = re.fullmatch(r"(.+)_(\d+)", stem)
    if numbered and f"{numbered[1]}_k" in members:
        return f"{numbered[1]}_k", {"k": int(numbered[2])}
    spelled = [member.replace("_", "-") if family == "gates" else member for member in members]
    if "top_k" in members:
        spelled += ["top-1", "top-2"]
    raise UserError(where + unknown(_SINGULAR[family], name, spelled))


def load(family: str, name: str) -> ModuleType:
    """Import the module of one member.

    Raises:
        UserError: no member has that name.
    """
    return importlib.import_module(f"repro.{family}.{resolve(family, name)[0]}")


def summary(family: str, name: str) -> str:
    """First line of a member's docstring, read without importing it (importing would load torch)."""
    source = (_ROOT / family / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]


def constants(family: str, name: str) -> dict[str, object]:
    """Upper-case literal constants of a member, read without importing it."""
    tree = ast.parse((_ROOT / family / f"{name}.py").read_text(encoding="utf-8"))
    found: dict[str, object] = {}
    for node in tree.body:
        place = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(place, ast.Name):
            target = place.id
            if target.isupper() and isinstance(node.value, ast.Constant | ast.Tuple | ast.Dict):
                try:
                    found[target] = ast.literal_eval(node.value)
                except ValueError:
                    continue
    return found
