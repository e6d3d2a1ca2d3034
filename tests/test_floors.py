"""The floors of docs/architecture: who may import whom, and how long files and functions may be."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from factories import make_result

import repro
from repro import plugins
from repro.results.study import Study

ROOT = Path(repro.__file__).parent
FLOORS = tomllib.loads((ROOT.parent / "docs" / "floors.toml").read_text(encoding="utf-8"))["floor"]
HEIGHT: dict[str, int] = {room: -place for place, floor in enumerate(FLOORS) for room in floor["rooms"]}
DATA = ("paper", "data/corpora")
"""Folders that hold data, whose files may be long."""
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    """Dotted name below `repro`; "" for `repro/__init__.py`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[str, str, int]]:
    """Modules of `repro` that a file imports, at its top or inside functions: module, name, line."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            names = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [(f"{node.module}.{alias.name}", alias.name) for alias in node.names]
        else:
            continue
        for dotted, name in names:
            first, _, rest = dotted.partition(".")
            if first == "repro":
                is_module = rest in MODULES
                yield rest if is_module else rest.rpartition(".")[0], "" if is_module else name, node.lineno


def room(module: str) -> str:
    """The longest name of the floor list that a module is, or is in."""
    if module == "__main__":
        return "cli"
    fitting = [name for name in HEIGHT if module == name or module.startswith(f"{name}.")]
    assert fitting, f"{module} has no floor in docs/floors.toml"
    return max(fitting, key=len)


def test_imports_go_down_and_never_in_circles() -> None:
    """From lower floors or the own room; members of a family never import each other."""
    wrong = []
    graph: dict[str, set[str]] = {}
    families = {plugins.module_name(family, "x").removeprefix("repro.")[:-2] for family in plugins.FAMILIES}
    for module, path in MODULES.items():
        for imported, _, line in imports(path):
            if not module or not imported:
                continue
            graph.setdefault(module, set()).add(imported)
            place = f"repro/{path.relative_to(ROOT)}:{line} imports {imported}"
            if room(module) != room(imported) and HEIGHT[room(module)] <= HEIGHT[room(imported)]:
                wrong.append(place)
            package, _, member = imported.rpartition(".")
            siblings = package in families and module.rpartition(".")[0] == package
            if siblings and member not in ("base", "shared") and not module.endswith(".base"):
                wrong.append(f"{place}, a sibling")
    assert wrong == []
    graphlib.TopologicalSorter(graph).prepare()
    assert len(FLOORS) <= 10


def test_no_private_name_is_imported() -> None:
    wrong = [
        f"repro/{path.relative_to(ROOT)}:{line} imports {imported}.{name}"
        for path in FILES
        for imported, name, line in imports(path)
        if any(part.startswith("_") and part != "__main__" for part in [*imported.split("."), name])
        and name != "__version__"
    ]
    assert wrong == []


def test_the_table_of_floors_is_fresh() -> None:
    script = ROOT.parent / "docs" / "generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_only_the_command_line_reads_arguments_prints_and_exits() -> None:
    wrong = []
    for path in FILES:
        if room(module_name(path) or "errors") == "cli":
            continue
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "print",
                "exit",
                "sys.exit",
                "input",
            ):
                wrong.append(f"{path.name}:{node.lineno}")
            if isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.argv":
                wrong.append(f"{path.name}:{node.lineno}")
    assert wrong == []


def definitions(path: Path) -> Iterator[tuple[str, int]]:
    """Functions and methods of a file, with their lengths in lines."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_files_are_short_and_say_what_they_are() -> None:
    undocumented, long = [], []
    for path in FILES:
        name = str(path.relative_to(ROOT))
        if not ast.get_docstring(syntax(path)):
            undocumented.append(name)
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines >= 300 and not name.startswith(DATA):
            long.append(f"{name}: {lines} lines")
        long += [f"{name}: {function}: {size} lines" for function, size in definitions(path) if size >= 80]
    assert undocumented == []
    assert long == []


LISTS = ("tasks", "gates", "backends", "studies", "runs")
LIGHT = [
    ["--help"],
    ["--version"],
    ["list"],
    *([name, "--help"] for name in plugins.names("commands")),
]
LIGHT += [["list", what] for what in LISTS]
LIGHT += [["list", what, "--json"] for what in LISTS]


def test_help_and_lists_import_nothing_heavy(tmp_path: Path) -> None:
    """All in one process: whatever any of them imported would show."""
    script = f"""
import sys
from repro.cli.main import main
for arguments in {LIGHT!r}:
    sys.argv = ["repro", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert stop.code == 0, arguments
heavy = "torch transformers accelerate datasets evaluate numpy pandas pyarrow tokenizers"
found = sorted(set(heavy.split()) & set(sys.modules))
print("heavy:", found, file=sys.stderr)
sys.exit(bool(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "heavy: []" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_tables_and_report_import_no_torch(tmp_path: Path) -> None:
    """Of two seeds, so that intervals are worked out as well."""
    runs = [make_result(run_id=f"run-{seed}", seed=seed) for seed in (0, 1)]
    lines = [run.model_dump_json(exclude_unset=True) + "\n" for run in runs]
    (tmp_path / "runs.jsonl").write_text("".join(lines), encoding="utf-8")
    study = Study(study="schemes", tasks={runs[0].task: {"top-2": ["run-0", "run-1"]}}, failed={})
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "schemes.json").write_text(study.model_dump_json(), encoding="utf-8")
    script = f"""
import sys
from pathlib import Path
from repro.report.build import build_report
print(*sorted(path.name for path in build_report(Path({str(tmp_path)!r}))))
print(*sorted({{"torch", "transformers", "accelerate", "datasets", "evaluate"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    written, heavy = done.stdout.split("\n")[:2]
    assert {"table3.csv", "table3_detail.csv"} <= set(written.split())
    assert heavy == ""


@pytest.mark.parametrize("family", sorted(plugins.FAMILIES))
def test_every_family_has_a_contract(family: str) -> None:
    contract = Path(plugins.module_name(family, "base").replace(".", "/") + ".py")
    tree = syntax(ROOT.parent / contract)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    assert bases & {"Protocol", "ABC"}, f"{contract}: no Protocol and no ABC"
