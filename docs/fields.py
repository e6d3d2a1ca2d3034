"""Tables of the keys of result files, from the types that read them: `repro/results/*.py`.

A field is documented by the string below it. Nothing is imported: the sources are read as syntax.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "repro" / "results"

_TYPES = {
    **dict.fromkeys(("Count", "_Some"), "int"),
    **dict.fromkeys(("Amount", "Share", "Positive", "_Positive"), "float"),
    **dict.fromkeys(("PlainName", "TaskName", "Variant", "JobId", "Launcher"), "str"),
    "JsonValue": "any",
    "Sequence": "list",
}
"""Names of types in the sources -> what stands in the file."""


class _Plain(ast.NodeTransformer):
    """Leave out what a type is checked for."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Replace a name of ours."""
        return ast.Name(_TYPES.get(node.id, node.id))

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Take `Annotated[T, ...]` for T."""
        if ast.unparse(node.value) == "Annotated" and isinstance(node.slice, ast.Tuple):
            return self.visit(node.slice.elts[0])  # type: ignore[no-any-return]
        node.slice = self.visit(node.slice)
        node.value = self.visit(node.value)
        return node


def keys_of(*records: str) -> list[str]:
    """Return a section for each record: what it is, and a table of its keys."""
    lines = []
    for record in records:
        node = _classes()[record]
        lines += [f"### `{record}`", "", _text(ast.get_docstring(node) or ""), ""]
        lines += ["| key | type | meaning |", "| --- | --- | --- |", *map(_row, _fields(node)), ""]
    return lines[:-1]


def files_of_run() -> list[str]:
    """Return a table of the files of a run."""
    rows = []
    for method in _classes()["RunFolder"].body:
        if isinstance(method, ast.FunctionDef):
            names = [
                part.right.value
                for part in ast.walk(method)
                if isinstance(part, ast.BinOp)
                and isinstance(part.right, ast.Constant)
                and isinstance(part.right.value, str)
            ]
            rows.append(f"| `{names[0]}` | {_text(ast.get_docstring(method) or '')} |")
    return ["| file or folder | content |", "| --- | --- |", *rows]


def undocumented() -> Iterator[str]:
    """Name every field without a string below it."""
    for name, node in _classes().items():
        yield from (f"{name}.{key}" for key, _, text in _fields(node) if not text)


@cache
def _classes() -> dict[str, ast.ClassDef]:
    """Return all classes of `repro/results` by name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.py"))]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str, str]]:
    """Iterate over the fields of a class that stand in a file: key, type and meaning.

    Fields of the class that it extends come first.
    """
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in _classes() and base.id != "Record":
            yield from _fields(_classes()[base.id])
    if not any(ast.unparse(base) in (*_classes(), "Record", "NamedTuple") for base in node.bases):
        return
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield _key(statement), _type(statement.annotation), _string(after)


def _string(statement: ast.stmt | None) -> str:
    """Return the string that a statement consists of; nothing of any other."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _key(statement: ast.AnnAssign) -> str:
    """Return the name of a field in the file."""
    if isinstance(statement.value, ast.Call):
        for keyword in statement.value.keywords:
            if keyword.arg == "serialization_alias":
                return str(ast.literal_eval(keyword.value))
    return ast.unparse(statement.target)


def _type(annotation: ast.expr) -> str:
    text = ast.unparse(_Plain().visit(annotation)).replace(" | ", " or ").replace("None", "null")
    if text.startswith("Literal["):
        values = text.removeprefix("Literal[").removesuffix("]").strip("()")
        return " or ".join(values.split(", "))
    return text


def _row(field: tuple[str, str, str]) -> str:
    key, kind, text = field
    return f"| `{key}` | `{kind}` | {_text(text)} |"


def _text(doc: str) -> str:
    """Return a documentation string on one line, as it is true of a file."""
    return " ".join(doc.split()).replace("None", "null").replace("|", "\\|")
