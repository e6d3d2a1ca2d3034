"""Files of a run are whole, whoever writes them at the same time."""

import subprocess
import sys
from pathlib import Path

import pytest

from repro.provenance import environment
from repro.records import read_json, write_json

PROGRAM = """
import sys
from pathlib import Path
from repro.records import write_json
for _ in range(100):
    write_json(Path(sys.argv[1]), {"writer": sys.argv[2] * 10_000})
"""


def test_processes_that_write_one_file_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    command = [sys.executable, "-c", PROGRAM, str(path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE, text=True) for name in "abc"]
    errors = [writer.communicate()[1] for writer in writers]
    assert errors == ["", "", ""]
    assert read_json(path)["writer"] in {name * 10_000 for name in "abc"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_value_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"number": 1})
    with pytest.raises(TypeError):
        write_json(path, {"number": 2, "nothing in JSON": object()})
    assert read_json(path) == {"number": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_the_environment_has_what_decides_how_threads_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "123")
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.setenv("HOME_OF_OMP_", "no")
    openmp = environment()["openmp"]
    assert isinstance(openmp, dict)
    assert openmp["GOMP_SPINCOUNT"] == "123"
    assert openmp["OMP_PROC_BIND"] == "true"
    assert "HOME_OF_OMP_" not in openmp
