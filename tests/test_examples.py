"""The examples, run as a new user would."""

import runpy
import sys
from pathlib import Path

import pytest

import repro

FOLDER = Path(repro.__file__).parent.parent / "examples"
SAYS = {
    "own_loop": ("experts per token", "FLOPs per token"),
    "with_trainer": ("saved and loaded it gives the same logits",),
    "thin_olmoe": ("threshold", "1.0", "0.0"),
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out
    for part in SAYS[name]:
        assert part in printed


def test_every_example_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SAYS)
