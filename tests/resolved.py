"""Runs as the command line resolves them, and the problems that it finds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Settings

from repro.config import RunConfig
from repro.errors import UserError
from repro.results.files import RunPaths
from repro.run.contradictions import Override
from repro.run.resolve import resolve


def resolved(
    gate: str = "adaptive",
    *,
    task: str = "sst2",
    scale: str = "mini",
    seed: int = 0,
    data: str | None = None,
    model: str | None = None,
    overrides: Settings | None = None,
    results: Path = Path("results"),
) -> tuple[RunConfig, RunPaths]:
    """`resolve` with the defaults of the command line; every override comes from `option`."""
    return resolve(
        task=task,
        scale=scale,
        gate=gate,
        seed=seed,
        data=data,
        model=model,
        overrides={key: Override(value, "option") for key, value in (overrides or {}).items()},
        results=results,
    )


def config(gate: str = "adaptive", **options: Any) -> RunConfig:
    return resolved(gate, **options)[0]


def problems(call: Callable[..., object], *arguments: object, **named: object) -> list[str]:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    return list(caught.value.problems)
