"""Runs that are stopped in the middle, as after Ctrl-C."""

from pathlib import Path

import pytest
from command_line import Settings
from resolved import resolved

from repro.errors import Interrupted
from repro.run.execute import execute


def stop_after(
    settings: Settings, results: Path, step: int, task: str = "sst2", gate: str = "adaptive"
) -> None:
    """Do a run in this process until a step; settings that are None are left out."""
    overrides = {key: value for key, value in settings.items() if value is not None}
    config, paths = resolved(gate, task=task, overrides=overrides, results=results)
    seen: list[int] = []
    with pytest.raises(Interrupted, match=f"stopped after step {step} of "):
        execute(
            config,
            paths,
            report=lambda progress: seen.append(progress.done),
            should_stop=lambda: seen[-1] == step,
        )
